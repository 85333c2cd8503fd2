package transfer

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/node"
	"mailcutover/proxy/relay"
)

// dot hands the message over for the streamed recipients: the last question, the
// intent, and at once the dot; then the outcome.
func (m *message) dot() {
	l := m.leg
	err := m.lastQuestion()
	if err == nil {
		m.note, err = m.intend()
	}
	if err != nil {
		l.tx.Abort()
		for i := range m.rcpt {
			if m.rcpt[i].ticket != nil {
				m.rcpt[i].err = err
			}
		}
		return
	}
	// From here on the drain waits for us, so nothing but the answer, the platform's
	// limit, the relay's own deadlines and the node's end ends the wait.
	got := l.tx.Dot(m.patience())
	texts := l.tx.Replies()
	m.notes = m.one[:0]
	n := 0
	for i := range m.rcpt {
		r := &m.rcpt[i]
		if r.ticket == nil {
			continue
		}
		r.dotted = r.ticket
		r.err = got[min(n, len(got)-1)]
		note := ledger.Answer{Result: ledger.ResultRefused}
		if len(texts) > 0 { // one may speak for all
			note.Text = texts[min(n, len(texts)-1)]
		}
		switch {
		case errors.Is(r.err, relay.ErrInDoubt):
			note.Result = ledger.ResultInDoubt
			r.ticket.InDoubt(time.Now().Add(l.platform.ConnectionLimit))
			if n == 0 {
				m.Observer.InDoubt(l.platform.ID)
			}
			m.log(slog.LevelWarn, "message in doubt", &r.decision, "error", r.err)
		case r.err != nil:
			note.Code = reply(r.err).Code
		default:
			note.Code, note.Result = 250, ledger.ResultDelivered
			if r.err = r.ticket.Acknowledge(); r.err != nil {
				note.Result = ledger.ResultNotAcknowledged
				m.log(slog.LevelWarn, "message not acknowledged: a copy is on the platform", &r.decision, "error", r.err)
			}
		}
		m.notes = append(m.notes, note)
		n++
	}
}

// errGone is why a message is not acknowledged whose sender ended the connection while a
// platform was asked.
var errGone = errors.New("the sender has ended the connection and doesn't see the answer")

// settle tells the ledger what became of the message, now that the sender's answer is
// known, and ends what the drain waits for. Where one answer speaks for all, a copy that a
// platform took counts for nothing if that answer isn't 250: the sender sends it again. So
// does one who won't see it, as gone says.
func (m *message) settle(errs []error, gone error) {
	unseen := gone
	if !m.lmtp && errs[0] != nil {
		unseen = errs[0]
	}
	n := 0
	for i := range m.rcpt {
		r := &m.rcpt[i]
		if r.dotted == nil {
			continue
		}
		if note := &m.notes[n]; unseen != nil && note.Result == ledger.ResultDelivered {
			note.Result = ledger.ResultNotAcknowledged
			m.log(slog.LevelWarn, "message not acknowledged: a copy is on the platform", &r.decision, "error", unseen)
		}
		n++
	}
	if m.Ledger != nil && n > 0 {
		m.Ledger.Outcome(m.note, m.notes...)
	}
	for i := range m.rcpt {
		if t := m.rcpt[i].dotted; t != nil {
			t.End()
		}
	}
	m.keepCopy()
	m.settleKept(unseen)
}

// lastQuestion asks whether the dot may still follow, for every recipient.
func (m *message) lastQuestion() error {
	var few [4]*node.Ticket
	tickets := few[:0]
	for i := range m.rcpt {
		if t := m.rcpt[i].ticket; t != nil {
			tickets = append(tickets, t)
		}
	}
	return node.Dots(m.leg.ctx, tickets...)
}

// intend writes into the ledger what is about to be handed over.
func (m *message) intend() (ledger.Ticket, error) {
	if m.Ledger == nil {
		return ledger.Ticket{}, nil
	}
	rcpts := make([]ledger.Recipient, 0, len(m.rcpt))
	for j := range m.rcpt {
		if r := &m.rcpt[j]; r.ticket != nil {
			rcpts = append(rcpts, r.noted())
		}
	}
	m.intent = m.described(rcpts)
	m.intent.Platform, m.intent.Host = m.leg.platform.ID, m.leg.tx.Host()
	return m.Ledger.Intend(&m.intent)
}

// described returns an intent with what the ledger has of each message.
func (m *message) described(rcpts []ledger.Recipient) ledger.Intent {
	return ledger.Intent{
		Transaction: m.transactionID(), From: m.from.String(), MessageID: m.messageID, Size: m.size, Digest: m.digest, Recipients: rcpts,
	}
}

// answers returns what the sender gets once the dot was answered. With SMTP one answer
// speaks for all: if one recipient's message has arrived, or is safe, the others' is
// made safe too, and nobody is told to send it again or that it was refused.
func (m *message) answers(ctx context.Context) []error {
	if m.lmtp {
		errs := make([]error, len(m.rcpt))
		for i := range m.rcpt {
			if r := &m.rcpt[i]; r.err != nil {
				errs[i] = m.refused(r, r.err)
			}
		}
		return errs
	}
	var failed []*recipient
	arrived := m.safe > 0
	for i := range m.rcpt {
		if r := &m.rcpt[i]; r.ticket != nil && r.err != nil {
			failed = append(failed, r)
		} else {
			arrived = true
		}
	}
	if len(failed) == 0 {
		return []error{nil}
	}
	if !arrived {
		answer := m.refused(failed[0], failed[0].err)
		for _, r := range failed[1:] {
			if a := m.refused(r, r.err); mail.IsTemporary(a) {
				answer = a
			}
		}
		return []error{answer}
	}
	if m.body == nil {
		// One answer took it for all, but the right to pass that on is gone for some.
		return []error{m.refused(failed[0], failed[0].err)}
	}
	for _, r := range failed {
		m.divert(r, r.err)
	}
	save := m.body.Add
	if m.safe == 0 {
		m.body.SetMessageID(m.messageID)
		save = m.body.Commit
	}
	if err := m.keep(ctx, save, failed); err != nil {
		m.log(slog.LevelError, "spool takes no message: the sender will send it to all recipients again", &failed[0].decision, "error", err)
		return []error{err}
	}
	for _, r := range failed { // they are the spool's now
		if r.dotted == nil {
			r.ticket.End() // it got no dot; else settle ends it
		}
		r.ticket = nil
	}
	return []error{nil}
}
