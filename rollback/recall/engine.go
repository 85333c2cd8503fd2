package recall

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"mailcutover/mail"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/msgkey"
)

// Options are what an engine needs. From, To and Journals have no default.
type Options struct {
	From, To mailstore.Store
	Journals *Journals

	// Messages bounds how many messages a second are brought, over all mailboxes; 0: no limit.
	Messages int

	// Settle is how long a message that To took and doesn't show is looked for; 0: 3 s.
	Settle time.Duration

	Logger *slog.Logger     // nil: nothing is logged
	Now    func() time.Time // nil: time.Now
}

// Engine brings mail from one platform to the other, mailbox by mailbox. It is safe for
// concurrent use, for different mailboxes.
type Engine struct {
	o       Options
	limiter *rate.Limiter // nil: none
}

// New returns an engine.
func New(o Options) (*Engine, error) {
	if o.From == nil || o.To == nil || o.Journals == nil {
		return nil, errors.New("recall: it needs both platforms' mailboxes and a journal")
	}
	if o.Messages < 0 || o.Settle < 0 {
		return nil, errors.New("recall: a bound below 0")
	}
	if o.Settle == 0 {
		o.Settle = 3 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	e := &Engine{o: o}
	if o.Messages > 0 {
		e.limiter = rate.NewLimiter(rate.Limit(o.Messages), max(1, o.Messages/10))
	}
	return e, nil
}

// Mailbox brings what is missing, pass after pass until one finds nothing. It can be called
// again, after an error or without: what is accounted for is not looked at twice. The Result
// is right as far as it got also beside an error; mailstore.Platform tells whether the error
// concerns other mailboxes as well. ErrBusy is about a mailbox that is being worked on.
func (e *Engine) Mailbox(ctx context.Context, job Job) (Result, error) {
	j, err := e.o.Journals.take(job.Row.Mailbox)
	if err != nil {
		return Result{}, fmt.Errorf("recall of mailbox %s: %w", job.Row.Mailbox, err)
	}
	r := &run{
		e: e, job: job, journal: j,
		log: e.o.Logger.With("agency", job.Agency, "mailbox", job.Row.Mailbox),
	}
	if job.Delivered != nil {
		r.delivered = transactions(job.Delivered)
	}
	if job.Held != nil {
		r.held = transactions(job.Held)
		for k := range j.ours {
			delete(r.held, k) // it is there, whoever brought it
		}
	}
	done, err := r.all(ctx)
	err = errors.Join(err, j.close())
	result := r.result(done)
	if err != nil {
		return result, fmt.Errorf("recall of mailbox %s from %s to %s: %w", job.Row.Mailbox, job.Direction.From, job.Direction.To, err)
	}
	return result, nil
}

// all opens both sides and makes passes.
func (r *run) all(ctx context.Context) (done bool, err error) {
	side := r.job.Direction.Side
	other := mailstore.Source
	if side == mailstore.Source {
		other = mailstore.Target
	}
	if r.to, err = r.e.o.To.Open(ctx, r.job.Row, other); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, r.to.Close()) }()
	if r.from, err = r.e.o.From.Open(ctx, r.job.Row, side); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, r.from.Close()) }()
	if r.journal.damaged > 0 {
		r.log.Warn("lines of the journal can't be read; what they said is looked for again", "lines", r.journal.damaged)
	}
	for {
		began := r.e.o.Now()
		found, err := r.pass(ctx, nil)
		if err == nil && found == 0 {
			if wanted := r.missing(); len(wanted) > 0 {
				_, err = r.pass(ctx, wanted)
			}
		}
		r.passes++
		if err != nil {
			return false, err
		}
		if found == 0 {
			return began.After(r.job.After) && len(r.held) == 0, nil
		}
	}
}

// missing are the transactions that the ledgers have and that aren't accounted for; nil: none.
func (r *run) missing() map[msgkey.Key]bool {
	missing := make(map[msgkey.Key]bool)
	for k := range r.delivered {
		if !r.journal.ours[k] && !r.held[k] {
			missing[k] = true
		}
	}
	return missing
}

// result is what the journal says, with what is of this run alone.
func (r *run) result(done bool) Result {
	result := r.journal.account.result(r.delivered)
	result.Passes, result.Messages, result.Bytes, result.Done = r.passes, r.messages, r.bytes, done
	if !done {
		return result
	}
	named := make(map[msgkey.Key]bool)
	for _, n := range result.NotBack {
		named[n.Key] = true
	}
	for k := range r.missing() {
		if !named[k] {
			result.NotBack = append(result.NotBack, NotBack{Key: k, Class: ClassGone, Reason: "it isn't in the mailbox any more"})
		}
	}
	return result
}

// transactions are the keys of these transactions.
func transactions(all iter.Seq[mail.TransactionID]) map[msgkey.Key]bool {
	keys := make(map[msgkey.Key]bool)
	all(func(id mail.TransactionID) bool {
		if k := msgkey.TransactionKey(id); !k.IsZero() {
			keys[k] = true
		}
		return true
	})
	return keys
}
