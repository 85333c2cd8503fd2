package operation

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Undo takes back a hook of an operation that was aborted, where that failed then: by trying
// it again, or, with byHand, by taking a person's word that it was done. It isn't tried, with
// ErrEpoch, where an agency isn't any more as the abort left it: what the hook did may be
// wanted now. The operation stays as it ended, but for the hook's record.
func (r *Runner) Undo(ctx context.Context, id routing.OperationID, hook, who, reason string, byHand bool) error {
	fail := func(err error) error { return fmt.Errorf("undo hook %s of operation %s: %w", hook, id, err) }
	all, err := r.Table.Operations(ctx)
	if err != nil {
		return fail(err)
	}
	i := slices.IndexFunc(all, func(o routing.Operation) bool { return o.ID == id })
	if i < 0 {
		return fail(ErrNoOperation)
	}
	rec := all[i]
	op, err := FromRecord(&rec)
	if err != nil {
		return fail(err)
	}
	h := op.hook(hook)
	switch {
	case h == nil:
		return fail(fmt.Errorf("%w: the operation has none of that name", ErrHook))
	case !rec.Ended || h.Status != HookUndoFailed:
		return fail(fmt.Errorf("%w: it is %s, at step %s: there is nothing to undo", ErrHook, h.Status, op.Step))
	}
	receipt := reason
	if !byHand {
		if err := r.asLeft(&op); err != nil {
			return fail(err)
		}
		u := r.newRun(op, newHandle(op, func(error) {}), nil)
		u.rev = rec.Revision
		if receipt, err = u.undoAsLeft(ctx, hook); err != nil {
			return fail(err)
		}
	}
	h.Status, h.Who, h.Error, h.Receipt, h.Ended = HookUndone, who, "", cut(receipt), time.Now()
	next, err := op.record(rec)
	if err != nil {
		return fail(err)
	}
	pos := r.Replica.State().Position()
	if _, err := r.Table.Change(ctx, table.Change{
		ID: uuid.NewString(), Incarnation: pos.Incarnation, Term: pos.Term, Operations: []routing.Operation{next},
		Who: who, What: "undo hook " + hook + " of " + string(op.Kind), Reason: reason,
	}); err != nil {
		return fail(err)
	}
	known, err := r.List()
	if err == nil && slices.ContainsFunc(known, func(o Operation) bool { return o.ID == id }) {
		err = r.enter(&op)
	}
	if err != nil {
		r.Logger.Error("undo of a hook is not written down here", "operation", id, "error", err)
	}
	r.Alarms.Clear(hookAlarm(id, hook))
	return nil
}

// raiseUndone tells people of a hook that wasn't undone.
func (r *Runner) raiseUndone(o *Operation, hook, why string) {
	key := hookAlarm(o.ID, hook)
	r.mu.Lock()
	if r.undone.alarms == nil {
		r.undone.alarms = make(map[string]struct{})
	}
	r.undone.alarms[key] = struct{}{}
	r.mu.Unlock()
	r.Alarms.Raise(key, fmt.Sprintf("Hook %s of operation %s (%s of agency %s) was not undone, and the agency opens where it was. Have it tried again: mailcutover operation undo-hook %[2]s %[1]s --reason ...; or undo it by hand, and say so with --by-hand. %[5]s", hook, o.ID, o.Kind, o.Agency, why))
}

// undoneLook is the time between two looks at the hooks that weren't undone.
const undoneLook = 2 * time.Second

// lookUndone keeps the alarms about hooks that weren't undone as the table has it: every node
// has them, also after a restart, and wherever the hook is undone in the end they go. The
// table is asked only if something has changed in it.
func (r *Runner) lookUndone(ctx context.Context) error {
	at := r.Replica.State().Position()
	r.mu.Lock()
	due := r.undone.at != at && time.Since(r.undone.looked) >= undoneLook
	if due {
		r.undone.looked = time.Now()
	}
	r.mu.Unlock()
	if !due {
		return nil
	}
	all, err := r.Table.Operations(ctx)
	if err != nil {
		return fmt.Errorf("look for hooks that weren't undone: %w", err)
	}
	left := make(map[string]struct{})
	for i := range all {
		op, err := FromRecord(&all[i])
		if err != nil {
			continue // its end doesn't rest on it
		}
		for _, h := range op.Hooks {
			if h.Status != HookUndoFailed {
				continue
			}
			left[hookAlarm(op.ID, h.Name)] = struct{}{}
			if all[i].Ended { // else its runner has told
				r.raiseUndone(&op, h.Name, h.Error)
			}
		}
	}
	r.mu.Lock()
	var gone []string
	for key := range r.undone.alarms {
		if _, still := left[key]; !still {
			gone = append(gone, key)
			delete(r.undone.alarms, key)
		}
	}
	r.undone.at = at
	r.mu.Unlock()
	for _, key := range gone {
		r.Alarms.Clear(key)
	}
	return nil
}

// asLeft returns an ErrEpoch unless the agencies are as the abort left them.
func (r *Runner) asLeft(op *Operation) error {
	s := r.Replica.State()
	for _, id := range op.Agencies {
		a, _ := s.Agency(id)
		if left := op.Begun[id].Number; a.Operation != "" || !a.Phase.Open() || a.Phase.OnTarget() != op.Kind.from().OnTarget() && op.Kind.moves() || movedSince(&a, left) {
			return fmt.Errorf("%w: agency %s is in phase %s, epoch %s, and something has happened to it since: look whether it is still wanted, and undo it by hand", ErrEpoch, id, a.Phase, a.Epoch)
		}
	}
	return nil
}

// undoAsLeft calls what undoes a hook, and interrupts it when something happens to an agency
// meanwhile: the next operation may want what it takes back.
func (u *run) undoAsLeft(ctx context.Context, hook string) (receipt string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	op := u.op
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for ctx.Err() == nil {
			if u.asLeft(&op) != nil {
				cancel()
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	_, receipt, err = u.undo(ctx, hook)
	cancel()
	<-watched
	if moved := u.asLeft(&op); moved != nil {
		return "", fmt.Errorf("while it was called: %w", moved)
	}
	return receipt, err
}

// movedSince reports whether an agency's record has another epoch than the abort gave it, one
// after that of begin: by a switch, or by a lock.
func movedSince(a *routing.Agency, begun uint32) bool { return a.Epoch.Number > begun+1 }
