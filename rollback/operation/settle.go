package operation

import (
	"context"
	"errors"
	"fmt"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// publish opens the agencies. It doesn't give up while the table answers at all, nor for
// a journal that can't be written: a committed operation has no way but this one.
func (u *run) publish() (Operation, error) {
	ctx, cancel := context.WithTimeout(u.halted, DefaultDeadline)
	defer cancel()
	u.note(StepPublish)
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
	u.note(StepAbort)
	return u.settle(cause)
}

// settle ends the operation as the table says: what was committed is published, what
// was begun is aborted. cause is why it isn't simply done.
func (u *run) settle(cause error) (Operation, error) {
	ctx, cancel := context.WithTimeout(u.halted, DefaultDeadline)
	defer cancel()
	if err := u.resolve(ctx); err != nil {
		return u.stuck("perhaps begun, perhaps committed", errors.Join(cause, err))
	}
	for {
		ours, committed := u.standing()
		if ours && u.op.Closed.IsZero() {
			u.op.Closed = u.op.Started
		}
		switch {
		case ours && committed:
			return u.publish()
		case !ours:
			end, err := u.ended(ctx)
			if err != nil {
				return u.stuck("perhaps begun", errors.Join(cause, err))
			}
			if ours, _ := u.standing(); ours {
				continue // a late begin was quicker
			}
			if end == StepDone {
				cause = nil
			}
			return u.end(end, cause)
		}
		if u.op.Step != StepAbort {
			u.note(StepAbort)
		}
		_, err := u.change(ctx, StepAbort, func(a routing.Agency) (routing.Agency, error) { return a.Abort(u.op.ID, u.op.Nonce) })
		switch {
		case err == nil:
			return u.end(StepAborted, cause)
		case errors.Is(err, routing.ErrNotPublished), errors.Is(err, routing.ErrNotOwner):
			// A commit, or an abort, of ours that was still on its way was quicker: look again.
		default:
			return u.stuck("neither committed nor aborted", errors.Join(cause, err))
		}
	}
}

// ended says how an operation ended that owns no agency any more.
func (u *run) ended(ctx context.Context) (Step, error) {
	switch {
	case u.op.Step == StepPublish:
		return StepDone, nil
	case u.op.Step == StepCommit && u.elsewhere():
		return StepDone, nil // published, and the journal couldn't be written
	case !u.op.Closed.IsZero():
		return StepAborted, nil
	case u.again == "":
		return StepRefused, nil // nobody but this run sent begin, and it knows what came of it
	}
	begun, err := u.void(ctx)
	if err != nil || !begun {
		return StepRefused, err
	}
	u.op.Closed = u.op.Started
	return StepAborted, nil
}

// elsewhere reports whether the agency is where a commit would have brought it.
func (u *run) elsewhere() bool {
	a, ok := u.Replica.State().Agency(u.op.Agency)
	return ok && a.Phase.Open() && a.Phase.OnTarget() == (u.op.Kind == Cutover)
}

// void makes a begin impossible that an earlier process may have sent, and that may still
// be on its way: it stores the agency's record as it is under the id of that change. Then
// the late one finds its id used, and the record changed. void reports whether begin had
// happened before.
//
// A late commit or abort needs nothing of the kind: to be without an owner the record had
// to change since, and both name the revision they were computed from.
func (u *run) void(ctx context.Context) (begun bool, err error) {
	for {
		state := u.Replica.State()
		a, ok := state.Agency(u.op.Agency)
		if !ok {
			return false, fmt.Errorf("void begin of operation %s: no agency %q in the table", u.op.ID, u.op.Agency)
		}
		c := table.Change{
			ID: string(u.op.ID) + "/" + string(StepBegin), Incarnation: state.Position().Incarnation,
			Agencies: []routing.Agency{a}, Who: u.op.Who,
			What: "void begin of " + string(u.op.Kind), Reason: "the node stopped before it knew whether it had begun",
		}
		var pos routing.Position
		err := u.persist(ctx, func() (err error) { pos, err = u.Table.Change(ctx, c); return err })
		switch {
		case err == nil:
			return false, u.Replica.Wait(ctx, pos)
		case errors.Is(err, table.ErrReused):
			return true, u.catchUp(ctx)
		case !errors.Is(err, table.ErrStale):
			return false, fmt.Errorf("void begin of operation %s: %w", u.op.ID, err)
		}
		if err := u.catchUp(ctx); err != nil {
			return false, err
		}
	}
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

// standing says whether the operation owns agencies, and whether it has committed.
func (u *run) standing() (ours, committed bool) {
	s := u.Replica.State()
	for _, id := range u.op.Agencies {
		if a, ok := s.Agency(id); ok && a.Operation == u.op.ID {
			return true, !a.Published
		}
	}
	return false, false
}

// stuck leaves the agencies as they are, for Tend, Recover or a human.
func (u *run) stuck(where string, err error) (Operation, error) {
	u.op.Error = err.Error()
	u.mu.Lock()
	u.unsettled[u.op.ID] = struct{}{}
	u.mu.Unlock()
	u.Alarms.Raise(u.alarm(), fmt.Sprintf("Operation %s (%s of agency %s) is %s: the agency stays closed. It is tried again until the table takes it, also after a restart. %v", u.op.ID, u.op.Kind, u.op.Agency, where, err))
	err = errors.Join(err, u.record(&u.op))
	u.show()
	return u.op, err
}

func (u *run) alarm() string { return "operation/" + string(u.op.ID) }

// changeID is the id of a step's change.
func (u *run) changeID(s Step) string {
	id := string(u.op.ID) + "/" + string(s)
	if s == StepAbort || s == StepPublish {
		id += u.again
	}
	return id
}
