package operation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"mailcutover/routing"
)

// ErrHook is about a hook that failed, or that isn't there.
var ErrHook = errors.New("hook")

// hookPause is the time between two attempts of a hook.
const hookPause = 500 * time.Millisecond

// hooksOf returns the hooks of an operation in the order in which they are called.
func (r *Runner) hooksOf(kind Kind, a routing.Agency) []Hook {
	if r.Hooks == nil {
		return nil
	}
	hooks := slices.Clone(r.Hooks.Of(kind, a))
	slices.SortStableFunc(hooks, func(a, b Hook) int {
		return cmp.Or(slices.Index(points, a.Point())-slices.Index(points, b.Point()), strings.Compare(a.Name(), b.Name()))
	})
	return hooks
}

func (o *Operation) hook(name string) *HookState {
	for i := range o.Hooks {
		if o.Hooks[i].Name == name {
			return &o.Hooks[i]
		}
	}
	return nil
}

// pending reports whether a hook is still to be called.
func (u *run) pending() bool {
	return slices.ContainsFunc(u.op.Hooks, func(h HookState) bool { return !h.Status.passed() })
}

// callHooks calls the hooks that have not been passed, in order.
func (u *run) callHooks(ctx context.Context) error {
	if err := u.step(StepHooks); err != nil {
		return err
	}
	for i := range u.op.Hooks {
		name := u.op.Hooks[i].Name
		if u.op.Hooks[i].Status.passed() {
			continue
		}
		err := u.callHook(ctx, name)
		u.Alarms.Clear(u.hookAlarm(name))
		if err != nil {
			return err
		}
	}
	u.op.Waiting = ""
	return nil
}

func (u *run) hookAlarm(name string) string { return hookAlarm(u.op.ID, name) }

func hookAlarm(id routing.OperationID, name string) string {
	return "operation-hook/" + string(id) + "/" + name
}

// find returns the configured hook that the operation means.
func (u *run) find(name string) (Hook, error) {
	if u.hooks == nil {
		if a, ok := u.Replica.State().Agency(u.op.Agency); ok {
			u.hooks = u.hooksOf(u.op.Kind, a)
		}
	}
	for _, h := range u.hooks {
		if h.Name() == name && h.Digest() == u.op.hook(name).Digest {
			return h, nil
		}
	}
	return nil, fmt.Errorf("%w %s: this node's configuration doesn't have it as the operation knows it", ErrHook, name)
}

// noteHook takes note of a hook's status in the table, and then in the journal.
func (u *run) noteHook(ctx context.Context, name string, set func(*HookState)) error {
	decided := false
	err := u.amend(ctx, StepHooks, func(next *Operation) {
		h := next.hook(name)
		decided = h.Status == HookTold || h.Status == HookSkipped // people were quicker
		if !decided {
			set(h)
			next.Step = StepHooks
		}
	})
	if err != nil {
		return err
	}
	if decided {
		return nil
	}
	if err := u.journalled(); err != nil {
		return err
	}
	u.show()
	return nil
}

// callHook calls one hook until it succeeds, people say that it is done or left out, or
// its patience is over.
func (u *run) callHook(ctx context.Context, name string) error {
	h, err := u.find(name)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := u.noteHook(ctx, name, func(s *HookState) {
		s.Status = HookStarted
		if s.Started.IsZero() {
			s.Started = began
		}
	}); err != nil {
		return err
	}
	if h.External() {
		return u.awaitTold(ctx, h)
	}
	for {
		attempt := 0
		if err := u.noteHook(ctx, name, func(s *HookState) { s.Attempts++; attempt = s.Attempts }); err != nil {
			return err
		}
		if u.op.hook(name).Status.passed() {
			return nil
		}
		u.op.Waiting = fmt.Sprintf("hook %s, attempt %d", name, attempt)
		u.show()
		receipt, err := u.attempt(ctx, h, attempt)
		switch {
		case u.decided(name):
			return u.own(u.Replica.State())
		case err == nil:
			return u.noteHook(ctx, name, func(s *HookState) { s.Status, s.Receipt, s.Error, s.Ended = HookDone, cut(receipt), "", time.Now() })
		case ctx.Err() != nil || u.halted.Err() != nil:
			return because(ctx, fmt.Errorf("%w %s: %w", ErrHook, name, err))
		}
		u.Logger.Warn("hook failed", "operation", u.op.ID, "agency", u.op.Agency, "hook", name, "attempt", attempt, "error", err)
		if err := u.noteHook(ctx, name, func(s *HookState) { s.Error, s.Ended = cut(err.Error()), time.Now() }); err != nil {
			return err
		}
		if time.Since(began) > h.Patience() {
			if !u.op.Emergency {
				return fmt.Errorf("%w %s: %w", ErrHook, name, err)
			}
			return u.noteHook(ctx, name, func(s *HookState) { s.Status, s.Who = HookSkipped, "the emergency" })
		}
		u.Alarms.Raise(u.hookAlarm(name), fmt.Sprintf("Hook %s of operation %s (%s of agency %s) fails, and the agency is closed: %v. Let it go on without the hook, or abort it.", name, u.op.ID, u.op.Kind, u.op.Agency, err))
		if err := u.pause(ctx, hookPause); err != nil {
			return because(ctx, err)
		}
	}
}

// decided reports whether people have said something about the hook in the table.
func (u *run) decided(name string) bool {
	rec, ok := u.Replica.State().Operation(u.op.ID)
	if !ok {
		return false
	}
	op, err := FromRecord(&rec)
	if err != nil {
		return false
	}
	h := op.hook(name)
	return h != nil && (h.Status == HookTold || h.Status == HookSkipped)
}

// attempt calls the hook once; people's word ends the call.
func (u *run) attempt(ctx context.Context, h Hook, n int) (receipt string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(u.halted, cancel)()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		receipt, err = h.Do(ctx, u.call(n))
	}()
	for {
		select {
		case <-ended:
			return receipt, err
		case <-time.After(slowPace):
			if u.decided(h.Name()) {
				cancel()
			}
		}
	}
}

func (u *run) call(attempt int) Call {
	c := Call{Operation: u.op.ID, Kind: u.op.Kind, Agency: u.op.Agency, Agencies: slices.Clone(u.op.Agencies), Attempt: attempt, Token: u.rev}
	if a, ok := u.Replica.State().Agency(u.op.Agency); ok {
		c.Losing, c.Winning = sides(u.op.Kind, a)
	}
	return c
}

// sides returns the platforms that an operation goes from and to.
func sides(kind Kind, a routing.Agency) (losing, winning routing.PlatformID) {
	switch kind {
	case Cutover:
		return a.Source, a.Target
	case Rollback:
		return a.Target, a.Source
	default:
		return a.Platform(), a.Platform()
	}
}

// awaitTold waits until somebody says that an external step is done. It has no deadline.
func (u *run) awaitTold(ctx context.Context, h Hook) error {
	name, began := h.Name(), time.Now()
	u.op.Waiting = fmt.Sprintf("somebody has to say that %s is done", name)
	u.show()
	for alarmed := false; ; {
		if err := u.own(u.Replica.State()); err != nil {
			return err
		}
		if u.op.hook(name).Status.passed() {
			return u.journalled()
		}
		if !alarmed && time.Since(began) > h.Expected() {
			alarmed = true
			u.Alarms.Raise(u.hookAlarm(name), fmt.Sprintf("Operation %s (%s of agency %s) waits for %s longer than expected, and the agency is closed. Say that it is done, or abort.", u.op.ID, u.op.Kind, u.op.Agency, name))
		}
		if err := u.pause(ctx, slowPace); err != nil {
			return because(ctx, fmt.Errorf("%w %s: %w", ErrHook, name, err))
		}
	}
}

// undoHooks takes back, in reverse order, what hooks did or may have done. It bounds
// itself: what can't be undone is listed, with an alarm, and doesn't keep the agency
// closed. But nothing is undone that isn't first noted in the table: another node could
// go on with the operation, or a commit of ours still be on its way.
func (u *run) undoHooks() error {
	if !slices.ContainsFunc(u.op.Hooks, func(h HookState) bool { return h.toUndo() }) {
		return nil
	}
	if err := u.noteAbort(func(*Operation) {}); err != nil {
		return err
	}
	for i := len(u.op.Hooks) - 1; i >= 0; i-- {
		if !u.op.Hooks[i].toUndo() {
			continue
		}
		name := u.op.Hooks[i].Name
		status, receipt, failed := u.undo(u.halted, name)
		if failed != nil {
			u.raiseUndone(&u.op, name, failed.Error())
		}
		err := u.noteAbort(func(next *Operation) {
			h := next.hook(name)
			h.Status, h.Ended = status, time.Now()
			if failed != nil {
				h.Error = cut(failed.Error())
			} else if receipt != "" {
				h.Receipt = cut(receipt)
			}
		})
		if err != nil {
			return err
		}
		if err := u.journalled(); err != nil {
			u.Logger.Error("operation goes on without its journal", "operation", u.op.ID, "agency", u.op.Agency, "error", err)
		}
	}
	return nil
}

// noteAbort notes in the table that the operation is being aborted, and what of it.
func (u *run) noteAbort(set func(*Operation)) error {
	ctx, cancel := context.WithTimeout(u.halted, DefaultDeadline)
	defer cancel()
	return u.amend(ctx, StepAbort, func(next *Operation) {
		next.Step = StepAbort
		set(next)
	})
}

// toUndo reports whether the hook may have done something that isn't undone.
func (h *HookState) toUndo() bool {
	return !h.External && (h.Status == HookStarted || h.Status == HookDone || h.Status == HookSkipped && h.Attempts > 0)
}

// undo takes a hook back, trying for as long as the hook's patience and ctx allow.
func (u *run) undo(ctx context.Context, name string) (HookStatus, string, error) {
	h, err := u.find(name)
	if err != nil {
		return HookUndoFailed, "", err
	}
	if !h.Undoes() {
		return HookUndone, "", nil
	}
	u.op.Waiting = "undo of hook " + name
	u.show()
	began := time.Now()
	for attempt := 1; ; attempt++ {
		receipt, err := h.Undo(ctx, u.call(attempt))
		if err == nil {
			return HookUndone, receipt, nil
		}
		u.Logger.Warn("hook is not undone", "operation", u.op.ID, "agency", u.op.Agency, "hook", name, "attempt", attempt, "error", err)
		if time.Since(began) > min(h.Patience(), DefaultDeadline/2) || u.pause(ctx, hookPause) != nil {
			return HookUndoFailed, "", fmt.Errorf("undo of %w %s: %w", ErrHook, name, err)
		}
	}
}

// cut bounds a text for the record.
func cut(s string) string {
	if len(s) <= maxReceipt {
		return strings.ToValidUTF8(s, "?")
	}
	s = s[:maxReceipt]
	for !utf8.ValidString(s) && len(s) > maxReceipt-4 {
		s = s[:len(s)-1]
	}
	return strings.ToValidUTF8(s, "?") + "…"
}
