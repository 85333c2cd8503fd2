package queue

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// TestReplayInOrder: held mail of each mailbox goes in order, mailboxes side by side.
func TestReplayInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		boxes := []int{0, 1, 2, 3, 4, 5, 6, 7}
		w.open("ox", "health", boxes...)
		for i := range 400 {
			w.put(spool.StateHeld, "a@out.example", i%8)
		}
		w.run()
		w.settle(time.Minute, "all is delivered", w.store.empty)
		w.stop()
		if n := len(w.taken(false)); n != 400 {
			t.Errorf("%d messages delivered, want 400", n)
		}
		w.inOrder()
		if w.peak != 4 {
			t.Errorf("%d deliveries at a time, want the platform's 4 connections", w.peak)
		}
		if len(w.q.boxes) != 0 || len(w.q.busy) != 0 || len(w.q.waiting) != 0 || w.q.lanes["ox"].window != 0 {
			t.Errorf("left in memory: %d boxes, %d busy, %d waiting, window %d", len(w.q.boxes), len(w.q.busy), len(w.q.waiting), w.q.lanes["ox"].window)
		}
	})
}

// TestAddressGoesToAnother: held mail for an address that went to another mailbox goes in its
// place between that one's, and new mail for either goes behind it (P6), also if its old
// mailbox's mail was loaded, pauses, or is under way.
func TestAddressGoesToAnother(t *testing.T) {
	for _, c := range []struct {
		name string
		when func(w *world)
	}{
		{"not loaded", func(w *world) { w.give(); w.run() }},
		{"parked", func(w *world) {
			w.run()
			time.Sleep(time.Second)
			w.give()
		}},
		{"paused", func(w *world) {
			w.behave = func(*Delivery, *Recipient) Result { return Result{Status: Deferred, Err: errDown} }
			w.open("ox", "health", 1, 2)
			w.run()
			time.Sleep(3 * time.Second)
			w.mu.Lock()
			w.behave, w.sent = nil, nil
			w.mu.Unlock()
			w.give()
		}},
		{"under way", func(w *world) {
			w.open("ox", "health", 1)
			w.took = time.Second // its answer comes late, and as a doubt
			w.behave = func(d *Delivery, _ *Recipient) Result {
				if len(w.sent) > 0 {
					return Result{}
				}
				return Result{Status: InDoubt, Until: time.Now().Add(10 * time.Second)}
			}
			w.run()
			time.Sleep(time.Millisecond)
			w.give()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				w.shut("health", 1, 2)
				for i := range 40 {
					w.put(spool.StateHeld, "a@out.example", 1+i%2)
				}
				c.when(w)
				if w.store.Held(spool.KeyOf(box1(1), "")) || !w.store.Held(spool.KeyOf(box1(2), "")) {
					t.Error("new mail doesn't go behind what is held for its mailbox now")
				}
				w.open("ox", "health", 1, 2)
				w.q.Update(stateOf(t, routing.PhaseToTarget), stateOf(t, routing.PhaseTarget))
				w.settle(5*time.Minute, "all is delivered", w.store.empty)
				w.stop()
				var got []uint64
				var doubt time.Time
				for _, s := range w.taken(true) {
					if s.status == InDoubt {
						doubt = s.at
					} else if got = append(got, s.seq); s.at.Before(doubt.Add(10 * time.Second)) {
						t.Errorf("%d came %s after the first copy of what was in doubt", s.seq, s.at.Sub(doubt))
					}
				}
				if len(got) != 40 || !slices.IsSorted(got) {
					t.Errorf("not in order, or not once: %v", got)
				}
				if len(w.q.boxes)+len(w.q.busy)+len(w.q.sending) != 0 || w.q.lanes["ox"].window != 0 {
					t.Errorf("left in memory: %d boxes, %d busy, %d under way, window %d", len(w.q.boxes), len(w.q.busy), len(w.q.sending), w.q.lanes["ox"].window)
				}
			})
		})
	}
}

// give gives the first mailbox's address to the second, as a switch of its agency does.
func (w *world) give() {
	w.shut("health", 1, 2)
	w.store.give(1, box1(2))
	w.q.signal()
}

// TestReplayWhenAgencyOpens: nothing goes before, and all goes right after.
func TestReplayWhenAgencyOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Retry.Life = time.Hour })
		w.shut("health", 1, 2)
		w.open("ox", "police", 3)
		held := w.put(spool.StateHeld, "a@out.example", 1)
		for range 50 {
			w.put(spool.StateHeld, "a@out.example", 1)
			w.put(spool.StateHeld, "a@out.example", 2)
		}
		w.put(spool.StateHeld, "a@out.example", 3)
		waiting := w.put(spool.StateWaiting, "a@out.example", 2)
		w.run()
		time.Sleep(90 * time.Minute) // held mail never grows too old, nor does waiting mail of a closed agency
		if got := w.taken(true); len(got) != 1 || got[0].address != address(3) {
			t.Fatalf("while the agency is closed: %v", got)
		}
		if !w.store.Held(spool.KeyOf(box1(1), "")) || w.store.state(held, 0) != spool.StateHeld || w.store.state(waiting, 0) != spool.StateWaiting {
			t.Error("mail is not held any more")
		}
		w.open("ox", "health", 1, 2)
		w.q.Update(stateOf(t, routing.PhaseToTarget), stateOf(t, routing.PhaseTarget))
		began := time.Now()
		w.settle(time.Second, "all is delivered", w.store.empty)
		w.inOrder()
		w.stop()
		for _, s := range w.taken(false)[1:] {
			if s.platform != "ox" || s.at.Sub(began) > time.Second {
				t.Errorf("%v", s)
			}
		}
	})
}

// TestOpensUnseen: the right to decide comes back without a change of the table.
func TestOpensUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		for n := range 20 {
			w.put(spool.StateHeld, "a@out.example", n)
			w.put(spool.StateWaiting, "a@out.example", n)
			w.decisions[address(n)] = routing.Decision{Reason: routing.ReasonTableUnavail}
		}
		w.run()
		time.Sleep(time.Hour)
		for n := range 20 {
			w.open("ox", "health", n)
		}
		w.settle(recheck+time.Second, "all is delivered", w.store.empty)
		w.stop()
	})
}

// TestLateMailQueuesBehind: mail that is held while a replay goes on comes after it.
func TestLateMailQueuesBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1, 2)
		for range 30 {
			w.put(spool.StateHeld, "a@out.example", 1, 2)
		}
		w.run()
		late := 0
		for w.store.Held(spool.KeyOf(box1(1), "")) && late < 100 {
			w.q.Added(w.put(spool.StateHeld, "a@out.example", 1))
			late++
			time.Sleep(2 * time.Millisecond)
		}
		w.settle(time.Minute, "all is delivered", w.store.empty)
		w.stop()
		w.inOrder()
		if n := len(w.taken(false)); n != 60+late {
			t.Errorf("%d deliveries, want %d", n, 60+late)
		}
	})
}

// TestTogether: recipients of one message that are next in their mailboxes share a
// transaction, unless they go different ways or an armed agency goes with another.
func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1, 2, 3)
		w.open("exchange", "health", 4)
		w.open("ox", "police", 5)
		armed := w.decisions[address(5)]
		armed.Armed = true
		w.decisions[address(5)] = armed
		w.put(spool.StateHeld, "a@out.example", 1, 2, 3, 4, 5)
		w.run()
		w.settle(time.Minute, "all is delivered", w.store.empty)
		w.stop()
		for _, s := range w.taken(false) {
			want := 1
			if s.address == address(1) || s.address == address(2) || s.address == address(3) {
				want = 3
			}
			if s.together != want {
				t.Errorf("%s went with %d, want %d", s.address, s.together, want)
			}
		}
	})
}

// TestMailboxPutOff: a mailbox that is put off stops nobody else, keeps its order for its
// patience, and is waiting mail then.
func TestMailboxPutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1, 2)
		var full []mail.TransactionID
		for range 5 {
			full = append(full, w.put(spool.StateHeld, "a@out.example", 1))
			w.put(spool.StateHeld, "a@out.example", 2)
		}
		over := true
		w.behave = func(d *Delivery, r *Recipient) Result {
			if over && r.Decision.Address == address(1) {
				return Result{Status: Deferred, Reply: mail.NewReply(452, 4, 2, 2, "over quota")}
			}
			return Result{}
		}
		w.run()
		w.settle(time.Second, "the other mailbox's mail", func() bool { return len(w.taken(false)) == 5 })
		time.Sleep(4 * time.Minute)
		if !w.store.Held(spool.KeyOf(box1(1), "")) {
			t.Fatal("the mailbox lost its order before its patience was over")
		}
		for i, s := range w.taken(true) {
			if s.address == address(1) && s.id != full[0] {
				t.Fatalf("attempt %d is of another message than the first", i)
			}
		}
		time.Sleep(3 * time.Minute)
		if w.store.Held(spool.KeyOf(box1(1), "")) {
			t.Fatal("held mail is still in the way after the patience")
		}
		for _, id := range full {
			if s := w.store.state(id, 0); s != spool.StateWaiting {
				t.Errorf("message is %s, want waiting", s)
			}
		}
		w.mu.Lock()
		over = false
		w.mu.Unlock()
		w.settle(2*time.Hour, "the mail that waited", w.store.empty)
		w.stop()
	})
}

// TestPutOffForAWhile: a mailbox that is put off for less than its patience loses no order.
func TestPutOffForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1)
		for range 50 {
			w.put(spool.StateHeld, "a@out.example", 1)
		}
		until := time.Now().Add(4 * time.Minute)
		w.behave = func(*Delivery, *Recipient) Result {
			if time.Now().Before(until) {
				return Result{Status: Deferred}
			}
			return Result{}
		}
		w.run()
		w.settle(6*time.Minute, "all is delivered", w.store.empty)
		w.stop()
		w.inOrder()
		if n := len(w.taken(true)) - 50; n > 20 {
			t.Errorf("%d attempts in vain", n)
		}
	})
}

// TestPlatformDown: held mail loses nothing, not even its order, and one delivery at a time asks.
func TestPlatformDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1, 2, 3)
		w.open("exchange", "police", 4)
		for i := range 90 {
			w.put(spool.StateHeld, "a@out.example", 1+i%3)
		}
		w.put(spool.StateHeld, "a@out.example", 4)
		for range 30 {
			w.put(spool.StateWaiting, "a@out.example", 1)
		}
		down := true
		w.behave = func(d *Delivery, r *Recipient) Result {
			if down && d.Platform == "ox" {
				return Result{Status: Unavailable, Err: errDown, Slow: true}
			}
			return Result{}
		}
		w.run()
		time.Sleep(time.Hour)
		if n := len(w.taken(false)); n != 1 {
			t.Fatalf("%d messages delivered, want the one for the other platform", n)
		}
		if n := len(w.taken(true)); n > 200 {
			t.Errorf("%d attempts in an hour", n)
		}
		if l := w.q.Lanes(); l[0].Down || !l[1].Down {
			t.Errorf("lanes are %+v", l)
		}
		w.mu.Lock()
		down = false
		w.mu.Unlock()
		w.settle(time.Minute, "all is delivered", w.store.empty)
		w.stop()
		if n := len(w.taken(false)); n != 121 {
			t.Errorf("%d messages delivered", n)
		}
	})
}

// TestInDoubt: what is in doubt rests until the platform's limit has passed, and goes again.
func TestInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1)
		first := w.put(spool.StateHeld, "a@out.example", 1)
		w.put(spool.StateHeld, "a@out.example", 1)
		began := time.Now()
		w.behave = func(d *Delivery, _ *Recipient) Result {
			if d.Message.Transaction == first && time.Since(began) < time.Minute {
				return Result{Status: InDoubt, Until: began.Add(2 * time.Minute)}
			}
			return Result{}
		}
		w.run()
		time.Sleep(time.Minute)
		if got := w.taken(true); len(got) != 1 || w.store.state(first, 0) != spool.StateHeld {
			t.Fatalf("attempts %v, state %s", got, w.store.state(first, 0))
		}
		w.settle(2*time.Minute, "all is delivered", w.store.empty)
		w.stop()
		w.inOrder()
		if at := w.taken(true)[1].at.Sub(began); at < 2*time.Minute {
			t.Errorf("it went again after %s", at)
		}
	})
}

// TestDoubtsOfTheStart: what a kill left in doubt rests, and so does what is behind it.
func TestDoubtsOfTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		doubts := make(map[mail.TransactionID]time.Time)
		w := newWorld(t, func(o *Options) { o.Doubts = doubts })
		w.open("ox", "health", 1, 2)
		doubts[w.put(spool.StateHeld, "a@out.example", 1)] = time.Now().Add(time.Minute)
		w.put(spool.StateHeld, "a@out.example", 1)
		w.put(spool.StateHeld, "a@out.example", 2)
		doubts[w.put(spool.StateWaiting, "a@out.example", 2)] = time.Now().Add(2 * time.Minute)
		w.run()
		time.Sleep(59 * time.Second)
		if got := w.taken(true); len(got) != 1 || got[0].address != address(2) {
			t.Fatalf("before the limit: %v", got)
		}
		w.settle(3*time.Minute, "all is delivered", w.store.empty)
		w.stop()
		w.inOrder()
	})
}

// TestClosesMeanwhile: a delivery that the gate cuts goes nowhere, and goes again later.
func TestClosesMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1)
		for range 10 {
			w.put(spool.StateHeld, "a@out.example", 1)
		}
		w.shut("health", 2)
		w.put(spool.StateWaiting, "a@out.example", 2)
		shut := false
		w.behave = func(*Delivery, *Recipient) Result {
			if len(w.sent) == 3 {
				shut = true
			}
			if shut {
				w.decisions[address(1)] = routing.Decision{Reason: routing.ReasonInPhase, Agency: "health"}
				return Result{Status: Closed}
			}
			return Result{}
		}
		w.run()
		time.Sleep(time.Hour)
		if n := len(w.taken(false)); n != 3 {
			t.Fatalf("%d delivered before it closed, want 3", n)
		}
		w.mu.Lock()
		w.behave = nil
		w.mu.Unlock()
		w.open("exchange", "health", 1, 2)
		w.settle(2*recheck, "all is delivered", w.store.empty)
		w.stop()
		w.inOrder()
		for _, s := range w.taken(false)[3:] {
			if s.platform != "exchange" {
				t.Errorf("went to %s", s.platform)
			}
		}
	})
}

// TestGateSaysNo: a gate that refuses what the router allows doesn't keep workers busy.
func TestGateSaysNo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1, 2)
		w.put(spool.StateHeld, "a@out.example", 1)
		w.put(spool.StateWaiting, "a@out.example", 2)
		w.behave = func(*Delivery, *Recipient) Result { return Result{Status: Closed} }
		w.q.o.Retry.First = time.Second
		w.run()
		time.Sleep(time.Minute)
		if n := len(w.taken(true)); n > 1300 || n < 100 {
			t.Errorf("%d attempts in a minute", n)
		}
		w.mu.Lock()
		w.behave = nil
		w.mu.Unlock()
		w.settle(time.Second, "all is delivered", w.store.empty)
		w.stop()
	})
}

// TestSlowsDown: a platform that shows overload gets fewer deliveries at a time, and more again later.
func TestSlowsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.conns, w.took = 16, 10*time.Millisecond
		for n := range 16 {
			w.open("ox", "health", n)
		}
		for i := range 3000 {
			w.put(spool.StateHeld, "a@out.example", i%16)
		}
		busy := 0
		w.behave = func(*Delivery, *Recipient) Result {
			if w.now >= 8 && len(w.sent) < 1000 {
				busy++
				return Result{Status: Deferred, Slow: true, Reply: mail.NewReply(451, 4, 3, 2, "busy")}
			}
			return Result{}
		}
		w.run()
		w.settle(10*time.Minute, "all is delivered", w.store.empty)
		w.stop()
		w.inOrder()
		if w.peak != 16 || busy > 200 || busy == 0 {
			t.Errorf("%d at a time at most, %d put off", w.peak, busy)
		}
		if l := w.q.Lanes()[0]; l.Most != 16 || l.Limit < 12 {
			t.Errorf("in the end %+v", l)
		}
	})
}

// TestRate: not faster than allowed, and faster as soon as it is.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Rate = 2 })
		for n := range 10 {
			w.open("ox", "health", n)
		}
		for i := range 1000 {
			w.put(spool.StateHeld, "a@out.example", i%10)
		}
		w.run()
		time.Sleep(time.Minute)
		if n := len(w.taken(false)); n < 115 || n > 125 {
			t.Errorf("%d in a minute, want 120", n)
		}
		p := w.q.Progress("health")
		if p.Rate < 1.7 || p.Rate > 2.3 || p.Held < 870 || p.Left < 5*time.Minute || p.Left > 10*time.Minute {
			t.Errorf("progress is %+v", p)
		}
		w.q.SetRate("ox", 0)
		w.settle(5*time.Second, "all is delivered", w.store.empty)
		w.stop()
		w.inOrder()
		if p := w.q.Progress("health"); p.Held != 0 || p.Left != 0 {
			t.Errorf("progress in the end is %+v", p)
		}
	})
}

// TestBeyondTheWindow: more mail than is loaded at once, for few mailboxes and for many,
// while a mailbox pauses, an agency is closed and a platform is down.
func TestBeyondTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		const perBox = boxRefs + boxRefs/2
		w.took = 0
		w.open("ox", "health", 1, 2)
		w.shut("health", 3)
		w.open("exchange", "police", 4)
		for range perBox {
			w.put(spool.StateHeld, "a@out.example", 1)
			w.put(spool.StateHeld, "a@out.example", 2)
			w.put(spool.StateHeld, "a@out.example", 3)
			w.put(spool.StateHeld, "a@out.example", 4)
		}
		w.behave = func(d *Delivery, r *Recipient) Result {
			if d.Platform == "exchange" {
				return Result{Status: Unavailable, Err: errDown}
			}
			if len(w.sent)%100 == 0 && r.Decision.Address == address(2) {
				return Result{Status: Deferred}
			}
			return Result{}
		}
		w.run()
		w.settle(10*time.Minute, "the open mailboxes' mail", func() bool { return len(w.taken(false)) == 2*perBox })
		w.open("ox", "health", 3)
		w.mu.Lock()
		w.behave = nil
		w.mu.Unlock()
		w.settle(10*time.Minute, "all is delivered", w.store.empty)
		w.stop()
		w.inOrder()
		if n := len(w.taken(false)); n != 4*perBox {
			t.Errorf("%d delivered", n)
		}
		if len(w.q.boxes) != 0 || w.q.lanes["ox"].window != 0 {
			t.Errorf("%d boxes left, window %d", len(w.q.boxes), w.q.lanes["ox"].window)
		}
	})
}

// TestAddedBehind: recipients that become held after later mail of the mailbox was loaded
// go before it.
func TestAddedBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Rate = 1 })
		w.open("ox", "health", 1)
		w.put(spool.StateHeld, "a@out.example", 1)
		id := w.put(spool.StateQuarantined, "a@out.example", 1)
		for range 10 {
			w.put(spool.StateHeld, "a@out.example", 1)
		}
		w.run()
		time.Sleep(100 * time.Millisecond)
		if a, err := w.q.Release(Subject{Transaction: id}, "a test"); err != nil || a.Changed+a.Busy != 1 {
			t.Fatalf("%+v, %v", a, err)
		} else if a.Busy == 1 {
			w.settle(10*time.Second, "the release", func() bool {
				a, _ := w.q.Release(Subject{Transaction: id}, "a test")
				return a.Changed == 1
			})
		}
		w.settle(time.Minute, "all is delivered", w.store.empty)
		w.stop()
		if n := len(w.taken(false)); n != 12 {
			t.Errorf("%d delivered", n)
		}
		at := slices.IndexFunc(w.taken(false), func(s sent) bool { return s.id == id })
		if at > 9 {
			t.Errorf("the released message went as number %d", at)
		}
	})
}

// stateOf returns a State in which the agency health is in a phase.
func stateOf(t *testing.T, p routing.Phase) *routing.State {
	t.Helper()
	rec, err := routing.NewAgency("health", "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	rec.Phase, rec.Epoch.Number = p, uint32(p)+1
	s, err := routing.NewState(routing.Position{}).Apply(routing.Update{Position: routing.Position{Incarnation: "x", Revision: routing.Revision(p) + 1}, Agencies: []routing.Agency{rec}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
