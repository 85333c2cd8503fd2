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
	for _, carl := range []byte{3, 4} {
		target.Add(&directory.Object{ID: routing.MailboxID{carl}, Kind: directory.KindUser, Addresses: []routing.Address{"c@ox.internal"}, Account: "carl"}, "")
	}
	for name, c := range map[string]struct {
		told  routing.Place
		wrong bool
		two   bool // of the target have it
	}{
		"an address of two":  {told: routing.Place{Address: "c@ox.internal", Login: "anna"}, two: true},
		"a login of two":     {told: routing.Place{Address: "a@ox.internal", Login: "carl"}, two: true},
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
			if r.Clean() == (c.wrong || c.two) {
				t.Errorf("clean %v: %+v", r.Clean(), r.Rows)
			}
			if c.two && r.Rows[0].Code() != CodeTwice {
				t.Errorf("%+v, want that two have it", r.Rows[0].Findings)
			}
			if c.wrong && (r.Rows[0].Code() != CodeTarget || r.Rows[0].Findings[0].Owner != bert) {
				t.Errorf("%+v, want that the target has it for %s", r.Rows[0].Findings, bert)
			}
		})
	}
}

// A row says one address of a mailbox, and brings all of its names into force: one that is another
// mailbox's too, or that another one is called by on the source, is wrong, though address and id are
// right.
func TestWhatElseWouldComeIntoForce(t *testing.T) {
	anna, bert := routing.MailboxID{1}, routing.MailboxID{2}
	source := NewFacts("ad", time.Now())
	source.Add(&directory.Object{ID: anna, Kind: directory.KindUser, Enabled: true, Account: "anna", Addresses: []routing.Address{"a@health.example", "info@health.example"}}, "health")
	source.Add(&directory.Object{ID: bert, Kind: directory.KindUser, Enabled: true, Account: "a.berg", Addresses: []routing.Address{"b@health.example", "info@health.example", "a.tmp@health.example"}}, "tax")
	for _, carl := range []byte{3, 4} { // two persons of two domains
		source.Add(&directory.Object{ID: routing.MailboxID{carl}, Kind: directory.KindUser, Enabled: true, Account: "carl", Addresses: []routing.Address{routing.Address("c" + string('0'+rune(carl)) + "@tax.example")}}, "tax")
	}
	for name, c := range map[string]struct {
		stored routing.Row
		owner  routing.MailboxID
		name   string
	}{
		"its own":              {stored: routing.Row{Addresses: []routing.Address{"a@health.example"}, Logins: []routing.Login{"anna", "anna@corp.example"}}},
		"nobody's":             {stored: routing.Row{Addresses: []routing.Address{"a@health.example", "a.moved@health.example"}}},
		"an alias of two":      {stored: routing.Row{Addresses: []routing.Address{"a@health.example", "info@health.example"}}, name: "info@health.example"},
		"another's address":    {stored: routing.Row{Addresses: []routing.Address{"a@health.example", "a.tmp@health.example"}}, owner: bert, name: "a.tmp@health.example"},
		"another's as a login": {stored: routing.Row{Addresses: []routing.Address{"a@health.example"}, Logins: []routing.Login{"b@health.example"}}, owner: bert, name: "b@health.example"},
		"another's account":    {stored: routing.Row{Addresses: []routing.Address{"a@health.example"}, Source: routing.Place{Login: `CORP\A.Berg`}}, owner: bert, name: `CORP\A.Berg`},
		"told another's":       {stored: routing.Row{Addresses: []routing.Address{"a@health.example"}, Source: routing.Place{Address: "b@health.example"}}, owner: bert, name: "b@health.example"},
		"told what two have":   {stored: routing.Row{Addresses: []routing.Address{"a@health.example"}, Source: routing.Place{Login: "carl"}}, name: "carl"},
		"told as the first":    {stored: routing.Row{Addresses: []routing.Address{"a@health.example"}, Logins: []routing.Login{"carl"}}, name: "carl"},
		"not told":             {stored: routing.Row{Addresses: []routing.Address{"a@health.example"}, Logins: []routing.Login{"anna", "carl"}}},
		"the target's own way": {stored: routing.Row{Addresses: []routing.Address{"a@health.example"}, Target: routing.Place{Login: "a.berg"}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := Check(Input{
				List:   &list.List{ID: "health-0001", Agency: "health", Rows: []list.Row{{Address: "a@health.example", ID: anna, Agency: "health"}}},
				Source: source,
				Stored: func(id routing.MailboxID) (routing.Row, bool) {
					c.stored.Mailbox, c.stored.Kind = id, routing.KindUser
					return c.stored, true
				},
			})
			if r.Clean() == (c.name != "") {
				t.Fatalf("clean %v: %+v", r.Clean(), r.Rows)
			}
			if f := r.Rows[0].Findings[0]; c.name != "" && (f.Code != CodeOtherName || f.Owner != c.owner || f.Name != c.name) {
				t.Errorf("%+v, want %q of %s", r.Rows[0].Findings, c.name, c.owner)
			}
		})
	}
}
