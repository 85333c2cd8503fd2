package operation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"mailcutover/routing"
)

// Side is the side of a platform that is probed.
type Side string

const (
	SideOutside Side = "outside" // mail from and for the internet
	SideInside  Side = "inside"  // mail between the platforms
)

// Prober tries whether a platform would take mail and logins of an agency. Its methods
// return what the platform said, for people, and end with ctx. Nothing is delivered.
type Prober interface {
	Probe(ctx context.Context, agency routing.AgencyID, platform routing.PlatformID, side Side) (text string, err error)

	// ProbeLogin logs in to a mailbox that belongs to no agency.
	ProbeLogin(ctx context.Context, platform routing.PlatformID) (text string, err error)
}

var (
	// ErrNotConfigured is what a Prober wraps that has no mailbox to try it with. It
	// refuses nothing.
	ErrNotConfigured = errors.New("not configured")

	// ErrMailbox is what a Prober wraps about a platform that answers, and refuses one of
	// the agency's own mailboxes.
	ErrMailbox = errors.New("a mailbox of the agency isn't taken")
)

// probePatience bounds each probe, confirmPatience the trial of Confirm.
const (
	probePatience   = 10 * time.Second
	confirmPatience = 5 * time.Second
)

// trial is a probe of one platform.
type trial struct {
	name     string
	platform routing.PlatformID
	run      func(context.Context) (text string, err error)
}

// probes tries both platforms, each side, and a login at each, all at once.
func (r *Runner) probes(ctx context.Context, p *Plan) []Check {
	if r.Prober == nil {
		return []Check{{Name: "probes", Informs: true, Text: "no probe is configured: whether the platforms take mail and logins is not known"}}
	}
	a := &p.Agencies[0]
	var trials []trial
	for _, id := range slices.Compact([]routing.PlatformID{a.Losing, a.Winning}) {
		for _, side := range []Side{SideOutside, SideInside} {
			trials = append(trials, trial{fmt.Sprintf("probe of %s, %s", id, side), id, func(ctx context.Context) (string, error) {
				return r.Prober.Probe(ctx, a.ID, id, side)
			}})
		}
		if _, takes := r.logins(id); takes {
			trials = append(trials, trial{fmt.Sprintf("probe login at %s", id), id, func(ctx context.Context) (string, error) {
				return r.Prober.ProbeLogin(ctx, id)
			}})
		}
	}
	all := make([]Check, len(trials))
	var running sync.WaitGroup
	for i := range trials {
		running.Go(func() {
			one, cancel := context.WithTimeout(ctx, probePatience)
			defer cancel()
			text, err := trials[i].run(one)
			if all[i] = Passed(trials[i].name, text); err != nil {
				all[i] = Failed(trials[i].name, err)
				all[i].Informs = p.informs(trials[i].platform, err)
			}
		})
	}
	running.Wait()
	return all
}

// informs reports whether what is wrong with a platform refuses nothing: where a rollback
// leaves it, so that a bad target keeps nobody there; where nobody said how to try it; and
// where a step of the operation itself has still to prepare the mailboxes.
func (p *Plan) informs(id routing.PlatformID, err error) bool {
	a := &p.Agencies[0]
	prepared := slices.ContainsFunc(p.Hooks, func(h PlanHook) bool { return !h.Without && (h.Point == PointMover || h.Point == PointOpen) })
	return p.Kind == Rollback && id == a.Losing || errors.Is(err, ErrNotConfigured) || errors.Is(err, ErrMailbox) && prepared && id == a.Winning
}
