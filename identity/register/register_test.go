package register

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/identity/list"
	"mailcutover/routing"
)

func testList(id string, n int, made int64) *list.List {
	l := &list.List{ID: id, Agency: "health", Number: 1, Made: time.Unix(made, 0).UTC(), By: "Anna", Foreign: true, Source: "x.csv"}
	for i := range n {
		l.Rows = append(l.Rows, list.Row{Address: routing.Address(fmt.Sprintf("u%04d@health.example", i)), ID: routing.MailboxID{1, byte(i), byte(i >> 8)}, Agency: "health", Account: []string{"", `o"neill`}[i%2]})
	}
	return l
}

// store applies documents as the table would.
func store(t *testing.T, s *routing.State, documents []routing.Document, more ...routing.Document) *routing.State {
	t.Helper()
	all := append(slices.Clone(documents), more...)
	pos := s.Position()
	pos.Revision++
	for i := range all {
		all[i].Revision = pos.Revision
		if len(all[i].Text) > 64<<10 {
			t.Errorf("document %s has %d bytes", all[i].Key, len(all[i].Text))
		}
	}
	next, err := s.Apply(routing.Update{Position: pos, Documents: all})
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func TestWhatIsKeptIsRead(t *testing.T) {
	s := routing.NewState(routing.Position{})
	e := Entry{List: testList("health-0001-aaaa", 1000, 1e9), Standing: Approved, Check: routing.Digest{1}, Proposal: "p1", Approved: []string{"Bert"}, Since: time.Unix(2e9, 0).UTC()}
	documents, err := e.Documents(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(documents) != 4 {
		t.Errorf("%d documents for 1,000 rows, want 4", len(documents))
	}
	s = store(t, s, documents)
	got, ok, err := Find(s, "health-0001-aaaa")
	if err != nil || !ok || got.List.Digest() != e.List.Digest() || got.Standing != Approved || got.Proposal != "p1" || got.List.Rows[1].Account != `o"neill` {
		t.Fatalf("%+v, %v, %v", got, ok, err)
	}
	got.Standing = Active
	documents, err = got.Documents(s)
	if err != nil || len(documents) != 1 || documents[0].Revision != s.Position().Revision {
		t.Fatalf("a new standing stores %d documents, %v", len(documents), err)
	}
	s = store(t, s, documents)
	newer := Entry{List: testList("health-0002-bbbb", 3, 2e9), Standing: Approved}
	documents, err = newer.Documents(s)
	if err != nil {
		t.Fatal(err)
	}
	s = store(t, s, documents)
	entries, unreadable := Lists(s, "health")
	if len(entries) != 2 || len(unreadable) != 0 || entries[0].List.ID != "health-0002-bbbb" || entries[1].Standing != Active {
		t.Errorf("%+v, %v", entries, unreadable)
	}
	if all, _ := Lists(s, ""); len(all) != 2 {
		t.Errorf("%d lists in all", len(all))
	}
	if none, _ := Lists(s, "labour"); len(none) != 0 {
		t.Errorf("labour has %d lists", len(none))
	}
	if _, ok, err := Find(s, "health-0009-cccc"); ok || err != nil {
		t.Errorf("an unknown list: %v, %v", ok, err)
	}
}

func TestAChangedListCountsForNothing(t *testing.T) {
	e := Entry{List: testList("health-0001-aaaa", 500, 1e9), Standing: Active}
	for name, change := range map[string]func([]routing.Document) []routing.Document{
		"a part is gone": func(d []routing.Document) []routing.Document { return d[:len(d)-1] },
		"a row was changed": func(d []routing.Document) []routing.Document {
			d[1].Text = strings.Replace(d[1].Text, "u0007", "u9007", 1)
			return d
		},
		"two rows exchanged": func(d []routing.Document) []routing.Document {
			d[1].Text = strings.NewReplacer("u0007", "u0009", "u0009", "u0007").Replace(d[1].Text)
			return d
		},
		"not what was stored": func(d []routing.Document) []routing.Document { d[0].Text = "{"; return d },
	} {
		s := routing.NewState(routing.Position{})
		documents, err := e.Documents(s)
		if err != nil {
			t.Fatal(err)
		}
		s = store(t, s, change(documents))
		if entries, unreadable := Lists(s, ""); len(entries) != 0 || len(unreadable) != 1 {
			t.Errorf("%s: %d entries, %v", name, len(entries), unreadable)
		}
	}
	for _, l := range []*list.List{{}, {ID: "x", Agency: "health"}} {
		if _, err := (&Entry{List: l}).Documents(routing.NewState(routing.Position{})); err == nil {
			t.Errorf("kept: %+v", l)
		}
	}
}

func TestGaps(t *testing.T) {
	agency, err := routing.NewAgency("health", "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	var rows []routing.Row
	for _, r := range testList("", 5, 0).Rows {
		rows = append(rows, routing.Row{Mailbox: r.ID, Kind: routing.KindUser, Addresses: []routing.Address{r.Address, "alias-" + r.Address}})
	}
	m, err := routing.NewMapping("health", rows)
	if err != nil {
		t.Fatal(err)
	}
	agency.Mapping = m.Digest()
	s, err := routing.NewState(routing.Position{}).Apply(routing.Update{Agencies: []routing.Agency{agency}, Mappings: []*routing.Mapping{m}})
	if err != nil {
		t.Fatal(err)
	}
	older := testList("old", 5, 1e9)
	newer := testList("new", 2, 2e9)
	newer.Rows[0].Address = "alias-u0000@health.example"
	newer.Rows[1].Address = "other@health.example"
	entries := []Entry{{List: newer, Standing: Active}, {List: older, Standing: Active}}
	got := Gaps(s, "health", entries)
	if len(got) != 1 || got[0].Address != "u0001@health.example" || got[0].Listed != "other@health.example" || got[0].List != "new" {
		t.Errorf("%+v", got)
	}
	entries[0].Standing = Withdrawn
	if got := Gaps(s, "health", entries); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	entries[1].Standing = Approved
	if got := Gaps(s, "health", entries); len(got) != 5 || got[0].List != "" {
		t.Errorf("%d mailboxes without a list, want 5", len(got))
	}
}

// A list is begun once, ended by its own operation alone, and removed only while it isn't in force.
func TestStandings(t *testing.T) {
	at := time.Unix(3e9, 0).UTC()
	in := func(e Entry) *routing.State {
		e.List = testList("health-0001-aaaa", 3, 1e9)
		s := routing.NewState(routing.Position{})
		documents, err := e.Documents(s)
		if err != nil {
			t.Fatal(err)
		}
		return store(t, s, documents)
	}
	find := func(s *routing.State) Entry {
		e, ok, err := Find(s, "health-0001-aaaa")
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		return e
	}
	for _, standing := range []Standing{Proposed, Pending, Active, Approved} {
		s := in(Entry{Standing: standing, Operation: "op"})
		if begun, err := Begun(s, "health-0001-aaaa", "next", []string{"Bert"}, at); (err == nil) != (standing == Proposed) || (len(begun) > 0) != (standing == Proposed) {
			t.Errorf("%s: begun with %d documents, %v", standing, len(begun), err)
		}
		for _, operation := range []routing.OperationID{"op", "another"} {
			ends := standing == Pending && operation == "op"
			for _, inForce := range []bool{true, false} {
				ended, err := Ended(s, "health-0001-aaaa", operation, inForce, at)
				if err != nil || (len(ended) > 0) != ends {
					t.Errorf("%s: ended by %s with %d documents, %v", standing, operation, len(ended), err)
				}
				want := map[bool]Standing{true: Active, false: Proposed}[inForce]
				if e := find(store(t, s, ended)); ends && (e.Standing != want || !e.Since.Equal(at)) {
					t.Errorf("ended, in force %t: it is %s since %s", inForce, e.Standing, e.Since)
				}
			}
		}
		e := find(s)
		if gone := e.Removals(s); (len(gone) > 0) != (standing == Proposed || standing == Pending) {
			t.Errorf("%s: %d documents are removed", standing, len(gone))
		}
	}
	if _, err := Begun(routing.NewState(routing.Position{}), "health-0001-aaaa", "op", nil, at); err == nil {
		t.Error("begun without being in the table")
	}
}
