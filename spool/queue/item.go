package queue

import (
	"cmp"
	"container/heap"
	"time"

	"mailcutover/mail"
	"mailcutover/spool"
)

// ref names one recipient of a message in the spool.
type ref struct {
	seq  uint64 // order of acceptance
	id   [16]byte
	rcpt uint32
}

func refOf(e *spool.Entry) ref {
	id, _ := e.Transaction.Bytes() // the spool has none that isn't an id
	return ref{seq: e.Sequence, id: id, rcpt: uint32(e.Recipient)}
}

func (r ref) transaction() mail.TransactionID { return mail.TransactionIDOf(r.id) }

// compare orders by acceptance.
func (r ref) compare(o ref) int {
	if c := cmp.Compare(r.seq, o.seq); c != 0 {
		return c
	}
	return cmp.Compare(r.rcpt, o.rcpt)
}

// item is waiting mail for one recipient. There can be very many.
type item struct {
	ref
	lane   uint16        // number of the lane that it waits for; 0: not known
	stored bool          // the journal says when it is due; due is when to look
	rests  bool          // in doubt: nothing makes it due earlier
	due    time.Duration // since Queue.begun
}

// itemHeap has the item that is due first at its top, of those the one accepted first.
type itemHeap []item

func (h itemHeap) Len() int { return len(h) }
func (h itemHeap) Less(i, j int) bool {
	if h[i].due != h[j].due {
		return h[i].due < h[j].due
	}
	return h[i].compare(h[j].ref) < 0
}
func (h itemHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *itemHeap) Push(x any)   { *h = append(*h, x.(item)) }
func (h *itemHeap) Pop() any {
	last := len(*h) - 1
	it := (*h)[last]
	*h = (*h)[:last]
	return it
}

func (h *itemHeap) init() { heap.Init(h) }

// schedule makes an item due after a delay. q.mu is held.
func (q *Queue) schedule(it item, delay time.Duration) { q.scheduleAt(it, time.Now().Add(delay)) }

// scheduleAt makes an item due at a time. q.mu is held.
func (q *Queue) scheduleAt(it item, at time.Time) {
	it.due = at.Sub(q.begun)
	heap.Push(&q.waiting, it)
}

// goBack has the route of an item asked that was due and couldn't go. It keeps the time at
// which it was due: by that it is seen whether another delivery took it along since. q.mu is
// held.
func (q *Queue) goBack(it item) {
	it.lane = 0
	heap.Push(&q.waiting, it)
}

// due returns when waiting mail is to be tried again, as its record says. What is in doubt
// each time gets rarer as all does, since each attempt may leave a copy: not sooner than
// its rest, which is in Last.Next, and not sooner than its delay.
func (q *Queue) due(m *spool.Message, r *spool.Recipient) time.Time {
	last := &r.Last
	switch {
	case last.Cause == spool.CauseDoubt:
		at := last.Time.Add(q.o.Retry.grown(q.o.Retry.First, q.o.Retry.Max, last.Attempts))
		if at.After(last.Next) {
			return at
		}
	case last.Next.IsZero() && last.Attempts > 0: // put off when it came in
		return m.Time.Add(q.o.Retry.First)
	}
	return last.Next
}

// dueItems takes the items that are due, and gives each to its lane. It returns those whose
// route has to be asked first: of unknown lanes, and of those that are down. q.mu is held.
func (q *Queue) dueItems(now time.Time) (asked []item) {
	at := now.Sub(q.begun)
	for len(q.waiting) > 0 && q.waiting[0].due <= at && len(asked) < routedAtOnce {
		it := heap.Pop(&q.waiting).(item)
		if l := q.byNumber[it.lane]; l == nil || l.down || it.stored {
			asked = append(asked, it)
		} else {
			l.items = append(l.items, it)
		}
	}
	return asked
}

// routedAtOnce bounds how long other work waits for routing.
const routedAtOnce = 1000

// wakeLane makes all due that waits for a lane since before a time. q.mu is held.
func (q *Queue) wakeLane(l *lane, since time.Time) {
	at, changed := since.Sub(q.begun), false
	for i := range q.waiting {
		if it := &q.waiting[i]; it.lane == l.number && it.due > at {
			it.due, changed = at, true
		}
	}
	if changed {
		heap.Init(&q.waiting)
	}
}

// probe makes the earliest item of a lane due, so that a platform that is down is asked.
// q.mu is held.
func (q *Queue) probe(l *lane) {
	first := -1
	for i := range q.waiting {
		if it := &q.waiting[i]; it.lane == l.number && (first < 0 || it.compare(q.waiting[first].ref) < 0) {
			first = i
		}
	}
	if first >= 0 {
		l.items = append(l.items, heap.Remove(&q.waiting, first).(item))
	}
}
