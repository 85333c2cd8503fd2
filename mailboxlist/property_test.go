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
		address := rapid.Custom(func(t *rapid.T) string {
			return rapid.SampledFrom(names).Draw(t, "name") + "@" + rapid.SampledFrom([]string{"health", "finance"}).Draw(t, "domain") + ".example"
		})
		row := rapid.Custom(func(t *rapid.T) string {
			if rapid.IntRange(0, 5).Draw(t, "kind") == 0 {
				return address.Draw(t, "fixed") + ",,,group,,,,,,,ox"
			}
			return fmt.Sprintf("%s,%s,%s,user,%s,%s,,,%s,,", address.Draw(t, "address"), id(rapid.IntRange(1, 5).Draw(t, "id")),
				rapid.SampledFrom([]string{"health", "finance"}).Draw(t, "agency"), strings.Join(rapid.SliceOfN(address, 0, 1).Draw(t, "aliases"), " "),
				strings.Join(rapid.SliceOfN(address, 0, 1).Draw(t, "logins"), " "), strings.Join(rapid.SliceOfN(address, 0, 1).Draw(t, "target"), " "))
		})
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
			u := routing.Update{Fixed: p.Fixed}
			for _, a := range p.Agencies {
				u.Agencies, u.Mappings = append(u.Agencies, a.Record), append(u.Mappings, a.Mapping)
			}
			next, err := s.Apply(u)
			if err != nil {
				t.Fatal(err)
			}
			if twice, total := next.Conflicts(10); total > 0 {
				t.Fatalf("%v are claimed by two", twice)
			}
			var ids []routing.MailboxID
			for _, a := range next.Agencies() {
				for r := range next.Mapping(a.ID).Rows() {
					if slices.Contains(ids, r.Mailbox) {
						t.Fatalf("mailbox %s is in two agencies", r.Mailbox)
					}
					ids = append(ids, r.Mailbox)
				}
			}
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
