package routing

import "testing"

// TestNamesThatWereLost: as long as the table may have lost names, of none that nobody has is it
// said that it doesn't exist; who has one keeps it.
func TestNamesThatWereLost(t *testing.T) {
	base := town(t, "health")
	told := NamesLostDocument("mx1")
	for _, c := range []struct {
		name  string
		u     Update
		after Update // ends it
	}{
		{"the table says so", Update{Documents: []Document{told}}, Update{Documents: []Document{{Key: NamesLost, Removed: true}}}},
		{"this copy has seen it", Update{LostNames: true}, Update{Documents: []Document{{Key: NamesLost, Removed: true}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			check := func(s *State, want Reason) {
				t.Helper()
				if d := s.DecideAddress("nobody@town.example", "+"); d.Reason != want || d.Deliver() {
					t.Errorf("address that nobody has: %s, want %s", d.Explain(), want)
				}
				if d := s.DecideLogin("nobody"); d.Reason != want || d.Deliver() {
					t.Errorf("login that nobody has: %s, want %s", d.Explain(), want)
				}
				for r := range s.Mapping("health").Rows() {
					if d := s.DecideAddress(r.Addresses[0], "+"); !d.Deliver() || d.Mailbox != r.Mailbox {
						t.Errorf("%s: %s", r.Addresses[0], d.Explain())
					}
				}
			}
			check(base, ReasonNoSuchName)
			lost := mustApply(t, base, c.u)
			check(lost, ReasonTableUnavail)
			check(mustApply(t, lost, Update{}), ReasonTableUnavail)
			check(mustApply(t, lost, c.after), ReasonNoSuchName)
		})
	}
}

func TestParseEpoch(t *testing.T) {
	for s, want := range map[string]Epoch{"1.7": {Term: 1, Number: 7}, "0.0": {}, "4294967295.4294967295": {Term: 1<<32 - 1, Number: 1<<32 - 1}} {
		if e, err := ParseEpoch(s); err != nil || e != want || e.String() != s {
			t.Errorf("%s is read as %v, error %v", s, e, err)
		}
	}
	for _, s := range []string{"", "1", "1.", ".1", "x.1", "1.x", "1.1.1", "-1.1", "1.-1", "4294967296.1", "1.4294967296"} {
		if e, err := ParseEpoch(s); err == nil {
			t.Errorf("%q is read as %v", s, e)
		}
	}
}
