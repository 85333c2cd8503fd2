package operation

import (
	"context"
	"errors"
	"fmt"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Returns is what becomes of mail on the losing side of a switch: the state of both sides
// before it, so that afterwards it is known what is new there, and the run that brings it
// over (docs/architecture/switch.md, "The operation"). All methods are safe for concurrent
// use.
type Returns interface {
	// Plan says, for people, what would be brought over and what can't be: a line each.
	Plan(ctx context.Context, p *Plan) []string

	// Watermarks notes the state of the mailboxes on both platforms, before begin, and returns
	// under which digest it is kept; zero: it can't be, as no platform's mailboxes can be
	// read, and everything will be compared. For a rollback it returns that of the cutover,
	// and looks at no platform. progress says how far it is. It must end with ctx. An error
	// refuses a cutover; before a rollback it is only told.
	Watermarks(ctx context.Context, op *Operation, progress func(text string)) (routing.Digest, error)

	// Documents returns the runs that an operation starts, as documents of the table, to be set
	// in the change by which its agencies open: so there is no switch without them. It must
	// not wait. An operation that moves nothing has none.
	Documents(s *routing.State, op *Operation) ([]routing.Document, error)
}

// watermarks has the state of both sides noted, where the operation moves mailboxes. An
// emergency doesn't wait for it.
func (u *run) watermarks(ctx context.Context) error {
	if u.Returns == nil || !u.op.Kind.moves() || u.op.Emergency {
		return nil
	}
	if err := u.step(StepWatermarks); err != nil {
		return err
	}
	digest, err := u.Returns.Watermarks(ctx, &u.op, func(text string) {
		u.op.Waiting = text
		u.show()
	})
	u.op.Waiting = ""
	switch {
	case ctx.Err() != nil:
		return because(ctx, err)
	case err != nil && u.op.Kind == Cutover:
		return fmt.Errorf("%s of agency %s: take the watermarks: %w", u.op.Kind, u.op.Agency, err)
	case err != nil:
		u.Logger.Warn("operation goes on without watermarks", "operation", u.op.ID, "agency", u.op.Agency, "error", err)
	}
	u.op.Watermarks = digest
	return nil
}

// errNoReturns is why nothing is brought over.
var errNoReturns = errors.New("nothing brings over what reaches the losing side after the switch, or what users had there")

// returns says what becomes of the mail on the losing side.
func (r *Runner) returns(ctx context.Context, p *Plan) []string {
	switch {
	case !p.Kind.moves():
		return nil
	case r.Returns == nil:
		return []string{errNoReturns.Error()}
	}
	return r.Returns.Plan(ctx, p)
}

// returning adds the runs that bring mail over to the change by which an operation opens
// its agencies. One that can't be made doesn't keep them closed: people are told.
func (u *run) returning(s *routing.State, op *Operation, c *table.Change) {
	if u.Returns == nil || !op.Kind.moves() || op.Step != StepSpread && op.Step != StepDone {
		return
	}
	docs, err := u.Returns.Documents(s, op)
	if err != nil {
		u.Logger.Error("no run brings over what is on the losing side", "operation", op.ID, "agency", op.Agency, "error", err)
		u.Alarms.Raise("no-recall/"+string(op.ID), fmt.Sprintf("Operation %s (%s of agency %s) started no run that brings over what is on the losing side: start one, mailcutover recall run --agency %[3]s --reason .... %v", op.ID, op.Kind, op.Agency, err))
		return
	}
	c.Documents = append(c.Documents, docs...)
}
