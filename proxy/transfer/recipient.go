package transfer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/node"
	"mailcutover/proxy/relay"
	"mailcutover/proxy/smtp"
	"mailcutover/routing"
	"mailcutover/spool"
	"mailcutover/spool/dsn"
)

// recipient is one that was taken: streamed to a platform, which took it too, or on its
// way into the spool.
type recipient struct {
	rcpt     smtp.Recipient
	address  routing.Address // by which it was decided, and will be again
	decision routing.Decision

	ticket *node.Ticket // of one that is streamed; nil: it goes into the spool
	dotted *node.Ticket // the same, once the dot was sent for it
	err    error        // how streaming ended; nil: the platform has it

	state  spool.State // of one that goes into the spool
	reason string
	last   spool.Result // of the attempt, if there was one
}

// keep makes r one that goes into the spool.
func (r *recipient) keep(state spool.State, reason string) {
	r.state, r.reason = state, reason
}

// attempted notes that the platform was asked and what the answer is, as the spool's queue
// reads it for a notice to the sender.
func (r *recipient) attempted(answer *mail.Reply) {
	c := answer.EnhancedCode
	r.reason = fmt.Sprintf("%d.%d.%d %s", c[0], c[1], c[2], answer.Message)
	if c[0] <= 0 {
		r.reason = answer.Message
	}
	r.last = spool.Result{Time: time.Now(), Code: answer.Code, Platform: r.decision.Platform, Epoch: r.decision.Epoch, Attempts: 1}
}

// key names what r's mail goes to.
func (r *recipient) key() spool.Key { return spool.KeyOf(r.decision.Mailbox, r.address) }

// noted returns r as the ledger has it.
func (r *recipient) noted() ledger.Recipient {
	d := &r.decision
	return ledger.Recipient{Address: r.address, Agency: d.Agency, Mailbox: d.Mailbox, Epoch: d.Epoch, Mapping: d.Mapping}
}

// spooled returns r as the spool keeps it.
func (r *recipient) spooled() spool.Recipient {
	return spool.Recipient{
		Address: r.address, To: r.rcpt.To, Options: r.rcpt.Options,
		Agency: r.decision.Agency, Mailbox: r.decision.Mailbox,
		State: r.state, Reason: r.reason, Last: r.last,
	}
}

// admit decides for one recipient: it is entered at the gate, to be streamed, or kept for
// the spool, or refused. waiting is the number of recipients that were entered in the
// same call before.
func (t *transaction) admit(ctx context.Context, r *recipient, waiting int) (to mail.Path, err error) {
	if err := t.route(ctx, r); err != nil {
		return to, err
	}
	d := &r.decision
	twin := t.twin(r)
	if twin != nil && twin.ticket == nil { // one copy goes to both names, so they go together
		r.keep(twin.state, twin.reason)
		r.last = twin.last
		return to, nil
	}
	if !d.Deliver() {
		return to, t.hold(r, d.Reason.String())
	}
	to, err = d.Address.Wire()
	if err != nil {
		t.Alarms.Raise("bad-address/"+string(d.Address), fmt.Sprintf("The table's address %q of mailbox %s can't be sent to a platform: %v", d.Address, d.Mailbox, err))
		return to, errAbandoned
	}
	platform := t.platforms[d.Platform]
	if platform == nil {
		t.Alarms.Raise("platform-unknown/"+string(d.Platform), fmt.Sprintf("The table names the platform %q, which this node's configuration doesn't have: its mail is put off.", d.Platform))
		return to, fmt.Errorf("platform %q is not configured", d.Platform)
	}
	if t.sender == platform && !platform.RelaysInside {
		t.Alarms.Raise("forward-left/"+string(platform.ID)+"/"+d.Mailbox.String(), fmt.Sprintf("Forward left on %s: it sends us mail for mailbox %s of agency %s, which is there.", platform.ID, d.Mailbox, d.Agency))
		t.log(slog.LevelWarn, "recipient put off", d, "reason", "forward left", "code", errForwardLeft.Code)
		return to, errForwardLeft
	}
	if t.Spool != nil && twin == nil && t.Spool.Held(r.key()) {
		return to, t.hold(r, "behind held mail")
	}
	pool := platform.Pool(t.client.Origin)
	if pool == nil {
		return to, fmt.Errorf("platform %s has no endpoint for mail from %s", platform.ID, t.client.Origin)
	}
	if t.Spool != nil && t.tellsNobody(r, pool) {
		return to, t.spool(r, spool.StateWaiting, "its sender wants to know of its delivery", errOtherWay)
	}
	if t.leg == nil {
		t.leg = t.cutter.leg(ctx, platform, pool, d)
	} else if !t.leg.takes(t, pool, d, t.streamed()+waiting) {
		return to, t.spool(r, spool.StateWaiting, "another way", errOtherWay)
	}
	if t.mixed(waiting) && twin == nil {
		if err := t.room(r); err != nil {
			return to, err
		}
	}
	if r.ticket, err = t.Gate.Enter(d, t.leg.cut); err != nil {
		r.ticket = nil
		return to, t.hold(r, err.Error())
	}
	return to, nil
}

// tellsNobody reports whether the sender wants to know of success and the platform, as far
// as is known, would not tell him. Then we have to (RFC 3461 section 5.2.2), and that is
// done for what comes from the spool.
func (t *transaction) tellsNobody(r *recipient, pool *relay.Pool) bool {
	return !t.from.IsNull() && dsn.Wanted(dsn.Relayed, &r.rcpt.Options) && !pool.Capabilities().DSN
}

// route decides where a recipient's mail goes. It returns an error for those that are
// neither delivered nor held.
func (t *transaction) route(ctx context.Context, r *recipient) error {
	if to := r.rcpt.To; to.Domain() != "" {
		var err error
		if r.address, err = routing.CanonicalAddress(to); err != nil {
			return errBadAddress
		}
	} else if r.address = t.Postmaster; r.address == "" {
		return errNoMaster
	}
	r.decision = t.Gate.Address(r.address)
	d := &r.decision
	if d.Reason == routing.ReasonNoSuchName && t.Names != nil {
		if in, ok := t.Names.Encapsulated(r.address); ok {
			r.address, r.decision = in, t.Gate.Address(in)
		}
	}
	t.Observer.Decided(d.Reason)
	if d.Deliver() || d.Closed() {
		return nil
	}
	answer := decided(d)
	if answer == errUnknown && t.Names != nil && t.certain(r, t.Names.Absent(ctx, r.address)) {
		answer = errNobody
	}
	// The last question before a permanent answer.
	if (answer == errNobody || answer == errForeign) && !t.certain(r, t.Gate.Absent(ctx, r.address, answer == errForeign)) {
		answer = errTable
	}
	t.log(slog.LevelInfo, "recipient refused", d, "rcpt", r.address, "reason", d.Explain(), "code", answer.Code)
	return answer
}

// certain reports whether there is no error that speaks against denying a recipient for good.
func (t *transaction) certain(r *recipient, err error) bool {
	if err != nil {
		t.log(slog.LevelDebug, "not denied for good", &r.decision, "rcpt", r.address, "error", err)
	}
	return err == nil
}

// hold keeps a recipient of a closed agency for the spool, or puts it off.
func (t *transaction) hold(r *recipient, reason string) error {
	if _, off := t.PutOff[r.decision.Agency]; off || r.decision.Agency == "" && r.decision.Reason != routing.ReasonFixed {
		t.log(slog.LevelInfo, "recipient put off", &r.decision, "rcpt", r.address, "reason", reason, "code", errClosed.Code)
		return errClosed
	}
	return t.spool(r, spool.StateHeld, reason, errClosed)
}

// twin returns an earlier recipient of the transaction that is the same mailbox or fixed
// address, or nil.
func (t *transaction) twin(r *recipient) *recipient {
	key := r.key()
	for _, list := range [...][]recipient{t.rcpt, t.beside} {
		for i := range list {
			if o := &list[i]; (o.ticket != nil || o.state != spool.StateUnknown) && o.key() == key {
				return o
			}
		}
	}
	return nil
}

// mixed reports whether a recipient that is streamed may end up in the spool though it
// could be refused alone: something of the message goes there anyway, or one platform gives
// several answers. waiting is that of admit.
func (t *transaction) mixed(waiting int) bool {
	return t.body != nil || t.Spool != nil && t.leg.lmtp && !t.lmtp && t.streamed()+waiting > 0
}

// room asks whether the share of a recipient's agency in the spool has room for this
// message. It is asked for each recipient, because the spool takes a message as a whole.
func (t *transaction) room(r *recipient) error {
	err := t.Spool.Room(r.decision.Agency, t.opts.Size)
	if err != nil {
		t.log(slog.LevelWarn, "recipient put off", &r.decision, "rcpt", r.address, "reason", "no room for its agency in the spool", "error", err)
	}
	return err
}

// roomBeside reports whether the spool has room for the recipients that are streamed, if it
// came to that.
func (t *transaction) roomBeside() bool {
	for _, list := range [...][]recipient{t.rcpt, t.beside} {
		for i := range list {
			if r := &list[i]; r.ticket != nil && t.room(r) != nil {
				return false
			}
		}
	}
	return true
}

// spool keeps a recipient for the spool, if there is one and it takes mail; without a
// spool the answer is instead.
func (t *transaction) spool(r *recipient, state spool.State, reason string, instead *mail.Reply) error {
	if t.Spool == nil {
		t.log(slog.LevelInfo, "recipient put off", &r.decision, "rcpt", r.address, "reason", reason, "code", instead.Code)
		return instead
	}
	if err := t.room(r); err != nil {
		return err
	}
	if t.body == nil && !t.roomBeside() {
		return errOtherWay
	}
	if err := t.beginBody(); err != nil {
		t.log(slog.LevelWarn, "recipient put off", &r.decision, "rcpt", r.address, "reason", reason, "error", err)
		return err
	}
	r.keep(state, reason)
	return nil
}

// beginBody begins the message's way into the spool.
func (t *transaction) beginBody() (err error) {
	if t.body == nil {
		t.body, err = t.Spool.Begin(spool.Envelope{
			Transaction: t.transactionID(), Time: time.Now(), Client: t.client, From: t.from, Options: *t.opts,
		})
	}
	return err
}

// instead does what is left for a recipient that couldn't be streamed: it is kept for the
// spool if its agency closed meanwhile, or the platform couldn't be reached. What a
// platform answers is passed on.
func (t *transaction) instead(r *recipient, err error) error {
	var broken *relay.ConnectionError
	switch {
	case t.Spool != nil && errors.Is(err, node.ErrClosed):
		return t.hold(r, err.Error())
	case t.Spool != nil && errors.As(err, &broken):
		t.misfit(&r.decision, err)
		return t.spool(r, spool.StateWaiting, err.Error(), errNotKnown)
	}
	return t.refused(r, err)
}

// refused logs why a recipient or its message was not taken, and returns what the sender
// gets. A mailbox that the table knows is not refused for good by its platform while
// its agency is armed; what a platform says of the message itself is passed on.
func (t *transaction) refused(r *recipient, err error) *mail.Reply {
	d, answer := &r.decision, reply(err)
	t.log(slog.LevelWarn, "not taken", d, "rcpt", r.address, "code", answer.Code, "error", err)
	t.misfit(d, err)
	var p *relay.PlatformReply
	if !mail.IsPermanent(answer) || !d.Armed || !errors.As(err, &p) || p.Verb != "RCPT" && relay.IsContent(answer) {
		return answer
	}
	t.Alarms.Raise("refused/"+string(d.Platform)+"/"+d.Mailbox.String(), fmt.Sprintf("%s refuses mailbox %s of agency %s, which the table has there: %v", d.Platform, d.Mailbox, d.Agency, err))
	return errRefused
}

// misfit raises an alarm for what no other try cures, because this node, the table or the
// platform has to be changed.
func (t *transaction) misfit(d *routing.Decision, err error) {
	if errors.Is(err, relay.ErrNeedsOperator) {
		t.Alarms.Raise("misfit/"+string(d.Platform), fmt.Sprintf("%s takes no mail for a reason that is not in the message: %v", d.Platform, err))
	}
}
