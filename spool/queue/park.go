package queue

import (
	"fmt"
	"time"

	"mailcutover/routing"
	"mailcutover/spool"
)

// parked is what can't be sent because an agency is closed or, under the agency at its
// acceptance, because the table can't be used. The empty id is for fixed addresses and for
// what two agencies claim.
type parked struct {
	boxes []*box
	items []item
}

func (q *Queue) park(id routing.AgencyID) *parked {
	p := q.parked[id]
	if p == nil {
		p = new(parked)
		q.parked[id] = p
	}
	if q.nextLook.IsZero() {
		q.nextLook = time.Now().Add(recheck)
	}
	return p
}

// parkBox lays a box aside until its agency opens. q.mu is held.
func (q *Queue) parkBox(b *box, id routing.AgencyID) {
	b.agency = id
	b.failures = 0 // what it saw before its agency closed says nothing of what comes
	q.settleBox(b, boxParked)
	if b.state == boxParked {
		p := q.park(id)
		p.boxes = append(p.boxes, b)
	}
}

// unpark routes everything again that was laid aside for an agency. q.mu is held.
func (q *Queue) unpark(id routing.AgencyID, p *parked) {
	delete(q.parked, id)
	for _, b := range p.boxes {
		q.settleBox(b, boxNew)
	}
	for _, it := range p.items {
		q.goBack(it)
	}
	q.signal()
}

// lookAtParked routes, now and then, one of each agency's: if it may be sent, all may.
// q.mu is held.
func (q *Queue) lookAtParked(now time.Time) {
	if len(q.parked) == 0 {
		q.nextLook = time.Time{}
		return
	}
	if now.Before(q.nextLook) {
		return
	}
	q.nextLook = now.Add(recheck)
	for id, p := range q.parked {
		switch {
		case len(p.boxes) > 0:
			b := p.boxes[len(p.boxes)-1]
			p.boxes = p.boxes[:len(p.boxes)-1]
			q.settleBox(b, boxNew)
		case len(p.items) > 0:
			it := p.items[len(p.items)-1]
			p.items = p.items[:len(p.items)-1]
			q.goBack(it)
		default:
			delete(q.parked, id)
		}
	}
}

// opened is called when something of an agency may be sent: then all of it is looked at.
// q.mu is held.
func (q *Queue) opened(id routing.AgencyID) {
	if p := q.parked[id]; p != nil && len(p.boxes)+len(p.items) > 0 {
		q.unpark(id, p)
	}
}

// route decides for a recipient. A notice goes its fixed way.
func (q *Queue) route(m *spool.Message, rcpt int) (d routing.Decision, open bool) {
	r := &m.Recipients[rcpt]
	if m.Client.Listener == noticeListener {
		d = routing.Decision{Reason: routing.ReasonFixed, Platform: q.o.Notices.Platform, Address: r.Address}
		return d, d.Platform != ""
	}
	d = q.o.Router.Address(r.Address)
	return d, d.Deliver()
}

// kept reports whether a recipient that can't be delivered to now has to wait for a change
// of the table, however long that takes, and under which agency it is laid aside.
func kept(d *routing.Decision, r *spool.Recipient) (id routing.AgencyID, ok bool) {
	switch {
	case d.Reason == routing.ReasonConflict:
		return "", true // the agency may be open
	case d.Closed():
		return d.Agency, true
	case d.Reason == routing.ReasonTableUnavail, d.Reason == routing.ReasonUnknown:
		return r.Agency, true
	default:
		return "", false
	}
}

// routeBox asks the route for the first mail of a box.
func (q *Queue) routeBox(b *box) {
	q.mu.Lock()
	if b.state != boxNew || q.boxes[b.key] != b || len(b.refs) == 0 {
		q.mu.Unlock()
		return
	}
	r := b.refs[0]
	q.mu.Unlock()
	m, err := q.o.Store.Get(r.transaction())
	if err != nil || int(r.rcpt) >= len(m.Recipients) || m.Recipients[r.rcpt].State != spool.StateHeld {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.unreadable(b, r, err)
		return
	}
	d, open := q.route(m, int(r.rcpt))
	q.directBox(b, m, r, &d, open)
}

// directBox puts a box where the decision for its first mail says.
func (q *Queue) directBox(b *box, m *spool.Message, first ref, d *routing.Decision, open bool) {
	r := &m.Recipients[first.rcpt]
	id, keep := kept(d, r)
	if !open && !keep {
		q.putOffBox(b, m, first, Result{Status: Deferred, Err: fmt.Errorf("route of %s: %s", r.Address, d.Reason)})
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.boxes[b.key] != b: // an operator emptied it meanwhile
	case !open:
		q.parkBox(b, id)
	case time.Now().Before(q.restsUntil(m, int(first.rcpt))):
		q.rest(b, q.restsUntil(m, int(first.rcpt)))
	default:
		b.setLane(q.lane(d.Platform))
		q.settleBox(b, boxReady)
		q.opened(d.Agency)
		if b.agency != d.Agency {
			q.opened(b.agency)
		}
	}
}

// routeItem asks the route for waiting mail.
func (q *Queue) routeItem(it item) {
	m, err := q.o.Store.Get(it.transaction())
	if err != nil || int(it.rcpt) >= len(m.Recipients) || m.Recipients[it.rcpt].State != spool.StateWaiting {
		q.gone(it, err)
		return
	}
	if q.rested(it, m) {
		return
	}
	r := &m.Recipients[it.rcpt]
	it.rests = false
	d, open := q.route(m, int(it.rcpt))
	id, keep := kept(&d, r)
	if it.stored {
		it.stored = false
		if wait := time.Until(q.due(m, r)); wait > 0 {
			q.mu.Lock()
			if open && r.Last.Cause != spool.CauseDoubt {
				wait = q.await(&it, q.lane(d.Platform), r.Last.Cause, wait)
			}
			q.schedule(it, min(wait, q.o.Retry.Max))
			q.mu.Unlock()
			return
		}
	} else if q.overtaken(it, m) {
		return
	}
	q.mu.Lock()
	switch {
	case open:
		l := q.lane(d.Platform)
		it.lane = l.number
		q.opened(d.Agency)
		if !l.down {
			l.items = append(l.items, it)
			q.mu.Unlock()
			return
		}
		last := l.last
		q.mu.Unlock()
		q.putOff(m, it, Result{Status: Unavailable, Err: last})
	case keep:
		p := q.park(id)
		p.items = append(p.items, it)
		q.mu.Unlock()
	default:
		q.mu.Unlock()
		q.putOff(m, it, Result{Status: Deferred, Err: fmt.Errorf("route of %s: %s", r.Address, d.Reason)})
	}
}
