package ledger

import "fmt"

// notTold is what stands for the outcome of a Local intent that has none.
const notTold = "the node ended before the sender was told"

// Note writes what became of a message without a platform's acceptance: an intent with its
// outcome, one answer for all recipients or one for each, in one write. The intent is Local
// whatever i says. The ledger keeps i.Recipients.
//
// On an error, which wraps [ErrUnavailable], [ErrClosed] or [ErrTooManyRecipients], it may not
// be there. What is done is done then: nothing waits for the record.
func (l *Ledger) Note(i *Intent, answers ...Answer) error {
	if len(i.Recipients) > MaxRecipients {
		return fmt.Errorf("note of transaction %s: %w: %d", i.Transaction, ErrTooManyRecipients, len(i.Recipients))
	}
	if len(answers) == 0 {
		return nil
	}
	now := l.o.Now()
	l.mu.Lock()
	err := error(ErrClosed)
	if !l.closed {
		err = l.ready(now)
	}
	if err != nil {
		l.mu.Unlock()
		return fmt.Errorf("note of transaction %s: %w", i.Transaction, err)
	}
	local := *i
	local.Local = true
	b, e := l.enter(&local, now)
	e.answers = append(e.answers[:0], answers...)
	e.answered, e.final = now, true
	l.putOutcome(b, e)
	l.mu.Unlock()
	if err := l.flush(b); err != nil {
		return fmt.Errorf("note of transaction %s: %w", i.Transaction, err)
	}
	return nil
}

// notTold names what the process before took into the spool, or was about to, without the
// sender's answer being known: who sends it again makes a copy (P7). Nothing has to wait for
// that, so it is no longer open; [Ledger.Find] goes on naming it.
func (l *Ledger) notTold(i *Intent) {
	for _, r := range i.Recipients {
		l.o.Logger.Warn("message not acknowledged: a copy may be in the spool, or was", "transaction", i.Transaction,
			"agency", r.Agency, "epoch", r.Epoch, "rcpt", r.Address, "reason", notTold)
	}
}
