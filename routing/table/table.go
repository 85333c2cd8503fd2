// Package table is the contract of the state table: agency records, mappings, fixed
// addresses and served domains, with a log of every change.
//
// A table promises that a change is applied as a whole or not at all, only if the
// records that it was computed from are still the current ones, and only once, however
// often it is sent; that changes are numbered by revisions without gaps; and that
// whoever follows the log sees each of them in order, or learns that he missed some.
// What the next record is, the caller computes (package routing): the state machine is
// written once, not once more in each driver's language.
//
// It refuses changes for another incarnation, from stale records, with an id that was
// used for something else, and mappings that aren't completely there. A table that
// can't be reached answers [ErrUnavailable] within the context's time and never
// guesses; after such an error of Change the change may have happened, and sending it
// again is the way to know.
//
// Drivers are localtable (one node, embedded) and redistable (Redis); both pass
// tabletest. The replica follows a table, operations and the admin API change it. All
// methods are safe for concurrent use.
package table

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mailcutover/routing"
)

// Errors that callers test for with errors.Is. Drivers translate those of their peers.
var (
	ErrUnavailable = errors.New("table unavailable")
	ErrStale       = errors.New("record was changed meanwhile")
	ErrIncarnation = errors.New("table is of another incarnation")
	ErrReused      = errors.New("change id was used for another change")
	ErrNoMapping   = errors.New("mapping is not in the table")
	ErrGap         = errors.New("the change log doesn't reach back that far")
	ErrEmpty       = errors.New("table is empty")

	// ErrBadChange is a change that no table would take: see [Change.Check]. Sending it
	// again is of no use.
	ErrBadChange = errors.New("bad change")

	// ErrRegressed is a table whose revision is below one that was seen: a backup was
	// restored, or a failover lost writes. It is an ErrGap, since only a reload helps,
	// and more than that, since something that was acknowledged is gone.
	ErrRegressed = fmt.Errorf("table went back: %w", ErrGap)
)

// Known reports whether err wraps an error of this package. All others are the driver's peer's, which
// a driver makes ErrUnavailable.
func Known(err error) bool {
	return slices.ContainsFunc([]error{ErrUnavailable, ErrStale, ErrIncarnation, ErrReused, ErrNoMapping, ErrGap, ErrEmpty, ErrBadChange,
		ErrRejoining, ErrTerm, ErrGuard, ErrEvicted, ErrInstance, ErrNotMember, ErrFounded}, func(known error) bool { return errors.Is(err, known) })
}

// Table is a state table.
type Table interface {
	Coordination

	// Init makes an empty table usable by giving it a fresh incarnation; a table that
	// has one is left as it is. It returns where the table stands. Init is the first
	// change: it makes revision 1, which is also the first Mapped, and stands in the log
	// without records. Whether an empty table is to be expected, the caller must know: a
	// flushed one is empty too.
	Init(ctx context.Context) (routing.Position, error)

	// Position returns where the table stands; ErrEmpty before Init.
	Position(ctx context.Context) (routing.Position, error)

	// Snapshot reads all records at one revision. Mappings are left out: the caller
	// loads those that he doesn't have.
	Snapshot(ctx context.Context) (routing.Update, error)

	// Follow calls apply for each change after from, in order and without mappings,
	// and then waits for more. At least every interval (positive), change or none, it calls
	// alive with the table's position, up to which everything was applied: proof that
	// the table was reached, with the moment just before it was asked. Neither function
	// is called again before it returned. Follow ends with ctx (its error), with an
	// error of apply (as it is), or with ErrGap, ErrRegressed, ErrIncarnation, ErrEmpty
	// or ErrUnavailable; never with nil.
	Follow(ctx context.Context, from routing.Position, interval time.Duration, apply func(Entry) error, alive func(at time.Time, pos routing.Position)) error

	// Mapping loads a mapping, whole and checked against its digest. ErrNoMapping if it
	// isn't completely there.
	Mapping(ctx context.Context, agency routing.AgencyID, digest routing.Digest) (*routing.Mapping, error)

	// PutMapping stores a mapping, in parts; it is used only once it is complete.
	// Storing it again changes nothing, and it makes no revision. The empty mapping is
	// always there.
	PutMapping(ctx context.Context, m *routing.Mapping) error

	// Change applies c and returns the position after it.
	Change(ctx context.Context, c Change) (routing.Position, error)

	// Confirm returns nil once everything that was acknowledged before the call is on
	// disk and on all replicas that are configured; an error, if that isn't certain
	// within ctx.
	Confirm(ctx context.Context) error

	// Close ends all calls under way, which then return ErrUnavailable, as do later ones.
	Close() error
}

// Change is one atomic change of the table.
type Change struct {
	// ID makes the change happen once: an operation's id and the name of its step, or a
	// fresh UUID; at most 200 bytes of printable ASCII. A second Change with the id of
	// one among at least the last 10,000 returns the position that the first made, if
	// both are equal but for Incarnation, Term and Guard, and ErrReused otherwise; no other condition is
	// looked at then.
	ID string

	// Incarnation is that of the State the change was computed from.
	Incarnation routing.Incarnation

	// Mapped, unless 0, is the Mapped of the position at which the names in new mappings,
	// fixed addresses and domains were checked. ErrStale if one changed since. It must
	// be set if the change touches any of them, else ErrBadChange.
	Mapped routing.Revision

	// Agencies are the new records. The Revision of each is that of the record it was
	// computed from, 0 for a new agency; ErrStale unless it is still the current one.
	// A mapping that the current record doesn't have must be in the table, else
	// ErrNoMapping; one that it has isn't looked for, so that an agency whose mapping was
	// lost can still be closed.
	Agencies []routing.Agency

	// Term is that of the State the change was computed from; ErrTerm unless it is the
	// table's. Every record whose epoch the change alters has an epoch of this term, new
	// ones too. With Guard.EndRejoin it may be higher than the table's, and is the table's
	// from then on: so a table that is filled anew gets above all that was ever seen.
	Term uint32

	// Guard is what must hold besides. It is no part of the change's digest.
	Guard Guard

	// Members, Operations, Freezes and Documents are compared and set as Agencies are. Only an
	// existing member can be changed here, and only evicted under a fence of it in
	// Guard.Fenced that is long or attested; ErrGuard otherwise.
	Members    []routing.Member
	Operations []routing.Operation
	Freezes    []routing.Freeze
	Documents  []routing.Document

	// Domains and Fixed are set, or go if they say Removed. Their Revision is not looked
	// at: Mapped covers them.
	Domains []routing.Domain
	Fixed   []routing.Fixed

	// What the log shows to people: who did it (a person or a node), what and why.
	Who, What, Reason string
}

// Entry is one change as it stands in the log.
type Entry struct {
	routing.Update // the records after the change, without mappings
	ID             string
	Time           time.Time // by the table's clock
	Who            string
	What           string
	Reason         string
}
