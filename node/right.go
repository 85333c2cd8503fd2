package node

import (
	"context"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Right is for what a node may decide at one moment.
type Right struct {
	Settled, Armed bool // for settled agencies and fixed addresses; for armed agencies

	// SettledLife and ArmedLife number the stretches of time without a lapse: what began
	// in one life must not be answered for in another.
	SettledLife, ArmedLife uint64
}

func (r *Right) covers(armed bool) bool {
	if armed {
		return r.Armed
	}
	return r.Settled
}

// life returns the number of the stretch of time that the right is in.
func (r *Right) life(armed bool) uint64 {
	if armed {
		return r.ArmedLife
	}
	return r.SettledLife
}

// Rights gives a node its right to decide. A [Keeper] is one.
type Rights interface {
	// Right returns the right of this moment. contact is the moment before the table was
	// last reached for reading. It neither waits nor allocates.
	Right(contact time.Time) Right

	// Check returns nil if the table says now that these versions are the agencies' newest
	// ones, and open; else, or where it says nothing in time, an error.
	Check(ctx context.Context, versions ...table.AgencyEpoch) error

	// Names returns nil if the table says now that no name was changed since a copy at pos, nor
	// lost; else, or where it says nothing in time, an error.
	Names(ctx context.Context, pos routing.Position) error
}

// Lease says for how long a node may decide after the table was last reached. As [Rights]
// it is for a node that has its table for itself and never checks; several nodes need a
// [Keeper].
type Lease struct {
	Settled time.Duration // for settled agencies, and fixed addresses
	Armed   time.Duration // for armed agencies
	Margin  time.Duration // subtracted from both: the time between a decision and its effect
}

// Right implements [Rights] on the monotonic clock. It doesn't notice a lapse that has
// ended.
func (l Lease) Right(contact time.Time) Right {
	age := time.Since(contact) + l.Margin
	return Right{Settled: age < l.Settled, Armed: age < l.Armed}
}

// Check implements [Rights]: nobody else changes the table.
func (Lease) Check(context.Context, ...table.AgencyEpoch) error { return nil }

// Names implements [Rights]: nobody else changes the table.
func (Lease) Names(context.Context, routing.Position) error { return nil }

// right is that of this moment. It is taken before the State is read, so that it never
// speaks for a State that is older than it.
func (g *Gate) right() Right {
	contact, ok := g.source.Fresh()
	if !ok {
		return Right{}
	}
	return g.rights.Right(contact)
}

// allow turns a decision into "table can't be used" where the right to make it is gone, or
// the node takes no new work, and into "locked" where this node locked the agency.
func (g *Gate) allow(r Right, d routing.Decision) routing.Decision {
	if locks := g.locks.Load(); locks != nil && d.Agency != "" {
		if _, locked := (*locks)[d.Agency]; locked && d.Deliver() {
			d.Reason = routing.ReasonLocked
		}
	}
	if !r.covers(d.Armed) || g.Resting() {
		return routing.Decision{Reason: routing.ReasonTableUnavail}
	}
	return d
}
