package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// What callers learn of an error: a status they can act on, or nothing.
func TestAsProblem(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
	}{
		{table.ErrUnavailable, 503}, {table.ErrEmpty, 503}, {table.ErrIncarnation, 503}, {context.DeadlineExceeded, 503},
		{table.ErrStale, 409}, {routing.ErrNotArmed, 409}, {routing.ErrOperationOpen, 409}, {routing.ErrFinalised, 409},
		{&routing.TransitionError{From: routing.PhaseTarget, On: routing.EventBegin}, 409},
		{operation.ErrRecovering, 503}, {operation.ErrJournal, 503}, {operation.ErrInDoubt, 409}, {errStopping, 503},
		{operation.ErrEpoch, 412}, {errStaleEpoch, 412}, {routing.ErrBadID, 400},
		{notFound("", "no agency"), 404},
		{table.ErrNoMapping, 500}, {table.ErrReused, 500}, {errors.New("secret"), 500},
	} {
		p, foreseen := asProblem(fmt.Errorf("arm agency health: %w", c.err))
		if p.Status != c.status || foreseen != (c.status != 500) || p.Title == "" {
			t.Errorf("%v: %+v, foreseen %t", c.err, p, foreseen)
		}
		if !foreseen && strings.Contains(p.Detail+p.Hint, "health") {
			t.Errorf("%v: tells %+v", c.err, p)
		}
	}
}

// A table that lost its data isn't one to be filled: no hint says so.
func TestAnEmptyTableIsNoInvitation(t *testing.T) {
	p, _ := asProblem(fmt.Errorf("add agency: %w", table.ErrEmpty))
	if strings.Contains(p.Hint, "initialis") || !strings.Contains(p.Hint, "alarm list") {
		t.Errorf("hint %q", p.Hint)
	}
}

// How long an agency was closed is not counted on when its operation has ended.
func TestClosedForOfEndedOperations(t *testing.T) {
	closed := time.Now().Add(-time.Hour)
	for step, counts := range map[operation.Step]bool{
		operation.StepDrain: true, operation.StepPublish: true,
		operation.StepDone: false, operation.StepAborted: false, operation.StepRefused: false,
	} {
		if v := operationView(operation.Operation{Step: step, Closed: closed}, false); (v.ClosedFor > 0) != counts {
			t.Errorf("%s: closed for %v s", step, v.ClosedFor)
		}
	}
}
