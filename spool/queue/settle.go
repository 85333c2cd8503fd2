package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

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
		if strings.HasPrefix(rcpt.Reason, inDoubt) {
			q.o.Alarms.Raise("in-doubt-again/"+rcpt.Key().String(), fmt.Sprintf("Message %s for %s is in doubt again: each attempt may leave a copy on %s, and what is held behind it waits.", s.m.Transaction, rcpt.Key().String(), s.lane.platform))
		}
		o.State, o.Next, o.Reason = rcpt.State, r.Until, inDoubt+": "+o.Reason
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

// closedPause is how long a delivery rests that the gate refused or cut. By then the router
// knows what the gate knew; without it the two could keep a worker busy for nothing.
const closedPause = 100 * time.Millisecond

// finishItem puts waiting mail where it belongs after an attempt. q.mu is held.
func (s *shipment) finishItem(p *part, r *Result, next time.Duration) {
	q := s.q
	if final(r.Status) || p.joined {
		return
	}
	p.item.lane = s.lane.number
	switch {
	case r.Status == InDoubt:
		p.item.lane, p.item.rests = 0, true
	case r.Status == Closed:
		p.item.lane, next = 0, closedPause // its route is asked again
	case next == 0 && r.Status != InDoubt:
		return // its life is over
	}
	q.schedule(p.item, next)
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
