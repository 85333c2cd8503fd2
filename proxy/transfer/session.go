package transfer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/mail"
	"mailcutover/node"
	"mailcutover/proxy/relay"
	"mailcutover/proxy/smtp"
	"mailcutover/routing"
)

// session is one peer's connection. Its goroutine is the listener's.
type session struct {
	transfer *Transfer
	tx       *transaction // nil outside a transaction
}

// transaction is what is known of one message before and while it passes.
type transaction struct {
	*settings
	client mail.Client
	from   mail.Path
	opts   *gosmtp.MailOptions
	lmtp   bool      // the sender wants an answer for each recipient
	sender *Platform // whose own MTA the peer is, or nil

	leg  *leg
	rcpt []recipient // taken so far, in order
}

// leg is the platform's side: one transaction on one of its connections.
type leg struct {
	platform *Platform
	pool     *relay.Pool
	lmtp     bool
	tx       *relay.Transaction
	ctx      context.Context // ends when an agency closes, or with the session
	cancel   context.CancelFunc
	agency   routing.AgencyID // of the first recipient
	armed    bool             // one of the agencies is armed
}

// recipient is one that the platform took.
type recipient struct {
	decision routing.Decision
	ticket   *node.Ticket
}

// Mail implements smtp.Session.
func (s *session) Mail(_ context.Context, client mail.Client, from mail.Path, opts *gosmtp.MailOptions) error {
	set := s.transfer.settings.Load()
	s.tx = &transaction{
		settings: set, client: client, from: from, opts: opts,
		lmtp:   strings.Contains(client.With, "LMTP"),
		sender: set.sender(&client),
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
	asked := make([]relay.Recipient, 0, len(rcpts))
	entered := make([]recipient, 0, len(rcpts))
	index := make([]int, 0, len(rcpts))
	for i := range rcpts {
		r, to, err := t.admit(ctx, &rcpts[i], len(entered))
		if err != nil {
			errs[i] = reply(err)
			continue
		}
		asked = append(asked, relay.Recipient{To: to, Options: rcpts[i].Options})
		entered = append(entered, r)
		index = append(index, i)
	}
	if len(asked) == 0 {
		t.dropEmptyLeg()
		return errs
	}
	for j, err := range t.ask(asked) {
		i := index[j]
		if err == nil {
			t.rcpt = append(t.rcpt, entered[j])
			continue
		}
		entered[j].ticket.End()
		errs[i] = t.refused(&entered[j].decision, rcpts[i].To.String(), err)
	}
	t.dropEmptyLeg()
	return errs
}

// admit decides for one recipient and enters it at the gate. waiting is the number of
// recipients that were admitted in the same call before.
func (t *transaction) admit(ctx context.Context, r *smtp.Recipient, waiting int) (recipient, mail.Path, error) {
	d, to, err := t.route(r.To)
	if err != nil {
		return recipient{}, to, err
	}
	platform := t.platforms[d.Platform]
	if platform == nil {
		t.Alarms.Raise("platform-unknown/"+string(d.Platform), fmt.Sprintf("The table names the platform %q, which this node's configuration doesn't have: its mail is put off.", d.Platform))
		return recipient{}, to, fmt.Errorf("platform %q is not configured", d.Platform)
	}
	if t.sender == platform && !platform.RelaysInside {
		t.Alarms.Raise("forward-left/"+string(platform.ID)+"/"+d.Mailbox.String(), fmt.Sprintf("Forward left on %s: it sends us mail for mailbox %s of agency %s, which is there.", platform.ID, d.Mailbox, d.Agency))
		t.log(slog.LevelWarn, "recipient put off", &d, "reason", "forward left", "code", errForwardLeft.Code)
		return recipient{}, to, errForwardLeft
	}
	pool, err := platform.pool(t.client.Origin)
	if err != nil {
		t.log(slog.LevelError, "recipient put off", &d, "error", err)
		return recipient{}, to, err
	}
	if l := t.leg; l == nil {
		legCtx, cancel := context.WithCancel(ctx)
		t.leg = &leg{
			platform: platform, pool: pool, ctx: legCtx, cancel: cancel,
			lmtp: pool.Endpoint().Protocol == relay.ProtocolLMTP, agency: d.Agency, armed: d.Armed,
		}
	} else {
		switch {
		case l.pool != pool,
			l.lmtp && !t.lmtp && len(t.rcpt)+waiting > 0, // several answers, and the sender wants one
			(l.armed || d.Armed) && l.agency != d.Agency: // an armed agency's dot waits for nobody else
			return recipient{}, to, errOtherWay
		}
	}
	ticket, err := t.Gate.Enter(&d, t.leg.cancel)
	if err != nil {
		t.log(slog.LevelInfo, "recipient put off", &d, "error", err, "code", errClosed.Code)
		return recipient{}, to, err
	}
	return recipient{decision: d, ticket: ticket}, to, nil
}

// route decides where a recipient's mail goes and under which address.
func (t *transaction) route(to mail.Path) (routing.Decision, mail.Path, error) {
	address := t.Postmaster
	if to.Domain() != "" {
		var err error
		if address, err = routing.CanonicalAddress(to); err != nil {
			return routing.Decision{}, mail.Path{}, errBadAddress
		}
	} else if address == "" {
		return routing.Decision{}, mail.Path{}, errNoMaster
	}
	d := t.Gate.Address(address)
	t.Observer.Decided(d.Reason)
	if r := decided(&d); r != nil {
		t.log(slog.LevelInfo, "recipient refused", &d, "rcpt", address, "reason", d.Explain(), "code", r.Code)
		return d, mail.Path{}, r
	}
	wire, err := d.Address.Wire()
	if err != nil {
		t.Alarms.Raise("bad-address/"+string(d.Address), fmt.Sprintf("The table's address %q of mailbox %s can't be sent to a platform: %v", d.Address, d.Mailbox, err))
		return d, wire, errAbandoned
	}
	return d, wire, nil
}

// ask opens the platform's transaction, if it isn't yet, and asks it about recipients.
func (t *transaction) ask(rcpts []relay.Recipient) []error {
	l := t.leg
	if l.tx == nil {
		tx, err := l.pool.Open(l.ctx, t.client, t.from, t.opts)
		if err != nil {
			errs := make([]error, len(rcpts))
			for i := range errs {
				errs[i] = t.closedOr(err)
			}
			return errs
		}
		l.tx = tx
	}
	errs := l.tx.Rcpts(l.ctx, rcpts)
	for i, err := range errs {
		if err != nil {
			errs[i] = t.closedOr(err)
		}
	}
	return errs
}

// closedOr returns why a leg that was cut was cut, or err.
func (t *transaction) closedOr(err error) error {
	if t.leg.ctx.Err() != nil {
		return fmt.Errorf("%w: %w", node.ErrClosed, err)
	}
	return err
}

// dropEmptyLeg gives the platform's connection back if it took no recipient, so that the
// next recipient may go elsewhere.
func (t *transaction) dropEmptyLeg() {
	if t.leg != nil && len(t.rcpt) == 0 {
		t.leg.end()
		t.leg = nil
	}
}

// refused logs why a recipient or its message was not taken, and returns what the sender
// gets. A mailbox that the table knows is not refused for good by its platform while
// its agency is armed; what a platform says of the message itself is passed on.
func (t *transaction) refused(d *routing.Decision, to string, err error) *mail.Reply {
	r := reply(err)
	t.log(slog.LevelWarn, "not taken", d, "rcpt", to, "code", r.Code, "error", err)
	var p *relay.PlatformReply
	if !mail.IsPermanent(r) || !d.Armed || !errors.As(err, &p) || p.Verb != "RCPT" && isContent(r) {
		return r
	}
	t.Alarms.Raise("refused/"+string(d.Platform)+"/"+d.Mailbox.String(), fmt.Sprintf("%s refuses mailbox %s of agency %s, which the table has there: %v", d.Platform, d.Mailbox, d.Agency, err))
	return errRefused
}

// log writes one line with what is the same for all lines of a transaction.
func (t *transaction) log(level slog.Level, msg string, d *routing.Decision, args ...any) {
	if !t.Logger.Enabled(context.Background(), level) {
		return
	}
	attrs := []any{"session", t.client.Session}
	if d.Agency != "" {
		attrs = append(attrs, "agency", d.Agency, "mailbox", d.Mailbox, "epoch", d.Epoch)
	}
	if d.Platform != "" {
		attrs = append(attrs, "platform", d.Platform)
	}
	t.Logger.Log(context.Background(), level, msg, append(attrs, args...)...)
}

// logOutcome writes the line of a recipient whose message reached its end. It is what
// log would write, without its garbage: this is the one line that each message has.
func (t *transaction) logOutcome(d *routing.Decision, id mail.TransactionID, size int64, repaired, code int) {
	ctx := context.Background()
	if !t.Logger.Enabled(ctx, slog.LevelInfo) {
		return
	}
	attrs := append(make([]slog.Attr, 0, 12), slog.String("session", t.client.Session))
	if d.Agency != "" { // not a fixed address
		attrs = append(attrs, slog.String("agency", string(d.Agency)), slog.String("mailbox", d.Mailbox.String()), slog.String("epoch", d.Epoch.String()))
	}
	attrs = append(attrs, slog.String("platform", string(d.Platform)), slog.String("transaction", string(id)),
		slog.String("from", t.from.String()), slog.String("rcpt", string(d.Address)), slog.Int64("size", size),
		slog.Int("repaired", repaired), slog.String("host", t.leg.tx.Host()), slog.Int("code", code))
	t.Logger.LogAttrs(ctx, slog.LevelInfo, "message", attrs...)
}

// Reset implements smtp.Session.
func (s *session) Reset() {
	if s.tx == nil {
		return
	}
	for _, r := range s.tx.rcpt {
		r.ticket.End()
	}
	if s.tx.leg != nil {
		s.tx.leg.end()
	}
	s.tx = nil
}

// Close implements smtp.Session.
func (s *session) Close() { s.Reset() }

// end gives the connection back to the pool, or closes it if a body was begun.
func (l *leg) end() {
	if l.tx != nil {
		l.tx.Abort()
	}
	l.cancel()
}
