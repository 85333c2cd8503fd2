package desk

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/identity/directory"
	"mailcutover/identity/list"
	"mailcutover/identity/register"
	"mailcutover/routing"
)

// withLists puts lists in force into a table.
func withLists(t *testing.T, s *routing.State, entries ...register.Entry) *routing.State {
	t.Helper()
	for i := range entries {
		documents, err := entries[i].Documents(s)
		if err != nil {
			t.Fatal(err)
		}
		pos := s.Position()
		pos.Revision++
		for n := range documents {
			documents[n].Revision = pos.Revision
		}
		if s, err = s.Apply(routing.Update{Position: pos, Documents: documents}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// recorded is a list in force; rows are pairs.
func recorded(agency routing.AgencyID, number int, made int64, rows ...list.Row) register.Entry {
	for i := range rows {
		rows[i].Agency = agency
	}
	return register.Entry{Standing: register.Active, List: &list.List{ID: list.NewID(agency, number), Agency: agency, Number: number, Made: time.Unix(made, 0).UTC(), By: "Anna", Rows: rows}}
}

func pair(n int) list.Row { return list.Row{Address: address(n), ID: id(n)} }

// Lists of a second phase are those of the first one, and new mailboxes; where the directory
// says otherwise nothing is made, before somebody has accepted it.
func TestGenerateFromTheRecord(t *testing.T) {
	alias := func(n int, a routing.Address) list.Row { return list.Row{Address: a, ID: id(n)} }
	withAccount := func(n int, account string) list.Row {
		return list.Row{Address: address(n), ID: id(n), Account: account}
	}
	account := func(n int, name string) directory.Object { o := object(n); o.Account = name; return o }
	for name, c := range map[string]struct {
		record []register.Entry
		dir    objects
		added  int
		want   []string // addresses of the rows; nil: refused
		differ []string
	}{
		"first phase":     {dir: persons(3), added: 3, want: []string{"p1", "p2", "p3"}},
		"the same again":  {record: []register.Entry{recorded("health", 1, 10, pair(1), pair(2))}, dir: persons(2), want: []string{"p1", "p2"}},
		"somebody new":    {record: []register.Entry{recorded("health", 1, 10, pair(1), pair(2))}, dir: persons(3), added: 1, want: []string{"p1", "p2", "p3"}},
		"listed by alias": {record: []register.Entry{recorded("health", 1, 10, alias(1, "boss@health.example"))}, dir: objects{object(1, "boss@health.example")}, want: []string{"boss"}},
		"an alias more":   {record: []register.Entry{recorded("health", 1, 10, pair(1))}, dir: objects{object(1, "boss@health.example")}, want: []string{"p1"}},
		"a newer list counts": {
			record: []register.Entry{recorded("health", 1, 10, alias(1, "old@health.example")), recorded("health", 2, 20, pair(1))},
			dir:    persons(1), want: []string{"p1"},
		},
		"another account's spelling": {record: []register.Entry{recorded("health", 1, 10, withAccount(1, `AMT\Anna`))}, dir: objects{account(1, "anna")}, want: []string{"p1"}},
		"readdressed": {
			record: []register.Entry{recorded("health", 1, 10, alias(1, "old@health.example"), pair(2))}, dir: persons(2),
			differ: []string{"p1@health.example: a list in force has the mailbox " + id(1).String() + " with old@health.example, which the directory doesn't give it"},
		},
		"two swapped": {
			record: []register.Entry{recorded("health", 1, 10, alias(1, address(2)), alias(2, address(1)), pair(3))}, dir: persons(3),
			differ: []string{"p1@health.example: a list in force has it for the mailbox " + id(2).String(), "p2@health.example: a list in force has it for the mailbox " + id(1).String()},
		},
		"an alias that was another's": {
			record: []register.Entry{recorded("health", 1, 10, pair(1), pair(2), alias(3, "office@health.example"))}, dir: objects{object(1, "office@health.example"), object(2), object(3)},
			differ: []string{"office@health.example: a list in force has it for the mailbox " + id(3).String(), "p3@health.example: a list in force has the mailbox " + id(3).String() + " with office@health.example"},
		},
		"somebody left": {
			record: []register.Entry{recorded("health", 1, 10, pair(1), pair(2))}, dir: persons(1),
			differ: []string{"p2@health.example: a list in force has the mailbox " + id(2).String() + ", the directory doesn't count it to the agency"},
		},
		"from another agency": {
			record: []register.Entry{recorded("police", 1, 10, pair(1))}, dir: persons(1),
			differ: []string{"p1@health.example: a list in force counts the mailbox " + id(1).String() + " to agency police"},
		},
		"another account": {
			record: []register.Entry{recorded("health", 1, 10, withAccount(1, "berg"))}, dir: objects{account(1, "anna")},
			differ: []string{`p1@health.example: a list in force has the mailbox ` + id(1).String() + ` with the account "berg"`},
		},
		"what is only proposed is no record": {
			record: func() []register.Entry {
				e := recorded("health", 1, 10, alias(1, "old@health.example"))
				e.Standing = register.Proposed
				return []register.Entry{e}
			}(),
			dir: persons(1), added: 1, want: []string{"p1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, _, _ := read(t, withLists(t, table(t, 3, false), c.record...), c.dir)
			made, err := d.Generate("health", "Anna", false)
			if errors.Is(err, ErrDiffers) != (c.want == nil) || c.want != nil && err != nil {
				t.Fatalf("%+v, %v", made, err)
			}
			for i, want := range c.differ {
				if len(made.Differences) != len(c.differ) || !strings.HasPrefix(SayDifference(&made.Differences[i]), want) {
					t.Errorf("differences %+v, want %q", made.Differences, c.differ)
				}
			}
			if c.want == nil {
				if len(made.Lists) != 0 {
					t.Errorf("%d lists in spite of that", len(made.Lists))
				}
				if made, err = d.Generate("health", "Anna", true); err != nil || len(made.Lists) != 1 || len(made.Differences) != len(c.differ) {
					t.Fatalf("accepted: %+v, %v", made, err)
				}
				for _, row := range made.Lists[0].Rows { // the directory's word
					i := slices.IndexFunc(c.dir, func(o directory.Object) bool { return o.ID == row.ID })
					if i < 0 || !slices.Contains(c.dir[i].Addresses, row.Address) {
						t.Errorf("accepted: row %+v isn't the directory's", row)
					}
				}
				return
			}
			var got []string
			for _, row := range made.Lists[0].Rows {
				got = append(got, strings.TrimSuffix(string(row.Address), "@health.example"))
			}
			if made.Added != c.added || !slices.Equal(got, c.want) {
				t.Errorf("%v with %d new, want %v with %d", got, made.Added, c.want, c.added)
			}
		})
	}
}

// A list that isn't as it was stored is no record of anything.
func TestGenerateWithoutItsRecord(t *testing.T) {
	s := withLists(t, table(t, 1, false), recorded("health", 1, 10, pair(1)))
	pos := s.Position()
	pos.Revision++
	for _, doc := range s.Documents("list/health/") {
		if strings.HasSuffix(doc.Key, "/001") {
			doc.Text, doc.Revision = strings.Replace(doc.Text, "p1@", "p2@", 1), pos.Revision
			var err error
			if s, err = s.Apply(routing.Update{Position: pos, Documents: []routing.Document{doc}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	d, _, _ := read(t, s, persons(1))
	if made, err := d.Generate("health", "Anna", true); err == nil {
		t.Errorf("%+v was made", made)
	}
}
