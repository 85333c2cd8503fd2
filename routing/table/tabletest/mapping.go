package tabletest

import (
	"errors"
	"slices"
	"testing"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

func testMapping(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	ctx := t.Context()
	m := mapping(t, "health", 3)
	health := agency(t, "health")
	health.Mapping = m.Digest()
	c := table.Change{ID: "1", Incarnation: pos.Incarnation, Term: pos.Term, Mapped: pos.Mapped, Agencies: []routing.Agency{agency(t, "roads"), health}}
	refused(t, tb, c, table.ErrNoMapping)
	if _, err := tb.Mapping(ctx, "health", m.Digest()); !errors.Is(err, table.ErrNoMapping) {
		t.Errorf("Mapping: %v, want %v", err, table.ErrNoMapping)
	}
	for range 2 {
		if err := tb.PutMapping(ctx, m); err != nil {
			t.Fatal(err)
		}
	}
	if now, err := tb.Position(ctx); err != nil || now != pos {
		t.Errorf("PutMapping moved the table to %+v (%v)", now, err)
	}
	// A mapping belongs to one agency.
	if _, err := tb.Mapping(ctx, "roads", m.Digest()); !errors.Is(err, table.ErrNoMapping) {
		t.Errorf("Mapping of another agency: %v, want %v", err, table.ErrNoMapping)
	}
	roads := agency(t, "roads")
	roads.Mapping = m.Digest()
	refused(t, tb, table.Change{ID: "2", Incarnation: pos.Incarnation, Term: pos.Term, Mapped: pos.Mapped, Agencies: []routing.Agency{roads}}, table.ErrNoMapping)
	change(t, tb, c)
	checkMapping(t, tb, m)

	empty, err := routing.NewMapping("health", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := tb.PutMapping(ctx, empty); err != nil {
		t.Errorf("PutMapping of the empty mapping: %v", err)
	}
	if got, err := tb.Mapping(ctx, "health", routing.Digest{}); err != nil || got.Len() != 0 || got.Agency() != "health" {
		t.Errorf("empty mapping: %+v, %v", got, err)
	}
	// Back to the empty mapping is a change of names as well.
	health = current(t, tb, "health")
	health.Mapping = routing.Digest{}
	refused(t, tb, table.Change{ID: "3", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{health}}, table.ErrBadChange)
	now, err := tb.Position(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if after := change(t, tb, table.Change{ID: "3", Incarnation: pos.Incarnation, Term: pos.Term, Mapped: now.Mapped, Agencies: []routing.Agency{health}}); after.Mapped != after.Revision {
		t.Errorf("after the mapping went: %+v", after)
	}
}

func testLargeMapping(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	m := mapping(t, "health", 20_000)
	// Two who store the same mapping don't get into each other's way.
	errs := make(chan error, 2)
	for range cap(errs) {
		go func() { errs <- tb.PutMapping(t.Context(), m) }()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	checkMapping(t, tb, m)
	health := agency(t, "health")
	health.Mapping = m.Digest()
	change(t, tb, table.Change{ID: "1", Incarnation: pos.Incarnation, Term: pos.Term, Mapped: pos.Mapped, Agencies: []routing.Agency{health}})
}

// checkMapping loads a mapping and compares it with m.
func checkMapping(t *testing.T, tb table.Table, m *routing.Mapping) {
	t.Helper()
	got, err := tb.Mapping(t.Context(), m.Agency(), m.Digest())
	if err != nil {
		t.Fatal(err)
	}
	text := func(m *routing.Mapping) []byte { return slices.Concat(slices.Collect(m.Parts(1 << 20))...) }
	if got.Digest() != m.Digest() || got.Agency() != m.Agency() || got.Len() != m.Len() || !slices.Equal(text(got), text(m)) {
		t.Errorf("mapping %s of %d rows came back as %s of %d rows", m.Digest(), m.Len(), got.Digest(), got.Len())
	}
}
