package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"mailcutover/ledger"
	"mailcutover/ledger/retained"
	"mailcutover/mail"
	"mailcutover/node"
	"mailcutover/proxy/relay"
	"mailcutover/spool/queue"
)

// bufferSize is how much of a body is in memory at once.
const bufferSize = 32 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// delivery is one attempt. It belongs to one goroutine.
type delivery struct {
	*settings
	*queue.Delivery
	platform *relay.Platform
	pool     *relay.Pool
	ctx      context.Context // ends when an agency closes
	results  []queue.Result
	tickets  []*node.Ticket // by recipient; nil for a notice's, and for those not entered
	taken    []int          // recipients that the platform took, in order
	digest   ledger.Digest
	intent   ledger.Intent
	copy     *retained.Incoming // of what goes to a target; nil: none is made
}

// Send implements queue.Sender.
func (s *Sender) Send(ctx context.Context, d *queue.Delivery) []queue.Result {
	set := s.settings.Load()
	a := &delivery{
		settings: set, Delivery: d, platform: set.platforms[d.Platform],
		results: make([]queue.Result, len(d.Recipients)), tickets: make([]*node.Ticket, len(d.Recipients)),
	}
	if err := a.admit(); err != nil {
		return a.all(queue.Deferred, err)
	}
	legCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.ctx = legCtx
	asked := a.enter(cancel)
	if len(asked) > 0 {
		a.attempt(asked)
	}
	// The drain waits for the tickets, so that what it leaves behind is settled.
	d.Settle(a.results)
	a.end()
	return a.results
}

// all returns the same result for every recipient.
func (a *delivery) all(s queue.Status, err error) []queue.Result {
	for i := range a.results {
		a.results[i] = queue.Result{Status: s, Err: err}
	}
	return a.results
}

// admit looks for reasons not to go to the platform at all.
func (a *delivery) admit() error {
	if a.platform == nil {
		a.Alarms.Raise("platform-unknown/"+string(a.Platform), fmt.Sprintf("The table names the platform %q, which this node's configuration doesn't have: its mail waits.", a.Platform))
		return fmt.Errorf("platform %q is not configured", a.Platform)
	}
	client := &a.Message.Client
	if a.pool = a.platform.Pool(client.Origin); a.pool == nil {
		return fmt.Errorf("platform %s has no endpoint for mail from %s", a.Platform, client.Origin)
	}
	if !a.Notice && !a.platform.RelaysInside && a.platform.Sends(client) {
		d := &a.Recipients[0].Decision
		a.Alarms.Raise("forward-left/"+string(a.Platform)+"/"+d.Mailbox.String(), fmt.Sprintf("Forward left on %s: it sent us mail for mailbox %s of agency %s, which is there.", a.Platform, d.Mailbox, d.Agency))
		return fmt.Errorf("forward left on %s: message came from there", a.Platform)
	}
	return nil
}

// enter takes tickets, and returns the recipients that may be asked for.
func (a *delivery) enter(cut func()) (asked []int) {
	for i := range a.Recipients {
		if !a.Notice {
			t, err := a.Gate.Enter(&a.Recipients[i].Decision, cut)
			if err != nil {
				a.results[i] = queue.Result{Status: queue.Closed, Err: err}
				continue
			}
			a.tickets[i] = t
		}
		asked = append(asked, i)
	}
	return asked
}

// end gives the tickets back.
func (a *delivery) end() {
	for i, t := range a.tickets {
		if t == nil {
			continue
		}
		if r := &a.results[i]; r.Status == queue.InDoubt && time.Now().Before(r.Until) {
			t.InDoubt(r.Until)
		}
		t.End()
	}
}

// attempt speaks to the platform, and sets the results of those asked for.
func (a *delivery) attempt(asked []int) {
	opts := a.Message.Options
	opts.Size = a.Message.Size
	tx, err := a.pool.Open(a.ctx, a.Message.Client, a.Message.From, &opts)
	if err != nil {
		a.fail(asked, err)
		return
	}
	defer tx.Abort()
	asked, rcpts := a.addressed(asked)
	if len(asked) == 0 {
		return
	}
	answers, err := tx.RcptsData(a.ctx, rcpts)
	for j, err := range answers {
		if err != nil {
			a.results[asked[j]] = a.result(asked[j], err)
			continue
		}
		a.taken = append(a.taken, asked[j])
	}
	if len(a.taken) == 0 {
		return
	}
	a.beginCopy()
	defer a.copy.Discard()
	if err == nil {
		err = a.bring(tx)
	}
	if err != nil {
		a.fail(a.taken, err)
		return
	}
	ticket, err := a.Ledger.Intend(a.makeIntent(tx))
	if err != nil {
		a.fail(a.taken, fmt.Errorf("before the dot: %w", err))
		return
	}
	if err := a.ask(); err != nil {
		a.Ledger.Outcome(ticket, ledger.Answer{Result: ledger.ResultNotSent})
		a.fail(a.taken, err)
		return
	}
	// From here on the drain waits for us, so nothing but the answer, the platform's
	// limit and the relay's own deadlines ends the wait.
	noted := a.answered(tx, tx.Dot(a.patience()))
	a.keepCopy(noted)
	a.Settle(a.results) // before the ledger: what it has in doubt is what may go twice
	a.Written(func() { a.Ledger.Outcome(ticket, noted...) })
}

// addressed returns what the platform is asked, for those recipients that have an address
// that can be sent.
func (a *delivery) addressed(asked []int) (ok []int, rcpts []relay.Recipient) {
	for _, i := range asked {
		r := &a.Message.Recipients[a.Recipients[i].Index]
		d := &a.Recipients[i].Decision
		to, err := r.To, error(nil)
		if !a.Notice {
			to, err = d.Address.Wire()
		}
		if err != nil {
			a.Alarms.Raise("bad-address/"+string(d.Address), fmt.Sprintf("The table's address %q of mailbox %s can't be sent to a platform: %v", d.Address, d.Mailbox, err))
			a.results[i] = queue.Result{Status: queue.Deferred, Err: err}
			continue
		}
		ok = append(ok, i)
		rcpts = append(rcpts, relay.Recipient{To: to, Options: r.Options, Group: d.Group})
	}
	return ok, rcpts
}

// bring sends the message, all but its dot, to a platform that waits for it. It returns nil
// only if the body is whole.
func (a *delivery) bring(tx *relay.Transaction) error {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	var digest ledger.Digester
	digest.Reset()
	for {
		n, err := a.Body.Read(buf[:])
		if n > 0 {
			digest.Write(buf[:n])
			a.copy.Write(buf[:n])
			if _, err := tx.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if err := a.Body.Verify(); err != nil {
		return err
	}
	a.digest = digest.Digest()
	return tx.Flush(a.ctx)
}

// makeIntent returns what the ledger notes before the dot.
func (a *delivery) makeIntent(tx *relay.Transaction) *ledger.Intent {
	m := a.Message
	a.intent = ledger.Intent{
		Transaction: m.Transaction, Platform: a.Platform, Host: tx.Host(), From: m.From.String(), MessageID: m.MessageID,
		Size: m.Size, Digest: a.digest, Recipients: make([]ledger.Recipient, len(a.taken)),
	}
	for j, i := range a.taken {
		d := &a.Recipients[i].Decision
		a.intent.Recipients[j] = ledger.Recipient{
			Address: m.Recipients[a.Recipients[i].Index].Address, Agency: d.Agency, Mailbox: d.Mailbox, Epoch: d.Epoch, Mapping: d.Mapping,
		}
	}
	return &a.intent
}

// ask asks the gate for the last time.
func (a *delivery) ask() error {
	var few [4]*node.Ticket
	tickets := few[:0]
	for _, i := range a.taken {
		if t := a.tickets[i]; t != nil {
			tickets = append(tickets, t)
		}
	}
	return node.Dots(a.ctx, tickets...)
}

// answered sets the results from the answers to the dot, and returns what the ledger notes.
func (a *delivery) answered(tx *relay.Transaction, answers []error) []ledger.Answer {
	noted := make([]ledger.Answer, len(a.taken))
	texts := tx.Replies()
	for j, i := range a.taken {
		err := answers[min(j, len(answers)-1)]
		r := &a.results[i]
		*r = a.result(i, err)
		n := &noted[j]
		if len(texts) > 0 {
			n.Text = texts[min(j, len(texts)-1)]
		}
		if r.Reply != nil {
			n.Code = r.Reply.Code
		}
		switch {
		case err == nil:
			n.Code, n.Result = 250, ledger.ResultDelivered
			r.Reply = mail.NewReply(250, 0, 0, 0, n.Text)
			r.Silent = !a.pool.Capabilities().DSN
			if t := a.tickets[i]; t != nil {
				if err := t.Acknowledge(); err != nil {
					// A copy is there, but it may be the wrong side: another goes the right way.
					*r = queue.Result{Status: queue.InDoubt, Err: err, Reply: r.Reply, Until: time.Now()}
					n.Result = ledger.ResultNotAcknowledged
				}
			}
		case r.Status == queue.InDoubt:
			n.Result = ledger.ResultInDoubt
		default:
			n.Result, r.Noted = ledger.ResultRefused, true
		}
	}
	return noted
}

// fail sets the results of recipients to what an error means that came before the dot.
func (a *delivery) fail(which []int, err error) {
	for _, i := range which {
		a.results[i] = a.result(i, err)
	}
}

// result says what an error means for a recipient.
func (a *delivery) result(i int, err error) queue.Result {
	if err == nil {
		return queue.Result{Status: queue.Delivered}
	}
	if errors.Is(err, relay.ErrNeedsOperator) {
		a.Alarms.Raise("misfit/"+string(a.Platform), fmt.Sprintf("%s takes no mail for a reason that is not in the message; it waits in the spool: %v", a.Platform, err))
	}
	r := queue.Result{Err: err}
	var conn *relay.ConnectionError
	var p *relay.PlatformReply
	switch {
	case errors.Is(err, relay.ErrInDoubt):
		r.Status, r.Until, r.Slow = queue.InDoubt, time.Now().Add(a.platform.ConnectionLimit), true
	case errors.Is(err, node.ErrClosed), a.ctx.Err() != nil:
		r.Status = queue.Closed
	case isDamaged(err):
		r.Status = queue.Damaged
	case errors.As(err, &conn):
		r.Status, r.Slow = queue.Unavailable, true
	case errors.As(err, &p):
		r.Reply = p.Reply
		r.Status, r.Slow = a.refused(i, p), isOverload(p)
	case errors.As(err, &r.Reply): // what the platform lacks
		r.Status = queue.Deferred
		if mail.IsPermanent(r.Reply) {
			r.Status = queue.Refused
		}
	default: // a failure here, such as a ledger that can't be written: no mailbox's fault
		r.Status = queue.Unavailable
	}
	return r
}

// refused judges a platform's 4yz or 5yz.
func (a *delivery) refused(i int, p *relay.PlatformReply) queue.Status {
	d := &a.Recipients[i].Decision
	switch {
	case !mail.IsPermanent(p.Reply):
		return queue.Deferred
	case p.Ours: // not about the message: no notice to its sender
		return queue.Deferred
	case a.Notice || !d.Armed || p.Verb != "RCPT" && relay.IsContent(p.Reply):
		return queue.Refused
	}
	a.Alarms.Raise("refused/"+string(a.Platform)+"/"+d.Mailbox.String(), fmt.Sprintf("%s refuses mailbox %s of agency %s, which the table has there; its mail waits in the spool: %v", a.Platform, d.Mailbox, d.Agency, p))
	return queue.Deferred
}
