package operation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// DefaultDeadline is after how long an operation that isn't drained is aborted, unless a
// fence in its plan takes longer.
const DefaultDeadline = 60 * time.Second

// DefaultLimit is what is assumed of a platform that has no connection limit configured.
// It proves nothing, and the plan says so.
const DefaultLimit = 10 * time.Minute

// Replica is this node's copy of the table.
type Replica interface {
	State() *routing.State
	// Wait returns nil once the copy, and whoever follows it, has seen the position.
	Wait(ctx context.Context, pos routing.Position) error
}

// Table is what a runner needs of the table.
type Table interface {
	Change(ctx context.Context, c table.Change) (routing.Position, error)
	Confirm(ctx context.Context) error
	Position(ctx context.Context) (routing.Position, error)
	Mapping(ctx context.Context, agency routing.AgencyID, digest routing.Digest) (*routing.Mapping, error)
	Nodes(ctx context.Context) (table.Nodes, error)
	Operations(ctx context.Context) ([]routing.Operation, error)
}

// Alarms takes what a human has to see.
type Alarms interface {
	Raise(key, text string)
	Clear(key string) bool
}

// Leases are the lengths of the nodes' leases, as all nodes have them configured.
type Leases struct {
	Short, Long time.Duration
	Margin      time.Duration // added to each fence
}

// Options are what a runner works with. All of the first group are required.
type Options struct {
	Node     routing.NodeID     // this one
	Instance routing.InstanceID // of this process
	Table    Table
	Replica  Replica
	Folder   Folder // the journal
	Alarms   Alarms
	Logger   *slog.Logger

	Leases Leases

	// Limit returns after how long a platform ends any connection; 0: not configured. Nil:
	// none is.
	Limit func(routing.PlatformID) time.Duration

	// Logins returns whether a platform takes logins through the nodes, and after how long
	// it ends any such connection, 0: not configured. Nil: none takes any.
	Logins func(routing.PlatformID) (limit time.Duration, takes bool)

	// Puts says of an agency whether its mail is put off while it is closed, instead of being
	// held. Nil: all is held.
	Puts func(routing.AgencyID) bool

	// Documents returns documents that follow an operation, to be set in the same change of the
	// table as its step: after begin it is at StepDrain, once it is open at StepSpread, and
	// then ended. It may be asked again at every end. An error keeps an operation from beginning,
	// and is logged afterwards: what was begun has to end. Nil: there are none.
	Documents func(s *routing.State, op *Operation) ([]routing.Document, error)

	Hooks    Hooks    // nil: none
	Prober   Prober   // nil: platforms are not probed
	Canaries Canaries // nil: nothing is tried after a switch
	Checks   []Checker
	Returns  Returns // what becomes of mail on the losing side; nil: nothing, and the plan says so

	// Sessions counts an agency's login sessions, on all nodes but those that it names. It is
	// asked for plans, and must end with ctx. Nil: not known.
	Sessions func(ctx context.Context, agency routing.AgencyID) (n int, missing []string)
}

// Errors of Run before anything was changed, and of the calls that people make.
var (
	// ErrEpoch is about an agency whose record is not the one that the request was made for.
	ErrEpoch = errors.New("agency's epoch is another")

	// ErrInDoubt is about an agency that can't be drained by the deadline, whatever happens.
	ErrInDoubt = errors.New("a message of the agency is in doubt for too long")

	// ErrRecovering is what Run answers before Recover was here.
	ErrRecovering = errors.New("operations of the time before the start are not settled yet")

	// ErrFrozen is about an agency for which no operation may begin.
	ErrFrozen = errors.New("agency is frozen")

	// ErrPlan is a plan that is another now than the one that was approved.
	ErrPlan = errors.New("the plan is another now")

	// ErrPrecheck is a check of the plan that refuses the operation.
	ErrPrecheck = errors.New("a check refuses it")

	// ErrMembers is about nodes that don't answer, or not as they should.
	ErrMembers = errors.New("nodes keep the operation back")

	// ErrTakenOver is an operation that another node carries on, or has ended.
	ErrTakenOver = errors.New("another node has the operation")

	// ErrCommitted is an abort that comes too late: the way back is an operation of its own.
	ErrCommitted = errors.New("operation is committed")

	// ErrNotCommitted is a publish that comes too early.
	ErrNotCommitted = errors.New("operation is not committed")

	// ErrKnown is a request under the id of an operation that was run already.
	ErrKnown = errors.New("an operation of this id was run already")

	// ErrNoOperation is an operation that isn't open.
	ErrNoOperation = errors.New("no such open operation")

	// ErrStopping is the cause with which the context of Run ends when the node stops: an
	// emergency, and an operation with an external step, are then left to another node, or
	// to the next start, instead of being aborted.
	ErrStopping = errors.New("the node is stopping")
)

// Runner carries out operations. Use [New]. It is safe for concurrent use; that two
// operations don't own one agency, and that two nodes don't own one operation, is the
// table's business.
type Runner struct {
	Options
	journal journal

	halted context.Context // of all work on the table but a begin, a drain and a commit
	halt   context.CancelFunc
	resume sync.WaitGroup // operations that Tend and Recover go on with

	mu        sync.Mutex
	recovered bool
	stopping  bool                              // operations are left to other nodes
	running   map[routing.OperationID]*handle   // claimed by somebody
	unwritten map[routing.OperationID]Operation // the journal has less of them
	unsettled map[routing.OperationID]struct{}  // left without an end
	strangers map[routing.AgencyID]struct{}     // with an alarm: closed by an operation that nobody knows

	// undone are the alarms about hooks that weren't undone, as the table had it when it was
	// last looked at.
	undone struct {
		at     routing.Position
		looked time.Time
		alarms map[string]struct{}
	}
}

// handle is an operation that runs in this process.
type handle struct {
	op      Operation               // as last shown
	cancel  context.CancelCauseFunc // of what comes before commit
	once    sync.Once
	without chan struct{} // closed when people want it published without a replica
	replica string        // which, set before
	done    chan struct{}
}

// New returns a runner. It refuses to Run until Recover was here.
func New(o Options) *Runner {
	r := &Runner{
		Options: o, journal: journal{o.Folder},
		running:   make(map[routing.OperationID]*handle),
		unwritten: make(map[routing.OperationID]Operation),
		unsettled: make(map[routing.OperationID]struct{}),
		strangers: make(map[routing.AgencyID]struct{}),
	}
	r.halted, r.halt = context.WithCancel(context.Background())
	return r
}

// Halt makes everybody give up who still waits for the table: what has no end then is
// left to other nodes, and to Recover at the next start. It is for a node that has to
// stop. Nothing can be run afterwards.
func (r *Runner) Halt() { r.halt() }

// Stop is Halt, and waits for the operations that Tend and Recover went on with. Who has
// called Run waits for that himself.
func (r *Runner) Stop() {
	r.Halt()
	r.resume.Wait()
}

// claim makes the operation the caller's alone in this process, until release; nil: it is
// somebody else's, or the node stops.
func (r *Runner) claim(op Operation, cancel context.CancelCauseFunc) *handle {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running[op.ID] != nil || r.stopping {
		return nil
	}
	h := newHandle(op, cancel)
	r.running[op.ID] = h
	return h
}

func newHandle(op Operation, cancel context.CancelCauseFunc) *handle {
	return &handle{op: op, cancel: cancel, without: make(chan struct{}), done: make(chan struct{})}
}

func (r *Runner) release(id routing.OperationID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.running[id].done)
	delete(r.running, id)
}

func (r *Runner) isRunning(id routing.OperationID) *handle {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running[id]
}

// Request is what is to be done, and on whose word.
type Request struct {
	// ID is the operation's, if the caller has one already, as for a proposal; ErrKnown if
	// one of that id has run. Empty: a new one is made.
	ID routing.OperationID

	Kind     Kind
	Agency   routing.AgencyID // of a remap it may be empty
	Who      string           // a person
	Reason   string           // required: it is journaled and stands in the table's log
	Expected routing.Epoch    // of Agency when it begins, else ErrEpoch; zero: any
	Deadline time.Duration    // until drained; 0: DefaultDeadline, or the longest fence in the plan

	// Plan is the digest of the plan that was approved: Run makes the plan anew, with all
	// its checks, and refuses if it is another now. Zero: nothing was approved, and only
	// what this node and the table know by themselves is looked at.
	Plan routing.Digest

	// Emergency is for a rollback on one person's word: checks only inform, a freeze
	// doesn't keep it back, an open operation of the agency is ended by it, and it has no
	// deadline. TargetDead says besides that the target can't answer any more.
	Emergency, TargetDead bool

	// Mappings are, for a remap, the mappings that shall be in force: all whose agency is
	// concerned. They are in the table.
	Mappings map[routing.AgencyID]routing.Digest
	// Made is the table's revision that they were made of: ErrPlan if a record concerned was changed
	// since, as what was added to it would be lost. 0: not looked at before the request.
	Made routing.Revision
	List string // that the mappings come from, for Options.Documents; empty: none

	Wave     string   // on whose approval it rests, for Options.Documents; empty: on none's
	Without  []string // hooks that are left out; part of the plan
	Progress func(Operation)
}

// Run carries out an operation. Once it has begun it ends with commit and publish, or
// with abort, even if ctx ends; ctx's end before commit aborts it (but see ErrStopping).
// The Operation says how far it came; with an error it is refused, aborted, on another
// node (ErrTakenOver), or left closed for Tend and Recover.
func (r *Runner) Run(ctx context.Context, req Request) (Operation, error) {
	if err := r.admit(); err != nil {
		return Operation{}, fmt.Errorf("%s of agency %s: %w", req.Kind, req.Agency, err)
	}
	p, err := r.prepare(ctx, req)
	if err != nil {
		return Operation{}, err
	}
	op := p.op
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	h := r.claim(op, cancel)
	if h == nil {
		return Operation{}, fmt.Errorf("%s of agency %s: operation %s runs already", req.Kind, req.Agency, op.ID)
	}
	defer r.release(op.ID)
	u := r.newRun(op, h, req.Progress)
	u.expected, u.mapped, u.hooks, u.asked = req.Expected, p.mapped, p.hooks, ctx
	if err := u.watermarks(ctx); err != nil {
		return u.end(StepRefused, err)
	}
	if err := u.step(StepBegin); err != nil {
		return u.end(StepRefused, err)
	}
	if done, err := u.begin(ctx, cmp.Or(req.Deadline, p.deadline)); err != nil {
		return u.abort(ctx, err) // it may have happened all the same
	} else if done {
		return u.spread()
	}
	return u.goOn(ctx)
}

// because puts before err what ended ctx, if something did.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// admit refuses a new operation while older ones are not written down.
func (r *Runner) admit() error {
	r.mu.Lock()
	recovered, stopping := r.recovered, r.stopping
	r.mu.Unlock()
	switch {
	case stopping || r.halted.Err() != nil:
		return fmt.Errorf("%w: %w", ErrStopping, context.Canceled)
	case !recovered:
		return ErrRecovering
	}
	return r.flush()
}

// limit returns the platform's connection limit, and whether it is configured.
func (r *Runner) limit(p routing.PlatformID) (limit time.Duration, configured bool) {
	if r.Limit != nil {
		if d := r.Limit(p); d > 0 {
			return d, true
		}
	}
	return DefaultLimit, false
}

// nodes reads the members; within a second, or it is as if the table didn't answer.
func (r *Runner) nodes(ctx context.Context) (table.Nodes, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return r.Table.Nodes(ctx)
}
