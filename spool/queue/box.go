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
	// windowRefs is how many references to held mail a lane has in memory at most.
	windowRefs = 20_000
	// boxRefs is how many of them are of one mailbox.
	boxRefs = 1_000
	// scanEvery is the least time between two scans.
	scanEvery = 5 * time.Millisecond
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
	boxEmpty                   // nothing is loaded, though there is more: a scan fills it
)

// box is a mailbox, or fixed address, with held mail.
type box struct {
	key    spool.Key
	refs   []ref // the first of its mail, in order
	taken  int   // of refs, the first ones: under way
	loaded ref   // the last that was ever in refs

	more   bool // there is mail behind refs, above the sequence resume
	resume uint64
	seen   uint64 // the scan that set more

	state    boxState
	queued   bool // in lane.boxes
	lane     *lane
	counted  int              // of refs, in lane.window
	agency   routing.AgencyID // while parked: which is closed
	until    time.Time        // while paused
	rests    bool             // while paused: in doubt, so that nothing ends the pause earlier
	heapAt   int              // index in pauses
	failures int              // since the last success
	since    time.Time        // of the first of them
}

// active reports whether mail of b goes as soon as its turn comes.
func (b *box) active() bool {
	return b.state == boxReady || b.state == boxBusy || b.state == boxBlocked
}

// room reports whether more mail may be loaded. The first always is, so that no platform's
// mail is behind another's.
func (b *box) room() bool {
	return len(b.refs) == 0 || b.active() && !b.lane.down && len(b.refs) < boxRefs && b.lane.window < windowRefs
}

// hungry reports whether b should be loaded.
func (b *box) hungry() bool {
	return b.more && (len(b.refs) == 0 || b.active() && len(b.refs) < boxRefs/4 && !b.lane.down) &&
		(b.lane == nil || b.lane.window < windowRefs/2)
}

// account corrects the lane's window after a change of b. q.mu is held.
func (q *Queue) account(b *box) {
	if b.lane == nil {
		return
	}
	want := 0
	if b.active() {
		want = len(b.refs)
	}
	before := b.lane.window
	b.lane.window += want - b.counted
	b.counted = want
	if before >= windowRefs/2 && b.lane.window < windowRefs/2 {
		q.starving = true
		q.signal()
	}
}

// setLane puts b into a lane.
func (b *box) setLane(l *lane) {
	if b.lane != nil && b.lane != l {
		b.lane.window -= b.counted
		b.counted, b.queued = 0, false
	}
	b.lane = l
}

// scan loads held mail that has room, in order of acceptance, from where the last scan
// ended or mail was left.
func (q *Queue) scan(ctx context.Context) {
	q.mu.Lock()
	began := time.Now()
	if began.Before(q.scanAt) {
		q.mu.Unlock()
		return
	}
	if q.starving && !q.scanDue {
		q.starving = false
		for b := range q.hungry {
			if q.boxes[b.key] != b || !b.more {
				delete(q.hungry, b)
			} else if b.hungry() {
				q.rescan(b.resume)
				delete(q.hungry, b)
			}
		}
	}
	if !q.scanDue {
		q.scanAt = began.Add(scanEvery)
		q.mu.Unlock()
		return
	}
	q.followMoves()
	q.scanDue, q.scanning = false, true
	q.scanNo++
	from, empty, moved := q.cursor, q.empty, q.moved
	q.empty = nil
	q.mu.Unlock()
	ended := false
	q.o.Store.Each(spool.Filter{State: spool.StateHeld, After: from}, func(e spool.Entry) bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.followMoves(); q.moved != moved { // the boxes may have others' mail: another scan is due
			return false
		}
		q.loadHeld(refOf(&e), e.Key, from)
		q.cursor = max(q.cursor, e.Sequence)
		ended = ctx.Err() != nil
		return !ended
	})
	q.mu.Lock()
	defer q.mu.Unlock()
	q.scanning = false
	q.followMoves()
	for _, b := range empty {
		if b.state != boxEmpty || q.boxes[b.key] != b {
			continue
		}
		if b.more && (b.resume < from || b.seen == q.scanNo) { // this scan began behind what it had left, or left it
			q.empty = append(q.empty, b)
			q.hungry[b] = struct{}{}
			q.starving = true
			continue
		}
		delete(q.boxes, b.key) // what it had left is held no more
	}
	// A scan over a large spool takes time; scans take a tenth of it at most.
	q.scanAt = time.Now().Add(max(9*time.Since(began), scanEvery))
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
	if b.more && r.seq > b.resume {
		return // it was left, or what is before it
	}
	if !b.room() {
		b.more, b.resume, b.seen = true, r.seq-1, q.scanNo
		return
	}
	b.refs = append(b.refs, r)
	b.loaded = r
	q.account(b)
	if b.state == boxEmpty {
		q.goOn(b) // so that it has room for what follows in this scan
	}
}

// addHeld takes up a held recipient outside of a scan: one that was just accepted, or one
// that became held later than its successors. q.mu is held.
func (q *Queue) addHeld(r ref, k spool.Key) {
	b := q.boxes[k]
	if b == nil {
		b = &box{key: k, heapAt: -1, state: boxEmpty}
		q.boxes[k] = b
		q.empty = append(q.empty, b)
	}
	if r.compare(b.loaded) > 0 {
		q.leftFrom(b, r)
		return
	}
	if slices.Contains(b.refs[:b.taken], r) {
		return // it is under way
	}
	at, found := slices.BinarySearchFunc(b.refs[b.taken:], r, ref.compare)
	if !found {
		b.refs = slices.Insert(b.refs, b.taken+at, r)
		q.account(b)
		if b.state == boxEmpty {
			q.goOn(b)
		}
	}
}

// leftFrom has a box's mail read by a scan from a recipient on, which may have become held after
// those behind it: a scan that is under way may be past its place, and doesn't count. q.mu is held.
func (q *Queue) leftFrom(b *box, r ref) {
	left := b.more && b.resume < r.seq
	if left && !q.scanning {
		return // the next one sees it
	}
	if !left {
		b.more, b.resume = true, r.seq-1
	}
	b.seen = q.scanNo
	q.rescan(b.resume)
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
	q.account(b)
}

// settleBox puts a box, of which nothing is under way, where it belongs now. q.mu is held.
func (q *Queue) settleBox(b *box, to boxState) {
	if q.boxes[b.key] != b {
		return // it ended meanwhile
	}
	if len(b.refs) == 0 {
		if !b.more {
			b.state = boxEmpty
			q.account(b)
			delete(q.boxes, b.key)
			return
		}
		to = boxEmpty
	}
	if to != boxReady || b.lane.running < b.lane.allowed(time.Now()) {
		q.signal()
	}
	b.state = to
	switch to {
	case boxReady:
		if !b.queued {
			b.queued = true
			b.lane.boxes = append(b.lane.boxes, b)
		}
	case boxNew:
		q.trim(b)
		q.triage = append(q.triage, b)
	case boxPaused:
		q.trim(b)
		heap.Push(&q.pauses, b)
	case boxParked:
		q.trim(b)
	case boxEmpty:
		q.empty = append(q.empty, b)
	}
	q.account(b)
	if b.hungry() {
		q.rescan(b.resume)
		q.signal()
	} else if b.more && to != boxParked {
		q.hungry[b] = struct{}{}
	}
}

// pause leaves a box alone until a time. q.mu is held.
func (q *Queue) pause(b *box, until time.Time) {
	b.until, b.rests = until, false
	q.settleBox(b, boxPaused)
}

// rest leaves a box alone whose first mail is in doubt. q.mu is held.
func (q *Queue) rest(b *box, until time.Time) {
	b.until, b.rests = until, true
	q.settleBox(b, boxPaused)
}

// trim forgets all but the first message of a box that can't be sent to now.
func (q *Queue) trim(b *box) {
	n := 1
	for n < len(b.refs) && b.refs[n].seq == b.refs[0].seq {
		n++
	}
	if n >= len(b.refs) {
		return
	}
	b.refs = slices.Clone(b.refs[:n])
	b.loaded = b.refs[n-1]
	b.more, b.resume, b.seen = true, b.loaded.seq, q.scanNo
}

// resumePauses lets the boxes go on whose pause is over. q.mu is held.
func (q *Queue) resumePauses(now time.Time) {
	for len(q.pauses) > 0 && !now.Before(q.pauses[0].until) {
		q.goOn(heap.Pop(&q.pauses).(*box))
	}
}

// endPause lets a paused box go on. q.mu is held.
func (q *Queue) endPause(b *box) {
	heap.Remove(&q.pauses, b.heapAt)
	q.goOn(b)
}

// goOn puts a box into the lane that it was in; its route is asked at every attempt. q.mu
// is held.
func (q *Queue) goOn(b *box) {
	if b.lane == nil {
		q.settleBox(b, boxNew)
		return
	}
	q.settleBox(b, boxReady)
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
