package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mailcutover/routing"
	"mailcutover/spool"
	"mailcutover/spool/dsn"
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
		q.free(b.key)
		q.unreadable(b, r, err)
		return
	}
	d, open := q.route(m, int(r.rcpt))
	if !open || d.Platform != l.platform || q.resting(m) {
		q.putBack(with)
		q.mu.Lock()
		b.taken = 0
		q.free(b.key)
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
		q.free(c.box.key)
		q.settleBox(c.box, boxReady)
	}
}

// sendItem makes a delivery of waiting mail.
func (q *Queue) sendItem(ctx context.Context, l *lane, it item) {
	m, err := q.o.Store.Get(it.transaction())
	if err != nil || int(it.rcpt) >= len(m.Recipients) || m.Recipients[it.rcpt].State != spool.StateWaiting {
		q.gone(it, err)
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
	q.busy[key] = struct{}{}
	q.mu.Unlock()
	if !q.stillWaiting(it.ref) { // another delivery of the message took it along since m was read
		q.mu.Lock()
		defer q.mu.Unlock()
		q.free(key)
		return
	}
	s := &shipment{q: q, lane: l, m: m}
	s.add(part{ref: it.ref, key: key, item: it}, d)
	s.send(ctx, nil)
}

// stillWaiting reports whether a recipient is waiting mail now. A delivery asks once it has
// made the recipient's key busy: from then on nobody else changes that.
func (q *Queue) stillWaiting(r ref) (yes bool) {
	q.o.Store.Each(spool.Filter{Transaction: r.transaction(), State: spool.StateWaiting}, func(e spool.Entry) bool {
		yes = yes || e.Recipient == int(r.rcpt)
		return !yes
	})
	return yes
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

// resting reports whether a message that a start found in doubt has to wait still.
func (q *Queue) resting(m *spool.Message) bool {
	until, ok := q.o.Doubts[m.Transaction]
	return ok && time.Now().Before(until)
}

// free says that no delivery for a key is under way any more. q.mu is held.
func (q *Queue) free(k spool.Key) {
	delete(q.busy, k)
	if b := q.boxes[k]; b != nil && b.state == boxBlocked {
		q.settleBox(b, boxReady)
	}
	if items := q.blocked[k]; items != nil {
		delete(q.blocked, k)
		for _, it := range items {
			q.schedule(it, 0)
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
		d, open := q.route(s.m, i)
		if !open || d.Platform != first.Platform || (d.Armed || first.Armed) && d.Agency != first.Agency {
			continue
		}
		p := part{ref: s.parts[0].ref, key: r.Key()}
		p.ref.rcpt = uint32(i)
		if at := slices.IndexFunc(with, func(c claim) bool { return c.ref == p.ref }); at >= 0 && r.State == spool.StateHeld {
			p.box = with[at].box
			with = slices.Delete(with, at, at+1)
			s.add(p, d)
		} else if q.mayJoin(s, &p, r.State) {
			if p.joined && !q.stillWaiting(p.ref) {
				q.leave(s, &p)
				continue
			}
			s.add(p, d)
		}
	}
	q.putBack(with)
}

// mayJoin reports whether a part may go with a shipment, and makes it busy.
func (q *Queue) mayJoin(s *shipment, p *part, state spool.State) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	own := slices.ContainsFunc(s.parts, func(o part) bool { return o.key == p.key })
	if _, busy := q.busy[p.key]; busy && !own {
		return false
	}
	if state == spool.StateWaiting {
		p.joined = true
		q.busy[p.key] = struct{}{}
		return true
	}
	b := q.boxes[p.key]
	if b == nil || b.taken >= len(b.refs) || b.refs[b.taken] != p.ref || b.state != boxReady && !(own && b.state == boxBusy) {
		return false
	}
	b.state = boxBusy
	b.taken++
	p.box = b
	q.busy[p.key] = struct{}{}
	return true
}

// leave undoes mayJoin.
func (q *Queue) leave(s *shipment, p *part) {
	q.mu.Lock()
	defer q.mu.Unlock()
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
	body, err := q.o.Store.Open(s.m.Transaction)
	if err != nil {
		r := Result{Status: Deferred, Err: err}
		if errors.Is(err, spool.ErrDamaged) {
			r.Status = Damaged
		}
		s.settle(slices.Repeat([]Result{r}, len(s.to)))
		return
	}
	d := &Delivery{
		Message: s.m, Platform: s.lane.platform, Notice: s.m.Client.Listener == noticeListener,
		Recipients: s.to, Body: body, Settle: s.settle,
	}
	results := q.o.Sender.Send(ctx, d)
	if err := body.Close(); err != nil {
		q.log.Warn("close body", "transaction", s.m.Transaction, "error", err)
	}
	s.settle(results)
}

// settle records what became of an attempt, and says what follows. Only its first call
// counts.
func (s *shipment) settle(results []Result) {
	if s.settled {
		return
	}
	s.settled = true
	q := s.q
	for len(results) < len(s.parts) {
		results = append(results, Result{Status: Deferred, Err: errors.New("no result")})
	}
	results = results[:len(s.parts)]
	outcomes := make([]spool.Outcome, 0, len(s.parts))
	next := make([]time.Duration, len(s.parts))
	for i := range s.parts {
		var o spool.Outcome
		o, next[i] = s.outcome(i, &results[i])
		if o.State != spool.StateUnknown {
			outcomes = append(outcomes, o)
		}
		q.obs.Attempted(s.lane.platform, s.parts[i].box != nil, results[i].Status)
		s.logResult(i, &results[i], &o)
	}
	q.record(outcomes)

	q.mu.Lock()
	defer q.mu.Unlock()
	q.answered(s.lane, s.began, results)
	for i := range s.parts {
		if p := &s.parts[i]; p.box == nil {
			s.finishItem(p, &results[i], next[i])
		} else if final(results[i].Status) || next[i] < 0 {
			q.pop(p.box, p.ref)
		}
	}
	for i := range s.parts {
		if b := s.parts[i].box; b != nil && b.state == boxBusy {
			s.finishBox(b, results)
		}
	}
	for i := range s.parts {
		q.free(s.parts[i].key)
	}
	for i := range results {
		if results[i].Status == Delivered {
			q.meter(s.m.Recipients[s.to[i].Index].Agency).add(time.Now())
		}
	}
}

// final reports whether a recipient needs no further attempt.
func final(s Status) bool { return s == Delivered || s == Refused || s == Damaged }

// record writes outcomes. They hold in memory whatever the disk says. Recipients that an
// operator removed meanwhile are left out.
func (q *Queue) record(outcomes []spool.Outcome) {
	if len(outcomes) == 0 {
		return
	}
	err := q.o.Store.Set(outcomes...)
	if errors.Is(err, spool.ErrUnknown) && len(outcomes) > 1 {
		for i := range outcomes {
			q.record(outcomes[i : i+1])
		}
		return
	}
	if errors.Is(err, spool.ErrUnknown) {
		q.log.Warn("outcome of a recipient that is gone from the spool", "transaction", outcomes[0].Transaction, "error", err)
		return
	}
	if err != nil {
		q.o.Alarms.Raise("spool-outcome", fmt.Sprintf("The spool could not note what became of message %s; if this node stops now it may go again: %v", outcomes[0].Transaction, err))
	}
	for i := range outcomes {
		o := &outcomes[i]
		switch o.State {
		case spool.StateFailed, spool.StateExpired:
			q.mu.Lock()
			q.note(note{kind: dsn.Failed, transaction: o.Transaction})
			q.mu.Unlock()
		case spool.StateQuarantined:
			q.obs.Quarantined()
			q.o.Alarms.Raise("spool-quarantine", fmt.Sprintf("Mail was set aside in the spool's quarantine, last message %s: %s", o.Transaction, o.Reason))
		}
	}
}

// outcome returns what is recorded for a part, and when it is due again; less than 0: as
// waiting mail that was held. A state of StateUnknown: nothing is recorded.
func (s *shipment) outcome(i int, r *Result) (o spool.Outcome, next time.Duration) {
	q, p, to := s.q, &s.parts[i], &s.to[i]
	rcpt := &s.m.Recipients[to.Index]
	now := time.Now()
	o = spool.Outcome{Transaction: s.m.Transaction, Recipient: to.Index, Reason: r.text()}
	o.Time, o.Platform, o.Epoch, o.Attempts = now, s.lane.platform, to.Decision.Epoch, rcpt.Last.Attempts+1
	if r.Reply != nil {
		o.Code = r.Reply.Code
	}
	switch r.Status {
	case Delivered:
		o.State = spool.StateDelivered
		if r.Silent && !s.m.From.IsNull() && dsn.Wanted(dsn.Relayed, &rcpt.Options) {
			q.tellRelayed(s.m, to.Index)
		}
	case Refused:
		o.State = undeliverable(s.m, rcpt, spool.StateFailed)
	case Damaged:
		o.State = spool.StateQuarantined
	case InDoubt:
		o.State, o.Next = rcpt.State, r.Until
		next = max(time.Until(r.Until), 0)
	case Closed:
	case Unavailable:
		if p.box == nil {
			o.State, next = q.putOffState(s.m, rcpt, &o)
		}
	default:
		if p.box == nil {
			o.State, next = q.putOffState(s.m, rcpt, &o)
			break
		}
		o.State = spool.StateHeld
		q.mu.Lock()
		over := p.box.failed(now) >= q.o.Retry.Patience
		q.mu.Unlock()
		if over {
			o.State, next, o.Attempts = spool.StateWaiting, -1, 1
			o.Next = now.Add(q.o.Retry.after(1))
		}
	}
	return o, next
}

// failed notes a failure and returns for how long the box has been failing.
func (b *box) failed(now time.Time) time.Duration {
	if b.failures == 0 {
		b.since = now
	}
	b.failures++
	return now.Sub(b.since)
}

// undeliverable returns the state of what ends without delivery: told says which one
// leads to a notice.
func undeliverable(m *spool.Message, rcpt *spool.Recipient, told spool.State) spool.State {
	switch {
	case m.From.IsNull():
		return spool.StateQuarantined
	case !dsn.Wanted(dsn.Failed, &rcpt.Options):
		return spool.StateReturned
	default:
		return told
	}
}

// putOffState returns the state of waiting mail after an attempt in vain: it waits on, for
// as long as the second result says, or its life is over.
func (q *Queue) putOffState(m *spool.Message, rcpt *spool.Recipient, o *spool.Outcome) (spool.State, time.Duration) {
	if o.Time.Sub(m.Time) >= q.o.Retry.Life && o.Attempts >= minAttempts {
		return undeliverable(m, rcpt, spool.StateExpired), 0
	}
	delay := q.o.Retry.after(o.Attempts)
	o.Next = o.Time.Add(delay)
	if after := q.o.Notices.DelayAfter; after > 0 && !m.From.IsNull() && dsn.Wanted(dsn.Delayed, &rcpt.Options) {
		// It is late since the last attempt.
		if late := m.Time.Add(after); !o.Time.Before(late) && rcpt.Last.Time.Before(late) {
			q.mu.Lock()
			q.note(note{kind: dsn.Delayed, transaction: m.Transaction, rcpts: []int{o.Recipient}})
			q.mu.Unlock()
		}
	}
	return spool.StateWaiting, delay
}

// putOff records that waiting mail couldn't be sent, without an attempt.
func (q *Queue) putOff(m *spool.Message, it item, r Result) {
	rcpt := &m.Recipients[it.rcpt]
	o := spool.Outcome{Transaction: m.Transaction, Recipient: int(it.rcpt), Reason: r.text()}
	o.Time, o.Platform, o.Attempts = time.Now(), rcpt.Last.Platform, rcpt.Last.Attempts+1
	var delay time.Duration
	o.State, delay = q.putOffState(m, rcpt, &o)
	q.record([]spool.Outcome{o})
	if o.State == spool.StateWaiting {
		q.mu.Lock()
		q.schedule(it, delay)
		q.mu.Unlock()
	}
}

// putOffBox pauses a box whose first mail has no route, or makes that waiting mail.
func (q *Queue) putOffBox(b *box, m *spool.Message, first ref, r Result) {
	now := time.Now()
	q.mu.Lock()
	if b.failed(now) < q.o.Retry.Patience {
		q.pause(b, now.Add(q.pauseOf(b)))
		q.mu.Unlock()
		return
	}
	q.mu.Unlock()
	o := spool.Outcome{Transaction: m.Transaction, Recipient: int(first.rcpt), State: spool.StateWaiting, Reason: r.text()}
	delay := q.o.Retry.after(1)
	o.Time, o.Attempts, o.Next = now, 1, now.Add(delay)
	q.record([]spool.Outcome{o})
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pop(b, first)
	q.schedule(item{ref: first}, delay)
	q.settleBox(b, boxNew)
}

func (q *Queue) pauseOf(b *box) time.Duration {
	return q.o.Retry.jittered(q.o.Retry.grown(q.o.Retry.Pause, q.o.Retry.PauseMax, b.failures))
}

// finishItem puts waiting mail where it belongs after an attempt. q.mu is held.
func (s *shipment) finishItem(p *part, r *Result, next time.Duration) {
	q := s.q
	if final(r.Status) || p.joined {
		return
	}
	p.item.lane = s.lane.number
	switch {
	case r.Status == Closed:
		p.item.lane = 0 // its route is asked again
	case next == 0 && r.Status != InDoubt:
		return // its life is over
	}
	q.schedule(p.item, next)
}

// finishBox puts a box where it belongs after an attempt. q.mu is held.
func (s *shipment) finishBox(b *box, results []Result) {
	q := s.q
	b.taken = 0
	to, delivered, deferred := boxReady, false, false
	var doubt time.Time
	for i := range s.parts {
		if s.parts[i].box != b {
			continue
		}
		switch r := &results[i]; r.Status {
		case Delivered:
			delivered = true
		case Refused, Damaged, Unavailable:
		case Closed:
			to = boxNew
		case InDoubt:
			if r.Until.After(doubt) {
				doubt = r.Until
			}
		default:
			if slices.Contains(b.refs, s.parts[i].ref) {
				deferred = true
			} else {
				it := item{ref: s.parts[i].ref, lane: s.lane.number} // its patience is over
				q.schedule(it, q.o.Retry.after(1))
			}
		}
	}
	switch {
	case !doubt.IsZero():
		q.pause(b, doubt)
		return
	case deferred:
		q.pause(b, time.Now().Add(q.pauseOf(b)))
		return
	case delivered:
		b.failures = 0
	}
	q.settleBox(b, to)
}

// logResult writes the line that says how an attempt ended.
func (s *shipment) logResult(i int, r *Result, o *spool.Outcome) {
	d := &s.to[i].Decision
	args := []any{"transaction", s.m.Transaction, "platform", s.lane.platform, "rcpt", s.m.Recipients[s.to[i].Index].Address, "result", r.Status.String()}
	if d.Agency != "" {
		args = append(args, "agency", d.Agency, "mailbox", d.Mailbox, "epoch", d.Epoch)
	}
	if r.Reply != nil {
		args = append(args, "code", r.Reply.Code)
	}
	if o.State != spool.StateUnknown {
		args = append(args, "state", o.State.String())
	}
	if r.Status == Delivered {
		s.q.log.Info("message from the spool", args...)
		return
	}
	s.q.log.Warn("message stays in the spool", append(args, "error", r.Err)...)
}
