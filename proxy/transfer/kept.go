package transfer

import (
	"context"
	"errors"
	"log/slog"

	"mailcutover/ledger"
	"mailcutover/spool"
)

// kept is what the spool took of a message at once.
type kept struct {
	rcpts []*recipient
	note  ledger.Ticket // the zero ticket: the ledger took none
	err   error         // why
}

// keep makes recipients durable in the spool, by save, and tells the queue: they don't wait
// for what the platform says to the others. The ledger has them before: if this node ends
// before their sender is told, it names their copies.
func (m *message) keep(ctx context.Context, save func(context.Context, []spool.Recipient) error, to []*recipient) error {
	rcpts := make([]spool.Recipient, len(to))
	for i, r := range to {
		rcpts[i] = r.spooled()
	}
	k := kept{rcpts: to}
	if m.Ledger != nil {
		if k.note, k.err = m.intendKept(to); k.err != nil {
			m.log(slog.LevelWarn, "what the spool takes is not in the ledger", &to[0].decision, "error", k.err)
		}
	}
	if err := save(ctx, rcpts); err != nil {
		a := ledger.Answer{Result: ledger.ResultNotSent}
		if errors.Is(err, spool.ErrUnsure) {
			a = ledger.Answer{Result: ledger.ResultNotAcknowledged, Text: "perhaps in the spool, and the sender is told to come again"}
			for _, r := range to {
				m.log(slog.LevelWarn, "message not acknowledged: a copy may be in the spool", &r.decision, "error", err)
			}
		}
		if m.Ledger != nil {
			m.Ledger.Outcome(k.note, a)
		}
		return err
	}
	m.kept = append(m.kept, k)
	if m.Added != nil {
		m.Added(m.transactionID(), m.safe)
	}
	m.safe += len(to)
	return nil
}

// intendKept writes into the ledger what is about to be durable in the spool.
func (m *message) intendKept(to []*recipient) (ledger.Ticket, error) {
	rcpts := make([]ledger.Recipient, len(to))
	for i, r := range to {
		rcpts[i] = r.noted()
	}
	i := m.described(rcpts)
	i.Local = true
	if c := &m.client; c.Addr.IsValid() {
		i.Host = c.Addr.Addr().String() + " (" + c.Helo + ")"
	}
	return m.Ledger.Intend(&i)
}

// settleKept tells the ledger what the sender learnt of what the spool took: that it is
// safe, or nothing, as unseen says.
func (m *message) settleKept(unseen error) {
	for i := range m.kept {
		k := &m.kept[i]
		answers := make([]ledger.Answer, len(k.rcpts))
		for j, r := range k.rcpts {
			a := &answers[j]
			a.Result, a.Code, a.Text = ledger.ResultAccepted, r.last.Code, r.state.String()
			if r.reason != "" {
				a.Text += ": " + r.reason
			}
			if unseen != nil {
				a.Result, a.Code, a.Text = ledger.ResultNotAcknowledged, 0, "in the spool, and the sender was not told so"
				m.log(slog.LevelWarn, "message not acknowledged: a copy is in the spool", &r.decision, "error", unseen)
			}
		}
		if unseen != nil && k.err != nil {
			m.log(slog.LevelError, "possible duplicate is not in the ledger", &k.rcpts[0].decision, "error", k.err)
		}
		if m.Ledger != nil {
			m.Ledger.Outcome(k.note, answers...)
		}
	}
}
