package desk

import (
	"strings"
	"testing"
	"time"

	"mailcutover/plan"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

func (w *world) lift() {
	w.t.Helper()
	if err := w.stored(func(s *routing.State) (c table.Change, err error) {
		c.Documents, _, err = plan.Lift(s, "rita", "looked", time.Now())
		return c, err
	}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) stop() *plan.Stop {
	w.t.Helper()
	s, err := plan.StopOf(w.State())
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// Whatever crosses its threshold keeps the next agency from starting, until it is lifted; then
// the wave goes on, and the same evidence doesn't stop it again.
func TestWhatStopsThePlan(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(w *world, n *node)
		cause   plan.Cause
		says    string
	}{
		"canary after a switch": {func(w *world, _ *node) {
			w.mu.Lock()
			w.broken["a"] = "the message lies on exchange"
			w.mu.Unlock()
		}, plan.ByCanary, "the message lies on exchange"},
		"canary on a schedule": {func(_ *world, n *node) {
			time.AfterFunc(40*time.Second, func() { n.desk.CanaryFailed(n.t.Context(), "a", "no login") })
		}, plan.ByCanary, "no login"},
		"crossed mailboxes": {func(_ *world, n *node) {
			n.mu.Lock()
			n.crossed["a"] = []string{"f1", "f2"}
			n.mu.Unlock()
		}, plan.ByVerify, "2 findings"},
		"drift": {func(_ *world, n *node) {
			n.mu.Lock()
			n.drift["a"] = []string{"x@a.example: another id"}
			n.mu.Unlock()
		}, plan.ByDrift, "another id"},
		"refusals": {func(_ *world, n *node) {
			time.AfterFunc(35*time.Second, func() {
				n.mu.Lock()
				n.answered, n.refused = 200, 60
				n.mu.Unlock()
			})
		}, plan.ByErrors, "platforms refused 60 of 200 recipients"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, "a", "b")
				one, two := w.node("mx1"), w.node("mx2")
				c.happens(w, two)
				one.begin()
				two.begin()
				w.propose("one", plan.Definition{Agencies: []routing.AgencyID{"a", "b"}, Bake: plan.Span(2 * time.Minute)})
				time.Sleep(90 * time.Second)
				stop := w.stop()
				if stop == nil || stop.Findings[0].Cause != c.cause || !strings.Contains(stop.Findings[0].Text, c.says) || stop.Person != "" {
					t.Fatalf("%+v", stop)
				}
				time.Sleep(2 * time.Minute)
				w.want("stopped", w.places("one"), "running a=done b=waiting")
				for _, n := range []*node{one, two} {
					if !n.alarmed("plan-stop") || !n.desk.Counts().Stopped {
						t.Errorf("%s: nobody is told", n.name)
					}
				}
				w.lift()
				time.Sleep(2 * time.Minute)
				w.want("lifted", w.places("one"), "done a=done b=done")
				if s := w.stop(); s != nil {
					t.Errorf("it is stopped again: %+v", s.Findings)
				}
				if one.alarmed("plan-stop") {
					t.Error("the alarm stays")
				}
				one.end()
				two.end()
			})
		})
	}
}

// Below its threshold nothing stops, and of what isn't a wave's nothing at all.
func TestBelowTheThreshold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "z")
		n := w.node("mx1")
		n.settings.Stop = plan.Thresholds{Canaries: 2, Findings: 3, ErrorRate: 50, Drift: 0, Aborts: 2}
		n.crossed["a"] = []string{"f1", "f2"}
		n.crossed["z"] = []string{"f3", "f4"}
		n.drift["a"] = []string{"1", "2", "3"}
		w.broken["a"] = "late"
		w.fail["b"] = "not drained"
		n.begin()
		time.AfterFunc(20*time.Second, func() {
			n.mu.Lock()
			n.answered, n.refused = 200, 99
			n.mu.Unlock()
			n.desk.CanaryFailed(t.Context(), "z", "of no wave")
		})
		w.propose("one", plan.Definition{Agencies: []routing.AgencyID{"a", "b"}})
		time.Sleep(10 * time.Minute)
		if s := w.stop(); s != nil {
			t.Errorf("%+v", s)
		}
		w.want("the wave", w.places("one"), "paused a=done b=aborted")
		// The second canary, of those that count.
		n.desk.CanaryFailed(t.Context(), "b", "no login")
		if s := w.stop(); s == nil || !strings.Contains(s.Findings[0].Text, "2 findings") {
			t.Errorf("%+v", s)
		}
		// While it is stopped, more is added to it, once.
		n.mu.Lock()
		n.crossed["a"] = []string{"f1", "f2", "f5"}
		n.mu.Unlock()
		time.Sleep(time.Minute)
		if s := w.stop(); len(s.Findings) != 2 || s.Findings[1].Cause != plan.ByVerify {
			t.Errorf("%+v", s)
		}
		// Lifted: three findings were seen, so it takes three new ones.
		w.lift()
		n.mu.Lock()
		n.crossed["a"] = []string{"f1", "f2", "f5", "f6", "f7"}
		n.mu.Unlock()
		time.Sleep(time.Minute)
		if s := w.stop(); s != nil {
			t.Errorf("two new ones: %+v", s)
		}
		n.mu.Lock()
		n.crossed["a"] = append(n.crossed["a"], "f8")
		n.mu.Unlock()
		time.Sleep(time.Minute)
		if s := w.stop(); s == nil {
			t.Error("three new ones don't stop it")
		}
		n.end()
	})
}

func TestAbortsStopThePlan(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		w.pause = 5 * time.Minute
		n := w.node("mx1").begin()
		w.fail["a"], w.fail["b"] = "not drained", "not drained"
		w.propose("one", plan.Definition{Agencies: []routing.AgencyID{"a"}})
		w.propose("two", plan.Definition{Agencies: []routing.AgencyID{"b"}})
		w.propose("three", plan.Definition{Agencies: []routing.AgencyID{"c"}, NotBefore: plan.Day{Year: 2000, Month: 1, Day: 2}})
		time.Sleep(26 * time.Hour)
		if s := w.stop(); s == nil || s.Findings[0].Cause != plan.ByAborts {
			t.Errorf("%+v", s)
		}
		w.want("a wave that had nothing to do with it", w.places("three"), "running c=waiting")
		n.end()
	})
}

// A stop that comes between a claim and its begin counts.
func TestAStopBetweenClaimAndBegin(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		n := w.node("mx1").begin()
		n.slow = make(chan struct{})
		w.propose("one", plan.Definition{Agencies: []routing.AgencyID{"a", "b"}})
		time.Sleep(2 * time.Second)
		w.want("claimed", w.places("one"), "running a=starting b=waiting")
		if err := n.desk.Stop(t.Context(), plan.Finding{Cause: plan.ByCanary, Agency: "z", Text: "somewhere else"}); err != nil {
			t.Fatal(err)
		}
		close(n.slow)
		time.Sleep(time.Second)
		w.want("order", w.order(), "")
		if r := w.wave("one").Runs[0]; r.Place != plan.Waiting || !strings.Contains(r.Why, "the plan is stopped") {
			t.Errorf("%+v", r)
		}
		n.end()
	})
}

// Nothing starts between the end of an agency whose canary failed and the stop: also without
// any bake between.
func TestTheStopComesBeforeTheNextStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		w.broken["a"] = "late"
		nodes := []*node{w.node("mx1").begin(), w.node("mx2").begin(), w.node("mx3").begin()}
		w.propose("one", plan.Definition{Agencies: []routing.AgencyID{"a", "b"}})
		time.Sleep(2 * time.Minute)
		w.want("order", w.order(), "a")
		if s := w.stop(); s == nil || len(s.Findings) != 1 {
			t.Errorf("%+v", s)
		}
		for _, n := range nodes {
			n.end()
		}
	})
}
