package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"mailcutover/ledger"
	"mailcutover/spool"
	"mailcutover/spool/dsn"
)

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
	all := make([]spool.Outcome, len(s.parts))
	recorded := make([]spool.Outcome, 0, len(s.parts))
	causes := make([]ledger.Result, 0, len(s.parts))
	putOff := false
	for i := range s.parts {
		o := &all[i]
		*o = s.outcome(i, &results[i])
		if o.State != spool.StateUnknown {
			recorded = append(recorded, *o)
			causes = append(causes, results[i].cause())
		}
		putOff = putOff || results[i].Status == Deferred || results[i].Status == Unavailable
		q.obs.Attempted(s.lane.platform, s.parts[i].box != nil, results[i].Status)
		s.logResult(i, &results[i], o)
	}
	if putOff {
		q.putOffs(s.m, all, results)
	}
	q.ended(s.m, recorded, func(n int) ledger.Result { return causes[n] })
	q.record(recorded)

	q.mu.Lock()
	defer q.mu.Unlock()
	q.answered(s.lane, s.began, results)
	for i := range s.parts {
		p, o := &s.parts[i], &all[i]
		switch {
		case p.box == nil:
			s.finishItem(p, &results[i], o)
		case o.State == spool.StateWaiting: // its patience is over
			q.pop(p.box, p.ref)
			p.item = item{ref: p.ref}
			s.finishItem(p, &results[i], o)
		case final(results[i].Status):
			q.pop(p.box, p.ref)
		}
	}
	for i := range s.parts {
		if b := s.parts[i].box; b != nil && b.state == boxBusy {
			s.finishBox(b, results)
		}
	}
	for i := range s.parts {
		q.free(s.parts[i].key, s.parts[i].ref)
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
			q.quarantine.Lock()
			q.o.Alarms.Raise(quarantineAlarm, fmt.Sprintf("Mail was set aside in the spool's quarantine, last message %s: %s", o.Transaction, o.Reason))
			q.quarantine.Unlock()
		}
	}
}

// quarantineAlarm is on from when mail was set aside until there is none in quarantine.
const quarantineAlarm = "spool-quarantine"

// clearQuarantine ends the alarm if nothing is in quarantine any more.
func (q *Queue) clearQuarantine() {
	q.quarantine.Lock()
	defer q.quarantine.Unlock()
	if all, _ := q.o.Store.Counts(); all.Of(spool.StateQuarantined) == 0 {
		q.o.Alarms.Clear(quarantineAlarm)
	}
}

// outcome returns what is recorded for a part. A state of StateUnknown: nothing is.
func (s *shipment) outcome(i int, r *Result) spool.Outcome {
	q, p, to := s.q, &s.parts[i], &s.to[i]
	rcpt := &s.m.Recipients[to.Index]
	now := time.Now()
	o := spool.Outcome{Transaction: s.m.Transaction, Recipient: to.Index, Reason: r.text()}
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
		s.doubt(p, rcpt, r, &o)
	case Closed:
	case Unavailable:
		if p.box == nil {
			o.Cause = spool.CauseUnavailable
			o.State = q.putOffState(s.m, rcpt, &o)
		}
	default:
		if p.box == nil {
			o.State = q.putOffState(s.m, rcpt, &o)
			break
		}
		if o.State = s.patient(p, now); o.State == spool.StateWaiting {
			o.Attempts, o.Next = 1, now.Add(q.o.Retry.after(1))
		}
	}
	return o
}

// doubt says what becomes of a recipient in doubt: it rests until its platform's limit has
// passed, and goes again. Neither may that go on for ever, nor may what is held behind it
// wait for that: held mail gives its place up as if its platform put it off, and waiting
// mail has its life.
func (s *shipment) doubt(p *part, rcpt *spool.Recipient, r *Result, o *spool.Outcome) {
	q := s.q
	again := rcpt.Last.Cause == spool.CauseDoubt && rcpt.Last.Platform == s.lane.platform
	o.Cause, o.Next, o.Reason = spool.CauseDoubt, r.Until, "in doubt: "+o.Reason
	switch {
	case p.box != nil:
		if q.mu.Lock(); again && p.box.failures == 0 && rcpt.Last.Time.Before(q.begun) {
			p.box.failures, p.box.since = 1, rcpt.Last.Time
		}
		q.mu.Unlock()
		if o.State = s.patient(p, o.Time); o.State == spool.StateWaiting {
			o.Attempts = 1
		}
	case q.outlived(s.m, o):
		o.State = undeliverable(s.m, rcpt, spool.StateExpired)
	default:
		o.State = spool.StateWaiting
	}
	if again {
		q.o.Alarms.Raise("in-doubt-again/"+rcpt.Key().String(), fmt.Sprintf("Message %s for %s is in doubt again, now it is %s: each attempt may leave a copy on %s.", s.m.Transaction, rcpt.Key().String(), o.State, s.lane.platform))
	}
}

// patient notes that held mail wasn't taken, and returns whether it stays held or, for the
// sake of what is behind it, becomes waiting mail.
func (s *shipment) patient(p *part, now time.Time) spool.State {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	if p.box.failed(now) >= s.q.o.Retry.Patience {
		return spool.StateWaiting
	}
	return spool.StateHeld
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

// outlived reports whether waiting mail is given up after this attempt.
func (q *Queue) outlived(m *spool.Message, o *spool.Outcome) bool {
	return o.Time.Sub(m.Time) >= q.o.Retry.Life && o.Attempts >= minAttempts
}

// putOffState returns the state of waiting mail after an attempt in vain: it waits on,
// until o.Next, which this sets, or its life is over.
func (q *Queue) putOffState(m *spool.Message, rcpt *spool.Recipient, o *spool.Outcome) spool.State {
	if q.outlived(m, o) {
		return undeliverable(m, rcpt, spool.StateExpired)
	}
	o.Next = o.Time.Add(q.o.Retry.after(o.Attempts))
	if after := q.o.Notices.DelayAfter; after > 0 && !m.From.IsNull() && dsn.Wanted(dsn.Delayed, &rcpt.Options) {
		// It is late since the last attempt.
		if late := m.Time.Add(after); !o.Time.Before(late) && rcpt.Last.Time.Before(late) {
			q.mu.Lock()
			q.note(note{kind: dsn.Delayed, transaction: m.Transaction, rcpts: []int{o.Recipient}})
			q.mu.Unlock()
		}
	}
	return spool.StateWaiting
}

// putOff records that waiting mail couldn't be sent, without an attempt.
func (q *Queue) putOff(m *spool.Message, it item, r Result) {
	rcpt := &m.Recipients[it.rcpt]
	o := spool.Outcome{Transaction: m.Transaction, Recipient: int(it.rcpt), Reason: r.text()}
	o.Time, o.Platform, o.Attempts = time.Now(), rcpt.Last.Platform, rcpt.Last.Attempts+1
	if r.Status == Unavailable {
		o.Cause = spool.CauseUnavailable
	}
	o.State = q.putOffState(m, rcpt, &o)
	q.ended(m, []spool.Outcome{o}, func(int) ledger.Result { return ledger.ResultExpired })
	q.record([]spool.Outcome{o})
	if o.State == spool.StateWaiting {
		q.mu.Lock()
		defer q.mu.Unlock()
		if l := q.byNumber[it.lane]; r.Status == Unavailable && l != nil && !l.down {
			q.schedule(it, 0) // it came back meanwhile, and has woken what was there then
			return
		}
		q.scheduleAt(it, o.Next)
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

// closedPause is how long a delivery rests that the gate refused or cut. By then the router
// knows what the gate knew; without it the two could keep a worker busy for nothing.
const closedPause = 100 * time.Millisecond

// finishItem puts waiting mail where it belongs after an attempt. Of what was taken along
// the item sees it when it is due. q.mu is held.
func (s *shipment) finishItem(p *part, r *Result, o *spool.Outcome) {
	q, it := s.q, p.item
	switch {
	case p.joined:
	case r.Status == Closed:
		it.lane = 0 // its route is asked again
		q.schedule(it, closedPause)
	case o.State != spool.StateWaiting:
	case r.Status == InDoubt:
		it.lane, it.stored, it.rests = 0, true, true
		q.scheduleAt(it, o.Next)
	default:
		it.lane = s.lane.number
		q.scheduleAt(it, o.Next)
	}
}

// finishBox puts a box where it belongs after an attempt. q.mu is held.
func (s *shipment) finishBox(b *box, results []Result) {
	q := s.q
	b.taken = 0
	delivered, deferred, closed := false, false, false
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
			closed = true
		case InDoubt:
			if r.Until.After(doubt) && slices.Contains(b.refs, s.parts[i].ref) {
				doubt = r.Until
			}
		default:
			deferred = deferred || slices.Contains(b.refs, s.parts[i].ref)
		}
	}
	switch {
	case !doubt.IsZero():
		q.rest(b, doubt)
		return
	case deferred:
		q.pause(b, time.Now().Add(q.pauseOf(b)))
		return
	case closed:
		q.pause(b, time.Now().Add(closedPause))
		return
	case delivered:
		b.failures = 0
	}
	q.settleBox(b, boxReady)
}

// logResult writes the line that says how an attempt ended.
func (s *shipment) logResult(i int, r *Result, o *spool.Outcome) {
	d := &s.to[i].Decision
	attrs := append(make([]slog.Attr, 0, 10), slog.String("transaction", string(s.m.Transaction)), slog.String("platform", string(s.lane.platform)),
		slog.String("rcpt", string(s.m.Recipients[s.to[i].Index].Address)), slog.String("result", r.Status.String()))
	if d.Agency != "" {
		attrs = append(attrs, slog.String("agency", string(d.Agency)), slog.String("mailbox", d.Mailbox.String()), slog.String("epoch", d.Epoch.String()))
	}
	if r.Reply != nil {
		attrs = append(attrs, slog.Int("code", r.Reply.Code))
	}
	if o.State != spool.StateUnknown {
		attrs = append(attrs, slog.String("state", o.State.String()))
	}
	ctx := context.Background()
	if r.Status == Delivered {
		s.q.log.LogAttrs(ctx, slog.LevelInfo, "message from the spool", attrs...)
		return
	}
	s.q.log.LogAttrs(ctx, slog.LevelWarn, "message stays in the spool", append(attrs, slog.Any("error", r.Err))...)
}
