package recall

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"mailcutover/rollback/mailstore"
	"mailcutover/routing"
)

// Options are what an engine needs. From, To and Journals have no default.
type Options struct {
	From, To mailstore.Store
	Journals *Journals

	// Messages bounds how many messages a second are brought, over all mailboxes; 0: no limit.
	Messages int

	Logger *slog.Logger     // nil: nothing is logged
	Now    func() time.Time // nil: time.Now
}

// Engine brings mail from one platform to the other, mailbox by mailbox. It is safe for
// concurrent use, for different mailboxes.
type Engine struct {
	o Options
}

// New returns an engine.
func New(o Options) (*Engine, error) {
	if o.From == nil || o.To == nil || o.Journals == nil {
		return nil, errors.New("recall: it needs both platforms' mailboxes and a journal")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Engine{o: o}, nil
}

// Mailbox brings what is missing, pass after pass until one finds nothing. It can be called
// again, after an error or without: what is accounted for is not looked at twice. The Result
// is also right, as far as it got, beside an error; mailstore.Platform tells whether the
// error concerns others as well.
func (e *Engine) Mailbox(ctx context.Context, job Job) (Result, error) {
	return Result{}, errors.ErrUnsupported
}

// Journals are the journals of one operation and direction on this node, in a directory of
// their own.
type Journals struct{ dir string }

// OpenJournals opens the directory, which is made if it isn't there. One process has it at a
// time.
func OpenJournals(dir string) (*Journals, error) { return &Journals{dir: dir}, nil }

// Result returns what has become of a mailbox as its journal has it, without asking a
// platform; false: there is no journal of it.
func (j *Journals) Result(id routing.MailboxID) (Result, bool, error) { return Result{}, false, nil }
