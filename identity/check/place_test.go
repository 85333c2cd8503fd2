package check

import (
	"testing"
	"time"

	"mailcutover/identity/directory"
	"mailcutover/identity/list"
	"mailcutover/routing"
)

// A row is wrong where the target would be told a name that is another mailbox's there, though
// address and id are right in both directories.
func TestWhatTheTargetIsTold(t *testing.T) {
	anna, bert := routing.MailboxID{1}, routing.MailboxID{2}
	source, target := NewFacts("ad", time.Now()), NewFacts("ucs", time.Now())
	source.Add(&directory.Object{ID: anna, Kind: directory.KindUser, Enabled: true, Addresses: []routing.Address{"a@health.example"}}, "health")
	target.Add(&directory.Object{ID: anna, Kind: directory.KindUser, Addresses: []routing.Address{"a@health.example", "a@ox.internal"}, Account: "anna"}, "")
	target.Add(&directory.Object{ID: bert, Kind: directory.KindUser, Addresses: []routing.Address{"b@ox.internal"}, Account: "bert"}, "")
	for name, c := range map[string]struct {
		told  routing.Place
		wrong bool
	}{
		"its own":            {told: routing.Place{Address: "a@ox.internal", Login: "anna"}},
		"nothing of its own": {},
		"nobody's":           {told: routing.Place{Address: "x@ox.internal", Login: "x"}},
		"another's address":  {told: routing.Place{Address: "b@ox.internal", Login: "anna"}, wrong: true},
		"another's login":    {told: routing.Place{Address: "a@ox.internal", Login: "bert"}, wrong: true},
		"in another's case":  {told: routing.Place{Login: `OX\Bert`}, wrong: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := Check(Input{
				List:   &list.List{ID: "health-0001", Agency: "health", Rows: []list.Row{{Address: "a@health.example", ID: anna, Agency: "health"}}},
				Source: source, Target: target,
				Stored: func(id routing.MailboxID) (routing.Row, bool) {
					return routing.Row{Mailbox: id, Kind: routing.KindUser, Addresses: []routing.Address{"a@health.example"}, Target: c.told}, true
				},
			})
			if r.Clean() == c.wrong {
				t.Errorf("clean %v: %+v", r.Clean(), r.Rows)
			}
			if c.wrong && (r.Rows[0].Code() != CodeTarget || r.Rows[0].Findings[0].Owner != bert) {
				t.Errorf("%+v, want that the target has it for %s", r.Rows[0].Findings, bert)
			}
		})
	}
}
