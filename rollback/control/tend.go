package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Tender settles agencies that nobody settles: those whose settling was interrupted, and
// those that have been armed, without a change, for long. Use [Control.Tender]. Every node
// runs one; what two of them do at once is done once. It is used by one goroutine.
type Tender struct {
	control *Control
	after   time.Duration
	since   map[routing.AgencyID]armedSince
}

// armedSince is since when this node has seen a record as it is.
type armedSince struct {
	revision routing.Revision
	at       time.Time
}

// Tender returns one that settles agencies after they have been armed for so long; 0: never.
func (c *Control) Tender(after time.Duration) *Tender {
	return &Tender{control: c, after: after, since: make(map[routing.AgencyID]armedSince)}
}

// Tend looks at all agencies once. It is to be called now and then. An agency that is
// locked, or has an operation or an emergency open, stays armed: somebody is at it.
func (t *Tender) Tend(ctx context.Context) error {
	state := t.control.Replica.State()
	now := time.Now()
	var errs []error
	for _, a := range state.Agencies() {
		seen, known := t.since[a.ID]
		if a.Tightness == routing.Settled || !known || seen.revision != a.Revision {
			delete(t.since, a.ID)
			if a.Tightness != routing.Settled {
				t.since[a.ID] = armedSince{a.Revision, now}
			}
			continue
		}
		act := Act{ID: fmt.Sprintf("tend/%s/%d", a.ID, a.Revision), Who: "mailcutover", Reason: "armed for " + t.after.String()}
		ids := []routing.AgencyID{a.ID}
		var err error
		switch {
		case a.Tightness == routing.Settling: // seen twice: nobody is at it
			act.Reason = "settling was interrupted"
			if err = t.control.confirm(ctx, "settle agency "+string(a.ID)); err == nil {
				_, err = t.control.endSettle(ctx, act, ids)
			}
		case t.after > 0 && now.Sub(seen.at) >= t.after && a.Tightness == routing.Armed && a.Operation == "" && a.Unconfirmed == "" && a.Open():
			_, err = t.control.Settle(ctx, act, ids)
		}
		if err != nil && !overtaken(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// overtaken reports whether somebody else was quicker.
func overtaken(err error) bool {
	return errors.Is(err, routing.ErrNotSettling) || errors.Is(err, routing.ErrNotArmed) || errors.Is(err, routing.ErrOperationOpen) ||
		errors.Is(err, table.ErrReused)
}
