package operation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// onBoth runs a test on both drivers.
func onBoth(t *testing.T, f func(t *testing.T, open func(t *testing.T) table.Table)) {
	t.Run("local", func(t *testing.T) { f(t, openLocal) })
	t.Run("redis", func(t *testing.T) { f(t, redisTables(t)) })
}

// An operation on one node waits for the others, says for what, and is told as done when
// all of them have seen the opening.
func TestAcrossNodes(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(t *testing.T) table.Table) {
		c := newCluster(t, open(t), 3, nil)
		a, last := c.nodes[0], c.nodes[2]
		last.set(func(n *simNode) { n.holding = true })
		waited := false
		op, err := a.Run(t.Context(), Request{Kind: Cutover, Agency: "police", Who: "tester", Reason: "test", Progress: func(op Operation) {
			if op.Waiting == "c: waits for answers to final dots, or for sessions" {
				waited = true
				if got := last.agency("police"); got.Open() {
					t.Errorf("open on node c: %+v", got)
				}
				last.set(func(n *simNode) { n.holding = false })
			}
		}})
		if err != nil || !waited || op.Step != StepDone || len(op.Late) != 0 || len(op.Fenced) != 0 {
			t.Fatalf("%+v, %v, waited %v", op, err, waited)
		}
		for _, n := range c.nodes {
			n.stands("police", routing.PhaseTarget)
			if ops := n.replica.State().Operations(); len(ops) != 0 {
				t.Errorf("still in the table: %+v", ops)
			}
			if all, err := n.All(t.Context()); err != nil || len(all) != 1 || all[0].ID != op.ID || all[0].Step != StepDone {
				t.Errorf("node %s knows %+v, %v", n.id, all, err)
			}
		}
		all, err := c.real.Operations(t.Context())
		if err != nil || len(all) != 1 || !all[0].Ended || all[0].Step != string(StepDone) || all[0].Runner != "a" {
			t.Errorf("the table's record: %+v, %v", all, err)
		}
	})
}

// The runner dies before each write into its journal, and before and after each change of
// the table. Another node goes on with what had begun; when the first one comes back it
// says the same.
func TestTakenOver(t *testing.T) {
	t.Parallel()
	type point struct {
		write    int
		step     Step
		happened bool
	}
	points := []point{}
	for write := 1; write <= 5; write++ {
		points = append(points, point{write: write})
	}
	for _, s := range []Step{StepBegin, StepCommit, StepPublish, StepDone} {
		points = append(points, point{step: s}, point{step: s, happened: true})
	}
	run := func(t *testing.T, tb table.Table, p point) {
		c := newCluster(t, tb, 2, quick(nil))
		a, b := c.nodes[0], c.nodes[1]
		disk := &failing{Folder: a.folder, left: -1}
		if p.write > 0 {
			disk.set(p.write, errCrash)
		}
		a.journal.folder = disk
		a.table.set(func(ch table.Change, do func() (routing.Position, error)) (routing.Position, error) {
			switch {
			case disk.failed():
				return routing.Position{}, errCrash
			case p.write == 0 && strings.Contains(ch.ID, "/"+string(p.step)):
				disk.set(0, errCrash)
				if p.happened {
					if _, err := do(); err != nil {
						return routing.Position{}, err
					}
				}
				return routing.Position{}, errCrash
			}
			return do()
		})
		_, _ = a.run(Cutover, "police")
		a.goSilent()
		began := p.write > 0 || p.step != StepBegin || p.happened
		want := StepDone
		if !began {
			want = StepRefused
		} else {
			b.tended("done", func() bool { return len(b.replica.State().Operations()) == 0 })
			b.stands("police", routing.PhaseTarget)
			b.until("journaled", func() bool { return len(b.Unattended()) == 0 })
		}
		a.table.set(nil)
		a.restart()
		a.set(func(n *simNode) { n.silent, n.brief = false, false })
		a.catchUp()
		if err := a.Recover(t.Context()); err != nil {
			t.Fatalf("recover: %v", err)
		}
		if op := a.last(); op.Step != want {
			t.Errorf("the first runner says %s, want %s", op.Step, want)
		}
		if len(a.alarms.list())+len(b.alarms.list()) > 1 { // a's journal could not be written
			t.Errorf("alarms %q, %q", a.alarms.list(), b.alarms.list())
		}
		if _, err := a.run(Cutover, "health"); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
	for _, p := range points {
		t.Run(fmt.Sprintf("local-%d%s-%v", p.write, p.step, p.happened), func(t *testing.T) {
			t.Parallel()
			run(t, openLocal(t), p)
		})
	}
	open := redisTables(t)
	for _, p := range []point{{write: 2}, {step: StepCommit}, {step: StepCommit, happened: true}, {step: StepPublish, happened: true}} {
		tb := open(t)
		t.Run(fmt.Sprintf("redis-%d%s-%v", p.write, p.step, p.happened), func(t *testing.T) { t.Parallel(); run(t, tb, p) })
	}
}

// A runner is stopped in the middle of its commit; another node takes over and ends the
// operation; the first one goes on, finds that out, and stops quietly.
func TestTheOldRunnerComesBack(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(t *testing.T) table.Table) {
		for _, step := range []Step{StepCommit, StepPublish, StepDone} {
			tb := open(t)
			t.Run(string(step), func(t *testing.T) {
				t.Parallel()
				c := newCluster(t, tb, 2, quick(nil))
				a, b := c.nodes[0], c.nodes[1]
				stopped, release := make(chan struct{}), make(chan struct{})
				var once sync.Once
				a.table.set(func(ch table.Change, do func() (routing.Position, error)) (routing.Position, error) {
					if strings.Contains(ch.ID, "/"+string(step)+"/") {
						once.Do(func() { close(stopped); <-release })
					}
					return do()
				})
				ended := make(chan Operation, 1)
				go func() { op, _ := a.run(Cutover, "police"); ended <- op }()
				<-stopped
				a.goSilent()
				b.tended("done", func() bool { return len(b.replica.State().Operations()) == 0 })
				after := b.agency("police").Epoch
				a.set(func(n *simNode) { n.silent, n.brief = false, false })
				close(release)
				op := <-ended
				if op.Step != StepDone || op.Runner != "b" {
					t.Errorf("the old runner's: %+v", op)
				}
				b.stands("police", routing.PhaseTarget)
				if now := b.agency("police"); now.Epoch != after {
					t.Errorf("epoch %s, was %s: a step happened twice", now.Epoch, after)
				}
				if got := a.alarms.list(); len(got) != 0 {
					t.Errorf("alarms %q", got)
				}
				if op := a.last(); op.Step != StepDone {
					t.Errorf("its journal says %s", op.Step)
				}
			})
		}
	})
}

// All nodes tend at once, with a dead runner: one of them goes on with it.
func TestManyTakeOver(t *testing.T) {
	t.Parallel()
	c := newCluster(t, openLocal(t), 4, quick(nil))
	a := c.nodes[0]
	a.table.set(func(ch table.Change, do func() (routing.Position, error)) (routing.Position, error) {
		if strings.Contains(ch.ID, "/begin") {
			return do()
		}
		return routing.Position{}, errCrash
	})
	if op, err := a.run(Cutover, "police"); err == nil {
		t.Fatalf("no crash: %+v", op)
	}
	a.goSilent()
	before := a.agency("police").Epoch
	var wg sync.WaitGroup
	for _, n := range c.nodes[1:] {
		wg.Go(func() { n.tended("done", func() bool { return len(n.replica.State().Operations()) == 0 }) })
	}
	wg.Wait()
	c.nodes[1].stands("police", routing.PhaseTarget)
	if after := c.nodes[1].agency("police").Epoch; after.Number != before.Number+2 {
		t.Errorf("epoch %s, was %s at begin: want commit and publish, once each", after, before)
	}
}

// logins are platforms that take logins, and end each after limit.
func logins(limit time.Duration) func(routing.PlatformID) (time.Duration, bool) {
	return func(routing.PlatformID) (time.Duration, bool) { return limit, true }
}

// A silent member: how the operation goes on without it, or doesn't.
func TestSilentMembers(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(t *testing.T) table.Table) {
		for name, test := range map[string]struct {
			before, during func(c *cluster, b *simNode)
			request        Request
			running        bool // its clock goes on
			options        func(*Options)
			want           Step
			fenced         string
			atLeast        time.Duration
		}{
			"fenced by its short lease": {
				during: func(_ *cluster, b *simNode) { b.goSilent() },
				want:   StepDone, fenced: "b: its short lease and the platform's limit are over", atLeast: testShort + testLimit + testMargin,
			},
			"logins that the platform ends later": {
				during:  func(_ *cluster, b *simNode) { b.goSilent() },
				options: func(o *Options) { o.Logins = logins(testLimit + 300*time.Millisecond) },
				want:    StepDone, fenced: "b: its short lease and the platform's limit are over; its logins ended by the platform's connection limit",
				atLeast: testShort + testLimit + 300*time.Millisecond + testMargin,
			},
			"logins that nothing ends": {
				during:  func(_ *cluster, b *simNode) { b.goSilent() },
				options: func(o *Options) { o.Logins = logins(0) },
				want:    StepDone, fenced: "b: its short lease and the platform's limit are over; logins not fenced",
			},
			"logins that a hook ends": {
				during: func(_ *cluster, b *simNode) { b.goSilent() },
				options: func(o *Options) {
					o.Logins = logins(time.Hour)
					o.Hooks = &stage{hooks: []Hook{&fakeHook{s: new(stage), name: "kick", point: PointClose}}}
				},
				want: StepDone, fenced: "b: its short lease and the platform's limit are over; its logins were ended by the hook that closes the losing side",
			},
			"logins of an attested node": {
				during:  func(c *cluster, b *simNode) { b.goSilent(); c.attest("b") },
				options: func(o *Options) { o.Logins = logins(0) },
				want:    StepDone, fenced: "b: people said so; what it had under way is not known",
			},
			"the deadline is shorter": {
				during:  func(_ *cluster, b *simNode) { b.goSilent() },
				request: Request{Deadline: 400 * time.Millisecond}, want: StepAborted,
			},
			"attested while it is waited for": {
				during: func(c *cluster, b *simNode) { b.goSilent(); c.attest("b") },
				want:   StepDone, fenced: "b: people said so; what it had under way is not known",
			},
			"has given up its lease": {
				before: func(c *cluster, b *simNode) {
					b.set(func(n *simNode) { n.gaveUp = true })
					c.nodes[0].until("given up", func() bool {
						n, err := c.real.Nodes(t.Context())
						return err == nil && n.Leases["b"].LongEnd.IsZero()
					})
					b.goSilent()
				},
				want: StepDone, fenced: "b: its long lease and the platform's limit are over",
			},
			"silent, and never knew of the arming, but clocks go on": {
				before: func(c *cluster, b *simNode) {
					b.goSilent()
					c.put(c.nodes[0].agency("police").Arm())
				},
				running: true, want: StepDone, fenced: "b: its long lease and the platform's limit are over",
			},
			"silent, and never knew of the arming": {
				before: func(c *cluster, b *simNode) {
					b.goSilent()
					c.put(c.nodes[0].agency("police").Arm())
				},
				request: Request{Deadline: 300 * time.Millisecond}, want: StepRefused,
			},
		} {
			tb := open(t)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c := newCluster(t, tb, 2, quick(test.options))
				a, b := c.nodes[0], c.nodes[1]
				b.set(func(n *simNode) { n.runs = test.running })
				a.until("the clock", func() bool { m, _ := a.replica.State().Member("b"); return m.ClockRuns == test.running })
				if test.before != nil {
					test.before(c, b)
				}
				b.set(func(n *simNode) { n.holding = true })
				began := time.Now()
				var once sync.Once
				req := test.request
				req.Kind, req.Agency, req.Who, req.Reason = Cutover, "police", "tester", "test"
				req.Progress = func(op Operation) {
					if op.Step == StepDrain && test.during != nil {
						once.Do(func() { began = time.Now(); test.during(c, b) })
					}
				}
				op, err := a.Run(t.Context(), req)
				if op.Step != test.want || (err == nil) != (test.want == StepDone) {
					t.Fatalf("%s, %v; want %s", op.Step, err, test.want)
				}
				if got := strings.Join(op.Fenced, ","); got != test.fenced || time.Since(began) < test.atLeast {
					t.Errorf("fenced %q after %s, want %q after %s", got, time.Since(began), test.fenced, test.atLeast)
				}
			})
		}
	})
}

// attest says that a node's instance can deliver no more.
func (c *cluster) attest(id routing.NodeID) {
	m, _ := c.nodes[0].replica.State().Member(id)
	m.Attested = m.Instance
	pos := c.nodes[0].replica.State().Position()
	if _, err := c.real.Change(c.t.Context(), table.Change{ID: "attest-" + string(id), Incarnation: pos.Incarnation, Term: pos.Term, Members: []routing.Member{m}, Who: "test", What: "attest"}); err != nil {
		c.t.Error(err)
	}
}

// Time and the counter decide on a fence, whatever the order in which they are seen.
func TestFences(t *testing.T) {
	began := time.Unix(1000, 0)
	leases := Leases{Short: 10 * time.Second, Long: time.Minute, Margin: 2 * time.Second}
	const limit = 30 * time.Second
	base := table.Lease{Node: "b", Instance: "i1", Counter: 7, ShortEnd: began.Add(10 * time.Second), LongEnd: began.Add(time.Minute), Term: 1, Applied: 100}
	for name, c := range map[string]struct {
		lease   func(l *table.Lease)
		member  func(m *routing.Member)
		running bool                                 // its clock goes on
		alone   bool                                 // one person's word is enough
		later   func(n *table.Nodes, l *table.Lease) // what else happens by 20 s
		kind    table.FenceKind
		at      time.Duration // from when it is there; 0: never
	}{
		"short":                          {kind: table.FenceShort, at: 42 * time.Second},
		"a longer lease than here":       {lease: func(l *table.Lease) { l.ShortEnd = began.Add(25 * time.Second) }, kind: table.FenceShort, at: 57 * time.Second},
		"it renewed once more":           {later: func(_ *table.Nodes, l *table.Lease) { l.Counter++ }, kind: table.FenceShort, at: 62 * time.Second},
		"another server":                 {later: func(n *table.Nodes, _ *table.Lease) { n.Server = "s2" }, kind: table.FenceShort, at: 62 * time.Second},
		"the table's clock lags":         {lease: func(l *table.Lease) { l.ShortEnd = began.Add(50 * time.Second) }, kind: table.FenceShort, at: 82 * time.Second},
		"didn't know":                    {lease: func(l *table.Lease) { l.Applied = 99 }},
		"didn't know, of an older term":  {lease: func(l *table.Lease) { l.Term = 0 }},
		"didn't know, but clocks go on":  {lease: func(l *table.Lease) { l.Applied = 99 }, running: true, kind: table.FenceLong, at: 92 * time.Second},
		"another instance registered":    {member: func(m *routing.Member) { m.Instance = "i2" }},
		"given up":                       {lease: func(l *table.Lease) { l.ShortEnd, l.LongEnd = time.Time{}, time.Time{} }, kind: table.FenceLong, at: 1},
		"given up, but for a doubt":      {lease: func(l *table.Lease) { l.ShortEnd = began.Add(20 * time.Second); l.LongEnd = l.ShortEnd }, kind: table.FenceLong, at: 20500 * time.Millisecond},
		"attested by one, no emergency":  {lease: func(l *table.Lease) { l.Applied = 99 }, member: func(m *routing.Member) { m.Attested, m.Unconfirmed = "i1", "e" }},
		"attested by one":                {member: func(m *routing.Member) { m.Attested, m.Unconfirmed = "i1", "e" }, alone: true, kind: table.FenceAttested, at: 1},
		"attested":                       {member: func(m *routing.Member) { m.Attested = "i1" }, kind: table.FenceAttested, at: 1},
		"an older instance was attested": {member: func(m *routing.Member) { m.Attested = "i0" }, kind: table.FenceShort, at: 42 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			l, m := base, routing.Member{Node: "b", Instance: "i1"}
			if c.lease != nil {
				c.lease(&l)
			}
			if c.member != nil {
				c.member(&m)
			}
			m.ClockRuns = c.running
			s := newStands(leases)
			n := table.Nodes{Position: routing.Position{Term: 1}, Server: "s1", Members: []routing.Member{m}}
			l.Server = n.Server
			var at time.Duration
			var kind table.FenceKind
			for step := time.Duration(0); step < 3*time.Minute && at == 0; step += 500 * time.Millisecond {
				if step == 20*time.Second && c.later != nil {
					c.later(&n, &l)
				}
				now := began.Add(step)
				n.Time, n.Leases = now, map[routing.NodeID]table.Lease{"b": l}
				s.look(now, &n)
				_, fences, ready := s.judge(now, &n, wish{applied: 150, base: 100, limit: limit, alone: c.alone, drained: []table.AgencyEpoch{{Agency: "police"}}}, nil)
				if ready {
					at, kind = max(step, 1), fences[0].Kind
				}
			}
			if at != c.at || kind != c.kind {
				t.Errorf("%s after %s, want %s after %s", kind, at, c.kind, c.at)
			}
		})
	}
}

// A node comes between the drain and the commit: the commit is refused, and waits for it.
func TestANodeComesBeforeCommit(t *testing.T) {
	t.Parallel()
	c := newCluster(t, openLocal(t), 1, nil)
	a := c.nodes[0]
	var late *simNode
	var once sync.Once
	refused := 0
	a.table.set(func(ch table.Change, do func() (routing.Position, error)) (routing.Position, error) {
		if !strings.Contains(ch.ID, "/commit/") {
			return do()
		}
		once.Do(func() {
			late = c.startNode("late", func(*Options) {}, func(n *simNode) { n.holding = true })
		})
		pos, err := do()
		if errors.Is(err, table.ErrGuard) {
			refused++
			late.set(func(n *simNode) { n.holding = false })
		}
		return pos, err
	})
	op, err := a.run(Cutover, "police")
	if err != nil || op.Step != StepDone {
		t.Errorf("%+v, %v", op, err)
	}
	if len(op.Nodes) != 2 || refused == 0 {
		t.Errorf("nodes %+v, refused %d times", op.Nodes, refused)
	}
	a.stands("police", routing.PhaseTarget)
}

// What the table refuses: a freeze, and a member of another protocol.
func TestWhatForbidsToBegin(t *testing.T) {
	t.Parallel()
	c := newCluster(t, openLocal(t), 1, nil)
	a := c.nodes[0]
	c.store(table.Change{Freezes: []routing.Freeze{{Agency: "police", Who: "ben", Reason: "holiday"}}})
	if _, err := a.run(Cutover, "police"); !errors.Is(err, ErrFrozen) || !strings.Contains(err.Error(), "by ben: holiday") {
		t.Errorf("frozen: %v", err)
	}
	// A freeze that this node doesn't know of yet is the table's business.
	var once sync.Once
	a.table.set(func(ch table.Change, do func() (routing.Position, error)) (routing.Position, error) {
		once.Do(func() {
			c.store(table.Change{Freezes: []routing.Freeze{{Agency: "health", Who: "ben", Reason: "holiday"}}})
		})
		return do()
	})
	if op, err := a.run(Cutover, "health"); !errors.Is(err, table.ErrGuard) && !errors.Is(err, ErrFrozen) || op.Step != StepRefused {
		t.Errorf("frozen meanwhile: %+v, %v", op, err)
	}
	a.stands("health", routing.PhaseSource)
	if got := a.alarms.list(); len(got) != 0 {
		t.Errorf("alarms %q", got)
	}
}

// Nodes that don't see the opening in time are named, and keep nothing back.
func TestLateNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, openLocal(t), 2, quick(nil))
	a, b := c.nodes[0], c.nodes[1]
	a.table.set(func(ch table.Change, do func() (routing.Position, error)) (routing.Position, error) {
		if strings.Contains(ch.ID, "/publish/") {
			b.goSilent()
		}
		return do()
	})
	began := time.Now()
	op, err := a.run(Cutover, "police")
	if err != nil || op.Step != StepDone || time.Since(began) < testLong-2*testRenew {
		t.Errorf("%+v, %v, after %s", op, err, time.Since(began))
	}
	b.set(func(n *simNode) { n.silent, n.brief = false, false })
	if len(op.Late) != 0 {
		t.Errorf("late %v: its lease was over", op.Late)
	}
}

// People end operations from any node.
func TestAbortAndPublishFromAnotherNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, openLocal(t), 2, nil)
	a, b := c.nodes[0], c.nodes[1]
	b.set(func(n *simNode) { n.holding = true })
	start := func() (<-chan Operation, routing.OperationID) {
		ended, drains := make(chan Operation, 1), make(chan routing.OperationID, 1)
		go func() {
			var once sync.Once // it may wait for one node after the other
			op, _ := a.Run(context.Background(), Request{Kind: Cutover, Agency: "police", Who: "tester", Reason: "test", Progress: func(op Operation) {
				if op.Step == StepDrain && op.Waiting != "" || op.Step == StepPublish {
					once.Do(func() { drains <- op.ID })
				}
			}})
			ended <- op
		}()
		return ended, <-drains
	}
	for _, n := range []*simNode{a, b} {
		ended, id := start()
		n.catchUp()
		if _, err := n.Publish(t.Context(), id, "ben", "redis-2"); !errors.Is(err, ErrNotCommitted) {
			t.Errorf("publish before commit on %s: %v", n.id, err)
		}
		op, err := n.Abort(t.Context(), id, "ben", "too early")
		if err != nil || op.Step != StepAborted || !strings.Contains(op.Error, "aborted by ben: too early") {
			t.Errorf("abort on %s: %+v, %v", n.id, op, err)
		}
		if op := <-ended; op.Step != StepAborted {
			t.Errorf("its runner says %+v", op)
		}
		a.stands("police", routing.PhaseSource)
	}
	if _, err := a.Abort(t.Context(), "nobody", "ben", "x"); !errors.Is(err, ErrNoOperation) {
		t.Errorf("unknown: %v", err)
	}
	b.set(func(n *simNode) { n.holding = false })
	for i, n := range []*simNode{a, b} {
		var dead atomic.Bool
		dead.Store(true)
		a.table.unconfirmed(func() error {
			if dead.Load() {
				return fmt.Errorf("replica is missing: %w", table.ErrUnavailable)
			}
			return nil
		})
		kind := []Kind{Cutover, Rollback}[i]
		ended := make(chan Operation, 1)
		go func() {
			op, _ := a.Run(context.Background(), Request{Kind: kind, Agency: "health", Who: "tester", Reason: "test"})
			ended <- op
		}()
		n.until("committed", func() bool { a, _ := n.replica.State().Agency("health"); return a.Operation != "" && !a.Published })
		id := n.agency("health").Operation
		if _, err := n.Abort(t.Context(), id, "ben", "too late"); !errors.Is(err, ErrCommitted) {
			t.Errorf("abort after commit on %s: %v", n.id, err)
		}
		op, err := n.Publish(t.Context(), id, "ben", "redis-2")
		if err != nil || op.Step != StepDone || op.WithoutReplica != "redis-2" {
			t.Errorf("publish on %s: %+v, %v", n.id, op, err)
		}
		dead.Store(false)
		if op := <-ended; op.Step != StepDone {
			t.Errorf("its runner says %+v", op)
		}
	}
}
