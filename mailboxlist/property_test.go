package mailboxlist

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mailcutover/routing"
)

// Whatever is imported, one list after the other: no name is claimed by two, no mailbox
// is in two agencies, and no answer that was given before becomes another.
func TestListsOnlyAdd(t *testing.T) {
	names := []string{"anna", "anna+hr", "anna+hr+x", "dora", "straße", "strasse", "first", "first+a", "all", "all+x"}
	var asked []routing.Address
	for _, n := range names {
		for _, domain := range []string{"health.example", "finance.example"} {
			asked = append(asked, routing.Address(n+"@"+domain), routing.Address(n+"+more@"+domain))
		}
	}
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		row := randomRow(names)
		s := state(&testing.T{})
		for range rapid.IntRange(1, 4).Draw(t, "lists") {
			l, err := Read([]byte(header + strings.Join(rapid.SliceOfN(row, 1, 3).Draw(t, "rows"), "\n") + "\n"))
			if err != nil {
				continue
			}
			p, err := l.Plan(s, platforms, "+")
			if err != nil {
				continue
			}
			accepted++
			next := planned(t, s, p)
			rows(t, next)
			for _, a := range asked {
				was, is := s.DecideAddress(a, "+"), next.DecideAddress(a, "+")
				if was.Deliver() && (!is.Deliver() || was.Mailbox != is.Mailbox || was.Address != is.Address || was.Platform != is.Platform) {
					t.Fatalf("%s went to %s and would go to %s", a, was.Explain(), is.Explain())
				}
			}
			s = next
		}
	})
	if accepted == 0 {
		t.Error("no list was taken")
	}
}

// randomRow draws rows of five mailboxes and some groups, with these names in two domains.
func randomRow(names []string) *rapid.Generator[string] {
	address := rapid.Custom(func(t *rapid.T) string {
		return rapid.SampledFrom(names).Draw(t, "name") + "@" + rapid.SampledFrom([]string{"health", "finance"}).Draw(t, "domain") + ".example"
	})
	return rapid.Custom(func(t *rapid.T) string {
		if rapid.IntRange(0, 5).Draw(t, "kind") == 0 {
			return address.Draw(t, "fixed") + ",,,group,,,,,,,ox"
		}
		return fmt.Sprintf("%s,%s,%s,user,%s,%s,,,%s,,", address.Draw(t, "address"), id(rapid.IntRange(1, 5).Draw(t, "id")),
			rapid.SampledFrom([]string{"health", "finance"}).Draw(t, "agency"), strings.Join(rapid.SliceOfN(address, 0, 1).Draw(t, "aliases"), " "),
			strings.Join(rapid.SliceOfN(address, 0, 1).Draw(t, "logins"), " "), strings.Join(rapid.SliceOfN(address, 0, 1).Draw(t, "target"), " "))
	})
}

// planned returns the state with a plan carried out.
func planned(t *rapid.T, s *routing.State, p *Plan) *routing.State {
	u := routing.Update{Fixed: p.Fixed}
	for _, a := range p.Agencies {
		u.Agencies, u.Mappings = append(u.Agencies, a.Record), append(u.Mappings, a.Mapping)
	}
	next, err := s.Apply(u)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// rows returns the row of each mailbox. No name may be claimed by two, and no mailbox be in two
// agencies.
func rows(t *rapid.T, s *routing.State) map[routing.MailboxID]routing.Row {
	if twice, total := s.Conflicts(10); total > 0 {
		t.Fatalf("%v are claimed by two", twice)
	}
	all := make(map[routing.MailboxID]routing.Row)
	for _, a := range s.Agencies() {
		for r := range s.Mapping(a.ID).Rows() {
			if _, twice := all[r.Mailbox]; twice {
				t.Fatalf("mailbox %s is in two agencies", r.Mailbox)
			}
			all[r.Mailbox] = r
		}
	}
	return all
}

// Whatever a remap brings into force: each address that leads elsewhere then is named, each that is
// named does, mailboxes that the list doesn't name stay as they are, and the numbers add up.
func TestRemapNamesWhatChanges(t *testing.T) {
	names := []string{"anna", "anna+hr", "dora", "straße", "strasse", "first", "all"}
	var asked []routing.Address
	for _, n := range names {
		for _, domain := range []string{"health.example", "finance.example"} {
			asked = append(asked, routing.Address(n+"@"+domain))
		}
	}
	taken, only := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		list := func() *List {
			l, err := Read([]byte(header + strings.Join(rapid.SliceOfN(randomRow(names), 1, 4).Draw(t, "rows"), "\n") + "\n"))
			if err != nil {
				return nil
			}
			return l
		}
		s := state(&testing.T{})
		for range rapid.IntRange(0, 3).Draw(t, "lists") {
			if l := list(); l != nil {
				if p, err := l.Plan(s, platforms, "+"); err == nil {
					s = planned(t, s, p)
				}
			}
		}
		l := list()
		if l == nil {
			return
		}
		r, err := l.Remap(s, platforms, "+")
		if err != nil {
			return
		}
		taken++
		var u routing.Update
		for _, a := range r.Agencies {
			if a.Before+a.Added-a.Gone != a.Mapping.Len() {
				t.Fatalf("agency %s: %d mailboxes, %d added and %d gone make %d", a.Record.ID, a.Before, a.Added, a.Gone, a.Mapping.Len())
			}
			record := a.Record
			record.Mapping = a.Mapping.Digest()
			u.Agencies, u.Mappings = append(u.Agencies, record), append(u.Mappings, a.Mapping)
		}
		next, err := s.Apply(u)
		if err != nil {
			t.Fatal(err)
		}
		named := make(map[string]Change)
		for _, c := range r.Changes {
			if c.What == "address" {
				named[c.Name] = c
			}
		}
		loses := false
		for _, a := range asked {
			was, is := s.DecideAddress(a, "+"), next.DecideAddress(a, "+")
			changes := was.Agency != is.Agency || was.Mailbox != is.Mailbox
			loses = loses || changes && was.Agency != ""
			c, told := named[string(a)]
			base, detailed := a.WithoutDetail("+")
			switch _, by := named[string(base)]; {
			case changes && !told && !(detailed && by):
				t.Fatalf("%s goes from %s to %s, and is not among %v", a, was.Explain(), is.Explain(), r.Changes)
			case told && (!changes || c.Adds() != (was.Agency == "") || c.Takes() != (is.Agency == "")):
				t.Fatalf("%s goes from %s to %s, and is named as %s", a, was.Explain(), is.Explain(), c)
			}
		}
		if r.OnlyAdds() {
			if only++; loses {
				t.Fatalf("it takes addresses: %v", r.Changes)
			}
		}
		before, after := rows(t, s), rows(t, next)
		for mailbox, row := range before {
			if !slices.ContainsFunc(l.Mailboxes, func(m Mailbox) bool { return m.Mailbox == mailbox }) && !sameRow(row, after[mailbox]) {
				t.Fatalf("the list doesn't name %s, which was %v and is %v", mailbox, row, after[mailbox])
			}
		}
	})
	if taken == 0 || only == 0 || only == taken {
		t.Errorf("%d were taken, %d of them only add", taken, only)
	}
}
