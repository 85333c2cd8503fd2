package queue

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

func TestDelays(t *testing.T) {
	r := Retry{First: time.Minute, Growth: 1.25, Max: 10 * time.Minute, Jitter: -1}.withDefaults()
	var got []time.Duration
	for n := range 14 {
		got = append(got, r.after(n+1).Round(time.Second))
	}
	// A factor kept as a whole number would make them all a minute.
	want := []time.Duration{60, 75, 94, 117, 146, 183, 229, 286, 358, 447, 559, 600, 600, 600}
	for i := range want {
		if got[i] != want[i]*time.Second {
			t.Fatalf("delays are %v", got)
		}
	}
	r.Jitter = 0.2
	low, high := time.Hour, time.Duration(0)
	for range 1000 {
		d := r.after(1)
		low, high = min(low, d), max(high, d)
	}
	if low < 48*time.Second || high > 72*time.Second || high-low < 15*time.Second {
		t.Errorf("jittered delays are between %s and %s", low, high)
	}
	for _, bad := range []Retry{{First: -1}, {Growth: 0.5}, {Jitter: 1.5}} {
		if _, err := New(Options{Store: newMemory(), Router: &world{}, Sender: &world{}, Alarms: &world{}, Retry: bad}); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// TestRetryFollowsItsMailbox: waiting mail is tried at growing intervals, and the route asked each time.
func TestRetryFollowsItsMailbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("exchange", "health", 1)
		w.behave = func(d *Delivery, _ *Recipient) Result {
			if d.Platform == "exchange" {
				return Result{Status: Deferred, Reply: mail.NewReply(452, 4, 2, 2, "over quota")}
			}
			return Result{}
		}
		id := w.put(spool.StateWaiting, "a@out.example", 1)
		w.q.Added(id) // the start sees it, too: still it is tried once at a time
		w.run()
		time.Sleep(20 * time.Minute)
		var gaps []time.Duration
		tries := w.taken(true)
		for i := 1; i < len(tries); i++ {
			gaps = append(gaps, tries[i].at.Sub(tries[i-1].at).Round(time.Second))
		}
		if len(gaps) < 4 || gaps[0] != time.Minute || gaps[1] != 90*time.Second || gaps[2] != 135*time.Second {
			t.Errorf("tried again after %v", gaps)
		}
		m, err := w.store.Get(id)
		if err != nil {
			t.Fatal(err)
		}
		if r := m.Recipients[0]; r.Last.Attempts != len(tries) || r.Last.Code != 452 || r.Reason != "4.2.2 over quota" || !r.Last.Next.After(time.Now()) || r.Last.Platform != "exchange" {
			t.Errorf("noted: %+v", r)
		}
		w.open("ox", "health", 1)
		w.settle(time.Hour, "it is delivered", w.store.empty)
		w.stop()
		if got := w.taken(false); len(got) != 1 || got[0].platform != "ox" {
			t.Errorf("delivered: %v", got)
		}
	})
}

// TestDueAfterRestart: a restart doesn't try all at once what is due later.
func TestDueAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1)
		id := w.put(spool.StateWaiting, "a@out.example", 1)
		o := spool.Outcome{Transaction: id, State: spool.StateWaiting}
		o.Time, o.Next, o.Attempts = time.Now(), time.Now().Add(40*time.Minute), 9
		if err := w.store.Set(o); err != nil {
			t.Fatal(err)
		}
		w.run()
		began := time.Now()
		w.settle(time.Hour, "it is delivered", w.store.empty)
		w.stop()
		if d := time.Since(began); d < 40*time.Minute || d > 42*time.Minute {
			t.Errorf("tried after %s", d)
		}
	})
}

// TestPlatformBack: what waits for a platform goes as soon as it is back, oldest first.
func TestPlatformBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		down := true
		w.behave = func(*Delivery, *Recipient) Result {
			if down {
				return Result{Status: Unavailable, Err: errDown, Slow: true}
			}
			return Result{}
		}
		for n := range 10 {
			w.open("ox", "health", n)
		}
		w.run()
		for i := range 300 {
			w.q.Added(w.put(spool.StateWaiting, "a@out.example", i%10))
			time.Sleep(time.Second)
		}
		time.Sleep(time.Hour)
		if n := len(w.taken(true)); n > 300 {
			t.Errorf("%d attempts while it was down", n)
		}
		w.mu.Lock()
		down = false
		w.mu.Unlock()
		w.settle(w.q.o.Retry.DownMax+5*time.Second, "all is delivered", w.store.empty)
		w.stop()
		w.waited = nil // they had no attempt of their own, so here order holds
		w.inOrder()
	})
}

func TestWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Retry.Down, o.Retry.DownMax = time.Hour, time.Hour })
		w.open("ox", "health", 1)
		w.put(spool.StateHeld, "a@out.example", 1)
		w.put(spool.StateWaiting, "a@out.example", 1)
		down := true
		w.behave = func(*Delivery, *Recipient) Result {
			if down {
				return Result{Status: Unavailable, Err: errDown}
			}
			return Result{}
		}
		w.run()
		time.Sleep(10 * time.Minute)
		w.mu.Lock()
		down = false
		w.mu.Unlock()
		w.q.Wake("ox")
		w.settle(time.Second, "all is delivered", w.store.empty)
		w.stop()
	})
}

// TestRefused: a refusal with proof ends in a notice, at once.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1, 2, 3)
		w.behave = func(d *Delivery, r *Recipient) Result {
			if d.Platform == "ox" && r.Decision.Address != address(3) {
				return Result{Status: Refused, Reply: mail.NewReply(554, 5, 6, 0, "not this content")}
			}
			return Result{}
		}
		id := w.put(spool.StateHeld, "Sender@out.example", 1, 2, 3)
		quiet := w.putWith(spool.StateWaiting, "a@out.example", gosmtp.RcptOptions{Notify: []gosmtp.DSNNotify{"NEVER"}}, 1)
		null := w.put(spool.StateWaiting, "", 1)
		w.run()
		w.settle(5*time.Minute, "the notice is sent", func() bool {
			n := w.store.notices()
			return len(n) == 1 && w.store.state(n[0].Transaction, 0) == spool.StateDelivered
		})
		time.Sleep(time.Hour)
		w.stop()
		n := w.store.notices()[0]
		if len(w.store.notices()) != 1 || !n.From.IsNull() || n.Recipients[0].To.String() != "Sender@out.example" {
			t.Errorf("notices %v", w.store.notices())
		}
		content := w.store.text(n.Transaction)
		for _, want := range []string{"Final-Recipient: rfc822; " + string(address(1)), "Final-Recipient: rfc822; " + string(address(2)), "Status: 5.6.0", "Diagnostic-Code: smtp; 554 5.6.0 not this content"} {
			if !strings.Contains(content, want) {
				t.Errorf("the notice lacks %q", want)
			}
		}
		if strings.Contains(content, string(address(3))) {
			t.Error("the notice names a recipient that was delivered")
		}
		for _, c := range []struct {
			id   mail.TransactionID
			rcpt int
			want spool.State
		}{{id, 0, spool.StateReturned}, {id, 1, spool.StateReturned}, {id, 2, spool.StateDelivered}, {quiet, 0, spool.StateReturned}, {null, 0, spool.StateQuarantined}} {
			if got := w.store.state(c.id, c.rcpt); got != c.want {
				t.Errorf("%s recipient %d is %s, want %s", c.id, c.rcpt, got, c.want)
			}
		}
		if w.alarm("spool-quarantine") == "" {
			t.Error("no alarm about the quarantine")
		}
		for _, s := range w.taken(false) {
			if s.id == n.Transaction && s.platform != "relay" {
				t.Errorf("the notice went to %s", s.platform)
			}
		}
	})
}

// TestExpires: waiting mail ends in a notice when its life is over; a delay is told once before.
func TestExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Notices.DelayAfter = 4 * time.Hour })
		w.open("ox", "health", 1)
		w.behave = func(d *Delivery, _ *Recipient) Result {
			if d.Platform == "ox" {
				return Result{Status: Deferred, Reply: mail.NewReply(452, 4, 2, 2, "over quota")}
			}
			return Result{}
		}
		id := w.put(spool.StateWaiting, "a@out.example", 1)
		w.run()
		time.Sleep(3 * time.Hour)
		if n := len(w.store.notices()); n != 0 {
			t.Fatalf("%d notices after three hours", n)
		}
		time.Sleep(3 * time.Hour)
		w.stop()
		w2 := newWorld(t, func(o *Options) { o.Store, o.Notices.DelayAfter = w.store, 4*time.Hour })
		w2.store, w2.decisions, w2.behave = w.store, w.decisions, w.behave
		w2.run()
		time.Sleep(4*24*time.Hour + 12*time.Hour)
		notices := w.store.notices()
		if len(notices) != 1 || !strings.Contains(w.store.text(notices[0].Transaction), "Action: delayed") {
			t.Fatalf("%d notices before the end, want one of the delay", len(notices))
		}
		time.Sleep(12 * time.Hour)
		w2.stop()
		notices = w.store.notices()
		if len(notices) != 2 {
			t.Fatalf("%d notices", len(notices))
		}
		content := w.store.text(notices[1].Transaction)
		if !strings.Contains(content, "Action: failed") || !strings.Contains(content, "Status: 4.2.2") || !strings.Contains(content, "The time for its delivery has run out") {
			t.Errorf("the notice of the end is\n%s", content)
		}
		if s := w.store.state(id, 0); s != spool.StateReturned {
			t.Errorf("message is %s", s)
		}
	})
}

// TestExpiresWhilePlatformIsDown: mail that had hardly an attempt of its own ends as well.
func TestExpiresWhilePlatformIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		for n := range 5 {
			w.open("ox", "health", n)
		}
		w.behave = func(d *Delivery, _ *Recipient) Result {
			if d.Platform == "ox" {
				return Result{Status: Unavailable, Err: errDown}
			}
			return Result{}
		}
		var ids []mail.TransactionID
		for n := range 20 {
			ids = append(ids, w.put(spool.StateWaiting, "a@out.example", n%5))
		}
		held := w.put(spool.StateHeld, "a@out.example", 1)
		w.run()
		time.Sleep(5*24*time.Hour + 2*time.Hour)
		w.stop()
		for _, id := range ids {
			if s := w.store.state(id, 0); s != spool.StateReturned {
				t.Errorf("waiting message is %s", s)
			}
		}
		if s := w.store.state(held, 0); s != spool.StateHeld {
			t.Errorf("held message is %s", s)
		}
	})
}

// TestNoRoute: mail for an address that nobody has any more waits, and its sender is told in the end.
func TestNoRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Retry.Life = 12 * time.Hour })
		w.decisions[address(1)] = routing.Decision{Reason: routing.ReasonNoSuchName}
		held := w.put(spool.StateHeld, "a@out.example", 1)
		w.run()
		time.Sleep(10 * time.Minute)
		if s := w.store.state(held, 0); s != spool.StateWaiting {
			t.Errorf("after the patience it is %s", s)
		}
		time.Sleep(24 * time.Hour)
		w.stop()
		if s := w.store.state(held, 0); s != spool.StateReturned || len(w.store.notices()) != 1 {
			t.Errorf("in the end it is %s, with %d notices", s, len(w.store.notices()))
		}
	})
}

// TestNoticeNotTaken: a notice that can't be written stays due, over a restart too.
func TestNoticeNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		id := w.put(spool.StateFailed, "a@out.example", 1)
		w.store.putErr = errors.New("spool full")
		w.run()
		time.Sleep(10 * time.Minute)
		if s := w.store.state(id, 0); s != spool.StateFailed || w.alarm("spool-notice") == "" {
			t.Errorf("message is %s, and no alarm", s)
		}
		w.store.mu.Lock()
		w.store.putErr = nil
		w.store.mu.Unlock()
		w.settle(time.Minute, "the sender is told", func() bool { return w.store.state(id, 0) == spool.StateReturned && w.store.empty() })
		w.stop()
	})
}

// TestNoticeRefused: a notice that its relay refuses is set aside; nobody is told about it.
func TestNoticeRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.put(spool.StateFailed, "a@out.example", 1)
		w.behave = func(*Delivery, *Recipient) Result {
			return Result{Status: Refused, Reply: mail.NewReply(550, 5, 1, 1, "no such user")}
		}
		w.run()
		time.Sleep(time.Hour)
		w.stop()
		n := w.store.notices()
		if len(n) != 1 || w.store.state(n[0].Transaction, 0) != spool.StateQuarantined {
			t.Errorf("notices %v", n)
		}
	})
}

// TestRelayedNotice: who wants to know of success is told where the platform won't.
func TestRelayedNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1)
		w.behave = func(d *Delivery, _ *Recipient) Result {
			return Result{Status: Delivered, Silent: true, Reply: mail.NewReply(250, 0, 0, 0, "ok")}
		}
		w.putWith(spool.StateHeld, "a@out.example", gosmtp.RcptOptions{Notify: []gosmtp.DSNNotify{"SUCCESS"}}, 1)
		w.put(spool.StateHeld, "a@out.example", 1)
		w.run()
		w.settle(time.Minute, "all is delivered", w.store.empty)
		w.stop()
		n := w.store.notices()
		if len(n) != 1 || !strings.Contains(w.store.text(n[0].Transaction), "Action: relayed") {
			t.Errorf("%d notices", len(n))
		}
	})
}

// TestDamaged: a copy that isn't whole is set aside, and stops nobody.
func TestDamaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1)
		bad := w.put(spool.StateHeld, "a@out.example", 1)
		w.put(spool.StateHeld, "a@out.example", 1)
		w.behave = func(d *Delivery, _ *Recipient) Result {
			if d.Message.Transaction == bad {
				return Result{Status: Damaged, Err: spool.ErrDamaged}
			}
			return Result{}
		}
		w.run()
		w.settle(time.Minute, "the other is delivered", func() bool { return len(w.taken(false)) == 1 })
		w.stop()
		if s := w.store.state(bad, 0); s != spool.StateQuarantined {
			t.Errorf("the damaged message is %s", s)
		}
	})
}

// TestUnreadable: what this node can't read for a while keeps its order, and isn't given up.
func TestUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1)
		for range 5 {
			w.put(spool.StateHeld, "a@out.example", 1)
		}
		w.store.openErr = errors.New("too many open files")
		w.run()
		time.Sleep(time.Hour)
		if c, _ := w.store.Counts(); c.Of(spool.StateHeld) != 5 || w.alarm("spool-unreadable") == "" {
			t.Errorf("%d held, or no alarm", c.Of(spool.StateHeld))
		}
		w.store.mu.Lock()
		w.store.openErr = nil
		w.store.mu.Unlock()
		w.settle(time.Minute, "all is delivered", w.store.empty)
		w.stop()
		w.inOrder()
	})
}

// TestOutcomeNotWritten: what was delivered isn't sent again in this run, and somebody learns of it.
func TestOutcomeNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1)
		for range 5 {
			w.put(spool.StateHeld, "a@out.example", 1)
		}
		w.store.setErr = spool.ErrBroken
		w.run()
		w.settle(time.Minute, "all is delivered", w.store.empty)
		w.stop()
		if len(w.taken(true)) != 5 || w.alarm("spool-outcome") == "" {
			t.Errorf("%d attempts, or no alarm", len(w.taken(true)))
		}
	})
}
