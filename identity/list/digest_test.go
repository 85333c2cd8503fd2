package list

import (
	"testing"

	"mailcutover/routing"
)

// People approve a list by its digest: whatever cell, row or order is another, it is another
// digest. Where a row stands in a file is none of it.
func TestDigest(t *testing.T) {
	made := func() *List {
		return &List{ID: "health-0001", Agency: "health", Rows: []Row{
			{Line: 2, Address: "a@health.example", Account: "anna", ID: routing.MailboxID{1}, Agency: "health"},
			{Line: 3, Address: "b@health.example", Account: "bert", ID: routing.MailboxID{2}, Agency: "health"},
		}}
	}
	want := made().Digest()
	seen := map[routing.Digest]string{want: "the list itself"}
	for name, change := range map[string]func(l *List){
		"its id":                     func(l *List) { l.ID = "health-0002" },
		"its agency":                 func(l *List) { l.Agency = "tax" },
		"an address":                 func(l *List) { l.Rows[0].Address = "c@health.example" },
		"an account":                 func(l *List) { l.Rows[0].Account = "carl" },
		"an id":                      func(l *List) { l.Rows[0].ID[0] = 9 },
		"a row's agency":             func(l *List) { l.Rows[0].Agency = "tax" },
		"the order":                  func(l *List) { l.Rows[0], l.Rows[1] = l.Rows[1], l.Rows[0] },
		"two addresses crossed":      func(l *List) { l.Rows[0].Address, l.Rows[1].Address = l.Rows[1].Address, l.Rows[0].Address },
		"two ids crossed":            func(l *List) { l.Rows[0].ID, l.Rows[1].ID = l.Rows[1].ID, l.Rows[0].ID },
		"a row less":                 func(l *List) { l.Rows = l.Rows[:1] },
		"a row twice":                func(l *List) { l.Rows = append(l.Rows, l.Rows[1]) },
		"what ends one begins other": func(l *List) { l.Rows[0].Address, l.Rows[0].Account = "a@health.exampl", "eanna" },
	} {
		l := made()
		change(l)
		if other, twice := seen[l.Digest()]; twice {
			t.Errorf("%s changed: the digest is that of %s", name, other)
		}
		seen[l.Digest()] = name
	}
	moved := made()
	moved.Rows[0].Line, moved.Rows[1].Line = 17, 18
	if moved.Digest() != want {
		t.Error("the digest goes by lines")
	}
}
