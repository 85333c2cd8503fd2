package table

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/routing"
)

// MayChange reports what keeps a change from happening as far as nodes are concerned:
// ErrIncarnation, ErrRejoining, ErrTerm or ErrGuard. The records are the driver's to
// compare, before this; current returns those of agencies, frozen whether operations of
// an agency may not begin.
func (b *Book) MayChange(now time.Time, server Server, c *Change, current func(routing.AgencyID) (routing.Agency, bool), frozen func(routing.AgencyID) bool) error {
	if err := b.inTerm(server, c); err != nil {
		return err
	}
	for i := range c.Agencies {
		a := &c.Agencies[i]
		if was, ok := current(a.ID); (!ok || was.Epoch != a.Epoch) && a.Epoch.Term != c.Term {
			return fmt.Errorf("%w: the table is in term %d, the new epoch of agency %s is %s", ErrTerm, b.Position.Term, a.ID, a.Epoch)
		}
	}
	for i := range c.Agencies {
		a := &c.Agencies[i]
		if above, ok := b.Above[a.ID]; ok && !(c.Guard.Rejoining && a.Epoch.Number > above.Epoch.Number) {
			return fmt.Errorf("%w: nodes have seen agency %s at epoch %s, which the table lost: it has to be reconciled", ErrGuard, a.ID, above.Epoch)
		}
	}
	for i := range c.Members {
		if err := b.mayBecome(now, c, &c.Members[i]); err != nil {
			return err
		}
	}
	return b.guard(now, c, frozen)
}

// inTerm compares server and term.
func (b *Book) inTerm(server Server, c *Change) error {
	switch {
	case b.Moved(server):
		return fmt.Errorf("%w: no node has renewed with this server", ErrRejoining)
	case b.Rejoining && !c.Guard.Rejoining && !c.Guard.EndRejoin:
		return ErrRejoining
	case c.Term > b.Position.Term && c.Guard.EndRejoin:
		return nil
	case c.Term != b.Position.Term:
		return fmt.Errorf("%w: %d, the change was computed in %d", ErrTerm, b.Position.Term, c.Term)
	}
	return nil
}

// mayBecome says whether a member's record may become this one.
func (b *Book) mayBecome(now time.Time, c *Change, m *routing.Member) error {
	was, ok := b.Members[m.Node]
	switch {
	case !ok:
		return fmt.Errorf("%w: node %s is no member: it joins by a renewal", ErrGuard, m.Node)
	case was.Revision != m.Revision:
		return fmt.Errorf("node %s: %w: revision %d, the change is computed from %d", m.Node, ErrStale, was.Revision, m.Revision)
	case was.Instance != m.Instance:
		return fmt.Errorf("%w: only node %s itself takes another instance", ErrGuard, m.Node)
	case was.Evicted && !m.Evicted:
		return fmt.Errorf("%w: node %s is evicted: it comes back as another instance", ErrGuard, m.Node)
	case was.Evicted || !m.Evicted:
		return nil
	}
	was.Attested = m.Attested // both at once
	f := c.Guard.fence(m.Node)
	if f == nil || f.Kind == FenceShort || !b.holds(now, f, &was, 0) {
		return fmt.Errorf("%w: node %s is to be evicted without a fence", ErrGuard, m.Node)
	}
	return nil
}

func (g *Guard) fence(node routing.NodeID) *Fence {
	if i := slices.IndexFunc(g.Fenced, func(f Fence) bool { return f.Node == node }); i >= 0 {
		return &g.Fenced[i]
	}
	return nil
}

// base is the revision whose knowledge makes a short fence count.
func (g *Guard) base() routing.Revision { return cmp.Or(g.Base, g.Applied) }

// guard looks at the conditions of c.Guard.
func (b *Book) guard(now time.Time, c *Change, frozen func(routing.AgencyID) bool) error {
	g := &c.Guard
	for _, id := range g.Unfrozen {
		if frozen(id) {
			return fmt.Errorf("%w: agency %s is frozen", ErrGuard, id)
		}
	}
	for _, m := range b.members() {
		if m.Evicted {
			continue
		}
		if g.Protocol != 0 && m.Protocol != g.Protocol {
			return fmt.Errorf("%w: node %s has protocol %d, want %d", ErrGuard, m.Node, m.Protocol, g.Protocol)
		}
		if len(g.Drained) == 0 && g.Applied == 0 {
			continue
		}
		missing := b.missing(&m, g)
		if missing == "" {
			continue
		}
		if f := g.fence(m.Node); f == nil || !b.holds(now, f, &m, g.base()) {
			return fmt.Errorf("%w: node %s %s", ErrGuard, m.Node, missing)
		}
	}
	return nil
}

// missing says what a member has not reported yet; empty: nothing.
func (b *Book) missing(m *routing.Member, g *Guard) string {
	l, ok := b.Leases[m.Node]
	if !ok || l.Taken != b.Position.Term || l.Instance != m.Instance {
		return "has not renewed with this server"
	}
	for _, d := range g.Drained {
		if e, ok := l.Drained[d.Agency]; !ok || e.Compare(d.Epoch) < 0 {
			return fmt.Sprintf("has not drained agency %s at epoch %s", d.Agency, d.Epoch)
		}
	}
	if len(g.Drained) == 0 && !b.applied(&l, g.Applied) {
		return fmt.Sprintf("has not applied revision %d", g.Applied)
	}
	return ""
}

func (b *Book) applied(l *LeaseRecord, rev routing.Revision) bool {
	return l.Term == b.Position.Term && l.Applied >= rev
}

// holds reports whether a fence of m holds at the moment now. base is the revision that
// makes a short one count.
func (b *Book) holds(now time.Time, f *Fence, m *routing.Member, base routing.Revision) bool {
	if f.Instance != m.Instance {
		return false
	}
	if f.Kind == FenceAttested {
		return m.Attested == m.Instance
	}
	l := b.Leases[m.Node]
	if l.Counter != f.Counter || l.Counter != 0 && l.Instance != m.Instance {
		return false
	}
	switch f.Kind {
	case FenceShort:
		return now.After(b.shortEnd(&l)) && (l.ShortEnd.IsZero() && l.Taken == b.Position.Term || b.applied(&l, base))
	case FenceLong:
		return now.After(b.longEnd(&l)) && b.proves(&l, m)
	}
	return false
}

// proves reports whether the end of a member's long lease proves anything: the clock of a
// machine that was stopped may have stood still, and the node go on after it. Who gave the
// lease up doesn't.
func (b *Book) proves(l *LeaseRecord, m *routing.Member) bool { return m.ClockRuns || b.gaveUp(l) }

func (b *Book) gaveUp(l *LeaseRecord) bool { return l.GivenUp() && l.Taken == b.Position.Term }

// Changed takes note of a change that happened, as the revision that Position has now.
func (b *Book) Changed(now time.Time, c *Change) {
	if c.Term > b.Position.Term {
		b.begin(now, c.Term, b.Position.Revision-1)
	}
	if c.Guard.EndRejoin {
		b.Rejoining = false
	}
	for _, m := range c.Members {
		m.Revision = b.Position.Revision
		b.Members[m.Node] = m
	}
	for i := range c.Documents {
		if c.Documents[i].Key == routing.NamesLost {
			b.NamesLost = !c.Documents[i].Removed
		}
	}
	for i := range c.Agencies {
		if above, ok := b.Above[c.Agencies[i].ID]; ok && c.Agencies[i].Epoch.Compare(above.Epoch) > 0 {
			delete(b.Above, c.Agencies[i].ID)
		}
	}
}

// members returns the members by name.
func (b *Book) members() []routing.Member {
	var all []routing.Member
	for _, m := range b.Members {
		all = append(all, m)
	}
	SortMembers(all)
	return all
}

// SortMembers sorts by name.
func SortMembers(m []routing.Member) {
	slices.SortFunc(m, func(a, b routing.Member) int { return strings.Compare(string(a.Node), string(b.Node)) })
}

// SortOperations sorts the newest first.
func SortOperations(o []routing.Operation) {
	slices.SortFunc(o, func(a, b routing.Operation) int {
		return cmp.Or(b.Started.Compare(a.Started), cmp.Compare(b.Revision, a.Revision), strings.Compare(string(a.ID), string(b.ID)))
	})
}

// NoteID is the id of the log entry that a renewal made.
func NoteID(pos routing.Position) string { return fmt.Sprintf("renewal/%d", pos.Revision) }

// KeptOperations is the number of operations that ended and that a table remembers.
const KeptOperations = 1000
