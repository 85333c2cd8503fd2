package queue

import (
	"container/heap"
	"context"
	"slices"
	"time"

	"mailcutover/routing"
	"mailcutover/spool"
)

const (
	// windowRefs is how many references to held mail are in memory at once.
	windowRefs = 20_000
	// boxRefs is how many of them are of one mailbox.
	boxRefs = 1_000
	// idleRefs is how many a mailbox keeps that can't be sent to.
	idleRefs = 4
)

// boxState says where a box is.
type boxState uint8

const (
	boxNew     boxState = iota // in triage: its route is to be asked
	boxReady                   // in its lane
	boxBusy                    // a delivery is under way
	boxBlocked                 // a delivery of waiting mail for its key is under way
	boxPaused                  // put off until a time
	boxParked                  // its agency is closed
)

// box is a mailbox, or fixed address, with held mail.
type box struct {
	key    spool.Key
	refs   []ref // the first of its mail, in order
	taken  int   // of refs, the first ones: under way
	loaded ref   // the last that was ever in refs

	more   bool   // there is mail behind refs, above the sequence resume
	resume uint64
	seen   uint64 // the scan that set more

	state    boxState
	queued   bool // in lane.boxes
	lane     *lane
	agency   routing.AgencyID // while parked: which is closed
	until    time.Time        // while paused
	heapAt   int              // index in pauses
	failures int              // since the last success
	since    time.Time        // of the first of them
}

// room reports whether more mail may be loaded.
func (b *box) room() bool {
	if b.state == boxParked || b.state == boxPaused || b.state == boxNew {
		return len(b.refs) < idleRefs
	}
	return len(b.refs) < boxRefs
}

// scan loads held mail that has room, in order of acceptance, from where the last scan
// ended or mail was left.
func (q *Queue) scan(ctx context.Context) {
	q.mu.Lock()
	if !q.scanDue || q.window >= windowRefs/2 {
		q.mu.Unlock()
		return
	}
	q.scanDue = false
	q.scanNo++
	from := q.cursor
	q.mu.Unlock()
	q.o.Store.Each(spool.Filter{State: spool.StateHeld, After: from}, func(e spool.Entry) bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		if ctx.Err() != nil || q.window >= windowRefs {
			q.scanDue = true
			return false
		}
		q.loadHeld(refOf(&e), e.Key, from)
		q.cursor = max(q.cursor, e.Sequence)
		return true
	})
}

// loadHeld puts a reference into its box, or notes that it was left. from is where the
// scan began. q.mu is held.
func (q *Queue) loadHeld(r ref, k spool.Key, from uint64) {
	b := q.boxes[k]
	if b == nil {
		b = &box{key: k, heapAt: -1}
		q.boxes[k] = b
		q.triage = append(q.triage, b)
	}
	if r.compare(b.loaded) <= 0 {
		return
	}
	if b.more && b.seen != q.scanNo && from <= b.resume {
		b.more = false // this scan sees again what was left
	}
	if b.more {
		return
	}
	if !b.room() {
		b.more, b.resume, b.seen = true, r.seq-1, q.scanNo
		return
	}
	b.refs = append(b.refs, r)
	b.loaded = r
	q.window++
}

// addHeld takes up a held recipient outside of a scan: one that was just accepted, or one
// that became held later than its successors. q.mu is held.
func (q *Queue) addHeld(r ref, k spool.Key) {
	b := q.boxes[k]
	if b == nil || r.compare(b.loaded) > 0 {
		if b == nil || !b.more {
			q.rescan(r.seq - 1)
		}
		return
	}
	at, found := slices.BinarySearchFunc(b.refs[b.taken:], r, ref.compare)
	if !found {
		b.refs = slices.Insert(b.refs, b.taken+at, r)
		q.window++
	}
}

// rescan makes a scan due that begins after a sequence, at the latest. q.mu is held.
func (q *Queue) rescan(after uint64) {
	q.cursor = min(q.cursor, after)
	q.scanDue = true
}

// pop takes a reference out of its box: it isn't held mail any more. q.mu is held.
func (q *Queue) pop(b *box, r ref) {
	at := slices.Index(b.refs, r)
	if at < 0 {
		return
	}
	if at == 0 {
		b.refs = b.refs[1:]
	} else {
		b.refs = slices.Delete(b.refs, at, at+1)
	}
	if at < b.taken {
		b.taken--
	}
	q.window--
}

// settleBox puts a box, of which nothing is under way, where it belongs now. q.mu is held.
func (q *Queue) settleBox(b *box, to boxState) {
	if b.more && len(b.refs) < boxRefs/4 && to != boxParked {
		q.rescan(b.resume)
	}
	if len(b.refs) == 0 {
		if !b.more {
			delete(q.boxes, b.key)
			return
		}
		to = boxReady // the scan fills it
	}
	b.state = to
	switch to {
	case boxReady:
		if !b.queued {
			b.queued = true
			b.lane.boxes = append(b.lane.boxes, b)
		}
	case boxNew:
		q.triage = append(q.triage, b)
	case boxPaused:
		heap.Push(&q.pauses, b)
	}
	q.signal()
}

// pause leaves a box alone until a time. q.mu is held.
func (q *Queue) pause(b *box, until time.Time) {
	b.until = until
	q.trim(b)
	q.settleBox(b, boxPaused)
}

// trim forgets all but the first references of a box that can't be sent to, so that it
// takes no room from others. q.mu is held.
func (q *Queue) trim(b *box) {
	if len(b.refs) <= idleRefs {
		return
	}
	// Recipients of one message in one mailbox have one sequence: the cut is between
	// messages.
	n := idleRefs
	for n < len(b.refs) && b.refs[n].seq == b.refs[n-1].seq {
		n++
	}
	if n == len(b.refs) {
		return
	}
	q.window -= len(b.refs) - n
	b.refs = slices.Clone(b.refs[:n])
	b.loaded = b.refs[n-1]
	b.more, b.resume, b.seen = true, b.loaded.seq, q.scanNo
}

// resumePauses routes the boxes again whose pause is over. q.mu is held.
func (q *Queue) resumePauses(now time.Time) {
	for len(q.pauses) > 0 && !now.Before(q.pauses[0].until) {
		q.settleBox(heap.Pop(&q.pauses).(*box), boxNew)
	}
}

// boxHeap has the box at its top whose pause ends first.
type boxHeap []*box

func (h boxHeap) Len() int           { return len(h) }
func (h boxHeap) Less(i, j int) bool { return h[i].until.Before(h[j].until) }
func (h boxHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapAt, h[j].heapAt = i, j
}
func (h *boxHeap) Push(x any) {
	b := x.(*box)
	b.heapAt = len(*h)
	*h = append(*h, b)
}
func (h *boxHeap) Pop() any {
	last := len(*h) - 1
	b := (*h)[last]
	*h = (*h)[:last]
	b.heapAt = -1
	return b
}
