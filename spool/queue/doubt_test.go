package queue

import (
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/mail"
	"mailcutover/spool"
)

// lost is what a platform does that ends the connection after the dot.
func lost(limit time.Duration) Result {
	return Result{Status: InDoubt, Err: errDown, Until: time.Now().Add(limit), Slow: true}
}

// A message that its platform loses each time holds its mailbox up for the patience only,
// never goes again within the platform's limit, goes more and more rarely, and has its life
// as waiting mail has: then its sender is told.
func TestInDoubtEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const life = 24 * time.Hour
		w := newWorld(t, func(o *Options) { o.Retry.Life = life })
		w.open("ox", "health", 1)
		began := time.Now()
		bad := w.put(spool.StateHeld, "a@out.example", 1)
		next := w.put(spool.StateHeld, "a@out.example", 1)
		w.behave = func(d *Delivery, _ *Recipient) Result {
			if d.Message.Transaction == bad {
				return lost(10 * time.Minute)
			}
			return Result{}
		}
		w.run()
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		if got := w.taken(false); len(got) > 0 {
			t.Errorf("sent within the patience: %+v", got)
		}
		w.settle(3*time.Minute, "what is behind it goes", func() bool { return w.store.state(next, 0) == spool.StateDelivered })
		if got := w.store.state(bad, 0); got != spool.StateWaiting {
			t.Errorf("the message in doubt is %s", got)
		}
		time.Sleep(time.Until(began.Add(life - time.Second)))
		if got := w.store.state(bad, 0); got != spool.StateWaiting {
			t.Errorf("%s before its life was over", got)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if got := w.store.state(bad, 0); got != spool.StateReturned {
			t.Errorf("%s after its life, want returned", got)
		}
		w.stop()
		if got := w.store.notices(); len(got) != 1 || got[0].Recipients[0].Address != "a@out.example" {
			t.Errorf("%d notices, want one to the sender", len(got))
		}
		var last time.Time
		attempts := 0
		for _, s := range w.taken(true) {
			if s.id != bad {
				continue
			}
			attempts++
			if gap := s.at.Sub(last); gap < 10*time.Minute {
				t.Errorf("attempt %d came %s after the one before", attempts, gap)
			}
			last = s.at
		}
		if attempts < minAttempts || attempts > 40 {
			t.Errorf("%d attempts in %s", attempts, life)
		}
		if w.alarm("in-doubt-again/"+spool.KeyOf(box1(1), "").String()) == "" {
			t.Errorf("no alarm says so: %v", w.alarms)
		}
	})
}

// The same with a null sender: nobody is told, and the message is set aside for a human.
func TestInDoubtEachTimeFromNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Retry.Life = time.Hour })
		w.open("ox", "health", 1)
		id := w.put(spool.StateWaiting, "", 1)
		w.behave = func(*Delivery, *Recipient) Result { return lost(time.Minute) }
		w.run()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if got := w.store.state(id, 0); got != spool.StateQuarantined {
			t.Errorf("%s after its life, want quarantined", got)
		}
		w.stop()
		if n := len(w.store.notices()); n > 0 {
			t.Errorf("%d notices", n)
		}
	})
}

// Held mail that was in doubt before a start, or more than one, goes on being counted. A
// closed agency ends the count: held mail doesn't get too old while it can't go.
func TestDoubtsCountOverAStart(t *testing.T) {
	for name, test := range map[string]struct {
		closed bool
		want   spool.State
	}{"a start": {want: spool.StateWaiting}, "a closed agency": {closed: true, want: spool.StateHeld}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				w.open("ox", "health", 1)
				id := w.put(spool.StateHeld, "a@out.example", 1)
				w.behave = func(*Delivery, *Recipient) Result { return lost(10 * time.Minute) }
				w.run()
				time.Sleep(time.Minute)
				if test.closed {
					w.shut("health", 1)
					time.Sleep(24 * time.Hour)
					w.open("ox", "health", 1)
				} else {
					w.stop()
					again := newWorld(t, func(o *Options) { o.Store, o.Router, o.Sender, o.Alarms = w.store, w, w, w })
					w.q = again.q
					w.run()
				}
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if got := len(w.taken(true)); got != 2 {
					t.Errorf("%d attempts, want 2", got)
				}
				if got := w.store.state(id, 0); got != test.want {
					t.Errorf("%s, want %s", got, test.want)
				}
				w.stop()
			})
		})
	}
}

// Waiting mail whose platform was away before the start goes when that is back, be that
// before the start or after it, and not when its delay is over. What is in doubt rests.
func TestPlatformAwayOverAStart(t *testing.T) {
	for name, outage := range map[string]time.Duration{"back before the start": 0, "back after it": 20 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				w.open("ox", "health", 1, 2, 3, 4)
				began := time.Now()
				var away []mail.TransactionID
				for n := range 50 {
					id := w.put(spool.StateWaiting, "a@out.example", 1+n%3)
					w.store.messages[id].Recipients[0].Last = spool.Result{
						Time: began, Platform: "ox", Attempts: 9, Cause: spool.CauseUnavailable, Next: began.Add(55 * time.Minute),
					}
					away = append(away, id)
				}
				rests := w.put(spool.StateWaiting, "a@out.example", 4)
				w.store.messages[rests].Recipients[0].Last = spool.Result{
					Time: began, Platform: "ox", Attempts: 1, Cause: spool.CauseDoubt, Next: began.Add(40 * time.Minute),
				}
				w.behave = func(*Delivery, *Recipient) Result {
					if time.Since(began) < outage {
						return Result{Status: Unavailable, Err: errDown, Slow: true}
					}
					return Result{}
				}
				w.run()
				time.Sleep(outage)
				w.settle(time.Minute+30*time.Second+time.Second, "all that waited goes", func() bool {
					for _, id := range away {
						if w.store.state(id, 0) != spool.StateDelivered {
							return false
						}
					}
					return true
				})
				if got := w.store.state(rests, 0); got != spool.StateWaiting {
					t.Errorf("what is in doubt is %s within the platform's limit", got)
				}
				if asked := len(w.taken(true)) - len(away); asked > 100 {
					t.Errorf("the platform was asked %d times while it was away", asked)
				}
				w.settle(time.Hour, "what was in doubt goes", w.store.empty)
				w.stop()
			})
		})
	}
}

// Recipients that share a transaction and are put off wait for their delay each.
func TestTogetherPutOff(t *testing.T) {
	for name, held := range map[string]bool{"waiting": false, "with one that was held": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				w.took = 100 * time.Millisecond
				w.open("ox", "health", 1, 2, 3, 4)
				w.behave = func(*Delivery, *Recipient) Result {
					return Result{Status: Deferred, Reply: mail.NewReply(450, 4, 2, 1, "not now")}
				}
				w.run()
				time.Sleep(time.Second)
				id := w.put(spool.StateWaiting, "a@out.example", 1, 2, 3, 4)
				if held {
					w.store.messages[id].Recipients[0].State = spool.StateHeld
				}
				w.q.Added(id)
				time.Sleep(time.Second)
				attempts := map[string]int{}
				for _, s := range w.taken(true) {
					if attempts[string(s.address)]++; attempts[string(s.address)] > 1 {
						t.Errorf("%s was asked for again after %s", s.address, time.Since(s.at))
					}
				}
				if len(attempts) != 4 {
					t.Errorf("asked for %d recipients of 4", len(attempts))
				}
				w.behave = nil
				w.settle(3*time.Minute, "all go after their delay", w.store.empty)
				w.stop()
			})
		})
	}
}

// What is added to a message later is taken up once, and so is what was there before.
func TestAddedFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.open("ox", "health", 1, 2)
		w.behave = func(*Delivery, *Recipient) Result {
			return Result{Status: Deferred, Reply: mail.NewReply(450, 4, 2, 1, "not now")}
		}
		w.run()
		time.Sleep(time.Second)
		id := w.put(spool.StateWaiting, "a@out.example", 1)
		w.q.AddedFrom(id, 0)
		time.Sleep(time.Second)
		w.store.mu.Lock()
		m := w.store.messages[id]
		m.Recipients = append(m.Recipients, m.Recipients[0])
		m.Recipients[1] = spool.Recipient{Address: address(2), Agency: "health", Mailbox: box1(2), State: spool.StateWaiting}
		w.store.mu.Unlock()
		w.q.AddedFrom(id, 1)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := w.taken(true); len(got) != 2 || got[0].address == got[1].address {
			t.Errorf("attempts %+v, want one for each", got)
		}
		w.stop()
	})
}

// What is set aside and released while it is in doubt rests until its platform's limit has
// passed, be it held or waiting.
func TestDoubtOutlivesTheOperator(t *testing.T) {
	for _, state := range []spool.State{spool.StateHeld, spool.StateWaiting} {
		t.Run(state.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				w.open("ox", "health", 1)
				began := time.Now()
				id := w.put(state, "a@out.example", 1)
				w.behave = func(*Delivery, *Recipient) Result {
					if time.Since(began) < time.Minute {
						return lost(10 * time.Minute)
					}
					return Result{}
				}
				w.run()
				time.Sleep(time.Minute)
				for _, act := range []func(Subject, string) (Acted, error){w.q.Hold, w.q.Release} {
					if a, err := act(Subject{Transaction: id}, "looks odd"); err != nil || a.Changed != 1 {
						t.Fatalf("%+v, %v", a, err)
					}
					time.Sleep(time.Minute)
				}
				time.Sleep(time.Until(began.Add(10*time.Minute - time.Second)))
				synctest.Wait()
				if got := w.store.state(id, 0); got != spool.StateHeld {
					t.Errorf("%s within the platform's limit", got)
				}
				w.settle(3*time.Minute, "it goes when the limit has passed", func() bool { return w.store.state(id, 0) == spool.StateDelivered })
				w.stop()
			})
		})
	}
}
