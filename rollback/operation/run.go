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

// run is one operation under way in this process.
type run struct {
	*Runner
	op       Operation
	handle   *handle
	progress func(Operation)
	hooks    []Hook
	expected routing.Epoch   // of the operation's agency at begin; zero: any
	asked    context.Context // of Run: at its end nobody waits for a canary; nil: it wasn't run, but taken up

	// recorded says that the table is known to have had the operation's record. What an
	// earlier version of the program began has none.
	recorded bool
	rev      routing.Revision // of that record, when it was last read

	sent     *table.Change // last change sent; whether it happened is known by sending it again
	unsure   bool          // an answer to begin was lost
	again    bool          // another process may have sent begin
	mapped   routing.Revision
	stands   *stands
	fences   []table.Fence
	spreadTo routing.Revision // to be seen by all nodes
}

func (r *Runner) newRun(op Operation, h *handle, progress func(Operation)) *run {
	return &run{Runner: r, op: op, handle: h, progress: progress}
}

// pace are the pauses between two looks at the members.
const (
	fastPace = 5 * time.Millisecond
	slowPace = 100 * time.Millisecond
)

// beginPatience is for how long members may be behind before begin, which nothing waits
// for yet: an arming that has just been told takes a moment.
const beginPatience = 3 * time.Second

// longWait is after which time people are alarmed about an operation without a deadline.
const longWait = 60 * time.Second

// until returns ctx with the deadline.
func until(ctx context.Context, end time.Time) (context.Context, context.CancelFunc) {
	return context.WithDeadlineCause(ctx, end, fmt.Errorf("not drained by %s", end.UTC().Format(time.RFC3339)))
}

// tableSilent is what is waited for while the table doesn't answer.
const tableSilent = "the table doesn't answer"

// await polls the members until each of them grants the wish or is fenced.
func (u *run) await(ctx context.Context, w wish) error {
	defer u.Alarms.Clear(u.waitAlarm())
	began, said, heard := time.Now(), "", false
	for pace := fastPace; ; pace = min(2*pace, slowPace) {
		if err := u.holds(); err != nil {
			return err
		}
		n, err := u.nodes(ctx)
		switch {
		case ctx.Err() != nil: // below
			if err != nil && !heard {
				u.op.Waiting = tableSilent // for all the time that there was
			}
		case errors.Is(err, table.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
			u.op.Waiting = tableSilent
		case err != nil:
			return fmt.Errorf("look at the nodes: %w", err)
		default:
			heard = true
			now := time.Now()
			u.stands.look(now, &n)
			var ready bool
			u.op.Nodes, u.fences, ready = u.stands.judge(now, &n, w, u.op.Agencies)
			u.op.Waiting = waiting(u.op.Nodes)
			if n.Rejoining != "" {
				ready, u.op.Waiting = false, "the table waits for its nodes: "+n.Rejoining
			}
			if ready {
				u.op.Waiting = ""
				u.show()
				return nil
			}
		}
		if u.op.Waiting != said {
			said = u.op.Waiting
			pace = fastPace
			u.show()
		}
		if u.op.Deadline.IsZero() && time.Since(began) > longWait {
			u.Alarms.Raise(u.waitAlarm(), fmt.Sprintf("Operation %s (%s of agency %s) keeps it closed and has no deadline. It waits: %s", u.op.ID, u.op.Kind, u.op.Agency, u.op.Waiting))
		}
		if err := u.pause(ctx, pace); err != nil {
			return because(ctx, fmt.Errorf("%w: %s", ErrMembers, u.op.Waiting))
		}
	}
}

// pause waits, and returns an error if ctx or the runner ended.
func (u *run) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-u.halted.Done():
		return ErrStopping
	}
}

func (u *run) waitAlarm() string { return "operation-waits/" + string(u.op.ID) }

// goOn carries the operation on from begin.
func (u *run) goOn(ctx context.Context) (Operation, error) {
	var end time.Time // by which it is drained, or aborted; zero: none
	switch {
	case u.op.Deadline.IsZero():
	case u.op.Step == StepHooks: // it was drained before; hooks have no deadline
		end = time.Now().Add(DefaultDeadline)
	default:
		left := time.Until(u.op.Deadline)
		if u.again { // it may come from another node's clock
			left = min(left, DefaultDeadline+max(u.Leases.Short, u.Leases.Long)+u.fenceLimit()+u.Leases.Margin)
		}
		end = time.Now().Add(left)
	}
	for first := true; ; first = false {
		err := u.drain(ctx, end, first)
		if err == nil && u.pending() {
			if err = u.callHooks(ctx); err == nil && !u.op.Deadline.IsZero() {
				end = time.Now().Add(DefaultDeadline)
			}
		}
		if err == nil && first {
			err = u.step(StepCommit)
		}
		if err != nil {
			return u.abort(ctx, err)
		}
		err = u.commit(ctx)
		if errors.Is(err, table.ErrGuard) { // a node came or restarted: look again
			if err := u.pause(ctx, slowPace); err != nil {
				return u.abort(ctx, because(ctx, err))
			}
			continue
		}
		if err != nil {
			// From here on abort may be too late: commit may have happened whatever we hear.
			return u.settle(because(ctx, err))
		}
		return u.publish()
	}
}

// drain waits until no member has anything old under way for any of the agencies.
func (u *run) drain(ctx context.Context, end time.Time, first bool) error {
	if first && u.op.Step != StepHooks {
		if err := u.step(StepDrain); err != nil {
			return err
		}
	}
	if !end.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = until(ctx, end)
		defer cancel()
	}
	if u.stands == nil {
		u.stands = newStands(u.Leases)
	}
	w := u.wish()
	for _, id := range u.op.Agencies {
		w.drained = append(w.drained, table.AgencyEpoch{Agency: id, Epoch: u.op.Begun[id]})
	}
	if !u.op.TargetDead {
		return u.await(ctx, w)
	}
	// What is in doubt at a dead platform is listed: a moment to end, then it is enough
	// that every node has seen the closing, or that its lease is over. What a silent node
	// had on its way there isn't waited for either.
	grace, done := context.WithTimeout(ctx, deadGrace)
	err := u.await(grace, w)
	done()
	if err == nil || ctx.Err() != nil || u.halted.Err() != nil {
		return err
	}
	u.op.Listed = nil
	for _, m := range u.op.Nodes {
		switch m.State {
		case MemberWaits, MemberDoubts:
			u.op.Listed = append(u.op.Listed, fmt.Sprintf("%s: %s", m.Node, m.Text))
		case MemberSilent:
			u.op.Listed = append(u.op.Listed, fmt.Sprintf("%s: silent; what it had under way is not known", m.Node))
		}
	}
	w.drained, w.applied = nil, u.begunAt()
	return u.await(ctx, w)
}

// wish is what the operation wants of every member before it begins; the drain adds to it.
func (u *run) wish() wish {
	w := wish{applied: u.op.Base, base: u.op.Base, limit: u.fenceLimit(), alone: u.op.Emergency}
	if u.op.TargetDead {
		w.limit = 0
	}
	return w
}

// fenceLimit is for how long mail, or a login session, of a silent node may go on after its
// lease. A hook that closes the losing side ends the sessions there, after the drain.
func (u *run) fenceLimit() time.Duration {
	limit := u.losingLimit()
	if u.op.closes() {
		return limit
	}
	for _, id := range u.losing() {
		of, _ := u.logins(id)
		limit = max(limit, of)
	}
	return limit
}

// closes reports whether a hook is to end, or has ended, what goes on at the losing side.
func (o *Operation) closes() bool {
	return slices.ContainsFunc(o.Hooks, func(h HookState) bool { return h.Point == PointClose && h.Status != HookSkipped })
}

// losing are the platforms that have the operation's mailboxes.
func (u *run) losing() []routing.PlatformID {
	var all []routing.PlatformID
	s := u.Replica.State()
	for _, id := range u.op.Agencies {
		if a, ok := s.Agency(id); ok && !slices.Contains(all, a.Platform()) {
			all = append(all, a.Platform())
		}
	}
	return all
}

// begunAt returns the revision of begin, or a later one.
func (u *run) begunAt() routing.Revision {
	if u.op.BegunAt == 0 { // another node's begin
		s := u.Replica.State()
		for _, id := range u.op.Agencies {
			a, _ := s.Agency(id)
			u.op.BegunAt = max(u.op.BegunAt, a.Revision)
		}
	}
	return u.op.BegunAt
}

// deadGrace is how long an operation with a dead target waits for what is under way there.
const deadGrace = 3 * time.Second

// losingLimit is the longest limit of the platforms that old dots could be on their way to.
func (u *run) losingLimit() time.Duration {
	var limit time.Duration
	for _, id := range u.losing() {
		d, _ := u.limit(id)
		limit = max(limit, d)
	}
	return limit
}

// commitPatience bounds a commit. It takes a moment, or is tried again.
const commitPatience = DefaultDeadline

// commit sets the other platform, or mapping.
func (u *run) commit(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, commitPatience, fmt.Errorf("not committed within %s", commitPatience))
	defer cancel()
	_, err := u.change(ctx, StepCommit, func(s *routing.State, next *Operation, c *table.Change) error {
		c.Guard = table.Guard{Applied: u.op.Base, Base: u.op.Base, Fenced: u.fences}
		for _, id := range u.op.Agencies {
			a, _ := s.Agency(id)
			a = a.InTerm(s.Position().Term)
			var err error
			if u.op.Kind == Remap {
				a, err = a.CommitRemap(u.op.ID, u.op.Nonce, u.op.Mappings[id])
			} else {
				a, err = a.Commit(u.op.ID, u.op.Nonce)
			}
			if err != nil {
				return err
			}
			c.Agencies = append(c.Agencies, a)
			if len(u.op.Listed) == 0 {
				c.Guard.Drained = append(c.Guard.Drained, table.AgencyEpoch{Agency: id, Epoch: u.op.Begun[id]})
			}
		}
		if len(u.op.Listed) > 0 {
			c.Guard.Applied = u.begunAt()
		}
		if u.op.Kind == Remap {
			if s.Position().Mapped != u.mapped {
				if err := errors.Join(u.checkMappings(ctx, s, u.op.Mappings)...); err != nil {
					return err
				}
				u.mapped = s.Position().Mapped
			}
			c.Mapped = u.mapped
		}
		next.Step = StepPublish
		next.Fenced = nil
		for _, f := range u.fences {
			next.Fenced = append(next.Fenced, fmt.Sprintf("%s: %s%s", f.Node, fenceText(f.Kind, u.wish().limit), u.sessionsText(f)))
		}
		slices.Sort(next.Fenced)
		return nil
	})
	return err
}
