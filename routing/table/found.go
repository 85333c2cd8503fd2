package table

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mailcutover/routing"
)

// ErrFounded is a table that has something, and so isn't founded anew.
var ErrFounded = errors.New("table is not empty")

// Bare reports whether a table, read as a whole, has had nothing but nodes: no agency, which
// is never removed, and no domain, fixed address or operation. A fresh node founds an empty
// table, whatever was in its place before; such a one can be filled from a copy all the same.
func Bare(u *routing.Update) bool {
	return len(u.Agencies)+len(u.Domains)+len(u.Fixed)+len(u.Operations) == 0
}

// MaxFounded is the number of records, of all kinds, with which a table can be founded.
const MaxFounded = 200_000

// Founder is a table that can be filled anew from a node's copy after it lost everything
// (docs/architecture/switch.md, node rule 10). Both drivers are founders.
type Founder interface {
	// Found fills a table that is empty, or [Bare] and not yet at the revision that this one
	// will have, all at once, or refuses: ErrFounded if there is another,
	// ErrNoMapping if a mapping that a record names is not among those given. It has the incarnation of the copy, stands one revision behind it, in
	// another term, and waits for all members to rejoin: to the nodes it is a table that
	// came back from a backup, and one that has seen more than the copy is behind. The
	// same foundation sent again gets the answer of the first time.
	Found(ctx context.Context, f Foundation) (routing.Position, error)
}

// Foundation is all that a table has again.
type Foundation struct {
	ID     string           // as that of a Change
	Source routing.Position // of the copy

	// Lineage is the copy's: the new table's history goes on from there.
	Lineage routing.Lineage

	// Term is above every one that is known, and better none that another foundation from
	// the same copy could have.
	Term uint32

	// Longest is the longest lease that a member may have from the time before.
	Longest time.Duration

	// The records; revisions are the table's. Members that aren't evicted are required.
	// Agencies have epochs of before this term, one above the copy's: had they any of this
	// term, they would hide what a node has seen and the copy lacks.
	Agencies   []routing.Agency
	Domains    []routing.Domain
	Fixed      []routing.Fixed
	Members    []routing.Member
	Operations []routing.Operation // that have not ended
	Freezes    []routing.Freeze
	Documents  []routing.Document
	Mappings   []*routing.Mapping // of the agencies that have one

	Who, What, Reason string
}

// Check reports what is wrong with f itself, by an error that wraps [ErrBadChange].
// Drivers call it first.
func (f *Foundation) Check() error {
	n := len(f.Agencies) + len(f.Domains) + len(f.Fixed) + len(f.Members) + len(f.Operations) + len(f.Freezes) + len(f.Documents)
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: foundation %s: %s", ErrBadChange, f.ID, fmt.Sprintf(format, args...))
	}
	switch {
	case len(f.ID) < 1 || len(f.ID) > MaxIDBytes:
		return fail("want an id of 1 to %d bytes", MaxIDBytes)
	case f.Source.Incarnation == "" || f.Source.Revision < 1 || f.Source.Mapped < 1 || f.Source.Mapped > f.Source.Revision || f.Source.Revision >= maxWhole-1:
		return fail("copy at revision %d, mapped %d, of table %q: want where a table once stood", f.Source.Revision, f.Source.Mapped, f.Source.Incarnation)
	case f.Term <= f.Source.Term:
		return fail("term %d: want one above the copy's, %d", f.Term, f.Source.Term)
	case f.Longest < 0:
		return fail("longest lease %s: want none below 0", f.Longest)
	case n > MaxFounded:
		return fail("%d records: want at most %d", n, MaxFounded)
	}
	for i := range f.Agencies {
		if f.Agencies[i].Epoch.Term >= f.Term {
			return fail("agency %s has epoch %s: want one before term %d", f.Agencies[i].ID, f.Agencies[i].Epoch, f.Term)
		}
	}
	return nil
}

// Change returns the foundation's records as a change, for drivers.
func (f *Foundation) Change() Change {
	return Change{
		ID: f.ID, Incarnation: f.Source.Incarnation, Mapped: f.Source.Mapped, Term: f.Term, Agencies: f.Agencies,
		Members: f.Members, Operations: f.Operations, Freezes: f.Freezes, Documents: f.Documents,
		Domains: f.Domains, Fixed: f.Fixed, Who: f.Who, What: f.What, Reason: f.Reason,
	}
}

// Position returns where the table stands after the foundation.
func (f *Foundation) Position() routing.Position {
	p := f.Source
	p.Revision++
	p.Mapped, p.Term = p.Revision, f.Term
	return p
}

// FoundedBook returns the book of a table that was just founded.
func FoundedBook(f *Foundation, server Server, now time.Time) *Book {
	b := NewBook(f.Source, server, now)
	b.Lineage, b.Longest, b.Rejoining = f.Lineage, f.Longest, true
	b.begin(now, f.Term, f.Source.Revision)
	b.Position = f.Position()
	for _, d := range f.Documents {
		b.NamesLost = b.NamesLost || d.Key == routing.NamesLost
	}
	for _, m := range f.Members {
		m.Revision = b.Position.Revision
		b.Members[m.Node] = m
	}
	return b
}
