package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/internal/durable"
	"mailcutover/internal/durable/memdisk"
	"mailcutover/routing"
	"mailcutover/routing/replica"
	"mailcutover/routing/table"
)

// fakeTable is a table in memory: the rules are those of every driver, the ways in which it
// fails are the test's.
type fakeTable struct {
	options func(*KeeperOptions) // alters those of the next node; nil: nothing

	mu       sync.Mutex
	book     *table.Book
	server   table.Server
	state    *routing.State
	ids      map[string]bool
	down     error
	hang     chan struct{} // calls wait for its end
	noProof  error         // of Confirm
	checks   [][]table.AgencyEpoch
	renewals []table.Renewal
	copies   []*fakeCopy
}

func newFakeTable(t *testing.T, agencies ...routing.AgencyID) *fakeTable {
	t.Helper()
	f := &fakeTable{server: table.Server{Run: "one"}, ids: make(map[string]bool)}
	pos := routing.Position{Incarnation: "i", Revision: 1, Mapped: 1, Term: 1}
	f.book = table.NewBook(pos, f.server, time.Now())
	f.state = routing.NewState(pos)
	for i, id := range agencies {
		rec, err := routing.NewAgency(id, "exchange", "ox")
		if err != nil {
			t.Fatal(err)
		}
		m, err := routing.NewMapping(id, []routing.Row{{
			Mailbox: routing.MailboxID{1, byte(i)}, Kind: routing.KindUser, Addresses: []routing.Address{anna(id)},
		}})
		if err != nil {
			t.Fatal(err)
		}
		rec.Mapping = m.Digest()
		f.apply(routing.Update{Agencies: []routing.Agency{rec}, Mappings: []*routing.Mapping{m}, Domains: []routing.Domain{{Name: string(id) + ".example"}}})
	}
	return f
}

func anna(id routing.AgencyID) routing.Address { return routing.Address("anna@" + id + ".example") }

// apply makes the next revision, which the copies see. f.mu is held, or nobody else is there.
func (f *fakeTable) apply(u routing.Update) {
	f.book.Position.Revision++
	f.publish(u)
}

func (f *fakeTable) publish(u routing.Update) {
	u.Position = f.book.Position
	next, err := f.state.Apply(u)
	if err != nil {
		panic(err)
	}
	f.state = next
	for _, c := range f.copies {
		c.follow(next)
	}
}

// do changes the table, or how it fails.
func (f *fakeTable) do(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// change puts an agency's next record into force.
func (f *fakeTable) change(t *testing.T, id routing.AgencyID, next func(routing.Agency) (routing.Agency, error)) routing.Agency {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	was, _ := f.state.Agency(id)
	rec, err := next(was.InTerm(f.book.Position.Term))
	if err != nil {
		t.Fatal(err)
	}
	f.apply(routing.Update{Agencies: []routing.Agency{rec}})
	return rec
}

func arm(a routing.Agency) (routing.Agency, error) { return a.Arm(), nil }

func begin(a routing.Agency) (routing.Agency, error) { return a.Begin("op", 7, routing.EventBegin) }

func (f *fakeTable) reach(ctx context.Context) error {
	f.mu.Lock()
	hang, down := f.hang, f.down
	f.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", table.ErrUnavailable, ctx.Err())
		}
	}
	return down
}

func (f *fakeTable) Renew(ctx context.Context, r table.Renewal) (table.Renewed, error) {
	if err := errors.Join(r.Check(), f.reach(ctx)); err != nil {
		return table.Renewed{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.renewals = append(f.renewals, r)
	renewed, note, err := f.book.Renew(time.Now(), f.server, &r, f.state.Agency)
	if note != nil {
		f.publish(routing.Update{Members: note.Members, Above: note.Above, Documents: note.Documents})
	}
	return renewed, err
}

func (f *fakeTable) Check(ctx context.Context, c table.Check) error {
	if err := errors.Join(c.Check(), f.reach(ctx)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checks = append(f.checks, slices.Clone(c.Agencies))
	return f.book.Check(time.Now(), f.server, &c, f.state.Agency)
}

func (f *fakeTable) Nodes(context.Context) (table.Nodes, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.book.Nodes(time.Now(), f.server), nil
}

func (f *fakeTable) Operations(context.Context) ([]routing.Operation, error) { return nil, nil }

func (f *fakeTable) Change(ctx context.Context, c table.Change) (routing.Position, error) {
	if err := errors.Join(c.Check(), f.reach(ctx)); err != nil {
		return routing.Position{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ids[c.ID] {
		return routing.Position{}, table.ErrReused
	}
	if f.book.Rejoining && !c.Guard.Rejoining {
		return routing.Position{}, table.ErrRejoining
	}
	f.ids[c.ID] = true
	f.apply(routing.Update{Agencies: c.Agencies})
	return f.book.Position, nil
}

func (f *fakeTable) Confirm(ctx context.Context) error {
	if err := f.reach(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.noProof
}

func (f *fakeTable) lease(node routing.NodeID) table.Lease {
	n, _ := f.Nodes(context.Background())
	return n.Leases[node]
}

// fakeCopy is a copy that follows at once, unless it is stopped.
type fakeCopy struct {
	mu      sync.Mutex
	state   *routing.State
	stopped bool
	missed  []*routing.State
	high    replica.Marks
	moved   chan struct{}
	gate    *Gate
}

func (c *fakeCopy) follow(s *routing.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		c.missed = append(c.missed, s)
		return
	}
	old := c.state
	c.state = s
	if p := s.Position(); p.Term > c.high.Term || p.Term == c.high.Term && p.Revision > c.high.Revision {
		c.high = replica.Marks{Incarnation: p.Incarnation, Term: p.Term, Revision: p.Revision}
	}
	if c.gate != nil {
		c.gate.Update(old, s)
	}
	close(c.moved)
	c.moved = make(chan struct{})
}

// stop ends the following, or lets it catch up.
func (c *fakeCopy) stop(stopped bool) {
	c.mu.Lock()
	missed := c.missed
	c.stopped, c.missed = stopped, nil
	c.mu.Unlock()
	for _, s := range missed {
		c.follow(s)
	}
}

func (c *fakeCopy) State() *routing.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

func (c *fakeCopy) Fresh() (time.Time, bool) { return time.Now(), true }

func (c *fakeCopy) Marks() replica.Marks {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.high
	for _, id := range c.state.Regressed() {
		seen, _ := c.state.Seen(id)
		m.Above = append(m.Above, seen)
	}
	return m
}

func (c *fakeCopy) Wait(ctx context.Context, pos routing.Position) error {
	for {
		c.mu.Lock()
		now, moved := c.state.Position(), c.moved
		c.mu.Unlock()
		if now.Term > pos.Term || now.Term == pos.Term && now.Revision >= pos.Revision {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// fakeNode is a node without a mail side.
type fakeNode struct {
	*Keeper
	t    *testing.T
	copy *fakeCopy
	gate *Gate
	end  func()
}

func (f *fakeTable) start(t *testing.T, name routing.NodeID, disk durable.Disk) *fakeNode {
	t.Helper()
	n := &fakeNode{t: t, copy: &fakeCopy{moved: make(chan struct{}), state: routing.NewState(routing.Position{})}}
	var err error
	o := KeeperOptions{
		Table: f, Replica: n.copy, Node: name, Lease: lease, Dir: "/d", Disk: disk, Logger: slog.New(slog.DiscardHandler),
	}
	if f.options != nil {
		f.options(&o)
	}
	n.Keeper, err = OpenKeeper(o)
	if err != nil {
		t.Fatal(err)
	}
	n.gate = NewGate(n.copy, n.Keeper, "")
	n.Attach(n.gate)
	f.do(func() {
		n.copy.gate = n.gate
		n.copy.follow(f.state)
		f.copies = append(f.copies, n.copy)
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = n.Run(ctx) }()
	n.end = func() {
		cancel()
		<-done
		f.do(func() { f.copies = slices.DeleteFunc(f.copies, func(c *fakeCopy) bool { return c == n.copy }) })
	}
	t.Cleanup(n.end)
	return n
}

// want checks what the node decides for an agency.
func (n *fakeNode) want(when string, id routing.AgencyID, reason routing.Reason) {
	n.t.Helper()
	if d := n.gate.Address(anna(id)); d.Reason != reason {
		n.t.Errorf("%s: %s: %s, want %s; status %+v", when, id, d.Reason, reason, n.Status())
	}
}

func (n *fakeNode) enter(id routing.AgencyID, cut func()) *Ticket {
	n.t.Helper()
	d := n.gate.Address(anna(id))
	ticket, err := n.gate.Enter(&d, cut)
	if err != nil {
		n.t.Fatal(err)
	}
	return ticket
}

func (n *fakeNode) trouble(key string) bool { _, ok := n.Troubles()[key]; return ok }

// settle lets everything happen that happens at once.
func settle() {
	time.Sleep(2 * leastPause)
	synctest.Wait()
}

func TestTheRightIsWhatTheTableGranted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "health", "works")
		f.change(t, "works", arm)
		f.down = table.ErrUnavailable
		n := f.start(t, "mx1.example", memdisk.New())
		settle()
		n.want("before the first renewal", "health", routing.ReasonTableUnavail)
		f.do(func() { f.down = nil })
		time.Sleep(time.Second)
		n.want("granted", "health", routing.ReasonOpen)
		n.want("granted", "works", routing.ReasonOpen)
		time.Sleep(time.Hour)
		n.want("renewed", "works", routing.ReasonOpen)

		f.do(func() { f.down = table.ErrUnavailable })
		ends := n.Status()
		time.Sleep(time.Until(ends.ArmedUntil) - 1)
		n.want("just before the short end", "works", routing.ReasonOpen)
		time.Sleep(time.Nanosecond)
		n.want("at the short end", "works", routing.ReasonTableUnavail)
		n.want("at the short end", "health", routing.ReasonOpen)
		if !n.trouble("node-lease-armed") {
			t.Errorf("troubles: %q", n.Troubles())
		}
		time.Sleep(time.Until(ends.SettledUntil) - 1)
		n.want("just before the long end", "health", routing.ReasonOpen)
		time.Sleep(time.Nanosecond)
		n.want("at the long end", "health", routing.ReasonTableUnavail)
		if l := f.lease("mx1.example"); l.ShortEnd.Sub(ends.ArmedUntil) < lease.Margin || l.LongEnd.Sub(ends.SettledUntil) < lease.Margin {
			t.Errorf("the table's ends, %s and %s, are not a margin after the node's", l.ShortEnd, l.LongEnd)
		}
		if !n.trouble("node-lease") || n.gate.Ready() == nil {
			t.Errorf("troubles: %q", n.Troubles())
		}

		// Back, but the copy is not where the table stands.
		n.copy.stop(true)
		f.change(t, "works", begin)
		f.do(func() { f.down = nil })
		time.Sleep(5 * time.Second)
		n.want("renewed with an old copy", "health", routing.ReasonTableUnavail)
		n.copy.stop(false)
		time.Sleep(time.Second)
		n.want("with a new copy", "health", routing.ReasonOpen)
		n.want("with a new copy", "works", routing.ReasonInPhase)
	})
}

// A platform's answer after a lapse is not passed on, even if the lease was renewed since.
func TestAnAnswerOfAnotherLifeIsNotPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "health")
		n := f.start(t, "mx1.example", memdisk.New())
		settle()
		ticket, early := n.enter("health", nil), n.enter("health", nil)
		if err := errors.Join(ticket.Dot(t.Context()), early.Dot(t.Context())); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := early.Acknowledge(); err != nil {
			t.Errorf("within the life: %v", err)
		}
		f.do(func() { f.down = table.ErrUnavailable })
		time.Sleep(lease.Settled)
		f.do(func() { f.down = nil })
		time.Sleep(5 * time.Second)
		n.want("renewed", "health", routing.ReasonOpen)
		if err := ticket.Acknowledge(); !errors.Is(err, ErrLapsed) {
			t.Errorf("250 of the platform after a lapse: %v, want ErrLapsed", err)
		}
	})
}

func TestArmedAgenciesAreCheckedBeforeTheDot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "health", "works")
		n := f.start(t, "mx1.example", memdisk.New())
		settle()
		// Decided while it was settled: what counts is what it is at the dot.
		ticket := n.enter("works", nil)
		f.change(t, "works", arm)
		if err := errors.Join(ticket.Dot(t.Context()), n.enter("health", nil).Dot(t.Context())); err != nil {
			t.Fatal(err)
		}
		if len(f.checks) != 1 || len(f.checks[0]) != 1 || f.checks[0][0].Agency != "works" {
			t.Errorf("checks: %v", f.checks)
		}
		// Another node has begun, and this copy doesn't know yet.
		n.copy.stop(true)
		late, login := n.enter("works", nil), n.enter("works", nil)
		f.change(t, "works", begin)
		if err := late.Dot(t.Context()); !errors.Is(err, ErrClosed) || errors.Is(err, ErrLapsed) || !errors.Is(err, table.ErrStale) {
			t.Errorf("dot after a begin elsewhere: %v", err)
		}
		if err := login.Open(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("login after a begin elsewhere: %v", err)
		}
	})
}

func TestACheckWithoutAnAnswerIsANo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "works")
		f.change(t, "works", arm)
		n := f.start(t, "mx1.example", memdisk.New())
		settle()
		first, second := n.enter("works", nil), n.enter("works", nil)
		f.do(func() { f.hang = make(chan struct{}) })
		for _, ticket := range []*Ticket{first, second} {
			began := time.Now()
			if err := ticket.Dot(t.Context()); !errors.Is(err, ErrLapsed) || time.Since(began) > CheckTimeout {
				t.Errorf("after %s: %v", time.Since(began), err)
			}
		}
		f.do(func() { close(f.hang); f.hang = nil })
		settle()
		if err := n.enter("works", nil).Dot(t.Context()); err != nil {
			t.Errorf("when it answers again: %v", err)
		}
	})
}

// The lease is looked at again after a check, which takes its time.
func TestALeaseThatEndsDuringACheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "works")
		f.change(t, "works", arm)
		n := f.start(t, "mx1.example", memdisk.New())
		settle()
		n.end() // nothing is renewed any more; the checks are asked by hand
		ticket := n.enter("works", nil)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); n.answerChecks(ctx) }()
		time.Sleep(time.Until(n.Status().ArmedUntil) - CheckTimeout/2)
		f.do(func() { f.hang = make(chan struct{}) })
		time.AfterFunc(CheckTimeout*3/4, func() { f.do(func() { close(f.hang); f.hang = nil }) })
		if err := ticket.Dot(t.Context()); !errors.Is(err, ErrLapsed) || len(f.checks) != 1 {
			t.Errorf("dot after the lease: %v, checks %v", err, f.checks)
		}
		cancel()
		<-done
	})
}

// What was decided by a record that the table lost is cut.
func TestALostRecordCutsWhatItDecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		first := b.rec
		b.begin()
		b.change(func(a routing.Agency) (routing.Agency, error) { return a.Commit("op", 1) })
		b.change(func(a routing.Agency) (routing.Agency, error) { return a.Publish("op") })
		cut := 0
		ticket := b.enter(func() { cut++ })
		b.change(func(routing.Agency) (routing.Agency, error) { return first, nil })
		if err := ticket.Dot(t.Context()); !errors.Is(err, ErrClosed) || cut != 1 {
			t.Errorf("dot of a decision that the table lost: %v, cut %d times", err, cut)
		}
		if got := b.Drained(); len(got) != 0 {
			t.Errorf("drained at an epoch that was lost: %v", got)
		}
	})
}

// A message's recipients have one question, and all dots or none.
func TestDotsOfOneMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "a", "b", "health")
		f.change(t, "a", arm)
		f.change(t, "b", arm)
		n := f.start(t, "mx1.example", memdisk.New())
		settle()
		all := []*Ticket{n.enter("a", nil), n.enter("health", nil), n.enter("b", nil), n.enter("a", nil)}
		if err := Dots(t.Context(), all...); err != nil || len(f.checks) != 1 || len(f.checks[0]) != 2 {
			t.Errorf("%v, checks %v", err, f.checks)
		}
		if l := n.gate.Load("a"); l.Dotted != 2 {
			t.Errorf("%+v", l)
		}
		some := []*Ticket{n.enter("health", nil), n.enter("b", nil)}
		n.copy.stop(true)
		f.change(t, "b", begin)
		if err := Dots(t.Context(), some...); !errors.Is(err, ErrClosed) || n.gate.Load("health").Dotted != 1 {
			t.Errorf("with one that has moved on: %v, %+v", err, n.gate.Load("health"))
		}
		if err := Dots(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// While one question is under way, all others make one; an agency that has moved on harms
// nobody but itself.
func TestChecksAreAskedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ids := []routing.AgencyID{"a", "b", "c", "d", "e"}
		f := newFakeTable(t, ids...)
		for _, id := range ids {
			f.change(t, id, arm)
		}
		n := f.start(t, "mx1.example", memdisk.New())
		settle()
		n.copy.stop(true)
		f.change(t, "c", begin)
		f.do(func() { f.hang = make(chan struct{}) })
		var asked sync.WaitGroup
		results := make([]error, 40)
		ask := func(i int) {
			ticket := n.enter(ids[i%len(ids)], nil)
			asked.Go(func() { results[i] = ticket.Dot(t.Context()) })
			synctest.Wait()
		}
		for i := range results {
			ask(i)
		}
		f.do(func() { close(f.hang); f.hang = nil })
		asked.Wait()
		for i, err := range results {
			if stale := ids[i%len(ids)] == "c"; errors.Is(err, ErrClosed) != stale {
				t.Errorf("ticket %d of %s: %v", i, ids[i%len(ids)], err)
			}
		}
		if len(f.checks) > 7 { // one alone, one together, its halves
			t.Errorf("%d checks: %v", len(f.checks), f.checks)
		}
	})
}

func TestDrainedIsReportedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "health", "works")
		f.change(t, "works", arm)
		n := f.start(t, "mx1.example", memdisk.New())
		settle()
		drained := func() routing.Epoch { return f.lease("mx1.example").Drained["works"] }
		armed, _ := f.state.Agency("works")
		if drained() != armed.Epoch {
			t.Errorf("armed: drained %s, want %s", drained(), armed.Epoch)
		}
		ticket, doubtful := n.enter("works", nil), n.enter("works", nil)
		if err := errors.Join(ticket.Dot(t.Context()), doubtful.Dot(t.Context())); err != nil {
			t.Fatal(err)
		}
		cut := false
		login := n.enter("works", func() { cut = true })
		if err := login.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		begun := f.change(t, "works", begin)
		settle()
		if l := f.lease("mx1.example"); drained() == begun.Epoch || l.Applied != f.book.Position.Revision {
			t.Errorf("with dots under way: %+v", l)
		}
		if !cut {
			t.Error("the login is not cut")
		}
		ticket.End()
		doubtful.InDoubt(time.Now().Add(5 * time.Minute))
		settle()
		if l := f.lease("mx1.example"); drained() == begun.Epoch || len(l.Doubts) != 1 || l.Doubts[0].Messages != 1 {
			t.Errorf("with a doubt and a login: %+v", l)
		}
		login.End()
		time.Sleep(5*time.Minute - 3*leastPause)
		if drained() == begun.Epoch {
			t.Error("drained before the doubt's end")
		}
		settle()
		settle()
		if l := f.lease("mx1.example"); drained() != begun.Epoch || len(l.Doubts) != 0 {
			t.Errorf("after the doubt's end: %+v", l)
		}
	})
}

func TestARestartTakesItsNameAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "health")
		disk := memdisk.New()
		n := f.start(t, "mx1.example", disk)
		settle()
		n.end()
		// Starts that never reached the table, and others that did, but can't note it.
		for i := range 12 {
			disk = disk.Restart(memdisk.LoseAll)
			away := i%3 == 0
			if away {
				f.do(func() { f.down = table.ErrUnavailable })
			}
			writes := 0
			disk.Fail(func(op memdisk.Op, path string) error {
				if op == memdisk.OpRename && strings.HasSuffix(path, instanceFile) {
					if writes++; writes > 1 {
						return errors.New("crashed")
					}
				}
				return nil
			})
			n = f.start(t, "mx1.example", disk)
			time.Sleep(time.Second)
			f.do(func() { f.down = nil })
			if away {
				n.want(fmt.Sprintf("start %d, without a table", i), "health", routing.ReasonTableUnavail)
			} else {
				n.want(fmt.Sprintf("start %d", i), "health", routing.ReasonOpen)
			}
			n.end()
		}
		// Its name on another disk is not its own.
		other := f.start(t, "mx1.example", memdisk.New())
		settle()
		other.want("another disk", "health", routing.ReasonTableUnavail)
		if !other.trouble("node-instance") {
			t.Errorf("troubles: %q", other.Troubles())
		}
	})
}

// A name on a disk that doesn't know who had it is taken when that one is fenced: silent, as
// this process has seen it, for its lease and as long as a platform keeps a connection. If
// that one's clock may have stood still, no time is enough.
func TestANameOnAnotherDiskWaitsForTheFence(t *testing.T) {
	const limit = 10 * time.Minute
	fence := lease.Settled + limit + lease.Margin
	for name, runs := range map[string]bool{"clock goes on": true, "clock may stand still": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeTable(t, "health")
				f.options = func(o *KeeperOptions) { o.ClockRuns, o.Limit = runs, limit }
				old := f.start(t, "mx1.example", memdisk.New())
				settle()
				other := f.start(t, "mx1.example", memdisk.New())
				time.Sleep(2 * lease.Settled)
				old.want("it goes on", "health", routing.ReasonOpen)
				other.want("beside it", "health", routing.ReasonTableUnavail)
				old.end()
				time.Sleep(fence - 3*time.Second)
				other.want("before the fence", "health", routing.ReasonTableUnavail)
				if text := other.Troubles()["node-instance"]; !strings.Contains(text, map[bool]string{true: "is fenced at", false: "attest"}[runs]) {
					t.Errorf("trouble: %s", text)
				}
				time.Sleep(6 * time.Second)
				if !runs {
					other.want("whatever time has passed", "health", routing.ReasonTableUnavail)
					f.do(func() {
						m := f.book.Members["mx1.example"]
						m.Attested = m.Instance
						f.book.Members["mx1.example"] = m
					})
					time.Sleep(time.Second)
				}
				other.want("after the fence", "health", routing.ReasonOpen)
			})
		})
	}
}

// Who starts again on an empty disk while the old process has given its lease up takes the
// name at once.
func TestANameThatWasGivenUpIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "health")
		old := f.start(t, "mx1.example", memdisk.New())
		settle()
		old.end()
		if err := old.Surrender(t.Context()); err != nil {
			t.Fatal(err)
		}
		other := f.start(t, "mx1.example", memdisk.New())
		time.Sleep(time.Second)
		other.want("after it was given up", "health", routing.ReasonOpen)
	})
}

func TestAnEvictedNodeDecidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "health")
		disk := memdisk.New()
		n := f.start(t, "mx1.example", disk)
		settle()
		f.do(func() {
			m := f.book.Members["mx1.example"]
			m.Evicted = true
			f.book.Members["mx1.example"] = m
		})
		time.Sleep(3 * time.Second)
		n.want("evicted", "health", routing.ReasonTableUnavail)
		if !n.trouble("node-evicted") {
			t.Errorf("troubles: %q", n.Troubles())
		}
		n.end()
		n = f.start(t, "mx1.example", disk)
		settle()
		n.want("started again", "health", routing.ReasonOpen)
	})
}

func TestALeaseIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "health")
		n := f.start(t, "mx1.example", memdisk.New())
		settle()
		ticket := n.enter("health", nil)
		if err := ticket.Dot(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.end()
		if err := n.Surrender(t.Context()); err == nil {
			t.Error("given up while a dot is awaited")
		}
		n.want("given up", "health", routing.ReasonTableUnavail)
		until := time.Now().Add(10 * time.Minute)
		ticket.InDoubt(until)
		if err := n.Surrender(t.Context()); err != nil {
			t.Fatal(err)
		}
		if l := f.lease("mx1.example"); !l.ShortEnd.Equal(until) || !l.LongEnd.Equal(until) || len(l.Doubts) != 1 {
			t.Errorf("with a doubt until %s: %+v", until, l)
		}
		time.Sleep(10 * time.Minute)
		if err := n.Surrender(t.Context()); err != nil {
			t.Fatal(err)
		}
		if l := f.lease("mx1.example"); !l.ShortEnd.IsZero() || !l.LongEnd.IsZero() {
			t.Errorf("without one: %+v", l)
		}
	})
}

// A node that can't follow can't drain; whoever waits for it has to see its lease end.
func TestANodeThatDoesNotFollowDoesNotRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "health")
		n := f.start(t, "mx1.example", memdisk.New())
		settle()
		n.copy.stop(true)
		f.change(t, "health", arm)
		time.Sleep(2 * lease.Armed)
		counter := f.lease("mx1.example").Counter
		time.Sleep(lease.Armed)
		if got := f.lease("mx1.example").Counter; got != counter || !n.trouble("node-behind") {
			t.Errorf("renewed %d times; troubles: %q", got-counter, n.Troubles())
		}
		n.copy.stop(false)
		time.Sleep(time.Second)
		n.want("following again", "health", routing.ReasonOpen)
		if got := f.lease("mx1.example").Counter; got == counter || n.trouble("node-behind") {
			t.Errorf("not renewed; troubles: %q", n.Troubles())
		}
	})
}

func TestNoRightBeforeTheRegistrationIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "health")
		f.noProof = errors.New("a replica is away")
		n := f.start(t, "mx1.example", memdisk.New())
		time.Sleep(10 * time.Second)
		n.want("not confirmed", "health", routing.ReasonTableUnavail)
		if err := n.gate.Ready(); err == nil || !strings.Contains(err.Error(), "a replica is away") {
			t.Errorf("ready: %v", err)
		}
		f.do(func() { f.noProof = nil })
		time.Sleep(time.Second)
		n.want("confirmed", "health", routing.ReasonOpen)
	})
}

// Another server: settled agencies go on, armed ones wait until all nodes have shown what
// they know, and what the table lost is closed everywhere.
func TestRejoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "health", "works")
		f.change(t, "works", arm)
		a, b := f.start(t, "a.example", memdisk.New()), f.start(t, "b.example", memdisk.New())
		settle()
		before := f.state
		lost := f.change(t, "works", begin)
		settle()
		b.end() // b is away
		f.do(func() {
			f.server = table.Server{Run: "two"}
			f.book.Position.Revision--
			f.state = before
			for _, c := range f.copies {
				next, err := c.state.Apply(routing.Update{Whole: true, Position: f.book.Position, Agencies: before.Agencies(), Members: before.Members()})
				if err != nil {
					t.Fatal(err)
				}
				c.follow(next)
			}
		})
		time.Sleep(lease.Armed)
		a.want("while rejoining", "health", routing.ReasonOpen)
		if d := a.gate.Address(anna("works")); d.Deliver() {
			t.Errorf("an armed agency while rejoining: %+v", d)
		}
		if !a.trouble("node-rejoin") {
			t.Errorf("troubles: %q", a.Troubles())
		}
		again := f.start(t, "b.example", memdisk.New())
		_ = again
		f.mu.Lock()
		seen, ok := f.book.Above["works"]
		f.mu.Unlock()
		if !ok || seen.Epoch != lost.Epoch {
			t.Errorf("what was lost is not told: %+v, %t", seen, ok)
		}
	})
}

func TestLockLocal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "health", "works")
		disk := memdisk.New()
		n := f.start(t, "a.example", disk)
		other := f.start(t, "b.example", memdisk.New())
		settle()
		f.do(func() { f.down = table.ErrUnavailable })
		cut := 0
		ticket := n.enter("health", func() { cut++ })
		dotted := n.enter("health", func() { t.Error("cut after its dot") })
		if err := dotted.Dot(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := n.LockLocal("health", "Anna", "leak"); err != nil {
			t.Fatal(err)
		}
		n.want("locked", "health", routing.ReasonLocked)
		n.want("locked", "works", routing.ReasonOpen)
		if err := ticket.Dot(t.Context()); !errors.Is(err, ErrClosed) || cut != 1 {
			t.Errorf("dot after the lock: %v, cut %d times", err, cut)
		}
		dotted.End()
		ticket.End()
		if !n.trouble("local-lock/health") || len(n.LocalLocks()) != 1 {
			t.Errorf("troubles: %q", n.Troubles())
		}
		// Over a crash.
		disk = disk.Restart(memdisk.LoseAll)
		n.end()
		n = f.start(t, "a.example", disk)
		if got := n.LocalLocks(); len(got) != 1 || got[0].Who != "Anna" {
			t.Errorf("after a crash: %+v", got)
		}
		other.want("before the merge", "health", routing.ReasonOpen)
		f.do(func() { f.down = nil })
		time.Sleep(5 * time.Second)
		n.want("merged", "health", routing.ReasonLocked)
		other.want("merged", "health", routing.ReasonLocked)
		if len(n.LocalLocks()) != 0 || n.trouble("local-lock/health") {
			t.Errorf("after the merge: %+v", n.LocalLocks())
		}
		f.change(t, "health", routing.Agency.Unlock)
		n.want("unlocked by the table", "health", routing.ReasonOpen)
		if _, err := n.LockLocal("Bad Id", "Anna", "x"); err == nil {
			t.Error("a bad id is locked")
		}
		if _, err := n.LockLocal("works", "Anna", ""); err == nil {
			t.Error("locked without a reason")
		}
	})
}

func TestALockThatCannotBeWrittenClosesAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "health")
		disk := memdisk.New()
		n := f.start(t, "a.example", disk)
		settle()
		f.do(func() { f.down = table.ErrUnavailable })
		disk.FailAfter(0, errors.New("disk full"))
		if _, err := n.LockLocal("health", "Anna", "leak"); err == nil || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("lock: %v", err)
		}
		n.want("locked", "health", routing.ReasonLocked)
	})
}

func TestOneProcessForADirectory(t *testing.T) {
	o := KeeperOptions{Node: "a.example", Lease: lease, Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}
	k, err := OpenKeeper(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeeper(o); !errors.Is(err, ErrInUse) {
		t.Errorf("a second process: %v", err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if k, err = OpenKeeper(o); err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
}

// A disk that something else has filled keeps no node from starting: nobody could see why it
// takes nothing.
func TestStartOnAFullDisk(t *testing.T) {
	for errno, starts := range map[error]bool{syscall.ENOSPC: true, syscall.EDQUOT: true, syscall.EIO: false} {
		disk := memdisk.New()
		o := KeeperOptions{Node: "a.example", Lease: lease, Dir: "/d", Disk: disk, Logger: slog.New(slog.DiscardHandler)}
		if _, err := OpenKeeper(o); err != nil {
			t.Fatal(err)
		}
		disk.Fail(func(op memdisk.Op, _ string) error {
			if op == memdisk.OpWrite {
				return errno
			}
			return nil
		})
		if _, err := OpenKeeper(o); (err == nil) != starts {
			t.Errorf("%v: %v", errno, err)
		}
	}
}

// A restart follows the instance before it; a copy of its directory doesn't, since the
// original may run.
func TestACopiedDirectoryFollowsNobody(t *testing.T) {
	o := KeeperOptions{Node: "a.example", Lease: lease, Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}
	open := func(dir string) (instance routing.InstanceID, follows []routing.InstanceID) {
		o := o
		o.Dir = dir
		k, err := OpenKeeper(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
		return k.instance, k.before
	}
	first, _ := open(o.Dir)
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(o.Dir)); err != nil {
		t.Fatal(err)
	}
	second, follows := open(copied)
	if len(follows) > 0 {
		t.Errorf("the copy follows %q", follows)
	}
	if _, follows := open(copied); !slices.Equal(follows, []routing.InstanceID{second}) {
		t.Errorf("the copy's restart follows %q, want %s", follows, second)
	}
	if _, follows := open(o.Dir); !slices.Equal(follows, []routing.InstanceID{first}) {
		t.Errorf("the original's restart follows %q, want %s", follows, first)
	}
}
