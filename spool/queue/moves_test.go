package queue

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// An address goes to another mailbox when a worker has just taken what is held for it, or has
// read it and asks for the route: the answer is of the new owner, whose older mail goes first (P6).
func TestAddressGoesToAnotherBesideAWorker(t *testing.T) {
	for _, c := range []struct {
		name  string
		boxes []int // addresses that the mail is for
		read  bool  // it is read already
	}{
		{"before it is read", []int{1}, false},
		{"before its route is asked", []int{1}, true},
		{"with another's, before it is read", []int{3, 1}, false},
		{"with another's, before its route is asked", []int{3, 1}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				w.open("ox", "health", 1, 3)
				w.shut("health", 2)
				w.put(spool.StateHeld, "a@out.example", 2)
				id := w.put(spool.StateHeld, "a@out.example", c.boxes...)
				// The first time is for the lane of each address, the next one a worker's.
				var asked, got atomic.Int32
				give := func() {
					w.store.give(1, box1(2))
					w.open("ox", "health", 1, 2)
				}
				w.q.o.Router = asking{w, func(a routing.Address) {
					if a == address(1) {
						if asked.Add(1) == 2 && c.read {
							give()
						}
					}
				}}
				w.q.o.Store = getting{w.store, func(m mail.TransactionID) {
					if m == id {
						if int(got.Add(1)) == 1+len(c.boxes) && !c.read {
							give()
						}
					}
				}}
				w.run()
				w.settle(time.Minute, "all is delivered", w.store.empty)
				w.stop()
				var order []uint64
				for _, s := range w.taken(false) {
					if s.address != address(3) {
						order = append(order, s.seq)
					}
				}
				if len(order) != 2 || !slices.IsSorted(order) {
					t.Errorf("not in order, or not once: %v", order)
				}
				if w.store.Moves() != 1 || len(w.q.boxes)+len(w.q.busy)+len(w.q.sending) != 0 || w.q.lanes["ox"].window != 0 {
					t.Errorf("after %d moves there are left in memory: %d boxes, %d busy, %d under way, window %d",
						w.store.Moves(), len(w.q.boxes), len(w.q.busy), len(w.q.sending), w.q.lanes["ox"].window)
				}
			})
		})
	}
}

// asking is a router of which something is done before it answers.
type asking struct {
	*world
	before func(routing.Address)
}

func (a asking) Address(at routing.Address) routing.Decision {
	a.before(at)
	return a.world.Address(at)
}

// getting is a store of which something is done before a message is read.
type getting struct {
	*memory
	before func(mail.TransactionID)
}

func (g getting) Get(id mail.TransactionID) (*spool.Message, error) {
	g.before(id)
	return g.memory.Get(id)
}

// An address goes to another mailbox right before a scan: what is held for it, and older than what
// the scans before found of the other's, isn't left out.
func TestAddressGoesToAnotherBeforeAScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.shut("health", 1, 2)
		set := w.put(spool.StateQuarantined, "a@out.example", 1)
		w.put(spool.StateHeld, "a@out.example", 2)
		var armed atomic.Bool
		w.q.o.Store = scanned{w.store, func() {
			if armed.CompareAndSwap(true, false) {
				w.store.give(1, box1(2))
			}
		}}
		w.run()
		time.Sleep(time.Second)
		armed.Store(true)
		if _, err := w.q.Release(Subject{Transaction: set}, "test"); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if armed.Load() {
			t.Error("no scan came")
		}
		w.open("ox", "health", 1, 2)
		w.settle(time.Minute, "all is delivered", w.store.empty)
		w.stop()
		if all := w.taken(false); len(all) != 2 || all[0].id != set {
			t.Errorf("not in order, or not once: %v", all)
		}
	})
}

// scanned is a store of which something is done before held mail is looked through.
type scanned struct {
	*memory
	before func()
}

func (s scanned) Each(f spool.Filter, yield func(spool.Entry) bool) {
	if f.State == spool.StateHeld {
		s.before()
	}
	s.memory.Each(f, yield)
}
