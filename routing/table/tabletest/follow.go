package tabletest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// lockAndUnlock sends n changes of one agency, each computed from the one before, and returns the
// position after the last.
func lockAndUnlock(t *testing.T, tb table.Table, pos routing.Position, n int) routing.Position {
	t.Helper()
	a := agency(t, "busy")
	if u, err := tb.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	} else if len(u.Agencies) > 0 {
		a = u.Agencies[0]
	}
	for i := range n {
		a.Locked = !a.Locked
		a.Epoch = a.Epoch.Next()
		pos = change(t, tb, table.Change{ID: fmt.Sprintf("lock %d.%d", pos.Revision, i), Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{a}})
		a.Revision = pos.Revision
	}
	return pos
}

func testFollow(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	early := follow(t, tb, pos, time.Second) // before, while and after the changes happen
	last := lockAndUnlock(t, tb, pos, 30)
	late := follow(t, tb, pos, time.Second)
	middle := follow(t, tb, routing.Position{Incarnation: pos.Incarnation, Term: pos.Term, Revision: pos.Revision + 10}, time.Second)
	final := lockAndUnlock(t, tb, last, 5)
	for rev := pos.Revision + 1; rev <= final.Revision; rev++ {
		if e := early.next(t); e.Position.Revision != rev || len(e.Agencies) != 1 || e.Agencies[0].Revision != rev || e.Position.Mapped != pos.Mapped {
			t.Fatalf("early: entry %+v, want revision %d", e, rev)
		}
		if e := late.next(t); e.Position.Revision != rev {
			t.Fatalf("late: revision %d, want %d", e.Position.Revision, rev)
		}
		if rev > pos.Revision+10 {
			if e := middle.next(t); e.Position.Revision != rev {
				t.Fatalf("middle: revision %d, want %d", e.Position.Revision, rev)
			}
		}
	}
	early.stop()
	early.end(t, context.Canceled)
}

func testFollowEnds(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	last := lockAndUnlock(t, tb, pos, 3)
	follow(t, tb, routing.Position{Incarnation: "another", Revision: 1}, time.Second).end(t, table.ErrIncarnation)
	ahead := last
	ahead.Revision++
	f := follow(t, tb, ahead, time.Second)
	f.end(t, table.ErrRegressed)
	follow(t, tb, ahead, time.Second).end(t, table.ErrGap) // the one is the other, too

	mine := errors.New("enough")
	n := 0
	err := tb.Follow(t.Context(), pos, time.Second, func(table.Entry) error {
		n++
		return mine
	}, func(time.Time, routing.Position) { t.Error("alive before everything was applied") })
	if err != mine || n != 1 {
		t.Errorf("Follow ended after %d entries with %v, want 1 and the error of apply", n, err)
	}
}

func testAlive(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	const interval = 100 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	enough := errors.New("enough")
	var applied routing.Position
	seen, began := 0, time.Now()
	var lastAt time.Time
	err := tb.Follow(ctx, pos, interval, func(e table.Entry) error {
		applied = e.Position
		return enough
	}, func(at time.Time, now routing.Position) {
		if at.Before(began) || !at.After(lastAt) || at.After(time.Now()) {
			t.Errorf("alive at %v, before it %v, begun %v", at, lastAt, began)
		}
		lastAt = at
		if now != pos {
			t.Errorf("alive at %+v before that was applied", now)
		}
		if seen++; seen == 5 {
			change(t, tb, table.Change{ID: "1", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{agency(t, "health")}})
		}
	})
	if err != enough || applied.Revision != pos.Revision+1 || seen < 5 {
		t.Errorf("Follow: %v after %d signs of life, applied %+v", err, seen, applied)
	}
	// Five without a change take four intervals at most, plus what a busy machine needs.
	if took := time.Since(began); took > 4*interval+within/2 {
		t.Errorf("five signs of life took %v at an interval of %v", took, interval)
	}
}

func testCancel(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	f := follow(t, tb, pos, time.Minute)
	select {
	case <-f.alive: // it waits now, or soon
	case <-time.After(within):
		t.Fatal("no sign of life")
	}
	f.stop()
	f.end(t, context.Canceled)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := mapping(t, "health", 1)
	for name, call := range map[string]func() error{
		"Init":       func() error { _, err := tb.Init(ctx); return err },
		"Position":   func() error { _, err := tb.Position(ctx); return err },
		"Snapshot":   func() error { _, err := tb.Snapshot(ctx); return err },
		"PutMapping": func() error { return tb.PutMapping(ctx, m) },
		"Mapping":    func() error { _, err := tb.Mapping(ctx, "health", m.Digest()); return err },
		"Confirm":    func() error { return tb.Confirm(ctx) },
		"Change": func() error {
			_, err := tb.Change(ctx, table.Change{ID: "1", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{agency(t, "health")}})
			return err
		},
	} {
		if err := call(); !errors.Is(err, table.ErrUnavailable) {
			t.Errorf("%s with a cancelled context: %v, want %v", name, err, table.ErrUnavailable)
		}
	}
	if got, err := tb.Position(t.Context()); err != nil || got != pos {
		t.Errorf("Position: %+v, %v; want %+v", got, err, pos)
	}
}

func testClose(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	f := follow(t, tb, pos, time.Minute)
	select {
	case <-f.alive:
	case <-time.After(within):
		t.Fatal("no sign of life")
	}
	if err := tb.Close(); err != nil {
		t.Fatal(err)
	}
	f.end(t, table.ErrUnavailable)
	if _, err := tb.Position(t.Context()); !errors.Is(err, table.ErrUnavailable) {
		t.Errorf("Position after Close: %v", err)
	}
	if _, err := tb.Change(t.Context(), table.Change{ID: "1", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{agency(t, "health")}}); !errors.Is(err, table.ErrUnavailable) {
		t.Errorf("Change after Close: %v", err)
	}
	if err := tb.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func testTrimmed(t *testing.T, open func(t *testing.T, keep int) table.Table) {
	const keep = 100
	tb, pos := begun(t, func(t *testing.T) table.Table { return open(t, keep) })
	last := lockAndUnlock(t, tb, pos, keep+450)
	follow(t, tb, pos, time.Second).end(t, table.ErrGap)
	f := follow(t, tb, routing.Position{Incarnation: pos.Incarnation, Term: pos.Term, Revision: last.Revision - keep}, time.Second)
	for rev := last.Revision - keep + 1; rev <= last.Revision; rev++ {
		if e := f.next(t); e.Position.Revision != rev {
			t.Fatalf("revision %d, want %d", e.Position.Revision, rev)
		}
	}
}
