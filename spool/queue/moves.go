package queue

import (
	"errors"

	"mailcutover/spool"
)

// errMoved is why mail stays whose address went to another mailbox when it was about to go.
var errMoved = errors.New("an address went to another mailbox meanwhile")

// followMoves has all held mail read anew, into boxes by the keys that it has now, if some got
// another one: an address went to another mailbox, and what is held for it goes with the
// other's, each in its place (P6). What is under way goes on; a box that has it first waits for
// that. Pauses, and since when a mailbox was put off, are forgotten: each is tried once more. q.mu
// is held.
func (q *Queue) followMoves() {
	now := q.o.Store.Moves()
	if now == q.moved {
		return
	}
	q.moved = now
	from := q.cursor
	for _, b := range q.boxes {
		if len(b.refs) > 0 {
			from = min(from, b.refs[0].seq-1)
		}
		if b.more {
			from = min(from, b.resume)
		}
		b.setLane(nil)
	}
	clear(q.boxes) // whoever still has one sees that it isn't there any more
	clear(q.hungry)
	q.triage, q.pauses, q.empty = nil, nil, nil
	for _, p := range q.parked {
		p.boxes = nil
	}
	q.rescan(from)
	q.signal()
}

// unmoved reports whether the held mail among parts is still in the boxes that it was taken from. A
// delivery asks after its routes: what has moved by then may have older mail before it that is
// none of the boxes' that it was first in, and what moves later its route doesn't know yet.
func (q *Queue) unmoved(parts []part) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.followMoves()
	for i := range parts {
		if b := parts[i].box; b != nil && q.boxes[b.key] != b {
			return false
		}
	}
	return true
}

// keyNow reads the key of an entry again. q.mu is held.
func (q *Queue) keyNow(e *spool.Entry) (k spool.Key) {
	k = e.Key
	q.o.Store.Each(spool.Filter{Transaction: e.Transaction}, func(now spool.Entry) bool {
		if now.Recipient == e.Recipient {
			k = now.Key
		}
		return true
	})
	return k
}

// unship says that these are under way no more: who waited for that looks again. q.mu is held.
func (q *Queue) unship(refs ...ref) {
	for _, r := range refs {
		b := q.sending[r]
		delete(q.sending, r)
		if b != nil && q.boxes[b.key] == b && b.state == boxBlocked {
			q.settleBox(b, boxReady)
		}
	}
}
