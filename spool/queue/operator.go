package queue

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// ErrNoSubject is what an operator's act gets that doesn't say on what, or why.
var ErrNoSubject = errors.New("name an agency, a mailbox or a message, or all, and a reason")

// Subject says what an operator's act is on: the mail that all given fields fit.
type Subject struct {
	Transaction mail.TransactionID
	Agency      routing.AgencyID
	Key         spool.Key // a mailbox or fixed address
	State       spool.State
	All         bool // needed if no transaction, agency or key is given

	// Only says which of that are meant. It must not block. nil: all.
	Only func(*spool.Entry) bool
}

func (s *Subject) filter(reason string) (spool.Filter, error) {
	named := s.Transaction != "" || s.Agency != "" || s.Key != ""
	if named == s.All || reason == "" {
		return spool.Filter{}, fmt.Errorf("agency %q, mailbox %q, message %q, all %t, reason %q: %w", s.Agency, s.Key, s.Transaction, s.All, reason, ErrNoSubject)
	}
	return spool.Filter{Transaction: s.Transaction, Agency: s.Agency, Key: s.Key, State: s.State}, nil
}

// Acted is what an operator's act did.
type Acted struct {
	Changed int // recipients
	Busy    int // recipients of which a delivery was under way: they were left
}

// Hold sets held and waiting mail aside in quarantine, until Release or Drop.
func (q *Queue) Hold(s Subject, reason string) (Acted, error) {
	return q.act(s, reason, "set aside by an operator: ", func(e *spool.Entry) spool.State {
		if e.State == spool.StateHeld || e.State == spool.StateWaiting {
			return spool.StateQuarantined
		}
		return spool.StateUnknown
	})
}

// Release takes mail out of quarantine. It is held mail from then on, in its old place, so
// that it goes before what was accepted after it and is still there.
func (q *Queue) Release(s Subject, reason string) (Acted, error) {
	return q.act(s, reason, "released by an operator: ", func(e *spool.Entry) spool.State {
		if e.State == spool.StateQuarantined {
			return spool.StateHeld
		}
		return spool.StateUnknown
	})
}

// Drop removes mail for good, whatever its state; nobody is told.
func (q *Queue) Drop(s Subject, reason string) (Acted, error) {
	return q.act(s, reason, "dropped by an operator: ", func(*spool.Entry) spool.State { return spool.StateDropped })
}

// Retry makes waiting mail due now, and ends the pauses of held mail. What is in doubt
// rests until its platform's limit has passed, whoever asks.
func (q *Queue) Retry(s Subject, reason string) (Acted, error) {
	filter, err := s.filter(reason)
	if err != nil {
		return Acted{}, err
	}
	due := make(map[ref]struct{})
	keys := make(map[spool.Key]struct{})
	q.o.Store.Each(filter, func(e spool.Entry) bool {
		if s.Only != nil && !s.Only(&e) {
			return true
		}
		switch e.State {
		case spool.StateWaiting:
			due[refOf(&e)] = struct{}{}
		case spool.StateHeld:
			keys[e.Key] = struct{}{}
		}
		return true
	})
	q.mu.Lock()
	defer q.mu.Unlock()
	defer q.signal()
	var a Acted
	again := make(itemHeap, 0, len(q.waiting))
	now := time.Since(q.begun)
	for _, it := range q.waiting {
		if _, ok := due[it.ref]; ok && !it.rests {
			it.due, it.stored = now, false
			a.Changed++
		}
		again = append(again, it)
	}
	q.waiting = again
	q.waiting.init()
	for k := range keys {
		if b := q.boxes[k]; b != nil && b.state == boxPaused && !b.rests {
			q.endPause(b)
			a.Changed++
		}
	}
	q.log.Info("operator: retry", "changed", a.Changed, "reason", reason)
	return a, nil
}

// act changes the states of what a subject names, but of what is under way.
func (q *Queue) act(s Subject, reason, prefix string, to func(*spool.Entry) spool.State) (a Acted, err error) {
	filter, err := s.filter(reason)
	if err != nil {
		return a, err
	}
	var entries []spool.Entry
	flush := func() error {
		n, err := q.change(entries, prefix, reason, to)
		a.Changed += n.Changed
		a.Busy += n.Busy
		entries = entries[:0]
		return err
	}
	q.o.Store.Each(filter, func(e spool.Entry) bool {
		if to(&e) != spool.StateUnknown && (s.Only == nil || s.Only(&e)) {
			entries = append(entries, e)
		}
		if len(entries) >= 256 {
			err = flush()
		}
		return err == nil
	})
	if err == nil {
		err = flush()
	}
	q.clearQuarantine()
	q.log.Info("operator: "+prefix+reason, "transaction", s.Transaction, "agency", s.Agency, "changed", a.Changed, "busy", a.Busy)
	return a, err
}

// change changes entries that nobody delivers, and keeps those from being begun meanwhile.
func (q *Queue) change(entries []spool.Entry, prefix, reason string, to func(*spool.Entry) spool.State) (a Acted, err error) {
	var outcomes []spool.Outcome
	var kept []spool.Entry
	mine := make(map[spool.Key]struct{})
	q.mu.Lock()
	for i := range entries {
		e := &entries[i]
		if _, sent := q.sending[refOf(e)]; sent {
			a.Busy++
			continue
		}
		if _, own := mine[e.Key]; !own {
			if _, busy := q.busy[e.Key]; busy {
				a.Busy++
				continue
			}
			mine[e.Key] = struct{}{}
			q.busy[e.Key] = struct{}{}
		}
		kept = append(kept, *e)
		q.sending[refOf(e)] = nil
		o := spool.Outcome{Transaction: e.Transaction, Recipient: e.Recipient, State: to(e), Reason: prefix + reason}
		o.Time = time.Now()
		outcomes = append(outcomes, o)
	}
	q.mu.Unlock()
	done := acts{q: q}
	var read *spool.Message
	for i := range outcomes {
		done.message(outcomes[i].Transaction)
		read = q.keepDoubt(read, &outcomes[i])
		e := q.o.Store.Set(outcomes[i])
		if errors.Is(e, spool.ErrUnknown) {
			continue
		}
		if e != nil {
			err = e // it stands in memory, and is written when the disk takes it
		}
		a.Changed++
		done.did(&outcomes[i], reason)
	}
	done.flush()
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range kept {
		e := &kept[i]
		q.unship(refOf(e))
		if b := q.boxes[e.Key]; b != nil && e.State == spool.StateHeld {
			if r := refOf(e); slices.Contains(b.refs, r) {
				q.forget(b, r)
			}
		}
		if e.State = outcomes[i].State; e.State == spool.StateHeld {
			e.Key = q.keyNow(e) // Store.Moves didn't count what wasn't held
		}
		q.takeUp(e, q.moved, true)
	}
	for k := range mine {
		q.free(k)
	}
	q.signal()
	return a, err
}

// keepDoubt lets a recipient rest on that is in doubt: nothing that a person does makes an
// earlier copy of the message known. read is the message that was read last, if any; it
// returns that for the next call.
func (q *Queue) keepDoubt(read *spool.Message, o *spool.Outcome) *spool.Message {
	if o.State != spool.StateQuarantined && o.State != spool.StateHeld {
		return read
	}
	if read == nil || read.Transaction != o.Transaction {
		var err error
		if read, err = q.o.Store.Get(o.Transaction); err != nil {
			q.log.Warn("whether a message is in doubt can't be read", "transaction", o.Transaction, "error", err)
			return nil
		}
	}
	if o.Recipient < len(read.Recipients) {
		if last := &read.Recipients[o.Recipient].Last; last.Cause == spool.CauseDoubt {
			o.Cause, o.Platform, o.Epoch, o.Attempts, o.Next = last.Cause, last.Platform, last.Epoch, last.Attempts, last.Next
		}
	}
	return read
}

// forget takes a reference out of a box of which nothing is under way. q.mu is held.
func (q *Queue) forget(b *box, r ref) {
	q.pop(b, r)
	if len(b.refs) > 0 {
		return
	}
	switch b.state {
	case boxPaused:
		q.endPause(b)
	case boxParked:
		if p := q.parked[b.agency]; p != nil {
			p.boxes = slices.DeleteFunc(p.boxes, func(o *box) bool { return o == b })
		}
		q.settleBox(b, boxNew)
	default:
		q.settleBox(b, boxNew)
	}
}
