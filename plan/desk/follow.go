package desk

import (
	"fmt"
	"strings"
	"time"

	"mailcutover/plan"
	"mailcutover/rollback/canary"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
)

// Documents returns how waves follow an operation, for operation.Options.Documents: a wave's agency
// is under way in the very change that begins its operation, and moved or aborted in the one that
// ends it. It keeps a wave's operation from beginning if its claim, its window or its approval
// doesn't hold any more, and any cutover of an agency of a wave while the plan is stopped. It
// never keeps a rollback.
func Documents(s *routing.State, op *operation.Operation) ([]routing.Document, error) {
	switch {
	case op.Kind != operation.Cutover:
		return nil, nil
	case op.Step == operation.StepDrain && op.Wave == "":
		return besides(s, op)
	case op.Wave == "":
		return nil, nil
	}
	w, err := plan.Find(s, plan.Name(op.Wave))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	switch {
	case op.Step == operation.StepDrain:
		r := w.Of(op.ID)
		if r == nil || r.Place != plan.Starting || r.Agency != op.Agency || r.Node != op.Runner || r.Instance != op.Instance {
			return nil, fmt.Errorf("wave %s: %w: operation %s has no claim to agency %s any more", w.Name, plan.ErrState, op.ID, op.Agency)
		}
		if err := w.MayBegin(s, r, now); err != nil {
			return nil, err
		}
		w, err = w.Begun(op.ID, now)
	case op.Step.Ended():
		if r := w.Of(op.ID); r == nil || !r.Place.Busy() {
			return nil, nil // people, or another node, have seen to it
		}
		w, err = ended(w, op, now)
	default:
		return nil, nil
	}
	return documents(s, &w, err)
}

// besides looks at a cutover that has an approval of its own.
func besides(s *routing.State, op *operation.Operation) ([]routing.Document, error) {
	waves, unreadable := plan.Waves(s)
	member := len(unreadable) > 0
	for i := range waves {
		r := waves[i].Run(op.Agency)
		if r == nil || waves[i].Standing.Over() {
			continue
		}
		if member = true; r.Place == plan.Starting {
			return nil, fmt.Errorf("wave %s is about to cut agency %s over: pause the wave first", waves[i].Name, op.Agency)
		}
	}
	if !member {
		return nil, nil
	}
	if err := plan.Refuses(s); err != nil {
		return nil, fmt.Errorf("agency %s is in a wave: %w", op.Agency, err)
	}
	return []routing.Document{plan.Turn(s)}, nil // a stop comes before it or after it
}

// ended notes how a wave's operation ended.
func ended(w plan.Wave, op *operation.Operation, now time.Time) (plan.Wave, error) {
	switch op.Step {
	case operation.StepDone:
		return w.Finish(op.ID, op.ClosedFor(), failed(op.Canaries), now)
	case operation.StepRefused:
		return w.Release(op.ID, op.Error, now)
	}
	var after routing.Epoch
	if e, ok := op.Begun[op.Agency]; ok {
		after = e.Next() // by the abort
	}
	return w.Abort(op.ID, op.Error, after, now)
}

// failed says which canaries failed; empty: none.
func failed(all []canary.Result) string {
	var bad []string
	for _, c := range all {
		if !c.OK {
			bad = append(bad, strings.TrimPrefix(strings.TrimSuffix(c.Mail+"; "+c.Login, "; "), "; "))
		}
	}
	return strings.Join(bad, "; ")
}

// documents returns a wave's document with the one that every decision changes.
func documents(s *routing.State, w *plan.Wave, err error) ([]routing.Document, error) {
	if err != nil {
		return nil, err
	}
	d, err := w.Document()
	return []routing.Document{d, plan.Turn(s)}, err
}
