package operation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// publish opens the agencies. It doesn't give up while the table answers at all, nor for
// a journal that can't be written: a committed operation has no way but this one.
func (u *run) publish() (Operation, error) {
	ctx, cancel := context.WithTimeout(u.halted, DefaultDeadline)
	defer cancel()
	u.note(StepPublish)
	err := u.confirm(ctx)
	if err == nil {
		_, err = u.change(ctx, StepPublish, func(s *routing.State, next *Operation, c *table.Change) error {
			next.Step, next.Opened = StepSpread, time.Now()
			next.WithoutReplica = u.op.WithoutReplica
			return u.ours(s, c, func(a routing.Agency) (routing.Agency, error) { return a.Publish(u.op.ID) })
		})
	}
	switch {
	case errors.Is(err, ErrTakenOver):
		return u.settle(err)
	case err != nil:
		return u.stuck("committed but not published", err)
	}
	u.op.Opened = time.Now()
	return u.spread()
}

// ours computes the next records of the agencies that the operation still owns.
func (u *run) ours(s *routing.State, c *table.Change, next func(routing.Agency) (routing.Agency, error)) error {
	for _, id := range u.op.Agencies {
		a, ok := s.Agency(id)
		if !ok || a.Operation != u.op.ID {
			continue // all or none are ours, unless the table lost something
		}
		a, err := next(a.InTerm(s.Position().Term))
		if err != nil {
			return err
		}
		c.Agencies = append(c.Agencies, a)
	}
	if len(c.Agencies) == 0 {
		return fmt.Errorf("operation %s: %w", u.op.ID, routing.ErrNotOwner)
	}
	return nil
}

// confirm waits until the table is certain that everything is on disk and on all
// replicas, or until people say which replica has to be done without.
func (u *run) confirm(ctx context.Context) error {
	if u.op.WithoutReplica != "" {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	confirmed := make(chan error, 1)
	go func() { confirmed <- u.persist(ctx, func() error { return u.Table.Confirm(ctx) }) }()
	select {
	case err := <-confirmed:
		return err
	case <-u.handle.without:
		cancel()
		<-confirmed
		u.op.WithoutReplica = u.handle.replica
		return nil
	}
}

// spreadPatience is for how long the nodes may take to see the opening.
const spreadPatience = 5 * time.Second

// spread makes certain that the opening is durable, waits until each node with a lease
// has seen it, and ends the operation.
func (u *run) spread() (Operation, error) {
	ctx, cancel := context.WithTimeout(u.halted, DefaultDeadline)
	defer cancel()
	u.note(StepSpread)
	if err := u.confirm(ctx); err != nil {
		return u.stuck("open, but perhaps not on all replicas,", err)
	}
	u.seen(ctx)
	u.canary()
	ctx, cancel = context.WithTimeout(u.halted, DefaultDeadline) // the canary had its own time
	defer cancel()
	err := u.amend(ctx, StepDone, func(next *Operation) {
		next.Step, next.Late, next.Canaries = StepDone, u.op.Late, u.op.Canaries
	})
	switch {
	case errors.Is(err, ErrTakenOver):
		return u.settle(err)
	case err != nil:
		return u.stuck("open, but not noted as done,", err)
	}
	return u.end(StepDone, nil)
}

// seen waits until each member with a valid lease has applied the opening, for a while.
func (u *run) seen(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, spreadPatience)
	defer cancel()
	s := u.Replica.State()
	to := u.spreadTo
	for _, id := range u.op.Agencies {
		if a, ok := s.Agency(id); ok {
			to = max(to, a.Revision)
		}
	}
	u.op.Late = nil
	for pace := fastPace; ; pace = min(2*pace, slowPace) {
		n, err := u.nodes(ctx)
		if err == nil {
			u.op.Late = nil
			for i := range n.Members {
				m := &n.Members[i]
				l := n.Leases[m.Node]
				if valid := !m.Evicted && m.Attested != m.Instance && l.Instance == m.Instance && n.Time.Before(l.LongEnd); valid && !knows(&n, &l, to) {
					u.op.Late = append(u.op.Late, string(m.Node))
				}
			}
			if len(u.op.Late) == 0 {
				return
			}
		}
		if err := u.pause(ctx, pace); err != nil {
			u.Logger.Warn("nodes have not seen the opening yet", "operation", u.op.ID, "agency", u.op.Agency, "nodes", u.op.Late, "error", err)
			return
		}
	}
}

// abort reopens the agencies where they were, if begin happened.
func (u *run) abort(ctx context.Context, cause error) (Operation, error) {
	cause = because(ctx, cause)
	switch {
	case errors.Is(cause, ErrTakenOver), errors.Is(cause, errLost):
		return u.settle(cause)
	case u.recorded && (u.halted.Err() != nil || errors.Is(context.Cause(ctx), ErrStopping) && u.stays()):
		u.mu.Lock()
		u.stopping = true
		u.mu.Unlock()
		return u.leave(fmt.Errorf("left to another node, or to the next start: %w", cause))
	}
	u.note(StepAbort)
	return u.settle(cause)
}

// stays reports whether the operation outlives its runner also before commit: since it
// may be closed for hours by plan, or since open is worse.
func (u *run) stays() bool {
	for i := range u.op.Hooks {
		if u.op.Hooks[i].External {
			return true
		}
	}
	return u.op.Emergency
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
		if len(u.losses(u.op.Agencies)) > 0 {
			// How it ended, or whether, people decide who reconcile it.
			return u.stuck("without its record", errors.Join(cause, table.ErrRegressed))
		}
		if err := u.own(u.Replica.State()); err != nil {
			return u.lost(ctx, err)
		}
		ours, committed := u.standing()
		if ours && u.op.Closed.IsZero() {
			u.op.Closed = u.op.Started
		}
		switch {
		case ours && committed:
			return u.publish()
		case !ours && u.recorded && u.op.Step == StepSpread || !ours && u.tableSays() == StepSpread:
			u.op.Step = StepSpread
			return u.spread()
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
			if u.recorded { // the table lost the agencies' records, or people changed them
				if err := u.amend(ctx, end, func(next *Operation) { next.Step = end }); err != nil {
					return u.stuck("ended, but not noted,", errors.Join(cause, err))
				}
			}
			if end != StepRefused && u.op.Opened.IsZero() {
				u.op.Opened = time.Now()
			}
			return u.end(end, cause)
		}
		if u.op.Step != StepAbort {
			u.note(StepAbort)
		}
		err := u.undoHooks()
		ctx, cancel := context.WithTimeout(u.halted, DefaultDeadline)
		if err == nil {
			err = u.abortChange(ctx, cause)
		}
		if err == nil {
			u.op.Opened = time.Now()
			u.confirmAbort(ctx)
		}
		cancel()
		switch {
		case err == nil:
			return u.end(StepAborted, cause)
		case errors.Is(err, routing.ErrNotPublished), errors.Is(err, routing.ErrNotOwner), errors.Is(err, ErrTakenOver), errors.Is(err, table.ErrReused):
			// A commit, or an abort, of ours that was still on its way was quicker, or
			// another node: look again.
		default:
			return u.stuck("neither committed nor aborted", errors.Join(cause, err))
		}
	}
}

// abortChange opens the agencies where they were.
func (u *run) abortChange(ctx context.Context, cause error) error {
	_, err := u.change(ctx, StepAbort, func(s *routing.State, next *Operation, c *table.Change) error {
		next.Step, next.Opened = StepAborted, time.Now()
		if cause != nil {
			next.Error = cause.Error()
		}
		return u.ours(s, c, func(a routing.Agency) (routing.Agency, error) { return a.Abort(u.op.ID, u.op.Nonce) })
	})
	return err
}

// confirmAbort waits a moment for the proof that the abort is durable. It is only told:
// an abort that a failover loses leaves the agency closed, and is done again.
func (u *run) confirmAbort(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, spreadPatience)
	defer cancel()
	if err := u.Table.Confirm(ctx); err != nil {
		u.Logger.Warn("abort is not known to be durable", "operation", u.op.ID, "agency", u.op.Agency, "error", err)
	}
}

// tableSays returns the step of the operation's record; empty: it has none.
func (u *run) tableSays() Step {
	rec, _ := u.Replica.State().Operation(u.op.ID)
	return Step(rec.Step)
}

// lost finds out what became of an operation that is no longer this node's.
func (u *run) lost(ctx context.Context, cause error) (Operation, error) {
	end, err := u.endOf(ctx, u.op.ID)
	switch {
	case err != nil:
		return u.stuck("another node's, or ended", errors.Join(cause, err))
	case end == nil:
		return u.leave(cause)
	}
	u.op = *end
	err = nil
	if u.op.Error != "" {
		err = errors.New(u.op.Error)
	}
	return u.end(u.op.Step, err)
}

// endOf returns an operation that has ended, as the table has it; nil: it has not, or the
// table doesn't have it any more.
func (r *Runner) endOf(ctx context.Context, id routing.OperationID) (*Operation, error) {
	all, err := r.Table.Operations(ctx)
	if err != nil {
		return nil, fmt.Errorf("look what became of operation %s: %w", id, err)
	}
	for i := range all {
		if all[i].ID == id && all[i].Ended {
			op, _ := FromRecord(&all[i])
			return &op, nil
		}
	}
	return nil, nil
}

// ended says how an operation ended that owns no agency any more.
func (u *run) ended(ctx context.Context) (Step, error) {
	switch {
	case u.op.Step == StepPublish, u.op.Step == StepSpread, u.op.Step == StepCanary:
		return StepDone, nil
	case u.op.Step == StepCommit && u.elsewhere():
		return StepDone, nil // published, and the journal couldn't be written
	case !u.op.Closed.IsZero():
		return StepAborted, nil
	case !u.again && !u.unsure:
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
	switch {
	case !ok || !a.Phase.Open():
		return false
	case u.op.Kind == Remap:
		return a.Mapping == u.op.Mappings[a.ID]
	default:
		return a.Phase.OnTarget() == (u.op.Kind == Cutover)
	}
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
			ID: beginID(u.op.ID), Incarnation: state.Position().Incarnation, Term: state.Position().Term,
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
// way to the table can then do nothing more, or is overtaken by the next change.
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

// stuck leaves the agencies as they are, for Tend, Recover, another node or a human.
func (u *run) stuck(where string, err error) (Operation, error) {
	u.op.Error = err.Error()
	u.mu.Lock()
	u.unsettled[u.op.ID] = struct{}{}
	u.mu.Unlock()
	text := fmt.Sprintf("Operation %s (%s of agency %s) is %s: the agency stays closed.", u.op.ID, u.op.Kind, u.op.Agency, where)
	if u.op.Step == StepSpread || u.op.Step == StepCanary {
		text = fmt.Sprintf("Operation %s (%s of agency %s) is %s.", u.op.ID, u.op.Kind, u.op.Agency, strings.TrimSuffix(where, ","))
	}
	if !u.awaitsPeople(u.op) {
		u.Alarms.Raise(u.alarm(), fmt.Sprintf("%s It is tried again until the table takes it, also after a restart. %v", text, err))
	}
	err = errors.Join(err, u.journalled())
	u.show()
	return u.op, err
}
