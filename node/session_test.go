package node

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// numbered gives rights as a test wants them.
type numbered struct {
	mu    sync.Mutex
	right Right
	check error
	asked int
}

func (n *numbered) Right(time.Time) Right {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.right
}

// Names implements Rights.
func (*numbered) Names(context.Context, routing.Position) error { return nil }

func (n *numbered) Check(context.Context, ...table.AgencyEpoch) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	return n.check
}

func (n *numbered) set(change func(*numbered)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n)
}

// newSession returns a bench with these rights, and a session that was opened.
func newSession(t *testing.T, cut func()) (*bench, *numbered, *Ticket) {
	t.Helper()
	b := newBench(t)
	rights := &numbered{right: Right{Settled: true, Armed: true, SettledLife: 1, ArmedLife: 1}}
	b.Gate = NewGate(b.source, rights, "+")
	d := b.Login("anna@health.example")
	ticket, err := b.Enter(&d, cut)
	if err != nil {
		t.Fatal(err)
	}
	if err := ticket.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b, rights, ticket
}

// outcome is what Flows and Resume say in one word.
func outcome(err error) string {
	switch {
	case err == nil:
		return "flows"
	case errors.Is(err, ErrLapsed):
		return "lapsed"
	case errors.Is(err, ErrClosed):
		return "closed"
	}
	return err.Error()
}

func TestFlows(t *testing.T) {
	arm := func(a routing.Agency) (routing.Agency, error) { return a.Arm(), nil }
	for _, test := range []struct {
		name   string
		change func(b *bench, n *numbered)
		flows  string
		resume string
		after  string // what Flows says then
	}{
		{"nothing happened", func(*bench, *numbered) {}, "flows", "flows", "flows"},
		{"armed, which changes no answer", func(b *bench, n *numbered) { b.change(arm) }, "flows", "flows", "flows"},
		{"the right for armed ones is over, and the agency is settled",
			func(b *bench, n *numbered) { n.set(func(n *numbered) { n.right.Armed = false }) }, "flows", "flows", "flows"},
		{"armed, and that right is over",
			func(b *bench, n *numbered) { b.change(arm); n.set(func(n *numbered) { n.right.Armed = false }) }, "lapsed", "lapsed", "lapsed"},
		{"armed, and that right was over and is back",
			func(b *bench, n *numbered) { b.change(arm); n.set(func(n *numbered) { n.right.ArmedLife++ }) }, "lapsed", "flows", "flows"},
		{"settled, and the right was over and is back",
			func(b *bench, n *numbered) { n.set(func(n *numbered) { n.right.SettledLife++ }) }, "lapsed", "flows", "flows"},
		{"armed, back, and the table says no", func(b *bench, n *numbered) {
			b.change(arm)
			n.set(func(n *numbered) { n.right.ArmedLife++; n.check = table.ErrStale })
		}, "lapsed", "closed", "lapsed"},
		{"armed, back, and the table is silent", func(b *bench, n *numbered) {
			b.change(arm)
			n.set(func(n *numbered) { n.right.ArmedLife++; n.check = context.DeadlineExceeded })
		}, "lapsed", "lapsed", "lapsed"},
		{"no right at all", func(b *bench, n *numbered) { n.set(func(n *numbered) { n.right = Right{} }) }, "lapsed", "lapsed", "lapsed"},
		{"the agency closed", func(b *bench, n *numbered) { b.begin() }, "closed", "closed", "closed"},
		{"closed and open again", func(b *bench, n *numbered) {
			b.begin()
			b.change(func(a routing.Agency) (routing.Agency, error) { return a.Abort("op", a.Nonce) })
		}, "closed", "closed", "closed"},
		{"locked by this node", func(b *bench, n *numbered) { b.setLocks(map[routing.AgencyID]struct{}{"health": {}}) }, "closed", "closed", "closed"},
		{"locked by this node, and not any more", func(b *bench, n *numbered) {
			b.setLocks(map[routing.AgencyID]struct{}{"health": {}})
			b.setLocks(nil)
		}, "closed", "closed", "closed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, n, ticket := newSession(t, nil)
			test.change(b, n)
			if got := outcome(ticket.Flows()); got != test.flows {
				t.Errorf("Flows: got %s, want %s", got, test.flows)
			}
			if got := outcome(ticket.Resume(t.Context())); got != test.resume {
				t.Errorf("Resume: got %s, want %s", got, test.resume)
			}
			if got := outcome(ticket.Flows()); got != test.after {
				t.Errorf("Flows after Resume: got %s, want %s", got, test.after)
			}
			if l := b.Load("health"); l.Dotted != 1 {
				t.Errorf("the drain waits for %d sessions, want 1 until End", l.Dotted)
			}
			ticket.End()
			if l := b.Load("health"); l.Dotted != 0 {
				t.Error("the session counts after its End")
			}
		})
	}
}

// TestFlowsAfterAStop is about a process that was stopped while its agency moved: the first
// question it asks is answered by the clock.
func TestFlowsAfterAStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		d := b.Login("anna@health.example")
		ticket, err := b.Enter(&d, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := ticket.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := ticket.Flows(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lease.Settled)
		if got := outcome(ticket.Flows()); got != "lapsed" {
			t.Errorf("got %s, want lapsed", got)
		}
	})
}

func TestFlowsDoesNotAllocate(t *testing.T) {
	_, n, ticket := newSession(t, nil)
	if got := testing.AllocsPerRun(100, func() { _ = ticket.Flows() }); got != 0 {
		t.Errorf("%v allocations", got)
	}
	n.set(func(n *numbered) { n.right = Right{} })
	if got := testing.AllocsPerRun(100, func() { _ = ticket.Flows() }); got != 0 {
		t.Errorf("%v allocations of a lapsed session", got)
	}
}

// closed reports whether c is closed.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestNews(t *testing.T) {
	b := newBench(t)
	for _, test := range []struct {
		name        string
		change      func()
		health, any bool
	}{
		{"begin", func() { b.begin() }, true, true},
		{"abort", func() {
			b.change(func(a routing.Agency) (routing.Agency, error) { return a.Abort("op", a.Nonce) })
		}, true, true},
		{"a lock", func() { b.setLocks(map[routing.AgencyID]struct{}{"health": {}}) }, true, true},
		{"its end", func() { b.setLocks(nil) }, true, true},
		{"the same state again", func() { b.Update(b.source.State(), b.source.State()) }, false, false},
		{"the right", func() { b.tellAll() }, true, true},
	} {
		health, every, other := b.News("health"), b.News(""), b.News("town")
		test.change()
		if closed(health) != test.health || closed(every) != test.any {
			t.Errorf("%s: news of the agency %v, of any %v; want %v, %v", test.name, closed(health), closed(every), test.health, test.any)
		}
		if got, want := closed(other), test.name == "the right"; got != want {
			t.Errorf("%s: news of another agency %v, want %v", test.name, got, want)
		}
	}
}

// TestNewsOfTheRight is about who waits while the right has lapsed.
func TestNewsOfTheRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeTable(t, "health")
		n := f.start(t, "mx1.example", memdisk.New())
		settle()
		time.Sleep(time.Second)
		n.want("granted", "health", routing.ReasonOpen)
		f.do(func() { f.down = table.ErrUnavailable })
		time.Sleep(time.Hour)
		health, every := n.gate.News("health"), n.gate.News("")
		n.want("lapsed", "health", routing.ReasonTableUnavail)
		f.do(func() { f.down = nil })
		time.Sleep(time.Second)
		n.want("back", "health", routing.ReasonOpen)
		if !closed(health) || !closed(every) {
			t.Error("the right began anew, and nobody who waits was told")
		}
	})
}
