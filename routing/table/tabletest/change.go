package tabletest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

type opener = func(t *testing.T) table.Table

func testEmpty(t *testing.T, open opener) {
	tb := open(t)
	ctx := t.Context()
	m := mapping(t, "health", 1)
	calls := map[string]func() error{
		"Position":   func() error { _, err := tb.Position(ctx); return err },
		"Snapshot":   func() error { _, err := tb.Snapshot(ctx); return err },
		"Mapping":    func() error { _, err := tb.Mapping(ctx, "health", m.Digest()); return err },
		"PutMapping": func() error { return tb.PutMapping(ctx, m) },
		"Change": func() error {
			_, err := tb.Change(ctx, table.Change{ID: "1", Incarnation: "x", Agencies: []routing.Agency{agency(t, "health")}})
			return err
		},
		"Follow": func() error {
			return tb.Follow(ctx, routing.Position{Incarnation: "x"}, time.Second, func(table.Entry) error { return nil }, func(time.Time, routing.Position) {})
		},
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, table.ErrEmpty) {
			t.Errorf("%s: %v, want %v", name, err, table.ErrEmpty)
		}
	}
}

func testInit(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	if len(pos.Incarnation) != 36 || pos.Revision != 1 || pos.Mapped != 1 {
		t.Errorf("Init: %+v, want a UUID and revision 1", pos)
	}
	again, err := tb.Init(t.Context())
	if err != nil || again != pos {
		t.Errorf("second Init: %+v, %v; want %+v", again, err, pos)
	}
	if got, err := tb.Position(t.Context()); err != nil || got != pos {
		t.Errorf("Position: %+v, %v; want %+v", got, err, pos)
	}
	if err := tb.Confirm(t.Context()); err != nil {
		t.Errorf("Confirm: %v", err)
	}
	if got, err := tb.Position(t.Context()); err != nil || got != pos {
		t.Errorf("Position after Confirm: %+v, %v; want %+v", got, err, pos)
	}
	f := follow(t, tb, routing.Position{Incarnation: pos.Incarnation, Term: pos.Term}, time.Second)
	if e := f.next(t); e.Position != pos || len(e.Agencies)+len(e.Domains)+len(e.Fixed) != 0 {
		t.Errorf("first entry: %+v", e)
	}

	if _, otherPos := begun(t, open); otherPos.Incarnation == pos.Incarnation {
		t.Error("two tables of one incarnation")
	}
}

func testBadChange(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	a := agency(t, "health")
	m := mapping(t, "health", 1)
	if err := tb.PutMapping(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	mapped := a
	mapped.Mapping = m.Digest()
	good := func() table.Change {
		return table.Change{ID: "x", Incarnation: pos.Incarnation, Term: pos.Term, Mapped: pos.Mapped, Agencies: []routing.Agency{a}}
	}
	for name, spoil := range map[string]func(*table.Change){
		"no id":                     func(c *table.Change) { c.ID = "" },
		"long id":                   func(c *table.Change) { c.ID = strings.Repeat("x", table.MaxIDBytes+1) },
		"line end in id":            func(c *table.Change) { c.ID = "a\nb" },
		"no record":                 func(c *table.Change) { c.Agencies = nil },
		"agency twice":              func(c *table.Change) { c.Agencies = []routing.Agency{a, a} },
		"agency without id":         func(c *table.Change) { c.Agencies = []routing.Agency{{}} },
		"domain twice":              func(c *table.Change) { c.Domains = []routing.Domain{{Name: "a"}, {Name: "a"}} },
		"fixed address twice":       func(c *table.Change) { c.Fixed = []routing.Fixed{{Address: "a@b"}, {Address: "a@b"}} },
		"text that isn't UTF-8":     func(c *table.Change) { c.Reason = "\xff" },
		"names without Mapped":      func(c *table.Change) { c.Mapped, c.Domains = 0, []routing.Domain{{Name: "a"}} },
		"mapping without Mapped":    func(c *table.Change) { c.Mapped, c.Agencies = 0, []routing.Agency{mapped} },
		"more records than allowed": func(c *table.Change) { c.Domains = make([]routing.Domain, table.MaxRecords) },
	} {
		c := good()
		spoil(&c)
		t.Run(name, func(t *testing.T) { refused(t, tb, c, table.ErrBadChange) })
	}
	change(t, tb, good())
}

func testChange(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	health, roads := agency(t, "health"), agency(t, "roads")
	roads.Epoch = routing.Epoch{Term: pos.Term, Number: 1<<32 - 1}
	roads.Nonce = 1<<64 - 1
	roads.Operation = "0197c9a2-0000-7000-8000-000000000000"
	roads.Parent = "health"
	roads.Locked, roads.Finalised = true, true
	roads = roads.Arm()
	fixed := routing.Fixed{Address: "all@health.example", Kind: "group", Platform: "exchange", At: "alle@intern.example"}
	before := time.Now().Add(-time.Minute)
	first := change(t, tb, table.Change{
		ID: "1", Incarnation: pos.Incarnation, Term: pos.Term, Mapped: pos.Mapped,
		Agencies: []routing.Agency{health, roads},
		Domains:  []routing.Domain{{Name: "health.example", Complete: true}, {Name: "roads.example"}},
		Fixed:    []routing.Fixed{fixed},
		Who:      "anna", What: "import", Reason: "first import",
	})
	if first.Incarnation != pos.Incarnation || first.Revision != pos.Revision+1 || first.Mapped != first.Revision {
		t.Errorf("position after the first change: %+v", first)
	}
	health.Revision, roads.Revision, fixed.Revision = first.Revision, first.Revision, first.Revision
	checkSnapshot(t, tb, routing.Update{
		Position: first, Agencies: []routing.Agency{health, roads},
		Domains: []routing.Domain{{Name: "health.example", Complete: true, Revision: first.Revision}, {Name: "roads.example", Revision: first.Revision}},
		Fixed:   []routing.Fixed{fixed},
	})

	f := follow(t, tb, pos, time.Second)
	e := f.next(t)
	if e.ID != "1" || e.Who != "anna" || e.What != "import" || e.Reason != "first import" || e.Position != first {
		t.Errorf("entry: %+v", e)
	}
	if e.Time.Before(before) || e.Time.After(time.Now().Add(time.Minute)) {
		t.Errorf("entry's time: %v", e.Time)
	}
	if len(e.Agencies) != 2 || e.Agencies[0] != health || e.Agencies[1] != roads || len(e.Domains) != 2 || len(e.Fixed) != 1 || e.Fixed[0] != fixed {
		t.Errorf("entry's records: %+v", e)
	}

	// What touches no names leaves Mapped, and needs none; the rest stays as it is.
	locked, err := health.Lock()
	if err != nil {
		t.Fatal(err)
	}
	second := change(t, tb, table.Change{ID: "2", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{locked}})
	if second.Revision != first.Revision+1 || second.Mapped != first.Mapped {
		t.Errorf("position after the second change: %+v", second)
	}
	locked.Revision = second.Revision
	third := change(t, tb, table.Change{
		ID: "3", Incarnation: pos.Incarnation, Term: pos.Term, Mapped: second.Mapped,
		Domains: []routing.Domain{{Name: "roads.example", Removed: true}},
		Fixed:   []routing.Fixed{{Address: fixed.Address, Removed: true}, {Address: "never@there.example", Removed: true}},
	})
	checkSnapshot(t, tb, routing.Update{
		Position: third, Agencies: []routing.Agency{locked, roads},
		Domains: []routing.Domain{{Name: "health.example", Complete: true, Revision: first.Revision}},
	})
	f.next(t)
	if e := f.next(t); len(e.Domains) != 1 || !e.Domains[0].Removed || len(e.Fixed) != 2 || !e.Fixed[0].Removed || e.Position != third {
		t.Errorf("entry of removal: %+v", e)
	}
}

// checkSnapshot compares a snapshot, in which records may stand in any order.
func checkSnapshot(t *testing.T, tb table.Table, want routing.Update) {
	t.Helper()
	got, err := tb.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Position != want.Position || len(got.Mappings) != 0 {
		t.Errorf("snapshot at %+v, want %+v", got.Position, want.Position)
	}
	sameSet(t, "agencies", got.Agencies, want.Agencies)
	sameSet(t, "domains", got.Domains, want.Domains)
	sameSet(t, "fixed addresses", got.Fixed, want.Fixed)
}

func sameSet[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	set := make(map[T]bool, len(want))
	for _, w := range want {
		set[w] = true
	}
	for _, g := range got {
		if !set[g] {
			t.Errorf("%s: %+v is there, want %+v", what, g, want)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

func testStale(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	health, roads := agency(t, "health"), agency(t, "roads")
	first := change(t, tb, table.Change{ID: "1", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{health}})
	refused(t, tb, table.Change{ID: "2", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{health}}, table.ErrStale) // it is not new
	health.Revision = first.Revision
	roads.Revision = 1
	refused(t, tb, table.Change{ID: "3", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{roads}}, table.ErrStale) // it is not there
	roads.Revision = 0
	second := change(t, tb, table.Change{ID: "4", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{health.Arm()}})
	// One stale record refuses all of them, whichever comes first.
	for i, agencies := range [][]routing.Agency{{roads, health}, {health, roads}} {
		refused(t, tb, table.Change{ID: fmt.Sprint("5", i), Incarnation: pos.Incarnation, Term: pos.Term, Mapped: pos.Mapped, Agencies: agencies,
			Domains: []routing.Domain{{Name: "a.example"}}, Fixed: []routing.Fixed{{Address: "a@a.example"}}}, table.ErrStale)
	}
	want := health.Arm()
	want.Revision = second.Revision
	checkSnapshot(t, tb, routing.Update{Position: second, Agencies: []routing.Agency{want}})
}

func testMapped(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	domain := func(id, name string, mapped routing.Revision) table.Change {
		return table.Change{ID: id, Incarnation: pos.Incarnation, Term: pos.Term, Mapped: mapped, Domains: []routing.Domain{{Name: name}}}
	}
	first := change(t, tb, domain("1", "a.example", pos.Mapped))
	refused(t, tb, domain("2", "b.example", pos.Mapped), table.ErrStale)
	refused(t, tb, domain("3", "b.example", first.Mapped+1), table.ErrStale)
	// A change that touches no names doesn't make checked names stale.
	second := change(t, tb, table.Change{ID: "4", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{agency(t, "health")}})
	change(t, tb, domain("5", "b.example", second.Mapped))

	// A change of a mapping does, and is refused itself when names changed.
	m := mapping(t, "health", 1)
	if err := tb.PutMapping(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	health := current(t, tb, "health")
	health.Mapping = m.Digest()
	c := table.Change{ID: "6", Incarnation: pos.Incarnation, Term: pos.Term, Mapped: second.Mapped, Agencies: []routing.Agency{health}}
	refused(t, tb, c, table.ErrStale)
	now, err := tb.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.Mapped = now.Mapped
	after := change(t, tb, c)
	if after.Mapped != after.Revision {
		t.Errorf("after a new mapping: %+v", after)
	}
	refused(t, tb, domain("7", "c.example", now.Mapped), table.ErrStale)
	// Even one that touches no names is refused if it says so.
	refused(t, tb, table.Change{ID: "8", Incarnation: pos.Incarnation, Term: pos.Term, Mapped: now.Mapped, Agencies: []routing.Agency{agency(t, "roads")}}, table.ErrStale)
}

func testIncarnation(t *testing.T, open opener) {
	tb, _ := begun(t, open)
	for _, inc := range []routing.Incarnation{"", "0197c9a2-0000-7000-8000-000000000000"} {
		refused(t, tb, table.Change{ID: "1", Incarnation: inc, Agencies: []routing.Agency{agency(t, "health")}}, table.ErrIncarnation)
	}
}

func testReused(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	health := agency(t, "health")
	c := table.Change{ID: "op 1/begin", Incarnation: pos.Incarnation, Term: pos.Term, Mapped: pos.Mapped, Agencies: []routing.Agency{health},
		Domains: []routing.Domain{{Name: "a.example"}}, Who: "anna", What: "add", Reason: "new"}
	first := change(t, tb, c)
	health.Revision = first.Revision
	last := change(t, tb, table.Change{ID: "2", Incarnation: pos.Incarnation, Term: pos.Term, Mapped: first.Mapped, Agencies: []routing.Agency{health.Arm()}, Domains: []routing.Domain{{Name: "b.example"}}})
	// Sent again it changes nothing, though its records are stale by now.
	for _, inc := range []routing.Incarnation{pos.Incarnation, "another"} {
		c.Incarnation = inc
		if again := change(t, tb, c); again != first {
			t.Errorf("sent again: %+v, want %+v", again, first)
		}
	}
	c.Incarnation = pos.Incarnation
	if now, err := tb.Position(t.Context()); err != nil || now != last {
		t.Errorf("Position: %+v, %v; want %+v", now, err, last)
	}
	for name, alter := range map[string]func(*table.Change){
		"agency":    func(c *table.Change) { c.Agencies = []routing.Agency{health.Arm()} },
		"no agency": func(c *table.Change) { c.Agencies = nil },
		"domain":    func(c *table.Change) { c.Domains = []routing.Domain{{Name: "c.example"}} },
		"fixed":     func(c *table.Change) { c.Fixed = []routing.Fixed{{Address: "a@a.example"}} },
		"mapped":    func(c *table.Change) { c.Mapped++ },
		"who":       func(c *table.Change) { c.Who = "bert" },
		"what":      func(c *table.Change) { c.What = "remove" },
		"reason":    func(c *table.Change) { c.Reason = "other" },
	} {
		other := c
		alter(&other)
		t.Run(name, func(t *testing.T) { refused(t, tb, other, table.ErrReused) })
	}
	// A refused change leaves its id free.
	stale := table.Change{ID: "3", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{health}}
	refused(t, tb, stale, table.ErrStale)
	stale.Agencies = []routing.Agency{agency(t, "roads")}
	change(t, tb, stale)
}

func testConcurrent(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	first := change(t, tb, table.Change{ID: "new", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{agency(t, "health")}})
	f := follow(t, tb, first, time.Second)
	const workers, wins = 8, 15 // each goes on until it has won so often
	var wg sync.WaitGroup
	won := make(chan routing.Revision, workers*wins)
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for w := range workers {
		wg.Go(func() {
			for n := 0; n < wins; {
				u, err := tb.Snapshot(ctx)
				if err != nil {
					t.Errorf("worker %d: %v", w, err)
					return
				}
				base := u.Agencies[0]
				next := base
				next.Nonce++
				next.Epoch = next.Epoch.Next()
				after, err := tb.Change(ctx, table.Change{ID: fmt.Sprintf("%d.%d.%d", w, n, base.Revision), Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{next}})
				switch {
				case err == nil:
					won <- after.Revision
					n++
				case errors.Is(err, table.ErrStale):
				default:
					t.Errorf("worker %d: %v", w, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(won)
	seen := map[routing.Revision]bool{}
	for rev := range won {
		if seen[rev] {
			t.Errorf("revision %d was won twice", rev)
		}
		seen[rev] = true
	}
	if got := current(t, tb, "health"); got.Nonce != workers*wins || got.Revision != first.Revision+workers*wins {
		t.Errorf("after %d changes: nonce %d, revision %d", workers*wins, got.Nonce, got.Revision)
	}
	for i := range routing.Revision(workers * wins) {
		e := f.next(t)
		if e.Position.Revision != first.Revision+i+1 || e.Agencies[0].Nonce != routing.Nonce(i+1) || e.Agencies[0].Revision != e.Position.Revision {
			t.Fatalf("entry %d: %+v", i, e)
		}
	}
}

func testText(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	id := strings.Repeat("~", table.MaxIDBytes)
	reason := "ü \t\"'\\ {}%d <&> \u2028 \U0001f4ec\x00\x7f\r\n1 2 3" + strings.Repeat("x", 1000)
	change(t, tb, table.Change{ID: id, Incarnation: pos.Incarnation, Term: pos.Term, Mapped: pos.Mapped, Who: "jörg", What: "fix $0 ]]", Reason: reason,
		Fixed: []routing.Fixed{{Address: "a b\"@x.example", Kind: "scanner", Platform: "ox"}}})
	f := follow(t, tb, pos, time.Second)
	if e := f.next(t); e.ID != id || e.Reason != reason || e.Who != "jörg" || e.What != "fix $0 ]]" || e.Fixed[0].Address != "a b\"@x.example" {
		t.Errorf("entry: %+v", e)
	}
}
