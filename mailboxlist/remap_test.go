package mailboxlist

import (
	"testing"

	"mailcutover/routing"
)

// A mailbox that goes to an agency on another platform is named: a remap moves no mail. Between
// agencies that are on one platform it isn't.
func TestRemapToAnotherPlatform(t *testing.T) {
	l, err := Read([]byte(header + "first@health.example," + id(1) + ",finance,user,,health1,,,,,\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name            string
		health, finance routing.Phase
		from, to        string // empty: no such change
	}{
		{"both on the source", routing.PhaseSource, routing.PhaseSource, "", ""},
		{"to the target", routing.PhaseSource, routing.PhaseTarget, "exchange", "ox"},
		{"to the source", routing.PhaseTarget, routing.PhaseSource, "ox", "exchange"},
		{"both on the target", routing.PhaseTarget, routing.PhaseTarget, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := state(t)
			u := routing.Update{Position: routing.Position{Incarnation: "i", Revision: 3, Mapped: 2}}
			for id, phase := range map[routing.AgencyID]routing.Phase{"health": c.health, "finance": c.finance} {
				a, _ := s.Agency(id)
				a.Phase, a.Revision = phase, 3
				u.Agencies = append(u.Agencies, a)
			}
			s, err := s.Apply(u)
			if err != nil {
				t.Fatal(err)
			}
			r, err := l.Remap(s, platforms, "+")
			if err != nil {
				t.Fatal(err)
			}
			var got []Change
			for _, one := range r.Changes {
				if one.What == ChangePlatform {
					got = append(got, one)
				}
			}
			want := Change{Agency: "health", What: ChangePlatform, Name: id(1), From: c.from, To: c.to}
			if c.from == "" && len(got) > 0 || c.from != "" && (len(got) != 1 || got[0] != want) {
				t.Errorf("%v of %v", got, r.Changes)
			}
		})
	}
}
