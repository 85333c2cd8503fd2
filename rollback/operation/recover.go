package operation

import (
	"context"
	"errors"
	"fmt"

	"mailcutover/routing"
)

// Recover settles what the last process left: operations that had committed are
// published, the others are aborted. The replica must be up to date. It goes on after an
// error and returns all of them; what they are about Tend tries again. Only then Run
// takes operations.
func (r *Runner) Recover(ctx context.Context) error {
	ops, err := r.List()
	if err != nil {
		r.Alarms.Raise("operation-journal-unreadable", fmt.Sprintf("Operations of the time before the start can't be read from the journal, and are not settled: look at each agency that is closed. %v", err))
	}
	errs := []error{err}
	for _, op := range ops {
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
		if !op.Step.Ended() {
			errs = append(errs, r.finish(op))
		}
	}
	errs = append(errs, r.attend(ops))
	r.mu.Lock()
	r.recovered = true
	r.mu.Unlock()
	return errors.Join(errs...)
}

// Tend tries again what could not be settled or written down, and settles agencies
// that are closed by an operation which has ended. For those that are closed by an
// operation that this node's journal doesn't know there is an alarm. It is to be called
// every few seconds after Recover; there is nothing to be read if nothing is wrong.
func (r *Runner) Tend(ctx context.Context) error {
	errs := []error{r.flush()}
	r.mu.Lock()
	calm := len(r.unsettled) == 0 && len(r.strangers) == 0
	r.mu.Unlock()
	if calm && len(r.Unattended()) == 0 {
		return errors.Join(errs...)
	}
	ops, err := r.List()
	errs = append(errs, err)
	for _, op := range ops {
		if r.isUnsettled(op.ID) && ctx.Err() == nil {
			errs = append(errs, r.finish(op))
		}
	}
	return errors.Join(append(errs, r.attend(ops))...)
}

// Unattended returns the agencies that are closed by an operation which nobody runs.
func (r *Runner) Unattended() []routing.AgencyID {
	state := r.Replica.State()
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []routing.AgencyID
	for _, a := range state.Agencies() {
		if a.Operation != "" && r.running[a.Operation] == nil {
			ids = append(ids, a.ID)
		}
	}
	return ids
}

// attend settles the agencies of ended operations, and raises alarms for those of
// unknown ones.
func (r *Runner) attend(ops []Operation) error {
	var errs []error
	strangers := make(map[routing.AgencyID]struct{})
	for _, id := range r.Unattended() {
		a, _ := r.Replica.State().Agency(id)
		var owner *Operation
		for i := range ops {
			if ops[i].ID == a.Operation {
				owner = &ops[i]
			}
		}
		switch {
		case a.Operation == "":
		case owner == nil:
			strangers[id] = struct{}{}
			r.Alarms.Raise(strangerAlarm(id), fmt.Sprintf("Agency %s is closed by operation %s, which this node's journal doesn't know: nobody will open it. Start the node that ran it, with its data directory.", id, a.Operation))
		case owner.Step.Ended() || !r.isUnsettled(owner.ID):
			errs = append(errs, r.finish(*owner))
		}
	}
	r.mu.Lock()
	was := r.strangers
	r.strangers = strangers
	r.mu.Unlock()
	for id := range was {
		if _, still := strangers[id]; !still {
			r.Alarms.Clear(strangerAlarm(id))
		}
	}
	return errors.Join(errs...)
}

func (r *Runner) isUnsettled(id routing.OperationID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.unsettled[id]
	return ok
}

func strangerAlarm(id routing.AgencyID) string { return "agency-unattended/" + string(id) }

// finish settles an operation that nobody runs; one that somebody runs is left to him.
func (r *Runner) finish(op Operation) error {
	if !r.claim(op) {
		return nil
	}
	defer r.release(op.ID)
	r.Logger.Warn("operation is settled", "operation", op.ID, "kind", op.Kind, "agency", op.Agency, "step", op.Step)
	cause := fmt.Errorf("interrupted at step %s", op.Step)
	if op.Error != "" {
		cause = errors.New(op.Error)
	}
	u := &run{Runner: r, op: op, again: fmt.Sprintf("/%d", r.Replica.State().Position().Revision)}
	u.op.Error = ""
	if _, err := u.settle(cause); !u.op.Step.Ended() {
		return err
	}
	return nil
}
