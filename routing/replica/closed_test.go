package replica

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// A closed replica says so before it shows what it loaded, and shows it before it opens.
func TestTheOrderOfEvents(t *testing.T) {
	w := newWorld(t, "health")
	var seen []routing.Revision
	var waited atomic.Bool
	w.onUpdate = func(old, now *routing.State) {
		if w.rep.State() != now || old == now {
			t.Error("OnUpdate before State")
		}
		at, ok := w.rep.Fresh()
		if ok && !at.Before(time.Now()) || len(seen) == 0 && ok {
			t.Errorf("revision %d: fresh as of %v, %t", now.Position().Revision, at, ok)
		}
		if waited.Load() {
			t.Error("Wait returned before OnUpdate")
		}
		seen = append(seen, now.Position().Revision)
	}
	opened := make(chan struct{})
	w.table.do(func() { w.table.down = table.ErrUnavailable })
	w.start(Options{})
	pos := routing.Position{Incarnation: "first", Revision: 5}
	go func() {
		defer close(opened)
		w.rep.Wait(context.Background(), pos)
		waited.Store(true)
	}()
	w.table.do(func() { w.table.down = nil })
	w.wait(routing.Position{Incarnation: "first", Revision: 2})
	health, _ := w.rep.State().Agency("health")
	for range 3 {
		health.Epoch = health.Epoch.Next()
		w.table.set(health)
	}
	<-opened
	w.stop()
	if !slices.Equal(seen, []routing.Revision{2, 3, 4, 5}) {
		t.Errorf("%v", seen)
	}
}

// The moment that Fresh returns never lies after a change that State doesn't have.
func TestFreshWaitsForWhatIsOnItsWay(t *testing.T) {
	w := newWorld(t, "health")
	w.start(Options{})
	w.wait(routing.Position{Incarnation: "first", Revision: 2})
	w.table.do(func() { w.table.loadFailure = table.ErrUnavailable })
	works := w.newAgency("works", 1, anna("works"))
	begun := time.Now()
	pos := w.table.set(works)
	changed := time.Now() // or before, but not before begun
	snapshots := func() int {
		w.table.mu.Lock()
		defer w.table.mu.Unlock()
		return w.table.snapshots
	}
	before := snapshots()
	w.await("two more attempts", func() bool { return snapshots() > before+1 })
	if at, ok := w.rep.Fresh(); !ok || !at.Before(changed) {
		t.Errorf("fresh as of %v, %t; the change that is missing was made at %v", at, ok, changed)
	}
	if s := w.rep.Status(); s.Err == nil || !s.Open {
		t.Errorf("%+v", s)
	}
	w.table.do(func() { w.table.loadFailure = nil })
	w.wait(pos)
	if at, ok := w.rep.Fresh(); !ok || !at.After(begun) {
		t.Errorf("fresh as of %v, %t", at, ok)
	}
	w.await("no word of an error", func() bool { return w.rep.Status().Err == nil }) // it goes when the log is followed again
	if s := w.rep.Status(); s.Reason != "" || s.Agencies != 2 || s.Mailboxes != 2 {
		t.Errorf("%+v", s)
	}
}

func TestFreshWaitsForAllOfIt(t *testing.T) {
	w := newWorld(t, "health")
	rep, err := Open(Options{Table: w.table, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := rep.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	loaded, _ := rep.Fresh()
	at := time.Now()
	rep.contact(at, routing.Position{Incarnation: "first", Revision: 4})
	for _, step := range []struct {
		revision routing.Revision
		want     time.Time
	}{{3, loaded}, {4, at}} {
		if err := rep.apply(t.Context(), routing.Update{Position: routing.Position{Incarnation: "first", Revision: step.revision}}); err != nil {
			t.Fatal(err)
		}
		if got, ok := rep.Fresh(); !ok || got != step.want {
			t.Errorf("at revision %d fresh as of %v, %t; want %v", step.revision, got, ok, step.want)
		}
	}
}

func TestItStaysOpenAndGetsOldWithoutTheTable(t *testing.T) {
	w := newWorld(t, "health")
	w.start(Options{})
	w.wait(routing.Position{Incarnation: "first", Revision: 2})
	w.table.do(func() { w.table.down = table.ErrUnavailable })
	w.await("the failure is known", func() bool { return w.rep.Status().Err != nil })
	at, ok := w.rep.Fresh()
	if !ok || w.decide(anna("health")).Reason != routing.ReasonOpen {
		t.Error("closed by an outage")
	}
	w.await("another attempt", func() bool { return errors.Is(w.rep.Status().Err, table.ErrUnavailable) })
	if again, ok := w.rep.Fresh(); !ok || again != at {
		t.Errorf("fresh as of %v, then %v", at, again)
	}
	w.table.do(func() { w.table.down = nil })
	w.await("fresh again", func() bool { now, ok := w.rep.Fresh(); return ok && now.After(at) })
}

func TestItClosesAndLoadsAgain(t *testing.T) {
	for name, harm := range map[string]struct {
		do        func(w *world)
		regressed []routing.AgencyID
		after     routing.Revision
	}{
		"gap in the log": {func(w *world) {
			w.table.do(func() { w.table.skip = 4 })
			works, _ := w.rep.State().Agency("works")
			works.Epoch = works.Epoch.Next()
			w.table.set(works)
			works.Epoch = works.Epoch.Next()
			w.table.set(works)
		}, nil, 5},
		"log too short": {func(w *world) {
			w.table.do(func() {
				works := w.table.agencies["works"]
				works.Epoch = works.Epoch.Next()
				w.table.agencies["works"] = works
				w.table.pos.Revision = 9
				w.table.base, w.table.log = 9, nil
			})
		}, nil, 9},
		"revision went back": {func(w *world) {
			w.table.do(func() {
				w.table.pos.Revision = 2
				works := w.table.agencies["works"]
				works.Epoch.Number--
				w.table.agencies["works"] = works
				w.table.base, w.table.log = 2, nil
			})
		}, []routing.AgencyID{"works"}, 2},
		"an agency is lost": {func(w *world) {
			w.table.do(func() {
				w.table.pos.Revision = 2
				delete(w.table.agencies, "works")
				w.table.base, w.table.log = 2, nil
			})
		}, []routing.AgencyID{"works"}, 2},
		"a record that can't be used": {func(w *world) {
			w.table.set(routing.Agency{ID: "../../etc"})
			w.await("closed", func() bool { return !w.rep.Status().Open })
			w.table.do(func() {
				delete(w.table.agencies, "../../etc")
				w.table.base, w.table.log = w.table.pos.Revision, nil
			})
		}, nil, 4},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "health")
			works := w.newAgency("works", 1, anna("works"))
			works.Epoch.Number = 5
			w.table.set(works)
			var closedFirst atomic.Bool
			closedFirst.Store(true)
			loadings := 0
			w.onUpdate = func(old, now *routing.State) {
				if now.Position().Revision == old.Position().Revision+1 && old.Position().Revision >= 3 {
					return // followed, not loaded
				}
				loadings++
				if _, ok := w.rep.Fresh(); ok {
					closedFirst.Store(false)
				}
			}
			w.start(Options{})
			w.wait(routing.Position{Incarnation: "first", Revision: 3})
			harm.do(w)
			w.await("loaded again", func() bool {
				s := w.rep.Status()
				return s.Open && s.Position.Revision == harm.after && s.Err == nil
			})
			if got := w.rep.Status().Regressed; !slices.Equal(got, harm.regressed) {
				t.Errorf("regressed: %v, want %v", got, harm.regressed)
			}
			want := routing.ReasonOpen
			if harm.regressed != nil {
				want = routing.ReasonRegressed
			}
			if d := w.decide(anna("works")); d.Reason != want {
				t.Errorf("%+v", d)
			}
			if d := w.decide(anna("health")); d.Reason != routing.ReasonOpen {
				t.Errorf("an agency that nothing happened to: %+v", d)
			}
			w.stop()
			if !closedFirst.Load() && name != "a record that can't be used" {
				t.Error("it wasn't closed while it was loaded again")
			}
			if loadings < 2 && name != "a record that can't be used" {
				t.Errorf("loaded %d times", loadings)
			}
		})
	}
}

func TestAnotherIncarnation(t *testing.T) {
	w := newWorld(t, "health")
	w.start(Options{})
	w.wait(routing.Position{Incarnation: "first", Revision: 2})
	w.table.do(func() { w.table.pos = routing.Position{Incarnation: "other", Revision: 7} })
	w.await("closed", func() bool { s := w.rep.Status(); return !s.Open && errors.Is(s.Err, table.ErrIncarnation) })
	if s := w.rep.Status(); !strings.Contains(s.Reason, "other") || s.Position.Incarnation != "first" || s.Contact.IsZero() {
		t.Errorf("%+v", s)
	}
	w.table.do(func() { w.table.pos = routing.Position{Incarnation: "first", Revision: 2} })
	w.wait(routing.Position{Incarnation: "first", Revision: 2})
	w.stop()

	// A copy of a table that has had nothing keeps nobody out of another one.
	w = &world{t: t, table: newFakeTable()}
	w.table.set()
	w.start(Options{})
	w.wait(routing.Position{Incarnation: "first", Revision: 1})
	health := w.newAgency("health", 0, anna("health"))
	w.table.do(func() {
		w.table.pos = routing.Position{Incarnation: "other", Revision: 1}
		w.table.agencies["health"] = health
		w.table.base, w.table.log = 1, nil
	})
	w.wait(routing.Position{Incarnation: "other", Revision: 1})
	w.stop()
	if s := w.rep.State(); s.Len() != 1 || len(s.Regressed())+len(s.Missing()) != 0 {
		t.Errorf("%d agencies, regressed %v, missing %v", s.Len(), s.Regressed(), s.Missing())
	}
}

func TestAnEmptyTableAfterAFullOne(t *testing.T) {
	w := newWorld(t, "health")
	w.start(Options{})
	w.wait(routing.Position{Incarnation: "first", Revision: 2})
	w.table.do(func() { w.table.down = table.ErrEmpty })
	w.await("closed", func() bool { return !w.rep.Status().Open })
	if s := w.rep.Status(); !strings.Contains(s.Reason, "empty") || s.Agencies != 1 {
		t.Errorf("%+v", s)
	}
}

func TestAMappingThatIsNotThereClosesItsAgencyOnly(t *testing.T) {
	w := newWorld(t, "health")
	w.start(Options{})
	works := w.newAgency("works", 1, anna("works"))
	m := w.table.mappings[works.Mapping]
	w.table.do(func() { delete(w.table.mappings, works.Mapping) })
	w.wait(w.table.set(works))
	if d := w.decide(anna("works")); d.Reason != routing.ReasonTableUnavail {
		t.Errorf("%+v", d)
	}
	if d := w.decide(anna("health")); d.Reason != routing.ReasonOpen {
		t.Errorf("%+v", d)
	}
	if got := w.rep.Status().Missing; !slices.Equal(got, []routing.AgencyID{"works"}) {
		t.Errorf("missing: %v", got)
	}
	w.table.do(func() { w.table.mappings[works.Mapping] = m })
	w.await("loaded", func() bool { return w.decide(anna("works")).Reason == routing.ReasonOpen })
}

func TestWaitEndsWithItsContext(t *testing.T) {
	w := newWorld(t, "health")
	w.start(Options{})
	w.wait(routing.Position{Incarnation: "first", Revision: 2})
	for _, pos := range []routing.Position{{Incarnation: "first", Revision: 3}, {Incarnation: "other", Revision: 1}} {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
		if err := w.rep.Wait(ctx, pos); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%+v: %v", pos, err)
		}
		cancel()
	}
}

// silentTable answers, and then its Follow says nothing any more.
type silentTable struct{ *fakeTable }

func (silentTable) Follow(ctx context.Context, _ routing.Position, _ time.Duration, _ func(table.Entry) error, alive func(time.Time, routing.Position)) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestASilentTableIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "health")
		rep, err := Open(Options{Table: silentTable{w.table}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- rep.Run(ctx) }()
		time.Sleep(9 * time.Second)
		synctest.Wait()
		first, ok := rep.Fresh()
		if s := rep.Status(); !ok || s.Err != nil {
			t.Errorf("before the silence is too long: %+v", s)
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if again, ok := rep.Fresh(); !ok || !again.After(first.Add(9*time.Second)) {
			t.Errorf("fresh as of %v, then %v", first, again)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestPausesGrow(t *testing.T) {
	for failures, most := range map[int]time.Duration{0: 50 * time.Millisecond, 3: 400 * time.Millisecond, 5: time.Second, 1000: time.Second} {
		for range 20 {
			if p := pause(failures); p < most/2 || p > most {
				t.Errorf("after %d failures: %s", failures, p)
			}
		}
	}
}
