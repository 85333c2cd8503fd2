package queue

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/mail"
	"mailcutover/spool"
)

// More mailboxes with held mail than a lane's window holds: none is forgotten, with and
// without mail that comes meanwhile.
func TestNoMailboxIsForgottenBeyondTheWindow(t *testing.T) {
	for _, live := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			const n = 24_000
			for i := range n {
				w.open("ox", "health", i)
				w.put(spool.StateHeld, "a@out.example", i)
			}
			for i := range n {
				w.put(spool.StateHeld, "a@out.example", i)
			}
			w.open("ox", "health", n+1)
			w.run()
			for range 20 {
				time.Sleep(100 * time.Millisecond)
				if live {
					w.q.Added(w.put(spool.StateHeld, "a@out.example", n+1))
				}
			}
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if c, _ := w.store.Counts(); c.Of(spool.StateHeld) > 0 {
				t.Errorf("live %v: %d recipients are still held", live, c.Of(spool.StateHeld))
			}
			w.stop()
			w.inOrder()
		})
	}
}

// An operator releases mail while a scan is on its way to older mail of the mailbox: the older is
// loaded, and goes first.
func TestReleaseBesideAScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1, 2)
		w.put(spool.StateHeld, "a@out.example", 2)
		w.put(spool.StateHeld, "a@out.example", 1)
		set := w.put(spool.StateQuarantined, "a@out.example", 1)
		release := sync.OnceFunc(func() {
			if _, err := w.q.Release(Subject{Transaction: set}, "test"); err != nil {
				t.Error(err)
			}
		})
		w.q.o.Store = each{w.store, func(f spool.Filter, e spool.Entry) {
			if f.State == spool.StateHeld && e.Key == spool.KeyOf(box1(2), "") {
				release()
			}
		}}
		w.run()
		w.settle(time.Minute, "all is delivered", w.store.empty)
		w.stop()
		w.inOrder()
	})
}

// An operator releases mail while a scan is past its place: younger mail, which the scan still finds,
// doesn't hide it.
func TestReleaseBehindAScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1)
		w.shut("health", 2)
		first := w.put(spool.StateHeld, "a@out.example", 1)
		set := w.put(spool.StateQuarantined, "a@out.example", 1)
		w.put(spool.StateHeld, "a@out.example", 2)
		w.put(spool.StateHeld, "a@out.example", 1)
		w.took = time.Second // so that all is loaded before the first attempt ends
		off, tried := true, 0
		w.behave = func(d *Delivery, _ *Recipient) Result { // the mailbox pauses, all but its first mail is left
			if tried++; off && d.Message.Transaction == first {
				return Result{Status: Deferred, Err: errDown}
			}
			return Result{}
		}
		release := sync.OnceFunc(func() {
			if _, err := w.q.Release(Subject{Transaction: set}, "test"); err != nil {
				t.Error(err)
			}
		})
		w.q.o.Store = each{w.store, func(f spool.Filter, e spool.Entry) {
			w.mu.Lock()
			again := tried > 0
			w.mu.Unlock()
			if again && f.State == spool.StateHeld && e.Key == spool.KeyOf(box1(2), "") {
				release()
			}
		}}
		w.run()
		w.settle(time.Minute, "it was put off", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return tried > 0
		})
		w.mu.Lock()
		off = false
		w.mu.Unlock()
		w.settle(time.Hour, "all of the mailbox is delivered", func() bool { return len(w.taken(false)) == 3 })
		w.open("ox", "health", 2)
		w.settle(time.Hour, "all is delivered", w.store.empty)
		w.stop()
		w.inOrder()
	})
}

// An operator releases mail of a mailbox of which nothing is loaded at the moment, and that is older
// than what was: it goes.
func TestReleaseWhileNothingIsLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1)
		w.put(spool.StateHeld, "a@out.example", 1)
		k := spool.KeyOf(box1(1), "")
		w.store.Each(spool.Filter{Key: k}, func(e spool.Entry) bool {
			r := refOf(&e)
			b := &box{key: k, heapAt: -1, state: boxEmpty, loaded: ref{seq: r.seq + 1000}, more: true, resume: r.seq + 1000}
			w.q.boxes[k], w.q.empty, w.q.cursor = b, append(w.q.empty, b), b.resume
			w.q.addHeld(r, k)
			return true
		})
		w.run()
		w.settle(time.Minute, "all is delivered", w.store.empty)
		w.stop()
	})
}

// each is a store of which something is done at each entry that is read.
type each struct {
	*memory
	at func(spool.Filter, spool.Entry)
}

func (s each) Each(f spool.Filter, yield func(spool.Entry) bool) {
	s.memory.Each(f, func(e spool.Entry) bool {
		s.at(f, e)
		return yield(e)
	})
}

// What is in doubt rests until the platform's limit, also where a delivery took it along.
func TestJoinedRecipientsRestToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1, 2, 3)
		w.behave = func(*Delivery, *Recipient) Result {
			return Result{Status: InDoubt, Err: errDown, Until: time.Now().Add(10 * time.Minute)}
		}
		w.run()
		time.Sleep(time.Second)
		w.q.Added(w.put(spool.StateWaiting, "a@out.example", 1, 2, 3))
		time.Sleep(5 * time.Minute)
		if got := len(w.taken(true)); got != 3 {
			t.Errorf("%d attempts within the platform's limit, want 3", got)
		}
		w.stop()
	})
}

// What was in doubt before the start rests whatever an operator asks, and however much
// longer than the longest delay its rest is.
func TestDoubtsFromBeforeTheStartRest(t *testing.T) {
	for name, retry := range map[string]bool{"asked for": true, "left alone": false} {
		synctest.Test(t, func(t *testing.T) {
			doubts := map[mail.TransactionID]time.Time{}
			w := newWorld(t, func(o *Options) { o.Doubts, o.Retry.Max = doubts, 5*time.Minute })
			w.open("ox", "health", 1)
			doubts[w.put(spool.StateWaiting, "a@out.example", 1)] = time.Now().Add(time.Hour)
			w.run()
			synctest.Wait()
			if retry {
				if _, err := w.q.Retry(Subject{All: true}, "test"); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(30 * time.Minute)
			if got := len(w.taken(true)); got != 0 {
				t.Errorf("%s: %d attempts within the platform's limit", name, got)
			}
			time.Sleep(time.Hour)
			if got := len(w.taken(false)); got != 1 {
				t.Errorf("%s: %d deliveries after it, want 1", name, got)
			}
			w.stop()
		})
	}
}

// A failure from before an agency closed says nothing of the mailbox's patience after it.
func TestPatienceBeginsAnewWhenAnAgencyOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1)
		w.behave = func(*Delivery, *Recipient) Result {
			return Result{Status: Deferred, Err: errDown, Reply: mail.NewReply(451, 4, 2, 0, "Not now")}
		}
		id := w.put(spool.StateHeld, "a@out.example", 1)
		w.run()
		time.Sleep(100 * time.Millisecond)
		w.shut("health", 1)
		time.Sleep(time.Hour)
		w.open("ox", "health", 1)
		time.Sleep(3 * time.Second)
		if got := w.store.state(id, 0); got != spool.StateHeld {
			t.Errorf("state %s after one failure, want held", got)
		}
		w.stop()
	})
}

// A recipient that comes into the spool after those of later messages, as one does whose
// streaming ended badly: it lies between what is loaded and what was left, and isn't forgotten.
func TestNoneIsForgottenThatComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.shut("health", 1)
		w.open("ox", "health", 2)
		w.behave = func(*Delivery, *Recipient) Result { return Result{Status: Deferred, Err: errDown} }
		w.run()
		w.q.Added(w.put(spool.StateHeld, "a@out.example", 1))
		time.Sleep(time.Second) // it is loaded, and waits for its agency
		late := w.put(spool.StateWaiting, "a@out.example", 2)
		w.q.Added(late)
		w.q.Added(w.put(spool.StateHeld, "a@out.example", 1))
		time.Sleep(time.Second) // that one is left
		w.store.mu.Lock()
		m := w.store.messages[late]
		m.Recipients = append(m.Recipients, spool.Recipient{Address: address(1), Agency: "health", Mailbox: box1(1), State: spool.StateHeld})
		w.store.mu.Unlock()
		w.q.AddedFrom(late, 1)
		time.Sleep(time.Second)
		w.mu.Lock()
		w.behave = nil
		w.mu.Unlock()
		w.open("ox", "health", 1)
		w.settle(time.Hour, "all is delivered", w.store.empty)
		w.stop()
	})
}
