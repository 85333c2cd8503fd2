package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"mailcutover/ledger"
	"mailcutover/ledger/retained"
	"mailcutover/mail"
	"mailcutover/node"
	"mailcutover/proxy/relay"
	"mailcutover/proxy/smtp"
	"mailcutover/routing"
	"mailcutover/spool"
)

// bufferSize is how much of a body is in memory at once.
const bufferSize = 32 << 10

// buffer is what one message needs while it streams.
type buffer struct {
	bytes  [bufferSize]byte
	scan   mail.TraceScanner
	digest ledger.Digester
}

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// message is a message in transfer.
type message struct {
	*transaction
	size      int64 // with our Received line
	digest    ledger.Digest
	messageID string

	intent ledger.Intent
	note   ledger.Ticket   // of what was streamed
	notes  []ledger.Answer // what became of it, for each recipient with a dot
	one    [1]ledger.Answer

	copy *retained.Incoming // of what is streamed to a target; nil: none is made

	kept []kept
	safe int // recipients that the spool has
}

// Data implements smtp.Session: it streams the message to the platform, keeps what can't
// go there now, and answers when both are certain.
func (s *session) Data(ctx context.Context, body smtp.Body) []error {
	m := &message{transaction: s.tx}
	errs := m.pass(ctx, body)
	for i := range m.rcpt {
		r := &m.rcpt[i]
		code := 250
		if err := errs[min(i, len(errs)-1)]; err != nil {
			code = reply(err).Code
		}
		if r.ticket != nil {
			m.Observer.Delivered(r.decision.Platform, m.client.Origin, code)
		} else if code == 250 {
			m.Observer.Spooled(r.state)
		}
		m.logOutcome(r, body.Repaired(), code)
	}
	for i, err := range errs {
		if err != nil {
			errs[i] = reply(err)
		}
	}
	return errs
}

// pass brings the message where it goes. It returns the sender's answers: one, or with
// LMTP one for each recipient.
func (m *message) pass(ctx context.Context, body smtp.Body) []error {
	if err := m.open(); err != nil {
		return m.all(err)
	}
	m.beginCopy()
	defer m.copy.Discard()
	if err := m.stream(body); err != nil {
		return m.all(err)
	}
	if l := m.leg; l != nil {
		if err := l.do(func() error { return l.tx.Flush(l.ctx) }); err != nil && !m.detour(err) {
			return m.all(m.refusedAll(err))
		}
	}
	if err := m.commit(ctx); err != nil {
		return m.all(err)
	}
	if m.streamed() > 0 {
		m.dot()
	}
	errs := m.answers(ctx)
	var gone error
	if body.Gone() {
		gone = errGone
	}
	m.settle(errs, gone)
	return errs
}

// all is one answer for everybody.
func (m *message) all(err error) []error {
	if !m.lmtp {
		return []error{err}
	}
	errs := make([]error, len(m.rcpt))
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// open asks the platform to take the message, and makes room beside for what it may
// refuse for some recipients only.
func (m *message) open() error {
	l := m.leg
	if l != nil && l.lmtp && !m.lmtp && m.streamed() > 1 {
		if err := m.beginBody(); err != nil {
			return err
		}
	}
	if l == nil || l.do(func() error { return l.tx.Data(l.ctx) }) == nil || m.mayDetour(l.broken) {
		return nil
	}
	return m.refusedAll(l.broken)
}

// stream copies the message, behind our Received line, to where it goes. It returns nil
// only if the message came in whole and doesn't loop, and one of them still takes it.
func (m *message) stream(body smtp.Body) error {
	b := buffers.Get().(*buffer)
	defer buffers.Put(b)
	buf, scan := &b.bytes, &b.scan
	*scan = mail.TraceScanner{Installation: m.Installation, Identify: m.body != nil || m.Ledger != nil}
	b.digest.Reset()
	trace := mail.Trace{Client: m.client, Node: m.Node, Installation: m.Installation, Transaction: m.transactionID(), Time: time.Now()}
	if err := m.write(b, trace.Append(buf[:0])); err != nil {
		return err
	}
	for {
		n, err := body.Read(buf[:])
		if n > 0 {
			scan.Scan(buf[:n])
			if err := m.looping(scan); err != nil {
				return err
			}
			if err := m.write(b, buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			scan.End()
			m.messageID = scan.MessageID()
			if m.Ledger != nil && m.leg != nil {
				m.digest = b.digest.Digest()
			}
			return m.looping(scan)
		}
		if err != nil {
			return fmt.Errorf("read message %s: %w", m.transactionID(), err)
		}
	}
}

// write sends bytes of the message to the platform and into the spool.
func (m *message) write(b *buffer, p []byte) error {
	m.size += int64(len(p))
	if m.Ledger != nil && m.leg != nil { // of what is only kept, the delivery has a digest
		_, _ = b.digest.Write(p) // never fails
	}
	if m.leg != nil {
		if _, err := m.leg.Write(p); err != nil && m.body == nil {
			return m.refusedAll(err)
		}
		m.copy.Write(p)
	}
	if m.body != nil {
		if _, err := m.body.Write(p); err != nil {
			return err
		}
	}
	return nil
}

// detour sends the streamed recipients into the spool instead. It reports false if they
// have to be refused: there is no body in the spool, or nobody else has the message and
// the reason is a platform's answer, or the sender takes one for each.
func (m *message) detour(why error) bool {
	if !m.mayDetour(why) {
		return false
	}
	for i := range m.rcpt {
		if r := &m.rcpt[i]; r.ticket != nil {
			m.divert(r, why)
			r.ticket.End()
			r.ticket = nil
		}
	}
	return true
}

// mayDetour reports whether detour is the answer to an error.
func (m *message) mayDetour(why error) bool {
	var answered *relay.PlatformReply
	alone := m.streamed() == len(m.rcpt)
	return m.body != nil && !(alone && (m.lmtp || errors.As(why, &answered)))
}

// divert says what becomes of a recipient whose streaming ended with err.
func (m *message) divert(r *recipient, err error) {
	answer := m.refused(r, err)
	switch {
	case errors.Is(err, node.ErrClosed):
		r.keep(spool.StateHeld, err.Error())
	case errors.Is(err, relay.ErrInDoubt):
		r.keep(spool.StateWaiting, "in doubt: "+err.Error())
		r.last = spool.Result{
			Time: time.Now(), Platform: r.decision.Platform, Epoch: r.decision.Epoch, Attempts: 1,
			Cause: spool.CauseDoubt, Next: time.Now().Add(m.leg.platform.ConnectionLimit),
		}
	case mail.IsPermanent(answer):
		r.keep(spool.StateFailed, "")
		r.attempted(answer)
	default:
		r.keep(spool.StateWaiting, "")
		r.attempted(answer)
		var broken *relay.ConnectionError
		if errors.As(err, &broken) {
			r.last.Cause = spool.CauseUnavailable
		}
	}
}

// refusedAll logs err for the streamed recipients and returns what the sender gets.
func (m *message) refusedAll(err error) error {
	var answer *mail.Reply
	for i := range m.rcpt {
		if m.rcpt[i].ticket != nil {
			if a := m.refused(&m.rcpt[i], err); answer == nil || mail.IsTemporary(a) {
				answer = a
			}
		}
	}
	if answer == nil {
		return err
	}
	return answer
}

// commit makes the message durable for the recipients that go into the spool.
func (m *message) commit(ctx context.Context) error {
	if m.streamed() == len(m.rcpt) {
		return nil
	}
	m.body.SetMessageID(m.messageID)
	var to []*recipient
	for i := range m.rcpt {
		r := &m.rcpt[i]
		if r.ticket != nil {
			continue
		}
		if m.lmtp { // one whose agency's share is used up by now, as it closed, fails alone
			if err := m.Spool.Room(r.decision.Agency, m.size); err != nil {
				r.keep(spool.StateUnknown, "")
				r.err = err
				continue
			}
		}
		to = append(to, r)
	}
	if len(to) == 0 {
		return nil
	}
	if err := m.keep(ctx, m.body.Commit, to); err != nil {
		m.log(slog.LevelError, "spool takes no message", &m.rcpt[0].decision, "error", err)
		return err
	}
	return nil
}

// logOutcome writes the line of a recipient whose message reached its end. It is what
// log would write, without its garbage: this is the one line that each message has.
func (m *message) logOutcome(r *recipient, repaired, code int) {
	ctx := context.Background()
	if !m.Logger.Enabled(ctx, slog.LevelInfo) {
		return
	}
	d := &r.decision
	attrs := append(make([]slog.Attr, 0, 13), slog.String("session", m.client.Session))
	if d.Agency != "" { // not a fixed address
		attrs = append(attrs, slog.String("agency", string(d.Agency)), slog.String("mailbox", d.Mailbox.String()), slog.String("epoch", d.Epoch.String()))
	}
	attrs = append(attrs, slog.String("platform", string(d.Platform)), slog.String("transaction", string(m.transactionID())),
		slog.String("from", m.from.String()), slog.String("rcpt", string(outcomeAddress(r))), slog.Int64("size", m.size),
		slog.Int("repaired", repaired))
	if r.state != spool.StateUnknown {
		attrs = append(attrs, slog.String("spool", r.state.String()), slog.String("reason", r.reason))
	} else if r.ticket != nil {
		attrs = append(attrs, slog.String("host", m.leg.tx.Host()))
	}
	m.Logger.LogAttrs(ctx, slog.LevelInfo, "message", append(attrs, slog.Int("code", code))...)
}

// outcomeAddress is the address that a line names: the platform's, if it went there.
func outcomeAddress(r *recipient) routing.Address {
	if r.ticket != nil {
		return r.decision.Address
	}
	return r.address
}

// looping judges the Received lines seen so far. A loop that runs over one of our
// platforms is ours to repair: its mail waits; one through strangers is refused.
func (m *message) looping(scan *mail.TraceScanner) error {
	if scan.Hops() <= m.HopLimit && scan.Own() <= m.OwnLimit {
		return nil
	}
	d := &m.rcpt[0].decision
	if m.sender == nil {
		m.log(slog.LevelWarn, "message loops", d, "reason", scan.String(), "code", errLoop.Code)
		return errLoop
	}
	m.Alarms.Raise("loop/"+string(m.sender.ID), fmt.Sprintf("Mail from %s for mailbox %s of agency %s loops: %s.", m.sender.ID, d.Mailbox, d.Agency, scan))
	m.log(slog.LevelWarn, "message loops", d, "reason", scan.String(), "code", errSuspected.Code)
	return errSuspected
}
