package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"mailcutover/routing"
)

// ErrClosed is what a delivery gets that was decided before its agency's record changed,
// or that this node may no longer decide.
var ErrClosed = errors.New("agency is closing")

// ErrLapsed is the ErrClosed of a node that has not reached the table for longer than its
// lease, or gets no answer to a check: nothing is known of the agency.
var ErrLapsed = fmt.Errorf("%w: the right to decide has lapsed", ErrClosed)

// Source is the node's copy of the table.
type Source interface {
	// State returns the newest State; it is never nil.
	State() *routing.State
	// Fresh returns the moment before the table was last reached, and whether the copy
	// can be trusted at all.
	Fresh() (at time.Time, ok bool)
}

// Gate is this node's right to decide. Use [NewGate].
type Gate struct {
	source    Source
	rights    Rights
	separator string
	locks     atomic.Pointer[map[routing.AgencyID]struct{}] // of this node's own; nil: none
	resting   func() bool                                   // takes no new work; nil: never
	report    chan struct{}                                 // holds one token when there is something to report

	newsMu sync.Mutex
	news   chan struct{} // closed with the next news of any agency; nil: nobody waits for it

	mu       sync.RWMutex
	agencies map[routing.AgencyID]*agency
	unknown  time.Time // until then anything may be in doubt, from before the start
}

// agency has what is under way for one agency, fixed addresses under the empty id.
type agency struct {
	mu      sync.Mutex
	epoch   routing.Epoch // of the newest record seen; what is older may have no dot
	nonce   routing.Nonce
	armed   atomic.Bool          // that record is not settled
	lost    bool                 // that record doesn't follow one that was seen
	locked  bool                 // by this node itself: nothing may have a dot
	tickets map[*Ticket]struct{} // entered, no end yet
	doubts  map[*Ticket]time.Time
	changed chan struct{} // closed when the next ticket ends; nil: nobody waits for it
	news    chan struct{} // closed when an answer may have changed; nil: nobody waits for it
}

// NewGate returns a gate that decides by source, as far as rights goes. separator is that
// of sub-addressing, or empty. It has seen the State that source has now; call Update for
// every new one.
func NewGate(source Source, rights Rights, separator string) *Gate {
	g := &Gate{
		source: source, rights: rights, separator: separator,
		report: make(chan struct{}, 1), agencies: make(map[routing.AgencyID]*agency),
	}
	if r, ok := rights.(interface{ Draining() bool }); ok {
		g.resting = r.Draining
	}
	g.Update(routing.NewState(routing.Position{}), source.State())
	return g
}

// Address decides for a recipient.
func (g *Gate) Address(a routing.Address) routing.Decision {
	right := g.right()
	return g.allow(right, g.source.State().DecideAddress(a, g.separator))
}

// Absent returns nil only if it is certain at this moment that the table has no such address
// and, if foreign, doesn't serve its domain: before somebody is told so for good. A copy may be
// behind the table by a name that another node knows; so this node must have the right for
// armed agencies, and the table is asked, for 250 ms at most (docs/architecture/switch.md).
func (g *Gate) Absent(ctx context.Context, a routing.Address, foreign bool) error {
	if right := g.right(); !right.Armed || g.Resting() {
		return fmt.Errorf("deny %s: %w", a, ErrLapsed)
	}
	state := g.source.State()
	d := state.DecideAddress(a, g.separator)
	want := routing.ReasonNoSuchName
	if foreign {
		want = routing.ReasonForeign
	}
	if d.Reason != want {
		return fmt.Errorf("deny %s: %s", a, d.Explain())
	}
	if err := g.rights.Names(ctx, state.Position()); err != nil {
		return fmt.Errorf("deny %s: %w", a, err)
	}
	return nil
}

// Login decides for a login.
func (g *Gate) Login(l routing.Login) routing.Decision {
	return g.Decide(func(s *routing.State) routing.Decision { return s.DecideLogin(l) })
}

// Decide turns what by finds in one state of the table into a decision of this node.
func (g *Gate) Decide(by func(*routing.State) routing.Decision) routing.Decision {
	right := g.right()
	return g.allow(right, by(g.source.State()))
}

// Ready returns nil if this node may decide for settled agencies, else why not.
func (g *Gate) Ready() error {
	at, ok := g.source.Fresh()
	switch {
	case !ok:
		return errors.New("the copy of the table can't be trusted, or was not loaded yet")
	case g.Resting():
		return errMaintenance
	case !g.right().Settled:
		if k, ok := g.rights.(interface{ Ready() error }); ok {
			return k.Ready()
		}
		return fmt.Errorf("the table was last reached %s ago", time.Since(at).Round(time.Second))
	}
	return nil
}

func (g *Gate) agency(id routing.AgencyID) *agency {
	g.mu.RLock()
	a := g.agencies[id]
	g.mu.RUnlock()
	if a != nil {
		return a
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if a = g.agencies[id]; a == nil {
		a = &agency{
			tickets: make(map[*Ticket]struct{}),
			doubts:  make(map[*Ticket]time.Time),
		}
		if time.Now().Before(g.unknown) {
			a.doubts[&Ticket{gate: g, agency: a}] = g.unknown
		}
		g.agencies[id] = a
	}
	return a
}

// Update takes note of a new State: what was decided for an agency in an older epoch
// and has no dot yet is cut, and so is every session of a login. It returns after that,
// and doesn't wait for dots. It may be called more than once for a State, and for one that
// is not in force yet: what it closes is closed.
func (g *Gate) Update(old, current *routing.State) {
	changed := old.Position().Term != current.Position().Term
	for _, rec := range current.Agencies() {
		armed := rec.Tightness != routing.Settled
		_, lost := current.Seen(rec.ID)
		if was, ok := old.Agency(rec.ID); ok && was.Epoch == rec.Epoch && was.Nonce == rec.Nonce && armed == (was.Tightness != routing.Settled) {
			if _, before := old.Seen(rec.ID); before == lost {
				continue
			}
		}
		changed = true
		a := g.agency(rec.ID)
		a.mu.Lock()
		a.epoch, a.nonce, a.lost = rec.Epoch, rec.Nonce, lost
		a.armed.Store(armed)
		cut := a.cutStale()
		a.tell()
		a.mu.Unlock()
		for _, f := range cut {
			f()
		}
	}
	if changed {
		g.wake()
		g.tell()
	}
}

// cutStale returns how to cut what may not go on. a.mu is held.
func (a *agency) cutStale() (cut []func()) {
	for t := range a.tickets {
		if a.current(t) {
			continue
		}
		t.stopped.Store(true)
		if (!t.dotted || t.session) && t.cut != nil {
			cut = append(cut, t.cut)
			t.cut = nil
		}
	}
	return cut
}

// current reports whether t was decided from the newest record seen, or from a newer
// one, which a decision may see a moment before Update does. a.mu is held.
func (a *agency) current(t *Ticket) bool {
	if t.fixed {
		return true
	}
	if a.locked || a.lost {
		return false
	}
	switch t.epoch.Compare(a.epoch) {
	case 0:
		return t.nonce == a.nonce
	case 1:
		return true
	default:
		return false
	}
}

// setLocks makes these agencies the ones that this node itself has locked.
func (g *Gate) setLocks(ids map[routing.AgencyID]struct{}) {
	var old map[routing.AgencyID]struct{}
	if p := g.locks.Load(); p != nil {
		old = *p
	}
	now := maps.Clone(ids)
	if len(now) == 0 {
		g.locks.Store(nil)
	} else {
		g.locks.Store(&now)
	}
	set := func(id routing.AgencyID, locked bool) {
		a := g.agency(id)
		a.mu.Lock()
		a.locked = locked
		cut := a.cutStale()
		a.tell()
		a.mu.Unlock()
		for _, f := range cut {
			f()
		}
	}
	for id := range now {
		set(id, true)
	}
	for id := range old {
		if _, still := now[id]; !still {
			set(id, false)
		}
	}
	g.tell()
}

// wake says that there is something to report.
func (g *Gate) wake() {
	select {
	case g.report <- struct{}{}:
	default:
	}
}
