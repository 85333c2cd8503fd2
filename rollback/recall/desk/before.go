package desk

import (
	"context"
	"time"

	"mailcutover/rollback/watermark"
	"mailcutover/routing"
)

// Before is what is known of an agency's last cutover.
type Before struct {
	Operation routing.OperationID // empty: no cutover is known
	Since     time.Time           // nothing was delivered to the target before, in this turn
	Marks     *watermark.Set      // of both sides before it; nil: there are none, or they can't be read
}

// Before returns what is known of an agency's last cutover. Watermarks that don't lie on this
// node are fetched from another.
func (d *Desk) Before(ctx context.Context, id routing.AgencyID) Before {
	k, _ := knownOf(d.o.Replica.State(), id)
	b := Before{Operation: k.Operation, Since: k.Since}
	if !k.Watermarks.IsZero() {
		b.Marks, _ = d.watermarks(ctx, &Run{ID: "verify", Agency: id, Watermarks: k.Watermarks})
	}
	return b
}

// LastCutover returns the operation of an agency's last cutover; empty: none is known.
func LastCutover(s *routing.State, id routing.AgencyID) routing.OperationID {
	k, _ := knownOf(s, id)
	return k.Operation
}
