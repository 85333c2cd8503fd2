package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"mailcutover/mail"
	"mailcutover/proxy/relay"
	"mailcutover/proxy/smtp"
)

// bufferSize is how much of a body is in memory at once.
const bufferSize = 32 << 10

// buffer is what one message needs while it streams.
type buffer struct {
	bytes [bufferSize]byte
	scan  mail.TraceScanner
}

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// Data implements smtp.Session: it streams the message to the platform and passes its
// answers on.
func (s *session) Data(ctx context.Context, body smtp.Body) []error {
	t := s.tx
	id := mail.NewTransactionID()
	size, answers := t.pass(id, body)
	errs := make([]error, len(answers))
	if t.lmtp {
		errs = make([]error, len(t.rcpt))
	}
	for i := range t.rcpt {
		r := &t.rcpt[i]
		answer := answers[min(i, len(answers)-1)]
		code := 250
		if answer != nil {
			refusal := t.refused(&r.decision, string(r.decision.Address), answer)
			code = refusal.Code
			if i < len(errs) {
				errs[i] = refusal
			}
		}
		t.Observer.Delivered(t.leg.platform.ID, t.client.Origin, code)
		t.logOutcome(&r.decision, id, size, body.Repaired(), code)
	}
	return errs
}

// pass brings the message to the platform. It returns one answer, or one for each
// recipient where the platform gave so many.
func (t *transaction) pass(id mail.TransactionID, body smtp.Body) (size int64, answers []error) {
	l := t.leg
	if err := l.tx.Data(l.ctx); err != nil {
		return 0, []error{t.closedOr(err)}
	}
	size, err := t.stream(id, body)
	if err != nil {
		l.tx.Abort()
		return size, []error{err}
	}
	if err := l.tx.Flush(l.ctx); err != nil {
		return size, []error{t.closedOr(err)}
	}
	for i := range t.rcpt {
		if err := t.rcpt[i].ticket.Dot(l.ctx); err != nil {
			l.tx.Abort()
			return size, []error{err}
		}
	}
	// From here on the drain waits for us, so nothing but the answer, the platform's
	// limit and the relay's own deadlines ends the wait.
	answers = l.tx.Dot(context.WithoutCancel(l.ctx))
	for i := range t.rcpt {
		ticket := t.rcpt[i].ticket
		answer := &answers[min(i, len(answers)-1)]
		switch {
		case errors.Is(*answer, relay.ErrInDoubt):
			ticket.InDoubt(time.Now().Add(l.platform.ConnectionLimit))
			t.Observer.InDoubt(l.platform.ID)
			t.log(slog.LevelWarn, "message in doubt", &t.rcpt[i].decision, "transaction", id, "error", *answer)
		case *answer == nil:
			if err := ticket.Acknowledge(); err != nil {
				t.log(slog.LevelWarn, "message not acknowledged: a copy is on the platform", &t.rcpt[i].decision, "transaction", id, "error", err)
				*answer = err
			}
		}
		ticket.End()
	}
	return size, answers
}

// stream copies the message behind our Received line. It returns nil only if the message
// came in whole and doesn't loop.
func (t *transaction) stream(id mail.TransactionID, body smtp.Body) (size int64, err error) {
	l := t.leg
	b := buffers.Get().(*buffer)
	defer buffers.Put(b)
	buf, scan := &b.bytes, &b.scan
	*scan = mail.TraceScanner{Installation: t.Installation}
	trace := mail.Trace{Client: t.client, Node: t.Node, Installation: t.Installation, Transaction: id, Time: time.Now()}
	line := trace.Append(buf[:0])
	if _, err := l.tx.Write(line); err != nil {
		return 0, t.closedOr(err)
	}
	for {
		n, err := body.Read(buf[:])
		if n > 0 {
			size += int64(n)
			scan.Scan(buf[:n])
			if err := t.looping(scan); err != nil {
				return size, err
			}
			if _, err := l.tx.Write(buf[:n]); err != nil {
				return size, t.closedOr(err)
			}
		}
		switch {
		case err == io.EOF:
			scan.End()
			return size, t.looping(scan)
		case err != nil:
			return size, fmt.Errorf("read message %s: %w", id, err)
		}
	}
}

// looping judges the Received lines seen so far. A loop that runs over one of our
// platforms is ours to repair: its mail waits; one through strangers is refused.
func (t *transaction) looping(scan *mail.TraceScanner) error {
	if scan.Hops() <= t.HopLimit && scan.Own() <= t.OwnLimit {
		return nil
	}
	d := &t.rcpt[0].decision
	if t.sender == nil {
		t.log(slog.LevelWarn, "message loops", d, "reason", scan.String(), "code", errLoop.Code)
		return errLoop
	}
	t.Alarms.Raise("loop/"+string(t.sender.ID), fmt.Sprintf("Mail from %s for mailbox %s of agency %s loops: %s.", t.sender.ID, d.Mailbox, d.Agency, scan))
	t.log(slog.LevelWarn, "message loops", d, "reason", scan.String(), "code", errSuspected.Code)
	return errSuspected
}
