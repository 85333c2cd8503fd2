package operation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Abort ends an operation that isn't committed, wherever it runs: the agencies open where
// they were, and hooks are undone. ErrCommitted if it is too late, ErrNoOperation if there
// is none. It returns when the operation has ended, or ctx.
func (r *Runner) Abort(ctx context.Context, id routing.OperationID, who, reason string) (Operation, error) {
	cause := fmt.Errorf("aborted by %s: %s", who, reason)
	if err := r.isCommitted(id, false); err != nil {
		return Operation{}, fmt.Errorf("abort operation %s: %w", id, err)
	}
	if h := r.isRunning(id); h != nil {
		h.cancel(cause)
		op, err := r.join(ctx, h, func() bool { return errors.Is(r.isCommitted(id, false), ErrCommitted) })
		if err == nil && op.Step != StepAborted && op.Step != StepRefused {
			err = fmt.Errorf("abort operation %s: %w: it is at step %s", id, ErrCommitted, op.Step)
		}
		return op, err
	}
	u, err := r.seize(ctx, id)
	if err != nil {
		return Operation{}, fmt.Errorf("abort operation %s: %w", id, err)
	}
	defer r.release(id)
	if err := r.isCommitted(id, false); err != nil { // just now
		r.leaveToTend(u)
		return u.op, fmt.Errorf("abort operation %s: %w", id, err)
	}
	op, err := u.settle(cause)
	if op.Step == StepAborted {
		err = nil
	}
	return op, err
}

// isCommitted returns ErrCommitted or ErrNotCommitted if the operation isn't as it should
// be, and ErrNoOperation if it isn't open.
func (r *Runner) isCommitted(id routing.OperationID, want bool) error {
	s := r.Replica.State()
	rec, ok := s.Operation(id)
	if !ok {
		if h := r.isRunning(id); h != nil && !want {
			return nil // it has not begun, or has just ended
		}
		return ErrNoOperation
	}
	committed := Step(rec.Step) == StepSpread
	for _, agency := range rec.Agencies {
		if a, ok := s.Agency(agency); ok && a.Operation == id && !a.Published {
			committed = true
		}
	}
	switch {
	case committed && !want:
		return ErrCommitted
	case !committed && want:
		return ErrNotCommitted
	default:
		return nil
	}
}

// Publish opens an operation that is committed and not published because a replica of the
// table's server doesn't answer, without that one. It is for people who know that it is
// dead: a server that was cut off and keeps a replica could go on (docs/architecture/switch.md).
func (r *Runner) Publish(ctx context.Context, id routing.OperationID, who, withoutReplica string) (Operation, error) {
	if withoutReplica == "" {
		return Operation{}, fmt.Errorf("publish operation %s: %w: want the name of the replica", id, routing.ErrBadID)
	}
	if err := r.isCommitted(id, true); err != nil {
		return Operation{}, fmt.Errorf("publish operation %s: %w", id, err)
	}
	if h := r.isRunning(id); h != nil {
		h.once.Do(func() { h.replica = withoutReplica; close(h.without) })
		return r.join(ctx, h, func() bool { return false })
	}
	u, err := r.seize(ctx, id)
	if err != nil {
		return Operation{}, fmt.Errorf("publish operation %s: %w", id, err)
	}
	defer r.release(id)
	u.Logger.Warn("operation is published without a replica", "operation", id, "agency", u.op.Agency, "replica", withoutReplica, "who", who)
	u.op.WithoutReplica = withoutReplica
	return u.settle(nil)
}

// join waits for the end of an operation that runs in this process, or until enough.
func (r *Runner) join(ctx context.Context, h *handle, enough func() bool) (Operation, error) {
	var err error
	for ended := false; !ended && err == nil && !enough(); {
		select {
		case <-h.done:
			ended = true
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(slowPace):
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return h.op, err
}

// seize takes an operation from the node that runs it.
func (r *Runner) seize(ctx context.Context, id routing.OperationID) (*run, error) {
	for {
		rec, ok := r.Replica.State().Operation(id)
		if !ok {
			return nil, ErrNoOperation
		}
		op, _ := FromRecord(&rec)
		h := r.claim(op, func(error) {})
		if h == nil {
			return nil, fmt.Errorf("%w: it has just been taken up here; say it again", ErrTakenOver)
		}
		u := r.newRun(op, h, nil)
		u.again = true
		err := u.takeOver(ctx)
		if err == nil {
			return u, nil
		}
		r.release(id)
		if !errors.Is(err, ErrTakenOver) {
			return nil, err
		}
		if err := u.catchUp(ctx); err != nil { // its runner has just made a step
			return nil, err
		}
	}
}

// leaveToTend has an operation that was seized in vain go on.
func (r *Runner) leaveToTend(u *run) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unsettled[u.op.ID] = struct{}{}
}

// Tell says that an external step is done, wherever the operation runs.
func (r *Runner) Tell(ctx context.Context, id routing.OperationID, hook, who, receipt string) error {
	return r.decide(ctx, id, hook, "tell", func(h *HookState) error {
		if !h.External {
			return fmt.Errorf("hook %s is not an external step: %w", hook, ErrHook)
		}
		h.Status, h.Who, h.Receipt, h.Ended = HookTold, who, cut(receipt), time.Now()
		return nil
	})
}

// Without lets an operation go on without a hook that doesn't succeed. That two people
// agreed, the caller has checked.
func (r *Runner) Without(ctx context.Context, id routing.OperationID, hook, who, reason string) error {
	return r.decide(ctx, id, hook, "without", func(h *HookState) error {
		h.Status, h.Who, h.Receipt, h.Ended = HookSkipped, who, cut(reason), time.Now()
		return nil
	})
}

func (r *Runner) decide(ctx context.Context, id routing.OperationID, hook, what string, set func(*HookState) error) error {
	fail := func(err error) error { return fmt.Errorf("%s hook %s of operation %s: %w", what, hook, id, err) }
	for {
		s := r.Replica.State()
		rec, ok := s.Operation(id)
		if !ok {
			return fail(ErrNoOperation)
		}
		op, err := FromRecord(&rec)
		if err != nil {
			return fail(err)
		}
		h := op.hook(hook)
		switch {
		case h == nil:
			return fail(fmt.Errorf("%w: the operation has none of that name", ErrHook))
		case h.Status.passed():
			return fail(fmt.Errorf("%w: it is %s already", ErrHook, h.Status))
		}
		if err := set(h); err != nil {
			return fail(err)
		}
		next, err := op.record(rec)
		if err != nil {
			return fail(err)
		}
		pos, err := r.Table.Change(ctx, table.Change{
			ID: uuid.NewString(), Incarnation: s.Position().Incarnation, Term: s.Position().Term,
			Operations: []routing.Operation{next}, Who: h.Who, What: what + " hook " + hook + " of " + string(op.Kind), Reason: h.Receipt,
		})
		if err == nil {
			err = r.Replica.Wait(ctx, pos)
		}
		if !errors.Is(err, table.ErrStale) {
			if err != nil {
				return fail(err)
			}
			return nil
		}
		if err := (&run{Runner: r}).catchUp(ctx); err != nil {
			return fail(err)
		}
	}
}
