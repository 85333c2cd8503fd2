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

// begin closes the agencies in one change. Before it, members that have not yet seen what
// begin rests on are awaited for a moment, or until they are fenced. done: an emergency
// found, or made, the agencies open where it should bring them.
func (u *run) begin(ctx context.Context, deadline time.Duration) (done bool, err error) {
	if !u.op.Emergency {
		u.op.Deadline = time.Now().Add(deadline) // what came before begin took its own time
	}
	u.stands = newStands(u.Leases)
	w := u.wish()
	var behind time.Time // since when members are known to be; the table may have been away before
	for began := time.Now(); ; {
		err := u.tryBegin(ctx, w)
		if u.op.Waiting == tableSilent {
			behind = time.Time{}
		} else if behind.IsZero() {
			behind = time.Now()
		}
		over := time.Since(began) > deadline
		if !behind.IsZero() && (!u.comes() || u.op.Emergency) {
			over = over || time.Since(behind) > beginPatience
		}
		switch {
		case err == nil:
			return u.op.Step == StepSpread, nil
		case ctx.Err() != nil || !errors.Is(err, table.ErrGuard) && !errors.Is(err, ErrMembers) || over:
			return false, because(ctx, err)
		}
		if err := u.catchUp(ctx); err != nil && !errors.Is(err, table.ErrUnavailable) {
			return false, because(ctx, err)
		}
		for _, id := range u.op.Agencies {
			if _, frozen := u.Replica.State().Frozen(id); frozen && !u.op.Emergency {
				return false, fmt.Errorf("begin %s: %w: %w", id, ErrFrozen, err)
			}
		}
		if err := u.pause(ctx, slowPace); err != nil {
			return false, because(ctx, err)
		}
	}
}

// comes reports whether what is waited for will come by itself: a silent member is going
// to be fenced, or the table doesn't answer for now.
func (u *run) comes() bool {
	return u.op.Waiting == tableSilent || slices.ContainsFunc(u.op.Nodes, func(m Waits) bool { return m.State == MemberSilent && m.Fence != "" })
}

// lookPause bounds one look at the members before begin; then it is decided whether to
// look on.
const lookPause = 300 * time.Millisecond

func (u *run) tryBegin(ctx context.Context, w wish) error {
	if !u.op.Emergency { // which closes at once, and lets the drain wait for the members
		look, cancel := context.WithTimeout(ctx, lookPause)
		err := u.await(look, w)
		cancel()
		if err != nil {
			return because(ctx, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, DefaultDeadline)
	defer cancel()
	if err := u.confirmOthers(ctx); err != nil {
		return err
	}
	pos, err := u.change(ctx, StepBegin, u.beginChange)
	if err == nil {
		u.op.BegunAt = pos.Revision
		u.spreadTo = pos.Revision
		u.op.Closed = time.Now()
		if u.op.Step == StepSpread {
			u.op.Closed, u.op.Opened = u.op.Started, time.Now()
		}
	}
	return err
}

// confirmOthers asks for the proof that what another operation committed is durable, where
// this begin opens it.
func (u *run) confirmOthers(ctx context.Context) error {
	s := u.Replica.State()
	for _, id := range u.op.Agencies {
		if a, ok := s.Agency(id); ok && a.Operation != "" && !a.Published && a.Phase == routing.PhaseSource {
			if err := u.Table.Confirm(ctx); err != nil {
				return fmt.Errorf("%s of agency %s is committed by operation %s, and not known to be durable: publish it without the replica that is missing: %w", Rollback, id, a.Operation, err)
			}
		}
	}
	return nil
}

// beginChange computes the change that begins, and what it leads to.
func (u *run) beginChange(s *routing.State, next *Operation, c *table.Change) error {
	c.Guard = table.Guard{Applied: u.op.Base, Base: u.op.Base, Protocol: table.Protocol, Fenced: u.fences}
	if u.op.Emergency {
		c.Guard.Applied, c.Guard.Protocol = 0, 0 // the drain asks every node, whatever it speaks
	} else {
		if err := s.Unconfirmed(); err != nil {
			return fmt.Errorf("begin %s: %w", u.op.Kind, err)
		}
		c.Guard.Unfrozen = u.op.Agencies
	}
	next.Begun = make(map[routing.AgencyID]routing.Epoch)
	next.Step, next.Closed = StepDrain, time.Now()
	open := 0
	for _, id := range u.op.Agencies {
		was, ok := s.Agency(id)
		if !ok {
			return fmt.Errorf("begin %s: no such agency in the table", id)
		}
		if u.expected != (routing.Epoch{}) && id == u.op.Agency && was.Epoch != u.expected {
			return fmt.Errorf("begin %s: %w: it is %s, expected was %s", id, ErrEpoch, was.Epoch, u.expected)
		}
		if u.op.Kind == Remap && was.Revision > u.op.Base {
			// What an import added meanwhile would be lost.
			return fmt.Errorf("begin %s: %w: its record was changed in revision %d, the mappings were made for %d", id, ErrPlan, was.Revision, u.op.Base)
		}
		a := was.InTerm(s.Position().Term)
		var err error
		if from := u.op.Kind.from(); !u.op.Emergency && u.op.Kind.moves() && a.Phase != from {
			// The record may be another one than that of the plan.
			return fmt.Errorf("begin %s: %w: agency %s is in phase %s, want %s", u.op.Kind, routing.ErrTransition, id, a.Phase, from)
		}
		if u.op.Emergency {
			a, err = u.beginEmergency(s, a)
		} else {
			a, err = a.Begin(u.op.ID, u.op.Nonce, u.op.Kind.event())
		}
		if err != nil {
			return err
		}
		if a.Operation == "" {
			open++
		}
		next.Begun[id] = a.Epoch
		c.Agencies = append(c.Agencies, a)
	}
	if u.op.Emergency {
		if err := u.endOthers(s, next, c); err != nil {
			return err
		}
	}
	switch {
	case open == len(u.op.Agencies): // they never left, or are open where they should be
		next.Step = StepSpread
	case open > 0:
		return fmt.Errorf("begin %s: some of its agencies are on the source platform already: roll back the others alone", u.op.Agency)
	}
	return nil
}

// beginEmergency ends the operation that has the agency, and begins. An agency that is on
// the source platform then stays open there. In one change, so that no moment exists in
// which it is open on the target.
func (u *run) beginEmergency(s *routing.State, a routing.Agency) (routing.Agency, error) {
	var err error
	if a.Operation != "" {
		if a.Published {
			a, err = a.Abort(a.Operation, a.Nonce)
		} else {
			a, err = a.Publish(a.Operation)
		}
		if err != nil {
			return a, err
		}
		if a.Phase == routing.PhaseSource {
			return a.Emergency(u.op.ID), nil
		}
	}
	if from := u.op.Kind.from(); a.Phase != from {
		return a, fmt.Errorf("begin %s: %w: agency %s is in phase %s, want %s", u.op.Kind, routing.ErrTransition, a.ID, a.Phase, from)
	}
	return a.BeginEmergency(u.op.ID, u.op.Nonce)
}

// endOthers ends the operations that beginEmergency took agencies from, for all their
// agencies: those that aren't in u are aborted, or published under a lock.
func (u *run) endOthers(s *routing.State, next *Operation, c *table.Change) error {
	next.Ends = nil
	for _, rec := range s.Operations() {
		if !slices.ContainsFunc(rec.Agencies, func(id routing.AgencyID) bool {
			a, ok := s.Agency(id)
			return ok && a.Operation == rec.ID && slices.Contains(u.op.Agencies, id)
		}) {
			continue
		}
		old, _ := FromRecord(&rec)
		old.Step, old.Opened = StepAborted, time.Now()
		for _, id := range rec.Agencies {
			a, ok := s.Agency(id)
			if !ok || a.Operation != rec.ID {
				continue
			}
			if !a.Published {
				old.Step = StepDone
			}
			if slices.Contains(u.op.Agencies, id) {
				continue
			}
			a = a.InTerm(s.Position().Term)
			var err error
			if a.Published {
				a, err = a.Abort(rec.ID, a.Nonce)
			} else if a, err = a.Publish(rec.ID); err == nil && !a.Locked {
				a, err = a.Lock()
			}
			if err != nil {
				return err
			}
			c.Agencies = append(c.Agencies, a)
		}
		old.Error = fmt.Sprintf("ended by the emergency %s of %s", u.op.ID, u.op.Who)
		if err := u.accompany(s, &old, c, false); err != nil {
			return err
		}
		end, err := old.record(rec)
		if err != nil {
			return err
		}
		c.Operations = append(c.Operations, end)
		next.Ends = append(next.Ends, rec.ID)
	}
	return nil
}
