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

// change computes the agencies' next records and stores them, again if they changed
// meanwhile (a lock, an arming), and again if the table didn't answer.
func (u *run) change(ctx context.Context, step Step, next func(routing.Agency) (routing.Agency, error)) (routing.Position, error) {
	for {
		state := u.Replica.State()
		c := table.Change{
			ID: u.changeID(step), Incarnation: state.Position().Incarnation,
			Who: u.op.Who, What: string(step) + " of " + string(u.op.Kind), Reason: u.op.Reason,
		}
		for _, id := range u.op.Agencies {
			a, _ := state.Agency(id)
			if a.Operation != u.op.ID && (step == StepAbort || step == StepPublish) {
				continue // all or none are ours, unless the table lost something
			}
			a, err := next(a)
			if err != nil {
				return routing.Position{}, err
			}
			c.Agencies = append(c.Agencies, a)
		}
		if len(c.Agencies) == 0 {
			return routing.Position{}, fmt.Errorf("%s of operation %s: %w", step, u.op.ID, routing.ErrNotOwner)
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

// step journals what is about to be done, and shows it. Who can't write the journal
// takes no step that leads further.
func (u *run) step(s Step) error {
	u.op.Step = s
	if err := u.record(&u.op); err != nil {
		return err
	}
	u.Logger.Info("operation step", "operation", u.op.ID, "kind", u.op.Kind, "agency", u.op.Agency, "step", s, "who", u.op.Who)
	u.show()
	return nil
}

// note is step for what has to be done in any case: the journal is written if it can be.
func (u *run) note(s Step) {
	if err := u.step(s); err != nil {
		u.Logger.Error("operation goes on without its journal", "operation", u.op.ID, "agency", u.op.Agency, "step", s, "error", err)
		u.show()
	}
}

// end notes the end.
func (u *run) end(s Step, cause error) (Operation, error) {
	u.op.Waiting, u.op.Error = "", ""
	if s != StepRefused {
		u.op.Opened = time.Now()
	}
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

func (u *run) show() {
	op := u.op
	op.Agencies = slices.Clone(op.Agencies)
	u.mu.Lock()
	u.running[op.ID] = &op
	u.mu.Unlock()
	if u.progress != nil {
		u.progress(op)
	}
}
