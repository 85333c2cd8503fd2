package resend

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"sync"
	"time"

	"mailcutover/ledger"
	"mailcutover/ledger/retained"
	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// Copies are this node's retained copies; *retained.Store is one.
type Copies interface {
	Find(ctx context.Context, q retained.Query) iter.Seq2[retained.Copy, error]
	Open(c *retained.Copy) (*retained.Body, error)
	Agency(id routing.AgencyID) retained.Agency
	Status() retained.Status
}

// Spool is this node's spool; *spool.Store is one.
type Spool interface {
	Begin(spool.Envelope) (*spool.Incoming, error)
	Get(mail.TransactionID) (*spool.Message, error)
}

// Ledger is this node's; *ledger.Ledger is one.
type Ledger interface {
	Intend(*ledger.Intent) (ledger.Ticket, error)
	Outcome(ledger.Ticket, ...ledger.Answer)
	Find(ctx context.Context, q ledger.Query) iter.Seq2[ledger.Record, error]
}

// Options are what a Resender works with. All are required, but for Added and Logger.
type Options struct {
	Copies Copies
	Spool  Spool
	Ledger Ledger
	Node   string // our host name

	// Added is told of each message that the spool took. It must not block.
	Added  func(id mail.TransactionID, first int)
	Logger *slog.Logger // nil: none
}

// Resender hands copies to the spool. Use [New].
type Resender struct {
	o  Options
	mu sync.Mutex // held while a copy is handed over: nobody hands over the same one

	ended sync.Map // of mail.TransactionID: State of deliveries that won't change any more
}

// New returns a Resender.
func New(o Options) *Resender {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Resender{o: o}
}

// Listener stands in the spool where mail of others has the listener that took it.
const Listener = "retained"

// Plan says, for people, which copies of an agency there are on this node since a time, and
// which are not there any more.
func (r *Resender) Plan(agency routing.AgencyID, since time.Time) []string {
	a := r.o.Copies.Agency(agency)
	text := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	all := []string{fmt.Sprintf("node %s has no retained copy", r.o.Node)}
	if a.Copies > 0 {
		all[0] = fmt.Sprintf("node %s has %d retained copies, %d bytes, kept from %s to %s", r.o.Node, a.Copies, a.Bytes, text(a.First), text(a.Last))
	}
	if gone := &a.Removed; gone.Copies > 0 && gone.Last.After(since) {
		all = append(all, fmt.Sprintf("%d copies kept from %s to %s are no longer there (%s): if the target is lost, that mail comes back from its mailboxes only", gone.Copies, text(gone.First), text(gone.Last), gone.Reason))
	}
	if a.Damaged > 0 {
		all = append(all, fmt.Sprintf("%d copies, or groups of them, can't be read", a.Damaged))
	}
	if st := r.o.Copies.Status(); st.Failed > 0 {
		all = append(all, fmt.Sprintf("%d copies of delivered messages, of whatever agency, could not be kept since the node's start", st.Failed))
	}
	return all
}

// Deliver hands all copies of what went to a platform for an agency since a time to the spool,
// the oldest first, for delivery to the platform that the agency is on then: one for each of its
// recipients by itself, so that leaving one out changes nothing for the others. Copies that were
// handed over before are passed over, and so are damaged ones, with a line in the log, and those that
// back says are there already (nil: none are). It returns how many it handed over. The error is the spool's, the ledger's or the context's; the same call
// goes on.
func (r *Resender) Deliver(ctx context.Context, agency routing.AgencyID, from routing.PlatformID, since time.Time, back func(mail.TransactionID, routing.MailboxID) bool) (n int, err error) {
	for c, err := range r.o.Copies.Find(ctx, retained.Query{Agency: agency, Platform: from, Since: since}) {
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			r.o.Logger.Error("retained copies can't be read, and are not delivered", "agency", agency, "platform", from, "error", err)
			continue
		}
		fresh, err := r.deliverEach(ctx, &c, back)
		n += fresh
		switch {
		case errors.Is(err, retained.ErrDamaged), errors.Is(err, retained.ErrRemoved):
			r.o.Logger.Error("retained copy is not delivered", "agency", agency, "platform", from, "transaction", c.Transaction, "error", err)
		case err != nil:
			return n, fmt.Errorf("deliver retained copies of agency %s: %w", agency, err)
		}
	}
	if ctx.Err() != nil {
		return n, fmt.Errorf("deliver retained copies of agency %s: %w", agency, ctx.Err())
	}
	return n, nil
}

// deliverEach hands one copy to the spool for each recipient by itself.
func (r *Resender) deliverEach(ctx context.Context, c *retained.Copy, back func(mail.TransactionID, routing.MailboxID) bool) (n int, err error) {
	for i := range c.Recipients {
		if back != nil && back(c.Transaction, c.Recipients[i].Mailbox) {
			continue
		}
		one := *c
		one.Recipients = c.Recipients[i : i+1 : i+1]
		fresh, err := r.deliverOne(ctx, &one)
		if err != nil {
			return n, err
		}
		if fresh {
			n++
		}
	}
	return n, nil
}

// deliverOne hands one copy to the spool, for the recipients that c has, and reports whether it was
// handed over now; else it was before. The error wraps retained.ErrDamaged or retained.ErrRemoved
// if there is no such copy any more; else it is the spool's, or the ledger's, and may go away.
func (r *Resender) deliverOne(ctx context.Context, c *retained.Copy) (fresh bool, err error) {
	id, err := ID(c)
	if err != nil {
		return false, fmt.Errorf("deliver retained copy %s: %w", c, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	known, err := r.known(ctx, id)
	if err == nil && !known {
		err = r.put(ctx, c, id)
	}
	if err != nil {
		return false, fmt.Errorf("deliver retained copy %s: %w", c, err)
	}
	return !known, nil
}

// ID returns the id of a copy's delivery: it follows from the transaction, the agency and the
// recipients. It is a UUIDv8 (RFC 9562 section 5.8) with the time of the transaction, so that it
// sorts behind it.
func ID(c *retained.Copy) (mail.TransactionID, error) {
	first, err := c.Transaction.Bytes()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n%s\n%s\n", c.Transaction, c.Agency, c.Platform)
	for i := range c.Recipients {
		fmt.Fprintf(sum, "%s %s\n", c.Recipients[i].Address, c.Recipients[i].Mailbox)
	}
	var id [16]byte
	copy(id[6:], sum.Sum(nil))
	copy(id[:6], first[:6])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return mail.TransactionIDOf(id), nil
}

// known reports whether the spool took a delivery before.
func (r *Resender) known(ctx context.Context, id mail.TransactionID) (bool, error) {
	switch _, err := r.o.Spool.Get(id); {
	case err == nil:
		return true, nil
	case !errors.Is(err, spool.ErrUnknown):
		return false, err
	}
	for one, err := range r.o.Ledger.Find(ctx, ledger.Query{Transaction: id}) {
		if err != nil {
			return false, err
		}
		// What this node was about to put into the spool when it ended is not there, as was seen
		// above: it never came in, or it has left, and then there is another record.
		if result := one.Answer(0).Result; !one.Local || result != ledger.ResultNotSent && result != ledger.ResultNotAcknowledged {
			return true, nil
		}
	}
	return false, nil
}

// put brings a copy into the spool, and says so in the ledger, before and after.
func (r *Resender) put(ctx context.Context, c *retained.Copy, id mail.TransactionID) error {
	body, err := r.o.Copies.Open(c)
	if err != nil {
		return err
	}
	defer body.Close()
	env := spool.Envelope{
		Transaction: id, Time: time.Now(), MessageID: c.MessageID, Options: c.Options,
		Client: mail.Client{Session: string(c.Transaction), Listener: Listener, Origin: c.Origin, Helo: r.o.Node, With: "LOCAL"},
	}
	in, err := r.o.Spool.Begin(env)
	if err != nil {
		return err
	}
	defer in.Discard()
	if _, err := io.Copy(in, body); err != nil {
		return err
	}
	reason := fmt.Sprintf("retained copy of %s, which %s took at %s", c.Transaction, c.Platform, c.Kept.UTC().Format(time.RFC3339))
	rcpts := make([]spool.Recipient, len(c.Recipients))
	for i := range c.Recipients {
		to := &c.Recipients[i]
		rcpts[i] = spool.Recipient{Address: to.Address, Agency: to.Agency, Mailbox: to.Mailbox, State: spool.StateWaiting, Reason: reason}
		if rcpts[i].To, err = to.Address.Wire(); err != nil {
			return fmt.Errorf("address %s: %w", to.Address, err)
		}
	}
	i := ledger.Intent{Transaction: id, MessageID: c.MessageID, Size: c.Size, Local: true, Recipients: append([]ledger.Recipient(nil), c.Recipients...)}
	ticket, err := r.o.Ledger.Intend(&i)
	if err != nil {
		return err
	}
	if err := in.Commit(ctx, rcpts); err != nil {
		result := ledger.ResultNotSent
		if errors.Is(err, spool.ErrUnsure) {
			result = ledger.ResultNotAcknowledged
		}
		r.o.Ledger.Outcome(ticket, ledger.Answer{Result: result, Text: reason})
		return err
	}
	r.o.Ledger.Outcome(ticket, ledger.Answer{Result: ledger.ResultAccepted, Text: reason})
	if r.o.Added != nil {
		r.o.Added(id, 0)
	}
	r.o.Logger.Info("retained copy goes into the spool", "transaction", id, "reason", reason, "agency", c.Agency)
	return nil
}
