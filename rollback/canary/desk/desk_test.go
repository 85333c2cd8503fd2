package desk

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/internal/alarm"
	"mailcutover/rollback/canary"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// shelf is a table, and every node's copy of it.
type shelf struct {
	mu    sync.Mutex
	state *routing.State
}

func (s *shelf) State() *routing.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

func (s *shelf) Wait(context.Context, routing.Position) error { return nil }

func (s *shelf) Change(_ context.Context, c table.Change) (routing.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pos := s.state.Position()
	pos.Revision++
	for i := range c.Documents {
		was, _ := s.state.Document(c.Documents[i].Key)
		if was.Revision != c.Documents[i].Revision {
			return pos, table.ErrStale
		}
		c.Documents[i].Revision = pos.Revision
	}
	next, err := s.state.Apply(routing.Update{Position: pos, Documents: c.Documents})
	if err == nil {
		s.state = next
	}
	return pos, err
}

func (s *shelf) agency(a routing.Agency) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pos := s.state.Position()
	pos.Revision++
	a.Revision = pos.Revision
	next, err := s.state.Apply(routing.Update{Position: pos, Agencies: []routing.Agency{a}})
	if err != nil {
		panic(err)
	}
	s.state = next
}

// node is one that has a canary.
type node struct {
	*Desk
	alarms *alarm.Set

	mu                 sync.Mutex
	well, ready        bool
	tries              int
	meanwhile          func() // happens during the next try
	frozen, back, told []string
}

func (n *node) set(well, ready bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.well, n.ready = well, ready
}

func (n *node) counts() (tries, frozen, back, told int) {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.tries, len(n.frozen), len(n.back), len(n.told)
}

func newShelf(t *testing.T) *shelf {
	a, err := routing.NewAgency("health", "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	a.Phase = routing.PhaseTarget
	s := &shelf{state: routing.NewState(routing.Position{Incarnation: "i", Term: 1, Revision: 1})}
	s.agency(a)
	return s
}

func newNode(s *shelf, id routing.NodeID, set Settings) *node {
	n := &node{alarms: alarm.NewSet(nil), well: true, ready: true}
	noting := func(list *[]string) func(context.Context, routing.AgencyID, string) error {
		return func(_ context.Context, _ routing.AgencyID, reason string) error {
			n.mu.Lock()
			defer n.mu.Unlock()
			*list = append(*list, reason)
			return nil
		}
	}
	told := noting(&n.told)
	n.Desk = New(Options{
		Node: id, Table: s, Replica: s, Alarms: n.alarms, Settings: func() Settings { return set },
		Configured: func(id routing.AgencyID) bool { return id == "health" },
		Ready: func() error {
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.ready {
				return nil
			}
			return errors.New("no lease")
		},
		Try: func(_ context.Context, id routing.AgencyID, _ routing.PlatformID) canary.Result {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.tries++
			well := n.well
			if n.meanwhile != nil {
				n.meanwhile()
				n.meanwhile = nil
			}
			return canary.Result{Agency: id, OK: well, Mail: "as it is"}
		},
		Freeze: noting(&n.frozen), RollBack: noting(&n.back), Failed: func(ctx context.Context, id routing.AgencyID, reason string) { _ = told(ctx, id, reason) },
	})
	return n
}

// run runs desks for a bubble's life.
func run(t *testing.T, all ...*node) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, n := range all {
		wg.Go(func() { n.Run(ctx) })
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

func (n *node) alarmed() string {
	for _, a := range n.alarms.List() {
		if a.Key == "canary/health" {
			return a.Text
		}
	}
	return ""
}

// Each node tries on its schedule; a failure is an alarm on all nodes, several are a reaction of one, and what
// is well again has neither.
func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t)
		set := Settings{Every: 10 * time.Minute, Failures: 2, React: Freeze}
		one, two := newNode(s, "mx1", set), newNode(s, "mx2", set)
		run(t, one, two)
		time.Sleep(60 * time.Minute)
		for _, n := range []*node{one, two} {
			if tries, frozen, _, told := n.counts(); tries < 4 || tries > 8 || frozen+told > 0 || n.alarmed() != "" {
				t.Errorf("%d tries, %d frozen, %d told, alarm %q", tries, frozen, told, n.alarmed())
			}
		}
		one.set(false, true)
		time.Sleep(11*time.Minute + 10*time.Second)
		if _, frozen, _, _ := one.counts(); frozen > 1 || !strings.Contains(two.alarmed(), "on node mx1 ") || one.alarmed() == "" {
			t.Errorf("%d frozen, alarm %q", frozen, two.alarmed())
		}
		time.Sleep(20 * time.Minute)
		_, frozen, back, told := one.counts()
		_, frozen2, back2, told2 := two.counts()
		if frozen != 1 || back != 0 || told != 1 || frozen2+back2+told2 != 0 {
			t.Errorf("frozen %d, %d; back %d, %d; told %d, %d", frozen, frozen2, back, back2, told, told2)
		}
		if !strings.Contains(two.alarmed(), "What followed: freeze, by node mx1") {
			t.Errorf("alarm %q", two.alarmed())
		}
		one.set(true, true)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if one.alarmed()+two.alarmed() != "" {
			t.Errorf("alarms %q, %q", one.alarmed(), two.alarmed())
		}
	})
}

// What a node is to blame for itself, and an agency that is closed, count for nothing.
func TestNothingToSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t)
		n := newNode(s, "mx1", Settings{Every: 10 * time.Minute, Failures: 1, React: Freeze})
		n.set(false, false)
		run(t, n)
		time.Sleep(time.Hour)
		if tries, frozen, _, _ := n.counts(); tries+frozen > 0 || n.alarmed() != "" {
			t.Errorf("%d tries, %d frozen, alarm %q", tries, frozen, n.alarmed())
		}
		a, _ := s.State().Agency("health")
		a.Locked, a.Epoch.Number = true, a.Epoch.Number+1
		s.agency(a)
		n.set(false, true)
		time.Sleep(time.Hour)
		if tries, _, _, _ := n.counts(); tries > 0 {
			t.Errorf("%d tries of a locked agency", tries)
		}
	})
}

// After a switch every node tries at once. An agency is rolled back only if its plan has it, and no node found
// it well; else it is frozen.
func TestAfterASwitch(t *testing.T) {
	for name, c := range map[string]struct {
		inPlan, otherWell bool
		frozen, back      int
	}{
		"in the plan":                      {true, false, 0, 1},
		"not in the plan":                  {false, false, 1, 0},
		"in the plan, and well on another": {true, true, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShelf(t)
				set := Settings{Failures: 2, React: Rollback}
				one, two := newNode(s, "mx1", set), newNode(s, "mx2", set)
				doc, err := Switched(s.State(), "health", "op-1", "mx2", c.inPlan)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Change(t.Context(), table.Change{Documents: []routing.Document{doc}}); err != nil {
					t.Fatal(err)
				}
				one.set(false, true)
				two.set(c.otherWell, true)
				// mx2 is the runner's node, and has told what it found.
				if err := two.Note(t.Context(), &canary.Result{Agency: "health", OK: c.otherWell, Mail: "runner"}, "ox"); err != nil {
					t.Fatal(err)
				}
				run(t, one, two)
				time.Sleep(3 * time.Second)
				if tries, _, _, _ := one.counts(); tries != 1 {
					t.Errorf("%d tries at once", tries)
				}
				time.Sleep(3 * time.Minute)
				_, f1, b1, _ := one.counts()
				_, f2, b2, _ := two.counts()
				if f1+f2 != c.frozen || b1+b2 != c.back {
					t.Errorf("frozen %d, back %d: want %d, %d", f1+f2, b1+b2, c.frozen, c.back)
				}
			})
		})
	}
}

// A switch isn't waited out by what was next before it: other nodes try at once, and the runner's node tries what
// failed again after a minute, and what was well on its schedule.
func TestSwitchBetweenTries(t *testing.T) {
	for _, well := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := newShelf(t)
			set := Settings{Every: 30 * time.Minute, Failures: 10, React: Alarm}
			one, two := newNode(s, "mx1", set), newNode(s, "mx2", set)
			run(t, one, two)
			time.Sleep(90 * time.Minute)
			for _, op := range []routing.OperationID{"op-1", "op-2"} {
				tries1, _, _, _ := one.counts()
				tries2, _, _, _ := two.counts()
				doc, err := Switched(s.State(), "health", op, "mx2", false)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Change(t.Context(), table.Change{Documents: []routing.Document{doc}}); err != nil {
					t.Fatal(err)
				}
				two.set(well, true)
				time.Sleep(3 * time.Second)
				synctest.Wait()
				if now, _, _, _ := one.counts(); now != tries1+1 {
					t.Errorf("%s, well %v: %d tries of another node at once", op, well, now-tries1)
				}
				if err := two.Note(t.Context(), &canary.Result{Agency: "health", OK: well, Mail: "runner"}, "ox"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(30 * time.Second)
				synctest.Wait()
				if now, _, _, _ := two.counts(); !well && now != tries2 {
					t.Errorf("%s: %d tries of the runner's node within half a minute", op, now-tries2)
				}
				time.Sleep(40 * time.Second)
				synctest.Wait()
				if now, _, _, _ := two.counts(); !well && now != tries2+1 {
					t.Errorf("%s: %d tries of the runner's node after a minute", op, now-tries2)
				}
				two.set(true, true)
				time.Sleep(35 * time.Minute)
				synctest.Wait()
				if now, _, _, _ := two.counts(); now < tries2+1 {
					t.Errorf("%s, well %v: the runner's node never tries again", op, well)
				}
			}
		})
	}
}

// An agency that people have locked, or are switching, is not rolled back under their hands, nor the moment
// they let go of it: only for what fails then.
func TestPeopleAreAtIt(t *testing.T) {
	for name, held := range map[string]func(*routing.Agency){
		"locked":    func(a *routing.Agency) { a.Locked = true },
		"operation": func(a *routing.Agency) { a.Operation = "op-2" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShelf(t)
				n := newNode(s, "mx1", Settings{Failures: 1, React: Rollback})
				doc, err := Switched(s.State(), "health", "op-1", "mx1", true)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Change(t.Context(), table.Change{Documents: []routing.Document{doc}}); err != nil {
					t.Fatal(err)
				}
				n.set(false, true)
				if err := n.Note(t.Context(), &canary.Result{Agency: "health", Mail: "put off"}, "ox"); err != nil {
					t.Fatal(err)
				}
				open, _ := s.State().Agency("health")
				a := open
				held(&a)
				a.Epoch = a.Epoch.Next()
				s.agency(a)
				run(t, n)
				time.Sleep(10 * time.Minute)
				if _, _, back, _ := n.counts(); back != 0 || n.alarmed() == "" {
					t.Errorf("%d rollbacks, alarm %q", back, n.alarmed())
				}
				n.set(true, true)
				open.Epoch = a.Epoch.Next()
				s.agency(open)
				time.Sleep(5 * time.Minute)
				if _, _, back, _ := n.counts(); back != 0 || n.alarmed() != "" {
					t.Errorf("well again: %d rollbacks, alarm %q", back, n.alarmed())
				}
			})
		})
	}
}

// A node that died before it did what follows is stood in for.
func TestAnotherNodeReacts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t)
		set := Settings{Failures: 1, React: Freeze}
		dead, alive := newNode(s, "mx1", set), newNode(s, "mx2", set)
		if err := dead.Note(t.Context(), &canary.Result{Agency: "health", Mail: "put off"}, "ox"); err != nil {
			t.Fatal(err)
		}
		run(t, alive)
		time.Sleep(30 * time.Second)
		if _, frozen, _, _ := alive.counts(); frozen != 0 {
			t.Error("it didn't wait")
		}
		time.Sleep(time.Minute)
		if _, frozen, _, _ := alive.counts(); frozen != 1 {
			t.Errorf("frozen %d times", frozen)
		}
	})
}

// What follows and fails is tried again, with pauses and an alarm, until it succeeds.
func TestAReactionThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t)
		n := newNode(s, "mx1", Settings{Failures: 1, React: Freeze})
		freeze := n.o.Freeze
		var tries atomic.Int32
		n.o.Freeze = func(ctx context.Context, id routing.AgencyID, reason string) error {
			if tries.Add(1) < 5 {
				return table.ErrUnavailable
			}
			return freeze(ctx, id, reason)
		}
		if err := n.Note(t.Context(), &canary.Result{Agency: "health", Mail: "put off"}, "ox"); err != nil {
			t.Fatal(err)
		}
		n.set(false, true)
		alarmed := func() bool {
			return slices.ContainsFunc(n.alarms.List(), func(a alarm.Alarm) bool { return a.Key == "canary/health/reaction" })
		}
		run(t, n)
		time.Sleep(31 * time.Second)
		if _, frozen, _, _ := n.counts(); frozen != 0 || tries.Load() < 2 || tries.Load() > 3 || !alarmed() {
			t.Errorf("in half a minute it was tried %d times, alarm %v", tries.Load(), alarmed())
		}
		time.Sleep(time.Minute)
		if _, frozen, _, _ := n.counts(); frozen != 1 || tries.Load() != 5 || alarmed() {
			t.Errorf("in the end it was tried %d times, frozen %d times, alarm %v", tries.Load(), frozen, alarmed())
		}
	})
}

// What was found while the agency was switched says nothing of it after the switch, whether it was well or
// not: it is tried as it is then.
func TestSwitchedDuringATry(t *testing.T) {
	for _, well := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := newShelf(t)
			n := newNode(s, "mx1", Settings{Failures: 1, React: Freeze})
			switched := func(op routing.OperationID) {
				a, _ := s.State().Agency("health")
				a.Epoch = a.Epoch.Next()
				s.agency(a)
				doc, err := Switched(s.State(), "health", op, "mx2", true)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Change(t.Context(), table.Change{Documents: []routing.Document{doc}}); err != nil {
					t.Fatal(err)
				}
			}
			switched("op-1")
			n.set(well, true)
			n.meanwhile = func() {
				switched("op-2")
				n.well = true
			}
			run(t, n)
			time.Sleep(time.Second)
			synctest.Wait()
			if r, err := RecordOf(s.State(), "health"); err != nil || len(r.Nodes) > 0 || r.Reaction != nil {
				t.Errorf("well %v: %v, %v, %v", well, r.Nodes, r.Reaction, err)
			}
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			r, err := RecordOf(s.State(), "health")
			if err != nil || r.Nodes["mx1"].Operation != "op-2" || !r.Nodes["mx1"].OK {
				t.Errorf("well %v: %v, %v", well, r.Nodes, err)
			}
			if tries, frozen, _, _ := n.counts(); tries != 2 || frozen != 0 {
				t.Errorf("well %v: %d tries, %d frozen", well, tries, frozen)
			}
		})
	}
}

// A canary that takes long is followed by that of an agency as it is then, not as it was before.
func TestSwitchedBeforeATry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t)
		b, err := routing.NewAgency("tax", "exchange", "ox")
		if err != nil {
			t.Fatal(err)
		}
		s.agency(b)
		n := newNode(s, "mx1", Settings{Failures: 1, React: Freeze})
		n.o.Configured = func(routing.AgencyID) bool { return true }
		var at []routing.PlatformID
		n.o.Try = func(_ context.Context, id routing.AgencyID, platform routing.PlatformID) canary.Result {
			if id == "health" {
				b, _ := s.State().Agency("tax")
				b.Phase, b.Epoch = routing.PhaseTarget, b.Epoch.Next()
				s.agency(b)
			} else {
				at = append(at, platform)
			}
			return canary.Result{Agency: id, OK: true}
		}
		for _, id := range []routing.AgencyID{"health", "tax"} {
			doc, err := Switched(s.State(), id, "op-1", "mx2", true)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Change(t.Context(), table.Change{Documents: []routing.Document{doc}}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { n.Run(ctx) })
		time.Sleep(time.Second)
		cancel()
		wg.Wait()
		if len(at) != 1 || at[0] != "ox" {
			t.Errorf("tried at %v", at)
		}
	})
}
