package transfer

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/mail"
	"mailcutover/proxy/relay"
	"mailcutover/proxy/smtp"
	"mailcutover/routing"
	"mailcutover/spool"
)

// session is one peer's connection. Its goroutine is the listener's.
type session struct {
	transfer *Transfer
	tx       *transaction // nil outside a transaction
	cutter   cutter
}

// transaction is what is known of one message before and while it passes.
type transaction struct {
	*settings
	client mail.Client
	from   mail.Path
	opts   *gosmtp.MailOptions
	lmtp   bool            // the sender wants an answer for each recipient
	sender *relay.Platform // whose own MTA the peer is, or nil
	cutter *cutter         // the session's

	id   mail.TransactionID // made when it is first needed
	rcpt []recipient        // taken so far, in order
	// beside are those that came with the one that is being decided, before it; of those
	// that were not taken the state and the ticket are zero.
	beside []recipient
	leg    *leg            // the way to a platform; nil if nothing is streamed
	body   *spool.Incoming // the message on its way into the spool; nil if nothing goes there
}

// Mail implements smtp.Session.
func (s *session) Mail(_ context.Context, client mail.Client, from mail.Path, opts *gosmtp.MailOptions) error {
	set := s.transfer.settings.Load()
	if opts == nil {
		opts = new(gosmtp.MailOptions)
	}
	s.tx = &transaction{
		settings: set, client: client, from: from, opts: opts,
		lmtp:   strings.Contains(client.With, "LMTP"),
		sender: set.sender(&client),
		cutter: &s.cutter,
	}
	if s.tx.sender != nil {
		s.tx.client.Origin = mail.OriginInside
	}
	return nil
}

// Rcpts implements smtp.Session: it decides for each recipient, and asks the platform
// once for all of those that fit together.
func (s *session) Rcpts(ctx context.Context, rcpts []smtp.Recipient) []error {
	t := s.tx
	errs := make([]error, len(rcpts))
	have := len(t.rcpt)
	t.rcpt = slices.Grow(t.rcpt, len(rcpts)) // those that are taken move up to the others
	taken := t.rcpt[have : have+len(rcpts)]
	asked := make([]relay.Recipient, 0, len(rcpts))
	index := make([]int, 0, len(rcpts))
	for i := range rcpts {
		t.beside = taken[:i]
		r := &taken[i]
		*r = recipient{rcpt: rcpts[i]}
		to, err := t.admit(ctx, r, len(asked))
		errs[i] = err
		if err == nil && r.ticket != nil {
			asked = append(asked, relay.Recipient{To: to, Options: rcpts[i].Options, Group: r.decision.Group})
			index = append(index, i)
		}
	}
	t.beside = nil
	if len(asked) > 0 {
		for j, err := range t.leg.ask(t, asked) {
			if r := &taken[index[j]]; err != nil {
				r.ticket.End()
				r.ticket = nil
				errs[index[j]] = t.instead(r, err)
			}
		}
	}
	for i := range taken {
		if errs[i] == nil {
			t.rcpt = append(t.rcpt, taken[i]) // at i or before
		} else {
			errs[i] = reply(errs[i])
		}
	}
	if t.leg != nil && t.streamed() == 0 {
		// The connection goes back, so that the next recipient may go elsewhere.
		t.leg.end()
		t.leg = nil
	}
	return errs
}

// Reset implements smtp.Session.
func (s *session) Reset() {
	t := s.tx
	if t == nil {
		return
	}
	for _, r := range t.rcpt {
		if r.ticket != nil {
			r.ticket.End()
		}
	}
	if t.leg != nil {
		t.leg.end()
	}
	if t.body != nil {
		t.body.Discard() // what was committed stays
	}
	s.tx = nil
}

// Close implements smtp.Session.
func (s *session) Close() {
	s.Reset()
	s.cutter.end()
}

// streamed returns how many recipients go to the platform while the message comes in.
func (t *transaction) streamed() (n int) {
	for i := range t.rcpt {
		if t.rcpt[i].ticket != nil {
			n++
		}
	}
	return n
}

// transactionID returns the message's id.
func (t *transaction) transactionID() mail.TransactionID {
	if t.id == "" {
		t.id = mail.NewTransactionID()
	}
	return t.id
}

// log writes one line with what is the same for all lines of a transaction.
func (t *transaction) log(level slog.Level, msg string, d *routing.Decision, args ...any) {
	if !t.Logger.Enabled(context.Background(), level) {
		return
	}
	attrs := []any{"session", t.client.Session}
	if t.id != "" {
		attrs = append(attrs, "transaction", t.id)
	}
	if d.Agency != "" {
		attrs = append(attrs, "agency", d.Agency, "mailbox", d.Mailbox, "epoch", d.Epoch)
	}
	if d.Platform != "" {
		attrs = append(attrs, "platform", d.Platform)
	}
	t.Logger.Log(context.Background(), level, msg, append(attrs, args...)...)
}
