package tabletest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

func testFounded(t *testing.T, open opener) {
	tb := open(t)
	founder, ok := tb.(table.Founder)
	if !ok {
		t.Fatalf("%T is no table.Founder", tb)
	}
	const term = 9
	source := routing.Position{Incarnation: "0197e3a0-0000-7000-8000-000000000001", Revision: 812, Mapped: 700, Term: 3}
	m := mapping(t, "health", 20)
	health := agency(t, "health").InTerm(source.Term)
	health.Mapping = m.Digest()
	locked, err := health.Lock()
	if err != nil {
		t.Fatal(err)
	}
	started := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	past := routing.Lineage{{Number: 1, Began: started.Add(-time.Hour)}, {Number: 3, Base: 40, Began: started}}
	member := func(id routing.NodeID) routing.Member {
		return routing.Member{Node: id, Instance: routing.InstanceID(id + "-1"), Protocol: table.Protocol, Joined: started}
	}
	f := table.Foundation{
		ID: "found", Source: source, Lineage: past, Term: term, Longest: time.Minute, Who: "anna", What: "bootstrap", Reason: "all is lost",
		Agencies: []routing.Agency{locked}, Domains: []routing.Domain{{Name: "health.example"}},
		Fixed:      []routing.Fixed{{Address: "list@health.example", Kind: "group", Platform: "ox"}},
		Members:    []routing.Member{member("n1"), member("n2"), {Node: "n3", Instance: "n3-1", Protocol: 1, Joined: started, Evicted: true}},
		Operations: []routing.Operation{{ID: "op-1", Kind: "cutover", Agency: "health", Agencies: []routing.AgencyID{"health"}, Started: started}},
		Freezes:    []routing.Freeze{{Who: "bert", Reason: "r", Since: started}},
		Documents:  []routing.Document{{Key: "proposal/1", Text: "x"}},
	}
	for name, spoil := range map[string]func(*table.Foundation){
		"term":     func(f *table.Foundation) { f.Term = 3 },
		"epoch":    func(f *table.Foundation) { f.Agencies = []routing.Agency{locked.InTerm(term)} },
		"revision": func(f *table.Foundation) { f.Source.Revision = 0 },
		"id":       func(f *table.Foundation) { f.ID = "" },
		"longest":  func(f *table.Foundation) { f.Longest = -1 },
	} {
		bad := f
		if spoil(&bad); true {
			if _, err := founder.Found(t.Context(), bad); !errors.Is(err, table.ErrBadChange) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := founder.Found(t.Context(), f); !errors.Is(err, table.ErrNoMapping) {
		t.Errorf("without its mapping: %v", err)
	}
	if _, err := tb.Position(t.Context()); !errors.Is(err, table.ErrEmpty) {
		t.Errorf("after that: %v", err)
	}
	// A fresh node has founded it meanwhile, and has done what nodes do.
	bare, err := tb.Init(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	newNode(t, tb, bare, "n9").granted()
	at := change(t, tb, table.Change{ID: "head", Incarnation: bare.Incarnation, Term: bare.Term, Documents: []routing.Document{{Key: "audit/n9", Text: "head"}}})
	ahead := f
	ahead.Source.Revision, ahead.Source.Mapped = at.Revision-1, 1
	if _, err := founder.Found(t.Context(), ahead); !errors.Is(err, table.ErrFounded) {
		t.Errorf("behind the table that is there: %v", err)
	}
	f.Mappings = []*routing.Mapping{m}
	want := routing.Position{Incarnation: source.Incarnation, Revision: 813, Mapped: 813, Term: term}
	for range 2 { // a lost answer
		if pos, err := founder.Found(t.Context(), f); err != nil || pos != want {
			t.Fatalf("%+v, %v, want %+v", pos, err, want)
		}
	}
	other := f
	other.Reason = "another"
	if _, err := founder.Found(t.Context(), other); !errors.Is(err, table.ErrReused) {
		t.Errorf("another with this id: %v", err)
	}
	other.ID = "found again"
	if _, err := founder.Found(t.Context(), other); !errors.Is(err, table.ErrFounded) {
		t.Errorf("once more: %v", err)
	}
	u, err := tb.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	locked.Revision = want.Revision
	if u.Position != want || !slices.Equal(u.Agencies, []routing.Agency{locked}) || len(u.Domains) != 1 || len(u.Fixed) != 1 || len(u.Members) != 3 ||
		len(u.Operations) != 1 || len(u.Freezes) != 1 || len(u.Documents) != 1 || u.Members[0].Revision != want.Revision || !u.Members[0].Joined.Equal(started) || !u.Members[2].Evicted {
		t.Errorf("snapshot: %+v", u)
	}
	if got, err := tb.Mapping(t.Context(), "health", m.Digest()); err != nil || got.Len() != 20 {
		t.Errorf("mapping: %v", err)
	}
	if len(u.Lineage) != 3 || !u.Lineage[:2].Equal(past) || u.Lineage[2].Number != term || u.Lineage[2].Base != source.Revision {
		t.Errorf("lineage: %v, the copy's was %v", u.Lineage, past)
	}
	// Who stood where the copy did can go on; who stood before or behind it can't.
	if e := follow(t, tb, source, time.Second).next(t); e.Position != want || len(e.Agencies) != 1 || !e.Agencies[0].Locked || e.Who != "anna" {
		t.Errorf("entry: %+v", e)
	}
	before, above := source, source
	before.Revision--
	above.Revision++
	follow(t, tb, before, time.Second).end(t, table.ErrGap)
	follow(t, tb, above, time.Second).end(t, table.ErrRegressed)

	// All members that are not evicted have to come, and those that saw more have to follow.
	unlock, err := current(t, tb, "health").InTerm(term).Unlock()
	if err != nil {
		t.Fatal(err)
	}
	c := table.Change{ID: "unlock", Incarnation: want.Incarnation, Term: term, Agencies: []routing.Agency{unlock}}
	refused(t, tb, c, table.ErrRejoining)
	n1, n2 := newNode(t, tb, source, "n1"), newNode(t, tb, source, "n2")
	n1.r.Term, n1.r.Applied = source.Term, source.Revision
	n2.r.Term, n2.r.Applied = source.Term, source.Revision+3
	if a := n1.renew(); a.Armed || a.Position.Term != term {
		t.Errorf("one of two: %+v", a)
	}
	moved := health
	moved.Epoch.Number += 3
	n2.r.Above = []routing.Agency{moved}
	if a := n2.renew(); a.Settled || a.Armed {
		t.Errorf("behind: %+v", a)
	}
	refused(t, tb, c, table.ErrRejoining)
	n2.follow()
	n2.granted()
	n1.follow()
	n1.granted()
	refused(t, tb, c, table.ErrGuard) // a node has seen more of it
	c.ID, c.Agencies, c.Guard.Rejoining = "reconcile", []routing.Agency{moved.InTerm(term)}, true
	c.Agencies[0].Epoch.Number, c.Agencies[0].Locked, c.Agencies[0].Revision = moved.Epoch.Number+1, true, want.Revision
	change(t, tb, c)
}
