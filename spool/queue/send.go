package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mailcutover/routing"
	"mailcutover/spool"
)

// maxTogether is how many recipients share a transaction: what RFC 5321 section 4.5.3.1.8
// says every server takes.
const maxTogether = 100

// part is one recipient of a shipment.
type part struct {
	ref    ref
	key    spool.Key
	box    *box // nil: waiting mail
	item   item // of waiting mail
	joined bool // waiting mail whose item is elsewhere, and stays there
}

// shipment is one delivery from the queue's side. It belongs to its worker.
type shipment struct {
	q       *Queue
	lane    *lane
	began   time.Time
	m       *spool.Message
	to      []Recipient
	parts   []part
	settled bool
}

// sendBox makes a delivery of the first mail of a box, and of boxes with the same message.
func (q *Queue) sendBox(ctx context.Context, l *lane, first claim, with []claim) {
	b, r := first.box, first.ref
	m, err := q.o.Store.Get(r.transaction())
	if err != nil || int(r.rcpt) >= len(m.Recipients) || m.Recipients[r.rcpt].State != spool.StateHeld {
		q.putBack(with)
		q.mu.Lock()
		defer q.mu.Unlock()
		b.taken = 0
		q.free(b.key, r)
		q.unreadable(b, r, err)
		return
	}
	d, open := q.route(m, int(r.rcpt))
	if !open || d.Platform != l.platform || time.Now().Before(q.restsUntil(m, int(r.rcpt))) {
		q.putBack(with)
		q.mu.Lock()
		b.taken = 0
		q.free(b.key, r)
		q.mu.Unlock()
		q.directBox(b, m, r, &d, open)
		return
	}
	s := &shipment{q: q, lane: l, m: m}
	s.add(part{ref: r, key: b.key, box: b}, d)
	s.send(ctx, with)
}

// putBack gives back what wasn't sent.
func (q *Queue) putBack(claims []claim) {
	if len(claims) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range claims {
		c.box.taken = 0
		q.free(c.box.key, c.ref)
		q.settleBox(c.box, boxReady)
	}
}

// sendItem makes a delivery of waiting mail.
func (q *Queue) sendItem(ctx context.Context, l *lane, it item) {
	m, ok := q.dueNow(it)
	if !ok {
		return
	}
	d, open := q.route(m, int(it.rcpt))
	key := m.Recipients[it.rcpt].Key()
	q.mu.Lock()
	if !open || d.Platform != l.platform {
		it.lane = 0
		q.schedule(it, 0)
		q.mu.Unlock()
		q.signal()
		return
	}
	if _, busy := q.busy[key]; busy {
		q.blocked[key] = append(q.blocked[key], it)
		q.mu.Unlock()
		return
	}
	if _, sent := q.sending[it.ref]; sent {
		q.schedule(it, closedPause)
		q.mu.Unlock()
		return
	}
	q.busy[key], q.sending[it.ref] = struct{}{}, nil
	q.mu.Unlock()
	// Another delivery of the message may have taken it along since m was read. From now
	// on none does.
	if m, ok = q.dueNow(it); !ok {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.free(key, it.ref)
		return
	}
	s := &shipment{q: q, lane: l, m: m}
	s.add(part{ref: it.ref, key: key, item: it}, d)
	s.send(ctx, nil)
}

// dueNow returns the message of waiting mail that may go now. All other is put where it
// belongs.
func (q *Queue) dueNow(it item) (m *spool.Message, ok bool) {
	m, err := q.o.Store.Get(it.transaction())
	if err != nil || int(it.rcpt) >= len(m.Recipients) || m.Recipients[it.rcpt].State != spool.StateWaiting {
		q.gone(it, err)
		return nil, false
	}
	return m, !q.rested(it, m) && !q.overtaken(it, m)
}

// rested puts waiting mail that is in doubt back until the platform's limit has passed,
// whoever asked for it: another delivery of its message that took it along may have left
// it so, or the process before this one. It reports whether it did.
func (q *Queue) rested(it item, m *spool.Message) bool {
	until := q.restsUntil(m, int(it.rcpt))
	if !time.Now().Before(until) {
		return false
	}
	it.lane, it.stored, it.rests = 0, true, true
	q.mu.Lock()
	q.scheduleAt(it, until)
	q.mu.Unlock()
	return true
}

// restsUntil returns until when a recipient in doubt isn't sent to, whoever asks; a time
// that has passed for all others. A doubt that a start found is one of the whole message.
func (q *Queue) restsUntil(m *spool.Message, rcpt int) time.Time {
	until := q.o.Doubts[m.Transaction]
	if last := &m.Recipients[rcpt].Last; last.Cause == spool.CauseDoubt && last.Next.After(until) {
		return last.Next
	}
	return until
}

// overtaken puts waiting mail back that another delivery of its message took along after
// it had become due: then the record of that attempt says when it goes, unless all that it
// found was that the platform was away. It reports whether it did.
func (q *Queue) overtaken(it item, m *spool.Message) bool {
	r := &m.Recipients[it.rcpt]
	due := q.due(m, r)
	if r.Last.Cause == spool.CauseUnavailable || !r.Last.Time.After(q.begun.Add(it.due)) || !time.Now().Before(due) {
		return false
	}
	q.mu.Lock()
	q.scheduleAt(it, due)
	q.mu.Unlock()
	return true
}

// pace waits until the lane's rate allows a delivery. It looks at the rate once a second,
// so that a new one soon holds. It reports whether it may begin.
func (l *lane) pace(ctx context.Context) bool {
	for {
		r := l.limiter.Reserve()
		wait := r.Delay()
		if wait == 0 {
			return ctx.Err() == nil
		}
		if wait > time.Second {
			r.Cancel()
		}
		timer := time.NewTimer(min(wait, time.Second))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
			if wait <= time.Second {
				return true
			}
		}
	}
}

// free says that no delivery for a key is under way any more, nor of what was sent for it.
// q.mu is held.
func (q *Queue) free(k spool.Key, sent ...ref) {
	q.unship(sent...)
	delete(q.busy, k)
	if b := q.boxes[k]; b != nil && b.state == boxBlocked {
		q.settleBox(b, boxReady)
	}
	if items := q.blocked[k]; items != nil {
		delete(q.blocked, k)
		for _, it := range items {
			q.goBack(it)
		}
		q.signal()
	}
}

// unreadable drops a reference to what is held no more, or pauses the box if that isn't
// known. q.mu is held, and nothing of the box under way.
func (q *Queue) unreadable(b *box, r ref, err error) {
	if err != nil && !errors.Is(err, spool.ErrUnknown) {
		q.o.Alarms.Raise("spool-unreadable", fmt.Sprintf("Message %s in the spool can't be read, its mailbox waits: %v", r.transaction(), err))
		q.pause(b, time.Now().Add(q.o.Retry.PauseMax))
		return
	}
	q.pop(b, r)
	q.settleBox(b, boxNew)
}

// gone is unreadable for waiting mail.
func (q *Queue) gone(it item, err error) {
	if err == nil || errors.Is(err, spool.ErrUnknown) {
		return
	}
	q.o.Alarms.Raise("spool-unreadable", fmt.Sprintf("Message %s in the spool can't be read, it waits: %v", it.transaction(), err))
	q.mu.Lock()
	defer q.mu.Unlock()
	q.schedule(it, q.o.Retry.PauseMax)
}

func (s *shipment) add(p part, d routing.Decision) {
	s.parts = append(s.parts, p)
	s.to = append(s.to, Recipient{Index: int(p.ref.rcpt), Decision: d})
}

// join adds the other recipients of the message that may go now and go the same way: of
// held mail those that are next in their mailboxes.
func (s *shipment) join(with []claim) {
	q, first := s.q, &s.to[0].Decision
	for i := range s.m.Recipients {
		r := &s.m.Recipients[i]
		if i == s.to[0].Index || len(s.to) >= maxTogether || r.State != spool.StateHeld && r.State != spool.StateWaiting {
			continue
		}
		if !q.mayGo(s.m, i) {
			continue
		}
		d, open := q.route(s.m, i)
		if !open || d.Platform != first.Platform || (d.Armed || first.Armed) && d.Agency != first.Agency {
			continue
		}
		p := part{ref: s.parts[0].ref, key: r.Key()}
		p.ref.rcpt = uint32(i)
		if at := slices.IndexFunc(with, func(c claim) bool { return c.ref == p.ref }); at >= 0 && r.State == spool.StateHeld {
			p.box = with[at].box
			p.key = p.box.key // which is busy, also where the address went to another meanwhile
			with = slices.Delete(with, at, at+1)
			s.add(p, d)
		} else if q.mayJoin(s, &p, r.State) {
			if p.joined && !q.again(s.m, i) {
				q.leave(s, &p)
				continue
			}
			s.add(p, d)
		}
	}
	q.putBack(with)
}

// mayGo reports whether a recipient neither rests in doubt nor waits for its delay.
func (q *Queue) mayGo(m *spool.Message, rcpt int) bool {
	now, r := time.Now(), &m.Recipients[rcpt]
	return !now.Before(q.restsUntil(m, rcpt)) && (r.State != spool.StateWaiting || !now.Before(q.due(m, r)))
}

// again reads again what is known of a recipient that waited when m was read, and reports
// whether it still may go. A delivery asks once it has made the recipient's key busy: from
// then on nobody else changes that.
func (q *Queue) again(m *spool.Message, rcpt int) bool {
	now, err := q.o.Store.Get(m.Transaction)
	if err != nil || rcpt >= len(now.Recipients) || now.Recipients[rcpt].State != spool.StateWaiting {
		return false
	}
	m.Recipients[rcpt] = now.Recipients[rcpt]
	return q.mayGo(m, rcpt)
}

// mayJoin reports whether a part may go with a shipment, and makes it busy.
func (q *Queue) mayJoin(s *shipment, p *part, state spool.State) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	own := slices.ContainsFunc(s.parts, func(o part) bool { return o.key == p.key })
	if _, busy := q.busy[p.key]; busy && !own {
		return false
	}
	if _, sent := q.sending[p.ref]; sent {
		return false
	}
	if state == spool.StateWaiting {
		p.joined = true
		q.busy[p.key], q.sending[p.ref] = struct{}{}, nil
		return true
	}
	b := q.boxes[p.key]
	if b == nil || b.taken >= len(b.refs) || b.refs[b.taken] != p.ref || b.state != boxReady && !(own && b.state == boxBusy) {
		return false
	}
	b.state = boxBusy
	b.taken++
	p.box = b
	q.busy[p.key], q.sending[p.ref] = struct{}{}, nil
	return true
}

// leave undoes mayJoin.
func (q *Queue) leave(s *shipment, p *part) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unship(p.ref)
	if !slices.ContainsFunc(s.parts, func(o part) bool { return o.key == p.key }) {
		q.free(p.key)
	}
}

// send makes the attempt. with was taken for it, and goes with it if it can.
func (s *shipment) send(ctx context.Context, with []claim) {
	q := s.q
	if len(s.m.Recipients) > 1 {
		s.join(with)
	} else {
		q.putBack(with)
	}
	s.began = time.Now()
	if !q.unmoved(s.parts) {
		s.settle(slices.Repeat([]Result{{Status: Closed, Err: errMoved}}, len(s.to)))
		return
	}
	body, err := q.o.Store.Open(s.m.Transaction)
	if err != nil {
		r := Result{Status: Unavailable, Err: err} // a failure of this node's: no mailbox's fault
		switch {
		case errors.Is(err, spool.ErrDamaged):
			r.Status = Damaged
		case errors.Is(err, spool.ErrUnknown):
			r.Status = Deferred
		default:
			q.o.Alarms.Raise("spool-unreadable", fmt.Sprintf("Message %s in the spool can't be read, it waits: %v", s.m.Transaction, err))
		}
		s.settle(slices.Repeat([]Result{r}, len(s.to)))
		return
	}
	d := &Delivery{
		Message: s.m, Platform: s.lane.platform, Notice: s.m.Client.Listener == noticeListener,
		Recipients: s.to, Body: body, Settle: s.settle, Written: q.o.Store.Written,
	}
	results := q.o.Sender.Send(ctx, d)
	if err := body.Close(); err != nil {
		q.log.Warn("close body", "transaction", s.m.Transaction, "error", err)
	}
	s.settle(results)
}
