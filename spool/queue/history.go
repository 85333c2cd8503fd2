package queue

import (
	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// ending is something that became of one recipient without a platform's acceptance.
type ending struct {
	rcpt   int
	epoch  routing.Epoch // of the decision for the attempt, if one led to it
	answer ledger.Answer
}

// history writes into the ledger what became of recipients of a message, so that it is known
// when the message has left the spool (P10). platform is the one that was tried, if any. A
// ledger that can't be written keeps nothing from happening.
func (q *Queue) history(m *spool.Message, platform routing.PlatformID, endings ...ending) {
	if q.o.Ledger == nil || len(endings) == 0 {
		return
	}
	i := ledger.Intent{Transaction: m.Transaction, Platform: platform, From: m.From.String(), MessageID: m.MessageID, Size: m.Size, Local: true}
	answers := make([]ledger.Answer, len(endings))
	for n, e := range endings {
		r := &m.Recipients[e.rcpt]
		i.Recipients = append(i.Recipients, ledger.Recipient{Address: r.Address, Agency: r.Agency, Mailbox: r.Mailbox, Epoch: e.epoch})
		answers[n] = e.answer
	}
	if err := q.o.Ledger.Note(&i, answers...); err != nil {
		q.log.Warn("what became of a message is not in the ledger", "transaction", m.Transaction, "result", answers[0].Result.String(), "error", err)
	}
}

// ended writes into the ledger which outcomes of a message end the attempts for it. cause is
// why: refused or expired, or unknown where the ledger has that already or the record of the
// outcome says it. It is called before the spool has them: a kill in between has it twice, and
// not never.
func (q *Queue) ended(m *spool.Message, outcomes []spool.Outcome, cause func(n int) ledger.Result) {
	if q.o.Ledger == nil {
		return
	}
	var why, then []ending
	for n := range outcomes {
		o := &outcomes[n]
		var last ledger.Result
		switch o.State {
		case spool.StateFailed, spool.StateExpired:
		case spool.StateReturned:
			last = ledger.ResultNoNotice
		case spool.StateQuarantined:
			last = ledger.ResultQuarantined
		default:
			continue
		}
		e := ending{rcpt: o.Recipient, epoch: o.Epoch}
		if e.answer.Result = cause(n); e.answer.Result != ledger.ResultUnknown {
			e.answer.Code, e.answer.Text = o.Code, o.Reason
			why = append(why, e)
		}
		if last != ledger.ResultUnknown {
			e.answer = ledger.Answer{Result: last}
			if last == ledger.ResultQuarantined {
				e.answer.Text = o.Reason
			}
			then = append(then, e)
		}
	}
	if len(why)+len(then) > 0 {
		platform := outcomes[0].Platform // one attempt is to one platform
		q.history(m, platform, why...)
		q.history(m, platform, then...)
	}
}

// putOffs writes into the ledger that an attempt failed for now, where the one before it didn't
// end alike: a platform may put a message off for days.
func (q *Queue) putOffs(m *spool.Message, outcomes []spool.Outcome, results []Result) {
	if q.o.Ledger == nil {
		return
	}
	var endings []ending
	var platform routing.PlatformID
	for n := range outcomes {
		o, r := &outcomes[n], &results[n]
		if o.State != spool.StateHeld && o.State != spool.StateWaiting || r.Status != Deferred && r.Status != Unavailable || r.Noted {
			continue
		}
		last := &m.Recipients[o.Recipient].Last
		if last.Attempts > 0 && last.Platform == o.Platform && last.Code == o.Code && last.Cause == o.Cause {
			continue
		}
		platform = o.Platform // one attempt is to one platform
		endings = append(endings, ending{rcpt: o.Recipient, epoch: o.Epoch, answer: ledger.Answer{Result: ledger.ResultPutOff, Code: o.Code, Text: o.Reason}})
	}
	q.history(m, platform, endings...)
}

// cause says why the attempts for a recipient end with this result, as ended wants it.
func (r *Result) cause() ledger.Result {
	switch {
	case r.Status == Damaged, r.Status == Refused && r.Noted:
		return ledger.ResultUnknown
	case r.Status == Refused:
		return ledger.ResultRefused
	default:
		return ledger.ResultExpired
	}
}

// acts is what a person did to recipients, on its way into the ledger: those of one message
// in one record.
type acts struct {
	q       *Queue
	m       *spool.Message // nil: none, or it can't be read
	endings []ending
}

// message reads what the ledger is to have of a message, before it may be gone.
func (a *acts) message(id mail.TransactionID) {
	if a.q.o.Ledger == nil || a.m != nil && a.m.Transaction == id {
		return
	}
	a.flush()
	m, err := a.q.o.Store.Get(id)
	if err != nil {
		a.q.log.Warn("what a person did to a message is not in the ledger", "transaction", id, "error", err)
		m = nil
	}
	a.m = m
}

// did notes one change of the message that was read last.
func (a *acts) did(o *spool.Outcome, reason string) {
	result := map[spool.State]ledger.Result{
		spool.StateQuarantined: ledger.ResultQuarantined, spool.StateHeld: ledger.ResultReleased, spool.StateDropped: ledger.ResultDropped,
	}[o.State]
	if a.m != nil && result != ledger.ResultUnknown {
		a.endings = append(a.endings, ending{rcpt: o.Recipient, answer: ledger.Answer{Result: result, Text: reason}})
	}
}

// flush writes what was noted.
func (a *acts) flush() {
	if a.m != nil {
		a.q.history(a.m, "", a.endings...)
	}
	a.m, a.endings = nil, nil
}
