package desk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"mailcutover/internal/alarm"
	"mailcutover/mail"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/watermark"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Table is what a desk changes; a table.Table is one.
type Table interface {
	Change(ctx context.Context, c table.Change) (routing.Position, error)
}

// Replica is this node's copy of the table.
type Replica interface {
	State() *routing.State
	Wait(ctx context.Context, pos routing.Position) error
}

// React is what happens when crossed mailboxes are found after a cutover, besides the list.
type React string

const (
	ReactAlarm  React = "alarm"  // an alarm on all nodes
	ReactLock   React = "lock"   // that, and the agency is locked
	ReactReport React = "report" // nothing
)

// Settings may change while the node runs.
type Settings struct {
	// Mailboxes returns the mailboxes of a platform; nil: they can't be read.
	Mailboxes func(routing.PlatformID) mailstore.Store

	Sample       int           // mailboxes of an agency in a sample
	AfterCutover bool          // compare a sample by itself
	Every        time.Duration // compare a sample again so long after the last comparison; 0: never
	MaxAge       time.Duration // a comparison that is older says nothing any more
	React        React
	Workers      int // mailboxes at once
}

// Before is what is known of an agency's last cutover.
type Before struct {
	Operation routing.OperationID // empty: none is known
	Since     time.Time           // when it began
	Marks     *watermark.Set      // of both sides before it; nil: not known
}

// Options are what a desk works with. Those of the first group are required.
type Options struct {
	Node     routing.NodeID
	Table    Table
	Replica  Replica
	Dir      string // of this node's numbers of each mailbox, and of scratch files
	Alarms   alarm.Sink
	Settings func() Settings

	// Before returns what is known of an agency's last cutover; nil: nothing is. Cutover
	// returns its operation alone, from a State; it is called often.
	Before  func(ctx context.Context, id routing.AgencyID) Before
	Cutover func(s *routing.State, id routing.AgencyID) routing.OperationID

	// Lock locks an agency, and returns once that is in the table; nil: nothing is locked.
	Lock func(ctx context.Context, id routing.AgencyID, reason string) error

	// Delivered is as of verify.Options.
	Delivered func(ctx context.Context, agency routing.AgencyID, mailbox routing.MailboxID, id mail.TransactionID) bool

	Logger *slog.Logger     // nil: nothing is logged
	Now    func() time.Time // nil: time.Now
}

// Errors of what people ask for.
var (
	// ErrUnreadable is about an agency of which a platform's mailboxes can't be read.
	ErrUnreadable = errors.New("mailboxes can't be read: platforms.mailboxes isn't set")
	// ErrRunning is about an agency that is being compared, or a node that compares another.
	ErrRunning = errors.New("a comparison is under way")
	// ErrNoAgency is about an agency that the table doesn't have, or has no mailboxes of.
	ErrNoAgency = errors.New("no such agency in the table, or its mailboxes aren't known here")
	// ErrNoFinding is about a finding that the table doesn't have.
	ErrNoFinding = errors.New("no such finding")
	// ErrNotHere is about details that lie on another node.
	ErrNotHere = errors.New("not on this node")
)

// Desk keeps comparisons and findings. Use [New].
type Desk struct {
	o      Options
	raised *alarm.Standing

	mu      sync.Mutex
	orders  []order                        // to be begun, those that people gave; records say Running
	current *order                         // under way on this node
	working *comparing                     // the work of current, once it has begun
	cancel  context.CancelFunc             // of current
	retry   map[routing.AgencyID]time.Time // when a run may be tried again
	wake    chan struct{}
	work    sync.WaitGroup

	unlocked map[routing.AgencyID]unlocked // of Run's goroutine alone

	compared, unreadable, runs, failures atomic.Uint64 // see Counts
}

// New returns a desk that does nothing before Run. It makes its folder, and clears what an
// earlier process left in it.
func New(o Options) (*Desk, error) {
	if o.Replica == nil || o.Table == nil || o.Settings == nil || o.Alarms == nil || o.Dir == "" {
		return nil, errors.New("desk of comparisons: want a table, alarms, settings and a folder")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Before == nil {
		o.Before = func(context.Context, routing.AgencyID) Before { return Before{} }
	}
	if o.Cutover == nil {
		o.Cutover = func(*routing.State, routing.AgencyID) routing.OperationID { return "" }
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("desk of comparisons: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(o.Dir, "verify-*"))
	if err != nil {
		return nil, fmt.Errorf("desk of comparisons: %w", err)
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("desk of comparisons: clear scratch files: %w", err)
		}
	}
	return &Desk{
		o: o, raised: alarm.NewStanding(o.Alarms, 0), wake: make(chan struct{}, 1),
		retry: make(map[routing.AgencyID]time.Time), unlocked: make(map[routing.AgencyID]unlocked),
	}, nil
}

const (
	// lookPause is the time between two looks at the table.
	lookPause = 2 * time.Second
	// beatEvery is how often the table is told that a comparison goes on.
	beatEvery = 30 * time.Second
	// silence is after how long without that a comparison is taken for ended.
	silence = 5 * time.Minute
	// patience is the pause before what failed is tried again, and triesMost how often in a
	// row that happens by itself.
	patience  = 5 * time.Minute
	triesMost = 5
	// changePatience bounds one change of the table.
	changePatience = time.Minute
)

// Run looks after comparisons until ctx ends; it returns when none runs on this node.
func (d *Desk) Run(ctx context.Context) {
	defer d.work.Wait()
	look := time.NewTicker(lookPause)
	defer look.Stop()
	for {
		d.look(ctx)
		select {
		case <-look.C:
		case <-d.wake:
		case <-ctx.Done():
			return
		}
	}
}

// Wake has the table looked at soon.
func (d *Desk) Wake() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// store changes documents of the table in the node's own name. compute is called again if
// others were faster; no documents: there is nothing to change.
func (d *Desk) store(ctx context.Context, what string, compute func(*routing.State) ([]routing.Document, error)) error {
	ctx, cancel := context.WithTimeout(ctx, changePatience)
	defer cancel()
	id := "verify/" + uuid.NewString()
	for try := 0; ; try++ {
		s := d.o.Replica.State()
		docs, err := compute(s)
		if err != nil || len(docs) == 0 {
			return err
		}
		pos, err := d.o.Table.Change(ctx, table.Change{
			ID: fmt.Sprintf("%s/%d", id, try), Incarnation: s.Position().Incarnation, Term: s.Position().Term, Documents: docs,
			Who: string(d.o.Node), What: what, Reason: "what comparing mailboxes found",
		})
		switch {
		case err == nil:
			return d.o.Replica.Wait(ctx, pos)
		case errors.Is(err, table.ErrStale), errors.Is(err, table.ErrTerm), errors.Is(err, table.ErrRejoining), errors.Is(err, table.ErrUnavailable):
			// Again, from what the copy has by then.
		default:
			return fmt.Errorf("%s: %w", what, err)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, errors.Join(err, ctx.Err()))
		}
	}
}
