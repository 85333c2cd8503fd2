package node

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/routing"
)

// source is a copy of the table that a test moves by hand.
type source struct {
	mu     sync.Mutex
	state  *routing.State
	at     time.Time
	closed bool
}

func (s *source) State() *routing.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

func (s *source) Fresh() (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at, !s.closed
}

func (s *source) reach() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = time.Now()
}

// bench is a gate over one agency, health, with one mailbox.
type bench struct {
	*Gate
	t      *testing.T
	source *source
	rec    routing.Agency
	begun  int
}

var lease = Lease{Settled: 15 * time.Minute, Armed: 10 * time.Second, Margin: 2 * time.Second}

func newBench(t *testing.T) *bench {
	t.Helper()
	rec, err := routing.NewAgency("health", "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	m, err := routing.NewMapping("health", []routing.Row{{
		Mailbox: routing.MailboxID{1}, Kind: routing.KindUser, Addresses: []routing.Address{"anna@health.example"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	rec.Mapping = m.Digest()
	state, err := routing.NewState(routing.Position{}).Apply(routing.Update{
		Agencies: []routing.Agency{rec}, Mappings: []*routing.Mapping{m},
		Domains: []routing.Domain{{Name: "health.example"}},
		Fixed:   []routing.Fixed{{Address: "all@health.example", Kind: "group", Platform: "exchange"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	src := &source{state: state, at: time.Now()}
	return &bench{Gate: NewGate(src, lease, "+"), t: t, source: src, rec: rec}
}

// change puts the agency's next record into force.
func (b *bench) change(next func(routing.Agency) (routing.Agency, error)) {
	b.t.Helper()
	rec, err := next(b.rec)
	if err != nil {
		b.t.Fatal(err)
	}
	b.rec = rec
	b.source.mu.Lock()
	old := b.source.state
	now, err := old.Apply(routing.Update{Agencies: []routing.Agency{rec}})
	b.source.state = now
	b.source.mu.Unlock()
	if err != nil {
		b.t.Fatal(err)
	}
	b.Update(old, now)
}

func (b *bench) begin() {
	b.t.Helper()
	b.begun++
	b.change(func(a routing.Agency) (routing.Agency, error) { return a.Arm(), nil })
	b.change(func(a routing.Agency) (routing.Agency, error) {
		return a.Begin("op", routing.Nonce(b.begun), routing.EventBegin)
	})
}

func (b *bench) enter(cut func()) *Ticket {
	b.t.Helper()
	d := b.Address("anna@health.example")
	ticket, err := b.Enter(&d, cut)
	if err != nil {
		b.t.Fatal(err)
	}
	return ticket
}

func TestWhatHasNoDotIsCutAndNotAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		cut := 0
		ticket := b.enter(func() { cut++ })
		b.begin()
		if cut != 1 {
			t.Errorf("cut %d times, want once", cut)
		}
		if err := b.Drain(t.Context(), "health", b.rec.Epoch, nil); err != nil {
			t.Errorf("drain: %v", err)
		}
		if err := ticket.Dot(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("dot after begin: %v, want ErrClosed", err)
		}
		ticket.End()
		if l := b.Load("health"); l != (Load{}) {
			t.Errorf("after the end: %+v", l)
		}
	})
}

func TestTheDrainWaitsForADotsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ticket := b.enter(func() { t.Error("cut after its dot") })
		if err := ticket.Dot(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.begin()
		drained := make(chan error, 1)
		var seen []Load
		go func() {
			drained <- b.Drain(context.Background(), "health", b.rec.Epoch, func(l Load) { seen = append(seen, l) })
		}()
		synctest.Wait()
		select {
		case err := <-drained:
			t.Fatalf("drained with a dot under way: %v", err)
		default:
		}
		if err := ticket.Acknowledge(); err != nil {
			t.Errorf("the platform's answer before commit: %v", err)
		}
		ticket.End()
		if err := <-drained; err != nil {
			t.Error(err)
		}
		if len(seen) != 2 || seen[0].Dotted != 1 || seen[1] != (Load{}) {
			t.Errorf("progress %+v", seen)
		}
	})
}

func TestNotDrainedWhileInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ticket := b.enter(nil)
		if err := ticket.Dot(t.Context()); err != nil {
			t.Fatal(err)
		}
		ticket.InDoubt(time.Now().Add(10 * time.Minute))
		ticket.End()
		b.begin()
		short, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("not drained in time"))
		defer cancel()
		if err := b.Drain(short, "health", b.rec.Epoch, nil); err == nil || !strings.Contains(err.Error(), "not drained in time") || !strings.Contains(err.Error(), "1 in doubt") {
			t.Errorf("drain with a message in doubt: %v", err)
		}
		start := time.Now()
		if err := b.Drain(t.Context(), "health", b.rec.Epoch, nil); err != nil {
			t.Error(err)
		}
		if got := time.Since(start); got != 9*time.Minute {
			t.Errorf("drained after %s more, want 9m: the platform's limit", got)
		}
	})
}

func TestADecisionFromBeforeTheChangeMayNotEnter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		before := b.Address("anna@health.example")
		b.begin()
		if _, err := b.Enter(&before, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("enter with an old decision: %v, want ErrClosed", err)
		}
		closed := b.Address("anna@health.example")
		if _, err := b.Enter(&closed, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("enter a closed agency: %v, want ErrClosed", err)
		}
	})
}

// Two histories may have the same epoch, after a failover; the nonce tells them apart.
func TestASameEpochWithAnotherNonceIsAnotherHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.begin()
		b.change(func(a routing.Agency) (routing.Agency, error) { return a.Commit("op", 1) })
		b.change(func(a routing.Agency) (routing.Agency, error) { return a.Publish("op") })
		d := b.Address("anna@health.example")
		ticket, err := b.Enter(&d, nil)
		if err != nil {
			t.Fatal(err)
		}
		b.change(func(a routing.Agency) (routing.Agency, error) { a.Nonce = 99; return a, nil })
		if err := ticket.Dot(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("dot in another history: %v, want ErrClosed", err)
		}
	})
}

func TestDrainWantsTheRecordSeen(t *testing.T) {
	b := newBench(t)
	b.begin()
	if err := b.Drain(t.Context(), "health", b.rec.Epoch.Next(), nil); err == nil {
		t.Error("drained for an epoch that this node hasn't seen")
	}
}

func TestTheRightToDecideLapses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		want := func(when string, address routing.Address, reason routing.Reason) {
			t.Helper()
			if d := b.Address(address); d.Reason != reason {
				t.Errorf("%s: %s: %s, want %s", when, address, d.Reason, reason)
			}
		}
		want("fresh", "anna@health.example", routing.ReasonOpen)
		time.Sleep(lease.Settled - lease.Margin - time.Second)
		want("before the end", "anna@health.example", routing.ReasonOpen)
		ticket := b.enter(nil)
		time.Sleep(time.Second)
		want("after the end", "anna@health.example", routing.ReasonTableUnavail)
		want("after the end", "all@health.example", routing.ReasonTableUnavail)
		want("after the end", "stranger@elsewhere.example", routing.ReasonTableUnavail)
		if d := b.Login("anna@health.example"); d.Reason != routing.ReasonTableUnavail {
			t.Errorf("login after the end: %s", d.Reason)
		}
		if err := ticket.Dot(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("dot after the end: %v, want ErrClosed", err)
		}
		if b.Ready() == nil {
			t.Error("ready without the right to decide")
		}
		b.source.reach()
		want("reached again", "anna@health.example", routing.ReasonOpen)

		b.change(func(a routing.Agency) (routing.Agency, error) { return a.Arm(), nil })
		time.Sleep(lease.Armed - lease.Margin - time.Millisecond)
		want("armed, before the end", "anna@health.example", routing.ReasonOpen)
		ticket = b.enter(nil)
		if err := ticket.Dot(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		want("armed, after the end", "anna@health.example", routing.ReasonTableUnavail)
		want("fixed, while the settled are served", "all@health.example", routing.ReasonFixed)
		if err := ticket.Acknowledge(); !errors.Is(err, ErrClosed) {
			t.Errorf("250 of the platform after the end of the lease: %v, want ErrClosed", err)
		}
		ticket.End()

		b.source.reach()
		b.source.closed = true
		want("a copy that can't be trusted", "anna@health.example", routing.ReasonTableUnavail)
	})
}

func TestFixedAddressesAreNotCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		d := b.Address("all@health.example")
		ticket, err := b.Enter(&d, func() { t.Error("cut") })
		if err != nil {
			t.Fatal(err)
		}
		b.begin()
		if err := ticket.Dot(t.Context()); err != nil {
			t.Error(err)
		}
		ticket.End()
		ticket.End()
	})
}

// Whatever the order in which deliveries and a switch meet: once drained, none gets a dot.
func TestNoDotAfterDrained(t *testing.T) {
	b := newBench(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	drained := false
	for range 8 {
		wg.Go(func() {
			for {
				d := b.Address("anna@health.example")
				if !d.Deliver() {
					return
				}
				ticket, err := b.Enter(&d, func() {})
				if err != nil {
					continue
				}
				if ticket.Dot(context.Background()) == nil {
					mu.Lock()
					if drained {
						t.Error("a dot after the drain")
					}
					mu.Unlock()
				}
				ticket.End()
			}
		})
	}
	b.begin()
	if err := b.Drain(t.Context(), "health", b.rec.Epoch, nil); err != nil {
		t.Error(err)
	}
	mu.Lock()
	drained = true
	mu.Unlock()
	wg.Wait()
}

// What a killed process left under way may still arrive.
// A gate over a copy from the disk has seen what stands there: a table that has nothing
// newer must not keep a restarted node from being drained.
func TestARestartedNodeIsDrainedForWhatItsCopyHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.begin()
		again := NewGate(b.source, lease, "+")
		again.Remember("health", routing.Epoch{}, time.Now().Add(time.Minute))
		if got := again.Drained(); len(got) != 0 {
			t.Errorf("drained %v while a message is in doubt", got)
		}
		time.Sleep(time.Minute)
		if got := again.Drained(); len(got) != 1 || got[0].Agency != "health" || got[0].Epoch != b.rec.Epoch {
			t.Errorf("drained %v, want health at %s", got, b.rec.Epoch)
		}
	})
}

func TestARestartedNodeRemembersWhatWasInDoubt(t *testing.T) {
	for name, remember := range map[string]func(b *bench, until time.Time){
		"one agency":     func(b *bench, until time.Time) { b.Remember("health", b.rec.Epoch, until) },
		"any, later":     func(b *bench, until time.Time) { b.RememberAny(until) },
		"any, known now": func(b *bench, until time.Time) { b.Load("health"); b.RememberAny(until) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				remember(b, time.Now().Add(10*time.Minute))
				b.begin()
				start := time.Now()
				if err := b.Drain(t.Context(), "health", b.rec.Epoch, nil); err != nil {
					t.Error(err)
				}
				if got := time.Since(start); got != 10*time.Minute {
					t.Errorf("drained after %s, want 10m: the platform's limit", got)
				}
			})
		})
	}
}
