package operation

import (
	"context"
	"errors"
	"fmt"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Recover settles what the last process left: operations that had committed are
// published, the others are aborted; an emergency, and an operation with an external step,
// goes on. The replica must be up to date. It goes on after an error and returns all of
// them; what they are about Tend tries again. Only then Run takes operations.
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
		if !op.Step.Ended() && r.isMine(op) && !r.awaitsPeople(op) {
			errs = append(errs, r.finish(ctx, op))
		}
	}
	errs = append(errs, r.attend(ctx, ops), r.takeOvers(ctx))
	r.mu.Lock()
	r.recovered = true
	r.mu.Unlock()
	return errors.Join(errs...)
}

// isMine reports whether an operation of the journal is for this node to settle: unless
// the table says that another one has it.
func (r *Runner) isMine(op Operation) bool {
	rec, ok := r.Replica.State().Operation(op.ID)
	return !ok || rec.Runner == r.Node
}

// Tend takes over operations whose runner is gone, tries again what could not be settled
// or written down, and settles agencies that are closed by an operation which has ended.
// For those that are closed by an operation that nobody knows there is an alarm. It is to
// be called every second or so after Recover; the table is only asked if something is
// open.
func (r *Runner) Tend(ctx context.Context) error {
	errs := []error{r.flush(), r.lookUndone(ctx)}
	r.mu.Lock()
	calm := len(r.unsettled) == 0 && len(r.strangers) == 0
	r.mu.Unlock()
	if calm && len(r.Unattended()) == 0 && len(r.Replica.State().Operations()) == 0 {
		return errors.Join(errs...)
	}
	ops, err := r.List()
	errs = append(errs, err)
	for _, op := range ops {
		if r.isUnsettled(op.ID) && ctx.Err() == nil && r.isMine(op) && !r.awaitsPeople(op) {
			errs = append(errs, r.finish(ctx, op))
		}
	}
	return errors.Join(append(errs, r.attend(ctx, ops), r.takeOvers(ctx))...)
}

// takeOvers goes on with the operations of the table whose runner is gone.
func (r *Runner) takeOvers(ctx context.Context) error {
	var nodes *table.Nodes
	var errs []error
	for _, rec := range r.Replica.State().Operations() {
		if rec.Runner == r.Node && rec.Instance == r.Instance || r.isRunning(rec.ID) != nil || ctx.Err() != nil || len(r.losses(rec.Agencies)) > 0 {
			continue
		}
		if nodes == nil {
			n, err := r.nodes(ctx)
			if err != nil {
				return errors.Join(append(errs, fmt.Errorf("look for the runners of open operations: %w", err))...)
			}
			nodes = &n
		}
		if rec.Runner != r.Node && !gone(nodes, &rec) {
			continue
		}
		op, err := FromRecord(&rec)
		if err != nil {
			r.Logger.Error("operation can't be gone on with, only ended", "operation", rec.ID, "agency", rec.Agency, "error", err)
		}
		errs = append(errs, r.finish(ctx, op))
	}
	return errors.Join(errs...)
}

// gone reports whether the runner of an operation can be taken as gone. That it may be
// alive all the same does no harm: its next change finds the record in other hands.
func gone(n *table.Nodes, rec *routing.Operation) bool {
	for i := range n.Members {
		m := &n.Members[i]
		if m.Node != rec.Runner {
			continue
		}
		l, ok := n.Leases[m.Node]
		return m.Instance != rec.Instance || m.Evicted || m.Attested == rec.Instance ||
			ok && l.Instance == rec.Instance && !n.Time.Before(l.ShortEnd)
	}
	return true
}

// Unattended returns the agencies that are closed by an operation which nobody runs: not
// here, nor as far as this node knows elsewhere.
func (r *Runner) Unattended() []routing.AgencyID {
	state := r.Replica.State()
	var ids []routing.AgencyID
	for _, a := range state.Agencies() {
		if a.Operation == "" || r.isRunning(a.Operation) != nil {
			continue
		}
		if rec, ok := state.Operation(a.Operation); ok && (rec.Runner != r.Node || rec.Instance != r.Instance) {
			continue // another node's, or taken over in a moment
		}
		ids = append(ids, a.ID)
	}
	return ids
}

// attend settles the agencies of ended operations, and raises alarms for those of
// unknown ones.
func (r *Runner) attend(ctx context.Context, ops []Operation) error {
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
		case owner != nil && len(r.losses(owner.Agencies)) > 0: // people have to reconcile first
		case owner == nil:
			strangers[id] = struct{}{}
			r.Alarms.Raise(strangerAlarm(id), fmt.Sprintf("Agency %s is closed by operation %s, of which neither the table nor this node's journal has a record: nobody will open it. Start the node that ran it, with its data directory; if there is none, mailcutover agency rollback %[1]s --emergency --reason ... brings it to its source.", id, a.Operation))
		case owner.Step.Ended() || !r.isUnsettled(owner.ID):
			errs = append(errs, r.finish(ctx, *owner))
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

// finish carries on, or settles, an operation that nobody runs; one that somebody runs is
// left to him. What takes long goes on beside.
func (r *Runner) finish(ctx context.Context, op Operation) error {
	base, cancel := context.WithCancelCause(r.halted)
	h := r.claim(op, cancel)
	if h == nil {
		cancel(nil)
		return nil
	}
	was := op.Runner
	u := r.newRun(op, h, nil)
	u.again = true
	err := u.takeOver(ctx)
	if err != nil || !u.goesOn(was) {
		defer cancel(nil)
		defer r.release(op.ID)
		if errors.Is(err, ErrTakenOver) {
			return nil
		}
		if err != nil {
			return err
		}
		return u.finish()
	}
	r.resume.Go(func() {
		defer cancel(nil)
		defer r.release(op.ID)
		r.Alarms.Clear(u.alarm())
		r.Logger.Warn("operation goes on", "operation", op.ID, "kind", op.Kind, "agency", op.Agency, "step", op.Step, "runner", was)
		if op, err := u.goOn(base); err != nil {
			r.Logger.Warn("operation ended with an error", "operation", op.ID, "kind", op.Kind, "agency", op.Agency, "step", op.Step, "error", err)
		}
	})
	return nil
}

// goesOn reports whether an operation of another process isn't just settled: that of
// another node is carried on if it isn't late; that of this node's own last life is
// aborted, as the people who watched it expect, unless it has to outlive that.
func (u *run) goesOn(was routing.NodeID) bool {
	ours, committed := u.standing()
	return u.recorded && ours && !committed && u.op.Step != StepAbort && len(u.op.Begun) > 0 &&
		(was != u.Node || u.stays())
}

// takeOver makes the operation this process's, if the table has its record. ErrTakenOver:
// another node was quicker.
func (u *run) takeOver(ctx context.Context) error {
	s := u.Replica.State()
	rec, ok := s.Operation(u.op.ID)
	if !ok {
		return nil
	}
	waiting, nodes := u.op.Waiting, u.op.Nodes
	op, err := FromRecord(&rec)
	if err == nil {
		u.op = op
		u.op.Waiting, u.op.Nodes = waiting, nodes
	}
	u.op.Step = Step(rec.Step)
	u.recorded, u.rev = true, rec.Revision
	if rec.Runner == u.Node && rec.Instance == u.Instance {
		return nil
	}
	rec.Runner, rec.Instance = u.Node, u.Instance
	u.op.Runner, u.op.Instance = u.Node, u.Instance
	if err == nil {
		if rec, err = u.op.record(rec); err != nil {
			return err
		}
	}
	c := table.Change{
		ID: fmt.Sprintf("%s/take/%d/%s", u.op.ID, u.rev, u.Instance), Incarnation: s.Position().Incarnation, Term: s.Position().Term,
		Operations: []routing.Operation{rec}, Who: "node " + string(u.Node), What: "take over " + string(u.op.Kind),
		Reason: fmt.Sprintf("its runner is gone, at step %s", u.op.Step),
	}
	pos, err := u.Table.Change(ctx, c)
	switch {
	case errors.Is(err, table.ErrStale), errors.Is(err, table.ErrReused):
		return fmt.Errorf("take over operation %s: %w: %w", u.op.ID, ErrTakenOver, err)
	case err != nil:
		return fmt.Errorf("take over operation %s: %w", u.op.ID, err)
	}
	if err := u.Replica.Wait(ctx, pos); err != nil {
		return fmt.Errorf("take over operation %s: %w", u.op.ID, err)
	}
	if err := u.journalled(); err != nil {
		u.Logger.Error("operation goes on without its journal", "operation", u.op.ID, "agency", u.op.Agency, "step", u.op.Step, "error", err)
	}
	return u.own(u.Replica.State())
}

// finish settles an operation of which this process knows no more than journal and table.
func (u *run) finish() error {
	u.Logger.Warn("operation is settled", "operation", u.op.ID, "kind", u.op.Kind, "agency", u.op.Agency, "step", u.op.Step)
	if !u.recorded { // of an older version, or ended by another node
		ctx, cancel := context.WithTimeout(u.halted, DefaultDeadline)
		end, err := u.endOf(ctx, u.op.ID)
		cancel()
		if err != nil {
			return err
		}
		if ours, _ := u.standing(); end != nil && !ours {
			u.op = *end
			_, _ = u.end(end.Step, nil)
			return nil
		}
	}
	cause := fmt.Errorf("interrupted at step %s", u.op.Step)
	if u.op.Error != "" {
		cause = errors.New(u.op.Error)
	}
	u.op.Error = ""
	if _, err := u.settle(cause); !u.op.Step.Ended() {
		return err
	}
	return nil
}
