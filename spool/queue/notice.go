package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
	"mailcutover/spool/dsn"
)

// note says that a sender is to be told something. What he is told stands in the spool.
type note struct {
	kind        dsn.Kind
	transaction mail.TransactionID
	rcpts       []int // which; nil with dsn.Failed: all that failed or expired
}

// noteAgain is when a notice is tried again that the spool didn't take.
const noteAgain = 30 * time.Second

// note has a sender told. q.mu is held.
func (q *Queue) note(n note) {
	q.notes = append(q.notes, n)
	q.signal()
}

// tell starts the goroutine that writes notices, if there are any. q.mu is held.
func (q *Queue) tell(ctx context.Context) {
	if len(q.notes) == 0 || q.telling || q.stopping || time.Now().Before(q.noteAt) {
		return
	}
	q.telling = true
	q.workers.Go(func() { q.tellSenders(ctx) })
}

// tellSenders writes notices until there are none.
func (q *Queue) tellSenders(ctx context.Context) {
	for {
		q.mu.Lock()
		if len(q.notes) == 0 || q.stopping {
			q.telling = false
			q.mu.Unlock()
			return
		}
		n := q.notes[0]
		q.notes = q.notes[1:]
		q.mu.Unlock()
		err := q.tellSender(ctx, n)
		if err == nil {
			q.o.Alarms.Clear("spool-notice")
			continue
		}
		q.log.Warn("notice not written", "transaction", n.transaction, "reason", n.kind.String(), "error", err)
		q.o.Alarms.Raise("spool-notice", fmt.Sprintf("A sender could not be told that message %s is %s; it stays in the spool: %v", n.transaction, n.kind, err))
		q.mu.Lock()
		if n.kind == dsn.Failed { // others are not worth waiting for
			q.notes = append(q.notes, n)
		}
		q.noteAt, q.telling = time.Now().Add(noteAgain), false
		q.mu.Unlock()
		q.signal()
		return
	}
}

// tellSender writes one notice. With dsn.Failed it makes the recipients returned after
// that: a kill in between tells the sender twice rather than never.
func (q *Queue) tellSender(ctx context.Context, n note) error {
	m, err := q.o.Store.Get(n.transaction)
	if errors.Is(err, spool.ErrUnknown) {
		return nil // an operator was faster, or it was one of several notes
	}
	if err != nil {
		return err
	}
	rcpts := n.rcpts
	if n.kind == dsn.Failed {
		rcpts = nil
		for i := range m.Recipients {
			if s := m.Recipients[i].State; s == spool.StateFailed || s == spool.StateExpired {
				rcpts = append(rcpts, i)
			}
		}
	}
	if len(rcpts) == 0 {
		return nil
	}
	if m.From.IsNull() {
		return q.setAll(m, rcpts, spool.StateQuarantined, false)
	}
	if n.kind == dsn.Failed { // those that came in as failed were not asked for yet
		wanted := make([]int, 0, len(rcpts))
		for _, i := range rcpts {
			if dsn.Wanted(dsn.Failed, &m.Recipients[i].Options) {
				wanted = append(wanted, i)
			} else if err := q.setAll(m, []int{i}, spool.StateReturned, false); err != nil {
				return err
			}
		}
		if rcpts = wanted; len(rcpts) == 0 {
			return nil
		}
	}
	if err := q.putNotice(ctx, n.kind, m, rcpts); err != nil {
		return err
	}
	if n.kind != dsn.Failed {
		return nil
	}
	return q.setAll(m, rcpts, spool.StateReturned, true)
}

// setAll changes the state of recipients and keeps what else is known of them. told says that
// their sender was.
func (q *Queue) setAll(m *spool.Message, rcpts []int, to spool.State, told bool) error {
	outcomes := make([]spool.Outcome, len(rcpts))
	for i, j := range rcpts {
		r := &m.Recipients[j]
		outcomes[i] = spool.Outcome{Transaction: m.Transaction, Recipient: j, State: to, Reason: r.Reason, Result: r.Last}
	}
	if !told { // else putNotice has noted it
		q.ended(m, outcomes, func(int) ledger.Result { return ledger.ResultUnknown })
	}
	q.record(outcomes)
	return nil
}

// tellRelayed tells a sender who wants to know of success that the platform took his
// message and reports nothing itself (RFC 3461 section 5.2.2).
func (q *Queue) tellRelayed(m *spool.Message, rcpt int) {
	if err := q.putNotice(context.Background(), dsn.Relayed, m, []int{rcpt}); err != nil {
		q.log.Warn("notice not written", "transaction", m.Transaction, "reason", dsn.Relayed.String(), "error", err)
	}
}

// putNotice writes a notice and puts it into the spool.
func (q *Queue) putNotice(ctx context.Context, kind dsn.Kind, m *spool.Message, rcpts []int) error {
	if q.o.Notices.Platform == "" {
		return errors.New("no relay for notices is configured")
	}
	now := time.Now()
	n := dsn.Notice{
		Kind: kind, Transaction: mail.NewTransactionID(), Time: now,
		Original: dsn.Original{
			Transaction: m.Transaction, From: m.From, Options: m.Options, MessageID: m.MessageID, Arrived: m.Time, Size: m.Size,
		},
	}
	for _, j := range rcpts {
		r := &m.Recipients[j]
		told := dsn.Recipient{
			Address: r.Address, Options: r.Options, Reply: replyOf(r), Platform: r.Last.Platform,
			Expired: r.State == spool.StateExpired, LastAttempt: r.Last.Time,
		}
		if kind == dsn.Delayed {
			told.RetryUntil = m.Time.Add(q.o.Retry.Life)
		}
		n.Recipients = append(n.Recipients, told)
	}
	if body, err := q.o.Store.Open(m.Transaction); err == nil {
		defer body.Close()
		n.Original.Content = body
	}
	msg, err := dsn.Write(q.o.Notices.Settings, &n)
	if err != nil {
		return err
	}
	address, err := routing.CanonicalAddress(msg.To)
	if err != nil {
		address = routing.Address(msg.To.String()) // a postmaster without domain
	}
	env := spool.Envelope{
		Transaction: n.Transaction, Time: now, Options: msg.Options, MessageID: msg.ID,
		Client: mail.Client{Session: string(m.Transaction), Listener: noticeListener, Origin: mail.OriginInside, Helo: q.o.Notices.Host, With: "LOCAL"},
	}
	// Nobody is told about a notice (RFC 3461 section 6.1).
	rcpt := spool.Recipient{
		Address: address, To: msg.To, State: spool.StateWaiting, Reason: kind.String() + " notice",
		Options: gosmtp.RcptOptions{Notify: []gosmtp.DSNNotify{gosmtp.DSNNotifyNever}},
	}
	if err := q.o.Store.Put(ctx, env, []spool.Recipient{rcpt}, msg.Content); err != nil {
		return err
	}
	q.log.Info("notice", "transaction", n.Transaction, "about", m.Transaction, "reason", kind.String())
	told := ledger.Answer{Result: ledger.ResultNotice, Text: fmt.Sprintf("%s notice, transaction %s", kind, n.Transaction)}
	endings := make([]ending, len(rcpts))
	for i, j := range rcpts {
		endings[i] = ending{rcpt: j, answer: told}
	}
	q.history(m, "", endings...)
	q.history(&spool.Message{Envelope: env, Size: int64(len(msg.Content)), Recipients: []spool.Recipient{rcpt}}, "", ending{
		answer: ledger.Answer{Result: ledger.ResultAccepted, Text: fmt.Sprintf("%s: %s notice about %s", rcpt.State, kind, m.Transaction)},
	})
	q.obs.Notified(kind)
	q.added(fresh{id: n.Transaction, soon: true})
	return nil
}
