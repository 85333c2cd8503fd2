package operation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// An emergency ends what is under way, from another node than the one that runs it, and
// ends on the source platform. In between, the agency is never open on the target.
func TestEmergencyEndsOtherOperations(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind      Kind
		committed bool
		old       Step // how the other operation ends
		refused   bool
	}{
		"cutover before commit":       {kind: Cutover, old: StepAborted},
		"cutover that was committed":  {kind: Cutover, committed: true, old: StepDone},
		"rollback before commit":      {kind: Rollback, old: StepAborted},
		"rollback that was committed": {kind: Rollback, committed: true, old: StepDone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t, openLocal(t), 2, nil)
			a, b := cl.nodes[0], cl.nodes[1]
			if c.kind == Rollback {
				if _, err := a.run(Cutover, "police"); err != nil {
					t.Fatal(err)
				}
			}
			var blocked atomic.Bool
			blocked.Store(true)
			if c.committed {
				a.table.unconfirmed(func() error {
					if blocked.Load() {
						return fmt.Errorf("no replica: %w", table.ErrUnavailable)
					}
					return nil
				})
			} else {
				b.set(func(n *simNode) { n.holding = true })
			}
			ended := make(chan Operation, 1)
			go func() {
				op, _ := a.Run(context.Background(), Request{Kind: c.kind, Agency: "police", Who: "tester", Reason: "test"})
				ended <- op
			}()
			b.until("under way", func() bool {
				got, _ := b.replica.State().Agency("police")
				return got.Operation != "" && got.Published != c.committed
			})
			opened := false
			watch := b.replica.State().Position()
			seen := make(chan struct{})
			ctx, cancel := context.WithCancel(context.Background())
			go func() {
				defer close(seen)
				_ = cl.real.Follow(ctx, watch, time.Second, func(e table.Entry) error {
					for _, rec := range e.Agencies {
						opened = opened || rec.Open() && rec.Phase.OnTarget()
					}
					return nil
				}, func(time.Time, routing.Position) {})
			}()
			op, err := b.Run(t.Context(), Request{Kind: Rollback, Agency: "police", Who: "ben", Reason: "fire", Emergency: true, Progress: func(op Operation) {
				if op.Step == StepDrain {
					b.set(func(n *simNode) { n.holding = false })
				}
			}})
			if err != nil || op.Step != StepDone || len(op.Ends) != 1 {
				t.Fatalf("%+v, %v", op, err)
			}
			blocked.Store(false)
			if old := <-ended; old.Step != c.old || !strings.Contains(old.Error, "ended by the emergency") {
				t.Errorf("the other: %+v", old)
			}
			cancel()
			<-seen
			if opened {
				t.Error("it was open on the target")
			}
			b.stands("police", routing.PhaseSource)
			if got := b.agency("police"); got.Unconfirmed != routing.Emergencies(op.ID) {
				t.Errorf("unconfirmed %q, want %q", got.Unconfirmed, op.ID)
			}
			if _, err := b.run(Cutover, "police"); !errors.Is(err, routing.ErrUnconfirmed) {
				t.Errorf("before it is confirmed: %v", err)
			}
			if got := append(a.alarms.list(), b.alarms.list()...); len(got) != 0 {
				t.Errorf("alarms %q", got)
			}
		})
	}
}

// A freeze keeps no emergency back. With a dead target, what is in doubt there is listed,
// and a silent node is not passed without its fence.
func TestTargetDead(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(t *testing.T) table.Table) {
		c := newCluster(t, open(t), 3, nil)
		a, b, silent := c.nodes[0], c.nodes[1], c.nodes[2]
		for _, id := range []routing.AgencyID{"health-pilot", "health"} {
			if _, err := a.run(Cutover, id); err != nil {
				t.Fatal(err)
			}
		}
		c.store(table.Change{Freezes: []routing.Freeze{{Who: "ben", Reason: "holiday"}}})
		b.set(func(n *simNode) {
			n.doubts = []table.Doubt{{Agency: "health", Messages: 2, Until: time.Now().Add(time.Hour)}}
		})
		// It isn't fenced by time for long: there is time for people's word.
		silent.goSilent()
		attested := false
		op, err := a.Run(t.Context(), Request{Kind: Rollback, Agency: "health", Who: "ben", Reason: "fire", Emergency: true, TargetDead: true, Progress: func(op Operation) {
			if op.Step == StepDrain && strings.Contains(op.Waiting, "c: silent") && !attested {
				if got, _ := a.replica.State().Agency("health"); got.Open() {
					t.Error("open before the fence")
				}
				attested = true
				c.attest("c")
			}
		}})
		if err != nil || op.Step != StepDone || !attested {
			t.Fatalf("%+v, %v", op, err)
		}
		listed := func(s string) bool { return strings.Contains(s, "b: 2 of health in doubt until") }
		if !slices.ContainsFunc(op.Listed, listed) || fmt.Sprint(op.Fenced) != "[c: people said so; what it had under way is not known]" {
			t.Errorf("listed %q, fenced %q", op.Listed, op.Fenced)
		}
		a.stands("health", routing.PhaseSource)
		a.stands("health-pilot", routing.PhaseSource)
	})
}

// A node that stood still before the emergency began, and had seen that the agency is armed,
// is passed when its short lease is over, without anybody's word: it can't have seen the
// closing, and needn't have. What it had on its way to the dead platform isn't waited for.
func TestTargetDeadAndASilentNode(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(t *testing.T) table.Table) {
		c := newCluster(t, open(t), 3, quick(func(o *Options) {
			o.Limit = func(routing.PlatformID) time.Duration { return time.Hour }
			o.Logins = logins(0)
		}))
		a, silent := c.nodes[0], c.nodes[2]
		if _, err := a.run(Cutover, "police"); err != nil {
			t.Fatal(err)
		}
		silent.until("the opening", func() bool {
			n, _ := c.real.Nodes(t.Context())
			return n.Leases["c"].Applied >= a.replica.State().Position().Revision
		})
		silent.goSilent()
		op, err := a.Run(t.Context(), Request{Kind: Rollback, Agency: "police", Who: "ben", Reason: "fire", Emergency: true, TargetDead: true})
		if err != nil || op.Step != StepDone {
			t.Fatalf("%+v, %v", op, err)
		}
		if got := strings.Join(op.Fenced, ","); got != "c: its short lease is over; its logins end with the platform" {
			t.Errorf("fenced %q", got)
		}
		if took := op.ClosedFor(); took > 10*time.Minute { // the platform's limit is an hour
			t.Errorf("closed for %s", took)
		}
		a.stands("police", routing.PhaseSource)
	})
}

// An emergency has no deadline and outlives its runner: another node, or the next start,
// goes on with it.
func TestEmergencyOutlivesItsRunner(t *testing.T) {
	t.Parallel()
	c := newCluster(t, openLocal(t), 1, nil)
	a := c.nodes[0]
	if _, err := a.run(Cutover, "police"); err != nil {
		t.Fatal(err)
	}
	a.set(func(n *simNode) { n.holding = true })
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	op, err := a.Run(ctx, Request{Kind: Rollback, Agency: "police", Who: "ben", Reason: "fire", Emergency: true, Progress: func(op Operation) {
		if op.Waiting != "" {
			cancel(ErrStopping)
		}
	}})
	if err == nil || op.Step != StepDrain {
		t.Fatalf("%+v, %v", op, err)
	}
	a.restart()
	a.set(func(n *simNode) { n.holding = false })
	if err := a.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.tended("done", func() bool { return len(a.replica.State().Operations()) == 0 })
	a.stands("police", routing.PhaseSource)
}
