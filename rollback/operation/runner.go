package operation

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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
	Drain(ctx context.Context, agency routing.AgencyID, epoch routing.Epoch, progress func(node.Load)) error
}

// Alarms takes what a human has to see.
type Alarms interface {
	Raise(key, text string)
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

// ErrEpoch is wrapped by the error for an agency whose record is not the one that the
// request was made for.
var ErrEpoch = errors.New("agency's epoch is another")

// Runner carries out operations. Use [New]. It is safe for concurrent use; that two
// operations don't own one agency is the table's business.
type Runner struct {
	Options
	journal journal

	mu      sync.Mutex
	watched map[routing.OperationID]*Operation // running, as last shown
}

// New returns a runner.
func New(o Options) *Runner {
	return &Runner{Options: o, journal: journal{o.Folder}, watched: make(map[routing.OperationID]*Operation)}
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
// far it came; with an error it is refused, aborted, or left closed for Recover.
func (r *Runner) Run(ctx context.Context, req Request) (Operation, error) {
	run, err := r.plan(req)
	if err != nil {
		return Operation{}, err
	}
	defer r.forget(run.op.ID)
	deadline := cmp.Or(req.Deadline, DefaultDeadline)
	until, cancel := context.WithTimeoutCause(ctx, deadline, fmt.Errorf("not drained within %s", deadline))
	defer cancel()

	if err := run.step(StepBegin); err != nil {
		return run.op, err
	}
	pos, err := run.change(until, StepBegin, run.begin)
	if err != nil {
		return run.abort(err) // it may have happened all the same
	}
	run.op.Closed = time.Now()
	if err := run.drain(until, pos); err != nil {
		return run.abort(err)
	}
	if err := run.step(StepCommit); err != nil {
		return run.abort(err)
	}
	// From here on abort would be refused: commit may have happened whatever we hear.
	after := context.WithoutCancel(ctx)
	if _, err := run.change(until, StepCommit, run.commit); err != nil {
		return run.unfinished(after, err)
	}
	return run.publish(after)
}

// run is one operation under way.
type run struct {
	*Runner
	op       Operation
	progress func(Operation)
	expected routing.Epoch // of the operation's agency at begin; zero: any
	sent     *table.Change // last change sent; whether it happened is known by sending it again
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

// publish opens the agencies. It doesn't give up while the table answers at all: a
// committed operation has no way but this one.
func (u *run) publish(ctx context.Context) (Operation, error) {
	ctx, cancel := context.WithTimeout(ctx, DefaultDeadline)
	defer cancel()
	if err := u.step(StepPublish); err != nil {
		return u.op, err
	}
	err := u.persist(ctx, func() error { return u.Table.Confirm(ctx) })
	if err == nil {
		_, err = u.change(ctx, StepPublish, func(a routing.Agency) (routing.Agency, error) { return a.Publish(u.op.ID) })
	}
	if err != nil {
		return u.stuck("committed but not published", err)
	}
	return u.end(StepDone, nil)
}

// abort reopens the agencies where they were, if begin happened.
func (u *run) abort(cause error) (Operation, error) {
	ctx, cancel := context.WithTimeout(context.Background(), DefaultDeadline)
	defer cancel()
	if err := u.step(StepAbort); err != nil {
		return u.op, errors.Join(cause, err)
	}
	if err := u.resolve(ctx); err != nil {
		return u.stuck("perhaps begun", errors.Join(cause, err))
	}
	if ours, _ := u.standing(u.Replica.State()); !ours {
		return u.end(StepRefused, cause)
	}
	_, err := u.change(ctx, StepAbort, func(a routing.Agency) (routing.Agency, error) { return a.Abort(u.op.ID, u.op.Nonce) })
	if err != nil {
		return u.stuck("neither committed nor aborted", errors.Join(cause, err))
	}
	return u.end(StepAborted, cause)
}

// unfinished settles what a failed commit left: it happened, or it didn't.
func (u *run) unfinished(ctx context.Context, cause error) (Operation, error) {
	ctx, cancel := context.WithTimeout(ctx, DefaultDeadline)
	defer cancel()
	if err := u.resolve(ctx); err != nil {
		return u.stuck("perhaps committed", errors.Join(cause, err))
	}
	if ours, committed := u.standing(u.Replica.State()); ours && committed {
		return u.publish(ctx)
	}
	return u.abort(cause)
}

// resolve makes certain whether the last change happened, and brings the replica up to
// date. Sending the change again is what makes it certain: a copy that is still on its
// way to the table can then do nothing more.
func (u *run) resolve(ctx context.Context) error {
	if u.sent != nil {
		err := u.persist(ctx, func() error { _, err := u.Table.Change(ctx, *u.sent); return err })
		if errors.Is(err, table.ErrUnavailable) {
			return err
		}
		u.sent = nil
	}
	return u.persist(ctx, func() error { return u.catchUp(ctx) })
}

// standing says whether the operation owns its agencies, and whether it has committed.
func (u *run) standing(s *routing.State) (ours, committed bool) {
	for _, id := range u.op.Agencies {
		if a, ok := s.Agency(id); ok && a.Operation == u.op.ID {
			return true, !a.Published
		}
	}
	return false, false
}

// stuck leaves the agencies closed, for Recover or a human.
func (u *run) stuck(where string, err error) (Operation, error) {
	u.op.Error = err.Error()
	u.Alarms.Raise("operation/"+string(u.op.ID), fmt.Sprintf("Operation %s (%s of agency %s) is %s: the agency stays closed. Restart the node once the table can be reached. %v", u.op.ID, u.op.Kind, u.op.Agency, where, err))
	return u.op, errors.Join(err, u.journal.write(&u.op))
}

// change computes the agencies' next records and stores them, again if they changed
// meanwhile (a lock, an arming), and again if the table didn't answer.
func (u *run) change(ctx context.Context, step Step, next func(routing.Agency) (routing.Agency, error)) (routing.Position, error) {
	for {
		state := u.Replica.State()
		c := table.Change{
			ID: string(u.op.ID) + "/" + string(step), Incarnation: state.Position().Incarnation,
			Who: u.op.Who, What: string(step) + " of " + string(u.op.Kind), Reason: u.op.Reason,
		}
		for _, id := range u.op.Agencies {
			a, _ := state.Agency(id)
			a, err := next(a)
			if err != nil {
				return routing.Position{}, err
			}
			c.Agencies = append(c.Agencies, a)
		}
		u.sent = &c
		var pos routing.Position
		err := u.persist(ctx, func() (err error) { pos, err = u.Table.Change(ctx, c); return err })
		if err == nil {
			u.sent = nil
			err = u.Replica.Wait(ctx, pos)
		} else if errors.Is(err, table.ErrStale) {
			u.sent = nil
			if err = u.catchUp(ctx); err == nil {
				continue
			}
		}
		if err != nil {
			err = fmt.Errorf("%s of operation %s: %w", step, u.op.ID, err)
		}
		return pos, err
	}
}

// catchUp waits until the replica is where the table is.
func (u *run) catchUp(ctx context.Context) error {
	pos, err := u.Table.Position(ctx)
	if err != nil {
		return err
	}
	return u.Replica.Wait(ctx, pos)
}

// persist calls f until it returns something else than ErrUnavailable, or ctx ends.
func (u *run) persist(ctx context.Context, f func() error) error {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := f()
		if !errors.Is(err, table.ErrUnavailable) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// step journals what is about to be done, and shows it.
func (u *run) step(s Step) error {
	u.op.Step = s
	if err := u.journal.write(&u.op); err != nil {
		return err
	}
	u.Logger.Info("operation step", "operation", u.op.ID, "kind", u.op.Kind, "agency", u.op.Agency, "step", s, "who", u.op.Who)
	u.show()
	return nil
}

// end journals the end.
func (u *run) end(s Step, cause error) (Operation, error) {
	u.op.Waiting = ""
	if s != StepRefused {
		u.op.Opened = time.Now()
	}
	if cause != nil {
		u.op.Error = cause.Error()
	}
	return u.op, errors.Join(cause, u.step(s))
}

func (u *run) show() {
	op := u.op
	op.Agencies = slices.Clone(op.Agencies)
	u.mu.Lock()
	u.watched[op.ID] = &op
	u.mu.Unlock()
	if u.progress != nil {
		u.progress(op)
	}
}

func (r *Runner) forget(id routing.OperationID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.watched, id)
}

// Recover settles what a crash of this node left: operations that had committed are
// published, the others are aborted. The replica must be up to date. It goes on after
// an error and returns all of them.
func (r *Runner) Recover(ctx context.Context) error {
	ops, err := r.List()
	errs := []error{err}
	for _, op := range ops {
		if op.Step.Ended() {
			continue
		}
		u := &run{Runner: r, op: op}
		r.Logger.Warn("operation was interrupted", "operation", op.ID, "kind", op.Kind, "agency", op.Agency, "step", op.Step)
		cause := fmt.Errorf("interrupted at step %s", op.Step)
		switch ours, committed := u.standing(r.Replica.State()); {
		case ours && committed:
			_, err = u.publish(ctx)
		case !ours && op.Step == StepPublish:
			_, err = u.end(StepDone, nil)
		default:
			_, err = u.abort(cause)
		}
		r.forget(op.ID)
		if !u.op.Step.Ended() {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// List returns the operations of this node's journal, the newest last. An entry that
// can't be read is reported, and left where it is.
func (r *Runner) List() ([]Operation, error) {
	names, err := r.Folder.Names()
	if err != nil {
		return nil, fmt.Errorf("list the journal: %w", err)
	}
	var ops []Operation
	var errs []error
	for _, name := range names {
		op, err := r.journal.read(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r.mu.Lock()
		if live := r.watched[op.ID]; live != nil {
			op = *live
		}
		r.mu.Unlock()
		ops = append(ops, op)
	}
	slices.SortFunc(ops, func(a, b Operation) int { return a.Started.Compare(b.Started) })
	return ops, errors.Join(errs...)
}
