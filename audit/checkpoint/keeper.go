package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"mailcutover/audit"
)

// Log is the audit log that is signed; *audit.Log is one.
type Log interface {
	Head() audit.Head
	Changed() <-chan struct{}
	Has(head audit.Head) error
}

// Alarms takes what a human has to see; *alarm.Set is one.
type Alarms interface {
	Raise(key, text string)
	Clear(key string) bool
}

// Settings may change while the node runs.
type Settings struct {
	Key     *Key          // nil: nothing is signed
	Records uint64        // a checkpoint after so many records at the latest
	Every   time.Duration // and so long after a record at the latest
}

// Options are what a Keeper works with. Store and Logger may be nil.
type Options struct {
	Log      Log
	Book     *Book
	Settings func() Settings
	Alarms   Alarms
	Logger   *slog.Logger
	Now      func() time.Time // nil: time.Now

	// Store brings the last checkpoints, the newest last, to where other nodes see them. One
	// that fails is repeated with the next.
	Store func(ctx context.Context, last []Checkpoint) error
}

// Keeper signs a node's audit log while it grows. Use [NewKeeper].
type Keeper struct {
	o Options

	mu     sync.Mutex // while a checkpoint is made
	stored uint64     // count of the last one that Store took
}

// alarmKey is that of a log of which no checkpoint can be made, or that isn't the one signed.
const (
	alarmKey         = "audit-checkpoint"
	alarmKeyMismatch = "audit-checkpoint-mismatch"
)

const (
	// retryPause is the time after which a checkpoint is tried again that couldn't be made.
	retryPause = 10 * time.Second
	// storePatience bounds one call of Store.
	storePatience = 10 * time.Second
	// lastPatience bounds it when the node stops.
	lastPatience = time.Second
)

// NewKeeper returns a keeper that does nothing before Run or Make. A log that isn't the one
// that the book's last checkpoint is of raises an alarm; it is signed all the same, since
// checkpoints hide nothing of those before.
func NewKeeper(o Options) *Keeper {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Store == nil {
		o.Store = func(context.Context, []Checkpoint) error { return nil }
	}
	k := &Keeper{o: o}
	if last := o.Book.Last(); len(last) > 0 {
		c := last[len(last)-1]
		if head := o.Log.Head(); head.Chain != c.Head.Chain {
			o.Alarms.Raise(alarmKeyMismatch, fmt.Sprintf("The audit log is not the one that was signed: it is chain %s now, and checkpoint %d of %s is of %s. See mailcutover audit verify.", head.Chain, c.Count, stamp(c.Time), c.Head))
		} else if err := o.Log.Has(c.Head); err != nil {
			o.Alarms.Raise(alarmKeyMismatch, fmt.Sprintf("The audit log is not the one that checkpoint %d of %s is of: %s. See mailcutover audit verify.", c.Count, stamp(c.Time), err))
		}
	}
	return k
}

// ErrNoKey is about a node that has no key to sign with.
var ErrNoKey = errors.New("this node signs no checkpoints: audit.signing_key_file isn't set")

// Run makes checkpoints until ctx ends, and then the last one.
func (k *Keeper) Run(ctx context.Context) {
	var due time.Time // of the oldest record that isn't signed; zero: all are
	for {
		changed := k.o.Log.Changed()
		set, unsigned := k.o.Settings(), k.unsigned()
		now := k.o.Now()
		switch {
		case set.Key == nil || unsigned == 0:
			due = time.Time{}
		case due.IsZero():
			due = now.Add(set.Every)
		}
		if unsigned > 0 && set.Key != nil && (unsigned >= set.Records || !now.Before(due)) {
			if _, err := k.Make(ctx); err != nil {
				due = now.Add(retryPause)
			} else {
				due = time.Time{}
			}
		}
		var wait <-chan time.Time
		switch {
		case !due.IsZero():
			wait = time.After(max(due.Sub(k.o.Now()), 0))
			if k.unsigned() >= set.Records { // it has failed: not with each record again
				changed = nil
			}
		case k.behind():
			wait = time.After(retryPause)
		}
		select {
		case <-changed:
		case <-wait:
			k.store(ctx)
		case <-ctx.Done():
			k.end()
			return
		}
	}
}

// end signs what is left when the node stops.
func (k *Keeper) end() {
	last, cancel := context.WithTimeout(context.Background(), lastPatience)
	defer cancel()
	if k.o.Settings().Key == nil {
		return
	}
	if k.unsigned() > 0 {
		if _, err := k.Make(last); err != nil {
			k.o.Logger.Warn("the last records of the audit log are not signed", "error", err)
		}
		return
	}
	k.store(last)
}

// unsigned is how many records there are behind the last checkpoint; all of them, if it is of
// another log.
func (k *Keeper) unsigned() uint64 {
	head := k.o.Log.Head()
	if last := k.o.Book.Last(); len(last) > 0 {
		if c := last[len(last)-1]; c.Head.Chain == head.Chain && c.Head.Number <= head.Number {
			return head.Number - c.Head.Number
		}
	}
	return head.Number
}

// Make signs the log as it stands now, even if nothing is new in it: a checkpoint also says
// when that was so. When it returns, the line is on the disk; the table has it then, or soon.
// ErrNoKey if there is no key; a log without a record has nothing to sign.
func (k *Keeper) Make(ctx context.Context) (Checkpoint, error) {
	c, err := k.make()
	if err != nil {
		if !errors.Is(err, ErrNoKey) {
			k.o.Alarms.Raise(alarmKey, "The audit log can't be signed: "+err.Error()+". It goes on without; see docs/operations/audit.md.")
		}
		return c, err
	}
	k.o.Alarms.Clear(alarmKey)
	k.o.Logger.Info("audit log is signed", "reason", fmt.Sprintf("checkpoint %d at record %d by key %s", c.Count, c.Head.Number, c.Key))
	k.store(ctx)
	return c, nil
}

func (k *Keeper) make() (Checkpoint, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, head := k.o.Settings().Key, k.o.Log.Head()
	if key == nil {
		return Checkpoint{}, ErrNoKey
	}
	if head.Number == 0 {
		return Checkpoint{}, errors.New("the audit log has no record yet")
	}
	count, previous, before := uint64(1), audit.Hash{}, KeyID("")
	if last := k.o.Book.Last(); len(last) > 0 {
		c := last[len(last)-1]
		count, previous, before = c.Count+1, c.Hash(), c.Key
	}
	c := sign(key, head, k.o.Now(), count, previous, before != key.ID() && key.Follows())
	return c, k.o.Book.append(&c)
}

// behind reports whether Store lacks the last checkpoint.
func (k *Keeper) behind() bool {
	last := k.o.Book.Last()
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(last) > 0 && last[len(last)-1].Count != k.stored
}

// store hands the last checkpoints to Store.
func (k *Keeper) store(ctx context.Context) {
	if !k.behind() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	last := k.o.Book.Last()
	if err := k.o.Store(ctx, last); err != nil {
		k.o.Logger.Warn("audit checkpoints are not in the table yet", "error", err)
		return
	}
	k.mu.Lock()
	k.stored = last[len(last)-1].Count
	k.mu.Unlock()
}
