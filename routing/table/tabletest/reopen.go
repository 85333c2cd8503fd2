package tabletest

import (
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

func testReopen(t *testing.T, open opener, reopen func(t *testing.T, old table.Table) table.Table) {
	tb, pos := begun(t, open)
	m := mapping(t, "health", 100)
	if err := tb.PutMapping(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	health := agency(t, "health")
	health.Mapping = m.Digest()
	c := table.Change{ID: "1", Incarnation: pos.Incarnation, Term: pos.Term, Mapped: pos.Mapped, Agencies: []routing.Agency{health},
		Domains: []routing.Domain{{Name: "health.example"}}, Fixed: []routing.Fixed{{Address: "all@health.example", Kind: "group", Platform: "ox"}}}
	first := change(t, tb, c)
	health = current(t, tb, "health")
	last := change(t, tb, table.Change{ID: "2", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{health.Arm()}})
	if err := tb.Confirm(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, err := tb.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	tb = reopen(t, tb)
	checkSnapshot(t, tb, before)
	checkMapping(t, tb, m)
	if again, err := tb.Init(t.Context()); err != nil || again != last {
		t.Errorf("Init of a table that has records: %+v, %v; want %+v", again, err, last)
	}
	if again := change(t, tb, c); again != first {
		t.Errorf("change sent again: %+v, want %+v", again, first)
	}
	c.Reason = "another"
	refused(t, tb, c, table.ErrReused)
	f := follow(t, tb, pos, time.Second)
	for rev := first.Revision; rev <= last.Revision; rev++ {
		if e := f.next(t); e.Position.Revision != rev {
			t.Errorf("revision %d, want %d", e.Position.Revision, rev)
		}
	}
}
