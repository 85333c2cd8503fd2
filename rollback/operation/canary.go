package operation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mailcutover/rollback/canary"
	"mailcutover/routing"
)

// Canaries tries mail and logins of an agency as its users have them.
type Canaries interface {
	// Canary says what Try would do for an agency, for people; empty: nothing.
	Canary(agency routing.AgencyID) string

	// TakesBack reports whether an agency is rolled back by itself if its canary fails after a
	// cutover: it stands in the plan, and counts only if that was approved.
	TakesBack(agency routing.AgencyID) bool

	// Try sends a message to the agency's canary and logs in to it, to see that both end on
	// this platform. It must end soon after ctx, and bounds itself.
	Try(ctx context.Context, agency routing.AgencyID, platform routing.PlatformID) canary.Result
}

// errUntried is why a canary says nothing: it was interrupted, or its agency is closed.
var errUntried = errors.New("not tried")

// canary tries each agency that is open now. What comes of it is noted in the operation, and
// raises an alarm; it changes nothing: the operation has happened. It ends early with the
// context of Run, when the node stops.
func (u *run) canary() {
	if u.Canaries == nil || !u.op.Kind.moves() {
		return
	}
	ctx, cancel := context.WithCancel(u.halted)
	defer cancel()
	if u.asked != nil {
		defer context.AfterFunc(u.asked, cancel)()
	}
	u.op.Canaries = nil
	for _, id := range u.op.Agencies {
		if u.Canaries.Canary(id) == "" {
			continue
		}
		u.note(StepCanary)
		u.op.Waiting = fmt.Sprintf("canary of %s", id)
		u.show()
		r, err := u.try(ctx, id)
		switch {
		case err != nil:
			r = canary.Result{Agency: id, Mail: err.Error(), Ended: time.Now()}
			u.Logger.Warn("canary is not tried", "operation", u.op.ID, "agency", id, "error", err)
		case r.OK:
			u.Logger.Info("canary is well", "operation", u.op.ID, "agency", id, "reason", r.Text())
			u.Alarms.Clear(canaryAlarm(id))
		default:
			u.Alarms.Raise(canaryAlarm(id), fmt.Sprintf("The canary of agency %s says that something is wrong since operation %s (%s): %s", id, u.op.ID, u.op.Kind, r.Text()))
		}
		u.op.Canaries = append(u.op.Canaries, r)
	}
	u.op.Waiting = ""
}

func (u *run) try(ctx context.Context, id routing.AgencyID) (canary.Result, error) {
	a, ok := u.Replica.State().Agency(id)
	switch {
	case !ok || !a.Phase.Open() || a.Locked:
		return canary.Result{}, fmt.Errorf("%w: the agency is closed", errUntried)
	case ctx.Err() != nil:
		return canary.Result{}, fmt.Errorf("%w: the node stops", errUntried)
	}
	r := u.Canaries.Try(ctx, id, a.Platform())
	if ctx.Err() != nil && !r.OK {
		return r, fmt.Errorf("%w: the node stopped meanwhile", errUntried)
	}
	return r, nil
}

func canaryAlarm(id routing.AgencyID) string { return "canary/" + string(id) }

// canaries says of each agency what will be tried after the switch; empty: nothing.
func (r *Runner) canaries(p *Plan) []string {
	all := make([]string, len(p.Agencies))
	for i := range p.Agencies {
		if r.Canaries != nil && p.Kind.moves() {
			all[i] = r.Canaries.Canary(p.Agencies[i].ID)
		}
	}
	return all
}

// withoutCanary tells of agencies of which nothing will be tried after the switch.
func (p *Plan) withoutCanary() []Check {
	var all []Check
	for i := range p.Agencies {
		if p.Kind.moves() && p.canaries[i] == "" {
			all = append(all, Check{Name: fmt.Sprintf("canary of %s", p.Agencies[i].ID), Informs: true, Text: "none is configured: nothing is tried after the switch"})
		}
	}
	return all
}
