package operation

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"mailcutover/node"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// DefaultDeadline is after how long an operation that isn't committed is aborted.
const DefaultDeadline = 60 * time.Second

// Replica is this node's copy of the table.
type Replica interface {
	State() *routing.State
	// Wait returns nil once the copy, and whoever follows it, has seen the position.
	Wait(ctx context.Context, pos routing.Position) error
}

// Drainer waits until nothing is under way that was decided before an epoch.
type Drainer interface {
	// InDoubt returns the time before which the agency can't be drained, because of
	// messages whose answer was lost; zero: there are none.
	InDoubt(agency routing.AgencyID) time.Time
	Drain(ctx context.Context, agency routing.AgencyID, epoch routing.Epoch, progress func(node.Load)) error
}

// Alarms takes what a human has to see.
type Alarms interface {
	Raise(key, text string)
	Clear(key string) bool
}

// Options are what a runner works with; all are required.
type Options struct {
	Table   table.Table
	Replica Replica
	Gate    Drainer
	Folder  Folder // the journal
	Alarms  Alarms
	Logger  *slog.Logger
}

// Errors of Run before anything was changed.
var (
	// ErrEpoch is about an agency whose record is not the one that the request was made for.
	ErrEpoch = errors.New("agency's epoch is another")

	// ErrInDoubt is about an agency that can't be drained by the deadline, whatever happens.
	ErrInDoubt = errors.New("a message of the agency is in doubt for too long")

	// ErrRecovering is what Run answers before Recover was here.
	ErrRecovering = errors.New("operations of the time before the start are not settled yet")
)

// Runner carries out operations. Use [New]. It is safe for concurrent use; that two
// operations don't own one agency is the table's business.
type Runner struct {
	Options
	journal journal

	halted context.Context // of all work on the table but a begin, a drain and a commit
	halt   context.CancelFunc

	mu        sync.Mutex
	recovered bool
	running   map[routing.OperationID]*Operation // claimed by somebody, as last shown
	unwritten map[routing.OperationID]Operation  // the journal has less of them
	unsettled map[routing.OperationID]struct{}   // left without an end
	strangers map[routing.AgencyID]struct{}      // with an alarm: closed by an operation that the journal doesn't know
}

// New returns a runner. It refuses to Run until Recover was here.
func New(o Options) *Runner {
	r := &Runner{
		Options: o, journal: journal{o.Folder},
		running:   make(map[routing.OperationID]*Operation),
		unwritten: make(map[routing.OperationID]Operation),
		unsettled: make(map[routing.OperationID]struct{}),
		strangers: make(map[routing.AgencyID]struct{}),
	}
	r.halted, r.halt = context.WithCancel(context.Background())
	return r
}

// Halt makes everybody give up who still waits for the table: what has no end then is
// left to Recover, at the next start. It is for a node that has to stop. Nothing can be
// run afterwards.
func (r *Runner) Halt() { r.halt() }

// claim makes the operation the caller's alone, until release; false: it is somebody
// else's.
func (r *Runner) claim(op Operation) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running[op.ID] != nil {
		return false
	}
	r.running[op.ID] = &op
	return true
}

func (r *Runner) release(id routing.OperationID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, id)
}

// Request is what is to be done, and on whose word.
type Request struct {
	Kind     Kind
	Agency   routing.AgencyID
	Who      string        // a person
	Reason   string        // required: it is journaled and stands in the table's log
	Expected routing.Epoch // of Agency when it begins, else ErrEpoch; zero: any
	Deadline time.Duration // until commit; 0: DefaultDeadline
	Progress func(Operation)
}

// Run carries out an operation. Once it has begun it ends with commit and publish, or
// with abort, even if ctx ends; ctx's end before commit aborts it. The Operation says how
// far it came; with an error it is refused, aborted, or left closed for Tend and Recover.
func (r *Runner) Run(ctx context.Context, req Request) (Operation, error) {
	if err := r.admit(); err != nil {
		return Operation{}, fmt.Errorf("%s of agency %s: %w", req.Kind, req.Agency, err)
	}
	run, err := r.plan(req)
	if err != nil {
		return Operation{}, err
	}
	r.claim(run.op)
	defer r.release(run.op.ID)
	deadline := cmp.Or(req.Deadline, DefaultDeadline)
	until, cancel := context.WithTimeoutCause(ctx, deadline, fmt.Errorf("not drained within %s", deadline))
	defer cancel()

	if err := run.step(StepBegin); err != nil {
		return run.end(StepRefused, err)
	}
	pos, err := run.change(until, StepBegin, run.begin)
	if err != nil {
		return run.abort(because(until, err)) // it may have happened all the same
	}
	run.op.Closed = time.Now()
	if err := run.drain(until, pos); err != nil {
		return run.abort(because(until, err))
	}
	if err := run.step(StepCommit); err != nil {
		return run.abort(err)
	}
	if _, err := run.change(until, StepCommit, run.commit); err != nil {
		// From here on abort may be too late: commit may have happened whatever we hear.
		return run.settle(err)
	}
	return run.publish()
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
	recovered := r.recovered
	r.mu.Unlock()
	switch {
	case r.halted.Err() != nil:
		return fmt.Errorf("the node is stopping: %w", context.Canceled)
	case !recovered:
		return ErrRecovering
	}
	return r.flush()
}

// run is one operation under way.
type run struct {
	*Runner
	op       Operation
	progress func(Operation)
	expected routing.Epoch // of the operation's agency at begin; zero: any
	sent     *table.Change // last change sent; whether it happened is known by sending it again
	again    string        // ends the ids of abort and publish, if it isn't the first to take them; empty in Run
}

// plan checks whether the operation can begin, and writes nothing.
func (r *Runner) plan(req Request) (*run, error) {
	if strings.TrimSpace(req.Reason) == "" {
		return nil, fmt.Errorf("%s of agency %s: a reason is required", req.Kind, req.Agency)
	}
	state := r.Replica.State()
	a, ok := state.Agency(req.Agency)
	if !ok {
		return nil, fmt.Errorf("%s: no agency %q in the table", req.Kind, req.Agency)
	}
	op := Operation{
		ID: routing.OperationID(uuid.NewString()), Kind: req.Kind, Agency: req.Agency,
		Agencies: []routing.AgencyID{req.Agency}, Nonce: newNonce(),
		Who: req.Who, Reason: req.Reason, Started: time.Now(),
	}
	want := routing.PhaseSource
	if req.Kind == Rollback {
		want = routing.PhaseTarget
		for _, child := range state.Agencies() {
			if child.Parent == a.ID && child.Phase.OnTarget() {
				op.Agencies = append(op.Agencies, child.ID)
			}
		}
	}
	if a.Phase != want {
		return nil, fmt.Errorf("%s of agency %s: %w: it is in phase %s, want %s", req.Kind, a.ID, routing.ErrTransition, a.Phase, want)
	}
	one := &run{Runner: r, op: op, progress: req.Progress, expected: req.Expected}
	for _, id := range op.Agencies {
		rec, _ := state.Agency(id)
		if _, err := one.begin(rec); err != nil {
			return nil, err
		}
		if until := r.Gate.InDoubt(id); until.After(op.Started.Add(cmp.Or(req.Deadline, DefaultDeadline))) {
			return nil, fmt.Errorf("%s of agency %s: %w: agency %s can't be drained before %s", req.Kind, a.ID, ErrInDoubt, id, until.Format(time.RFC3339))
		}
	}
	return one, nil
}

func newNonce() routing.Nonce {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails, since Go 1.24
		if n := routing.Nonce(binary.BigEndian.Uint64(b[:])); n != 0 {
			return n
		}
	}
}

func (u *run) begin(a routing.Agency) (routing.Agency, error) {
	next, err := a.Begin(u.op.ID, u.op.Nonce, routing.EventBegin)
	if err == nil && u.expected != (routing.Epoch{}) && a.ID == u.op.Agency && a.Epoch != u.expected {
		return a, fmt.Errorf("begin %s: %w: it is %s, expected was %s", a.ID, ErrEpoch, a.Epoch, u.expected)
	}
	return next, err
}

func (u *run) commit(a routing.Agency) (routing.Agency, error) {
	return a.Commit(u.op.ID, u.op.Nonce)
}

// drain waits until this node has nothing old under way for any of the agencies.
func (u *run) drain(ctx context.Context, pos routing.Position) error {
	if err := u.step(StepDrain); err != nil {
		return err
	}
	if err := u.Replica.Wait(ctx, pos); err != nil {
		return fmt.Errorf("wait for begin in the replica: %w", err)
	}
	for _, id := range u.op.Agencies {
		a, _ := u.Replica.State().Agency(id)
		err := u.Gate.Drain(ctx, id, a.Epoch, func(l node.Load) {
			u.op.Waiting = ""
			if l.Dotted+l.InDoubt > 0 {
				u.op.Waiting = fmt.Sprintf("%d dots awaited, %d in doubt", l.Dotted, l.InDoubt)
			}
			u.show()
		})
		if err != nil {
			return err
		}
	}
	return nil
}
