package ledger

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/mail"
)

// Whatever happens in whatever order (intents, outcomes, ticks, a disk that fails and
// recovers, kills, orderly stops), each start knows what is in doubt, and each search
// finds what is recorded, once.
func TestAnyOrderOfEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		disk := memdisk.New()
		l, err := open(options(disk, "1"))
		if err != nil {
			t.Fatal(err)
		}
		c := newCustody()
		tr := newTraffic(rapid.Uint64().Draw(t, "seed"))
		var p pace
		tickets := map[mail.TransactionID]Ticket{}
		failing := false
		unsure := false // an outcome may be in memory only
		t.Repeat(map[string]func(*rapid.T){
			"intend": func(t *rapid.T) {
				i := tr.intent()
				i.Time = time.Time{}
				c.tried[i.Transaction] = true
				ticket, err := l.Intend(i)
				if err == nil {
					c.intended[i.Transaction] = true
					tickets[i.Transaction] = ticket
				} else if !failing {
					for range 200 { // until it may be tried again
						_ = l.o.Now()
					}
				}
			},
			"outcome": func(t *rapid.T) {
				result := rapid.SampledFrom([]Result{ResultDelivered, ResultDelivered, ResultRefused, ResultInDoubt, ResultNotAcknowledged, ResultNotSent}).Draw(t, "result")
				for id, ticket := range tickets {
					l.Outcome(ticket, Answer{Result: result})
					c.ended[id] = result
					delete(tickets, id)
					break
				}
			},
			"tick": func(*rapid.T) { l.tick(&p) },
			"disk": func(t *rapid.T) {
				failing = rapid.Bool().Draw(t, "failing")
				disk.Fail(nil)
				if failing {
					op := rapid.SampledFrom([]memdisk.Op{memdisk.OpWrite, memdisk.OpCreate, memdisk.OpSync}).Draw(t, "operation")
					disk.Fail(func(o memdisk.Op, _ string) error {
						if o == op {
							return syscall.ENOSPC
						}
						return nil
					})
				}
			},
			"restart": func(t *rapid.T) {
				unsure = unsure || failing || l.Status().Err != nil
				if rapid.Bool().Draw(t, "in order") {
					_ = l.finish() // fails while the disk does
				}
				failing = false
				disk = disk.Restart(memdisk.LoseNothing)
				if l, err = open(options(disk, "1")); err != nil {
					t.Fatal(err)
				}
				clear(tickets)
				p = pace{}
				if unknown(l) {
					t.Fatal("unknown, though no power was lost")
				}
				if problems := c.problems(l, false, unsure); problems != nil {
					t.Fatalf("%q", problems)
				}
				n := 0
				for id := range c.tried { // an index finds as much as a scan
					if n++; n > 3 {
						break
					}
					for range l.Find(context.Background(), Query{Transaction: id}) {
						id = ""
					}
					if c.intended[id] {
						t.Fatalf("%s is not found by its id", id)
					}
				}
			},
		})
	})
}

// Transfers, searches and the ledger's own goroutine work at the same time.
func TestConcurrentUse(t *testing.T) {
	o := Options{Dir: t.TempDir(), Boot: "1", SegmentBytes: 20_000, MaxBytes: 100_000, SyncEvery: time.Millisecond}
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	const transfers, messages = 8, 60
	var all sync.WaitGroup
	for n := range transfers {
		all.Go(func() {
			tr := newTraffic(uint64(n))
			for range messages {
				i := tr.intent()
				i.Time = time.Time{}
				ticket, err := l.Intend(i)
				if err != nil {
					t.Error(err)
					return
				}
				l.Outcome(ticket, tr.answer(i))
				for r, err := range l.Find(t.Context(), Query{Transaction: i.Transaction}) {
					if err != nil || r.Answer(0).Result != ResultDelivered {
						t.Errorf("%+v, %v", r, err)
					}
				}
				_ = l.Status()
			}
		})
	}
	all.Wait()
	if s := l.Status(); s.Counts.Delivered != transfers*messages || s.Open != 0 || s.Err != nil {
		t.Errorf("%+v", s)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
