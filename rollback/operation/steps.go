package operation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// change computes what the step changes and stores it, with the operation's own record:
// again if a record changed meanwhile (a lock, an arming, people's word about a hook), and
// again if the table didn't answer. compute sets the agencies' records in c, and in next
// what the operation is after it. Who has lost the operation gets ErrTakenOver.
//
// The id of the change names the revision of the operation's record that it follows. So
// two changes that differ, of two runners or of one, never share one id, and of those with
// one record before them only the first can happen.
func (u *run) change(ctx context.Context, step Step, compute func(s *routing.State, next *Operation, c *table.Change) error) (routing.Position, error) {
	fail := func(err error) (routing.Position, error) {
		return routing.Position{}, fmt.Errorf("%s of operation %s: %w", step, u.op.ID, err)
	}
	for {
		s := u.Replica.State()
		if err := u.own(s); err != nil {
			return fail(err)
		}
		pos := s.Position()
		c := table.Change{
			ID: u.changeID(step, pos), Incarnation: pos.Incarnation, Term: pos.Term,
			Who: u.op.Who, What: string(step) + " of " + string(u.op.Kind), Reason: u.op.Reason,
		}
		next := u.op
		next.Hooks = slices.Clone(u.op.Hooks)
		if err := compute(s, &next, &c); err != nil {
			return routing.Position{}, err
		}
		if err := u.accompany(s, &next, &c, step == StepBegin); err != nil {
			return fail(err)
		}
		if u.recorded || step == StepBegin {
			rec, err := next.record(routing.Operation{Revision: u.rev})
			if err != nil {
				return fail(err)
			}
			c.Operations = append(c.Operations, rec)
		}
		u.returning(s, &next, &c)
		u.sent = &c
		err := u.persist(ctx, func() (err error) { pos, err = u.Table.Change(ctx, c); return err })
		switch {
		case err == nil:
			u.sent = nil
			u.recorded = u.recorded || step == StepBegin
			u.op = next
			if err := u.Replica.Wait(ctx, pos); err != nil {
				return fail(fmt.Errorf("wait for it in the replica: %w", err))
			}
			return pos, nil
		case errors.Is(err, table.ErrStale), errors.Is(err, table.ErrTerm), errors.Is(err, table.ErrRejoining):
			u.sent = nil
			if !errors.Is(err, table.ErrStale) {
				u.op.Waiting = "the table waits for its nodes"
				u.show()
				if u.pause(ctx, slowPace) != nil {
					return fail(err)
				}
			}
			if err := u.catchUp(ctx); err != nil {
				return fail(err)
			}
		case errors.Is(err, table.ErrReused):
			// An earlier one of ours, thought refused, was on its way: the records show it.
			u.sent = nil
			return fail(errors.Join(err, u.catchUp(ctx)))
		default:
			return fail(err)
		}
	}
}

// accompany adds the documents that follow an operation to the change that makes it op.
func (u *run) accompany(s *routing.State, op *Operation, c *table.Change, begins bool) error {
	if u.Documents == nil || !begins && op.Step != StepSpread && !op.Step.Ended() {
		return nil
	}
	docs, err := u.Documents(s, op)
	if err != nil && begins {
		return err
	}
	if err != nil {
		u.Logger.Error("documents don't follow an operation", "operation", op.ID, "agency", op.Agency, "step", op.Step, "error", err)
		return nil
	}
	for _, d := range docs {
		// An emergency may end several operations, which one document follows: the first word
		// counts, since the table takes a document once.
		if !slices.ContainsFunc(c.Documents, func(o routing.Document) bool { return o.Key == d.Key }) {
			c.Documents = append(c.Documents, d)
		}
	}
	return nil
}

// changeID is the id of a step's change.
func (u *run) changeID(s Step, pos routing.Position) string {
	switch {
	case s == StepBegin:
		return beginID(u.op.ID)
	case u.recorded:
		return fmt.Sprintf("%s/%s/%d", u.op.ID, s, u.rev)
	default:
		return fmt.Sprintf("%s/%s/at-%d", u.op.ID, s, pos.Revision)
	}
}

func beginID(id routing.OperationID) string { return string(id) + "/" + string(StepBegin) }

// own reads the operation's record. ErrTakenOver: another has it, or has ended it.
func (u *run) own(s *routing.State) error {
	rec, ok := s.Operation(u.op.ID)
	switch {
	case !ok && u.recorded:
		return fmt.Errorf("%w: it has ended", ErrTakenOver)
	case !ok:
		return nil
	case rec.Runner != u.Node || rec.Instance != u.Instance:
		return fmt.Errorf("%w: node %s (instance %s)", ErrTakenOver, rec.Runner, rec.Instance)
	}
	u.recorded, u.rev = true, rec.Revision
	if op, err := FromRecord(&rec); err == nil {
		u.op.Hooks = op.Hooks // people may have said something
	}
	return nil
}

// amend changes the operation's record alone.
func (u *run) amend(ctx context.Context, what Step, set func(*Operation)) error {
	if err := u.own(u.Replica.State()); err != nil {
		return err
	}
	if !u.recorded {
		set(&u.op)
		return nil
	}
	_, err := u.change(ctx, what, func(_ *routing.State, next *Operation, _ *table.Change) error {
		set(next)
		return nil
	})
	return err
}

// copyPatience bounds one wait for the replica. One that lags longer is as good as no
// table: whoever asked looks at his deadline, and at people, before he waits again.
const copyPatience = 5 * time.Second

// catchUp waits until the replica is where the table is.
func (u *run) catchUp(ctx context.Context) error {
	pos, err := u.Table.Position(ctx)
	if err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, copyPatience)
	defer cancel()
	if err := u.Replica.Wait(short, pos); err != nil {
		if ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", table.ErrUnavailable, err)
		}
		return err
	}
	return nil
}

// persist calls f until it returns something else than ErrUnavailable, or ctx ends.
func (u *run) persist(ctx context.Context, f func() error) error {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := f()
		if !errors.Is(err, table.ErrUnavailable) {
			return err
		}
		u.unsure = true
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// step journals what is about to be done, and shows it. Who can't write the journal
// takes no step that leads further.
func (u *run) step(s Step) error {
	u.op.Step = s
	if err := u.journalled(); err != nil {
		return err
	}
	u.Logger.Info("operation step", "operation", u.op.ID, "kind", u.op.Kind, "agency", u.op.Agency, "step", s, "who", u.op.Who)
	u.show()
	return nil
}

func (u *run) journalled() error { return u.enter(&u.op) }

// note is step for what has to be done in any case: the journal is written if it can be.
func (u *run) note(s Step) {
	if err := u.step(s); err != nil {
		u.Logger.Error("operation goes on without its journal", "operation", u.op.ID, "agency", u.op.Agency, "step", s, "error", err)
		u.show()
	}
}

// end notes the end.
func (u *run) end(s Step, cause error) (Operation, error) {
	u.op.Waiting = ""
	if cause != nil {
		u.op.Error = cause.Error()
	}
	u.mu.Lock()
	delete(u.unsettled, u.op.ID)
	u.mu.Unlock()
	u.Alarms.Clear(u.alarm())
	u.note(s)
	return u.op, cause
}

// leave stops without an end: the operation is another node's. What became of it the
// journal learns from the table, by Tend.
func (u *run) leave(err error) (Operation, error) {
	u.op.Waiting = err.Error()
	u.mu.Lock()
	u.unsettled[u.op.ID] = struct{}{}
	u.mu.Unlock()
	u.Alarms.Clear(u.alarm())
	if err := u.journalled(); err != nil {
		u.Logger.Error("operation is left without its journal", "operation", u.op.ID, "agency", u.op.Agency, "error", err)
	}
	u.Logger.Warn("operation is another node's", "operation", u.op.ID, "kind", u.op.Kind, "agency", u.op.Agency, "step", u.op.Step, "reason", err)
	u.show()
	return u.op, err
}

func (u *run) show() {
	op := u.op
	op.Agencies = slices.Clone(op.Agencies)
	op.Hooks = slices.Clone(op.Hooks)
	op.Nodes = slices.Clone(op.Nodes)
	u.mu.Lock()
	u.handle.op = op
	u.mu.Unlock()
	if u.progress != nil {
		u.progress(op)
	}
}

func (u *run) alarm() string { return operationAlarm(u.op.ID) }

func operationAlarm(id routing.OperationID) string { return "operation/" + string(id) }
