package queue

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/mail"
	"mailcutover/spool"
)

func TestSubjectNeeded(t *testing.T) {
	w := newWorld(t, nil)
	for _, c := range []struct {
		s      Subject
		reason string
		ok     bool
	}{
		{Subject{}, "x", false},
		{Subject{State: spool.StateHeld}, "x", false},
		{Subject{All: true}, "", false},
		{Subject{All: true, Agency: "health"}, "x", false}, // all of one agency isn't all
		{Subject{All: true}, "x", true},
		{Subject{Agency: "health"}, "x", true},
	} {
		for name, act := range map[string]func(Subject, string) (Acted, error){"hold": w.q.Hold, "release": w.q.Release, "retry": w.q.Retry, "drop": w.q.Drop} {
			if _, err := act(c.s, c.reason); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrNoSubject) {
				t.Errorf("%s %+v for %q: %v", name, c.s, c.reason, err)
			}
		}
	}
}

// TestOperator holds, releases, retries and drops while a replay would go on.
func TestOperator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.shut("health", 1, 2)
		w.open("ox", "health", 3)
		var held []mail.TransactionID
		for range 3 {
			held = append(held, w.put(spool.StateHeld, "a@out.example", 1))
		}
		dropped := w.put(spool.StateHeld, "a@out.example", 2)
		over := true
		w.behave = func(_ *Delivery, r *Recipient) Result {
			if over && r.Decision.Address == address(3) {
				return Result{Status: Deferred}
			}
			return Result{}
		}
		waiting := w.put(spool.StateWaiting, "a@out.example", 3)
		w.run()
		time.Sleep(6 * time.Hour)

		if a, err := w.q.Hold(Subject{Transaction: held[0]}, "looks odd"); err != nil || a.Changed != 1 {
			t.Errorf("hold: %+v, %v", a, err)
		}
		if a, err := w.q.Drop(Subject{Key: spool.KeyOf(box1(2), "")}, "a test"); err != nil || a.Changed != 1 {
			t.Errorf("drop: %+v, %v", a, err)
		}
		if s := w.store.state(dropped, 0); s != spool.StateDropped {
			t.Errorf("dropped message is %s", s)
		}
		w.open("ox", "health", 1, 2)
		time.Sleep(time.Minute)
		if got := w.taken(false); len(got) != 2 {
			t.Errorf("after the opening: %v", got)
		}
		if a, err := w.q.Release(Subject{Agency: "health"}, "it is fine"); err != nil || a.Changed != 1 {
			t.Errorf("release: %+v, %v", a, err)
		}
		time.Sleep(time.Second)
		if s := w.store.state(held[0], 0); s != spool.StateDelivered {
			t.Errorf("released message is %s", s)
		}
		w.mu.Lock()
		over = false
		w.mu.Unlock()
		if a, err := w.q.Retry(Subject{Agency: "health"}, "quota raised"); err != nil || a.Changed != 1 {
			t.Errorf("retry: %+v, %v", a, err)
		}
		time.Sleep(time.Second)
		if s := w.store.state(waiting, 0); s != spool.StateDelivered {
			t.Errorf("retried message is %s", s)
		}
		w.stop()
		if len(w.q.boxes) != 0 || len(w.q.busy) != 0 {
			t.Errorf("left in memory: %d boxes, %d busy", len(w.q.boxes), len(w.q.busy))
		}
	})
}

// TestRetryEndsPauses: an operator who knows that a mailbox takes mail again need not wait.
func TestRetryEndsPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) {
			o.Retry.Pause, o.Retry.PauseMax, o.Retry.Patience = time.Hour, time.Hour, 24*time.Hour
		})
		w.open("ox", "health", 1)
		w.put(spool.StateHeld, "a@out.example", 1)
		over := true
		w.behave = func(*Delivery, *Recipient) Result {
			if over {
				return Result{Status: Deferred}
			}
			return Result{}
		}
		w.run()
		time.Sleep(time.Minute)
		w.mu.Lock()
		over = false
		w.mu.Unlock()
		if a, err := w.q.Retry(Subject{All: true}, "quota raised"); err != nil || a.Changed != 1 {
			t.Errorf("retry: %+v, %v", a, err)
		}
		w.settle(time.Second, "it is delivered", w.store.empty)
		w.stop()
	})
}

// TestOnlyWhatIsMeant: mail that came after somebody looked is left, though it fits.
func TestOnlyWhatIsMeant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		meant := w.put(spool.StateHeld, "a@out.example", 1)
		later := w.put(spool.StateHeld, "a@out.example", 1)
		a, err := w.q.Drop(Subject{All: true, Only: func(e *spool.Entry) bool { return e.Transaction == meant }}, "a test")
		if err != nil || a.Changed != 1 || w.store.state(meant, 0) != spool.StateDropped || w.store.state(later, 0) != spool.StateHeld {
			t.Errorf("%+v, %v: %s and %s", a, err, w.store.state(meant, 0), w.store.state(later, 0))
		}
	})
}
