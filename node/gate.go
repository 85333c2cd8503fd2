package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"mailcutover/routing"
)

// ErrClosed is what a delivery gets that was decided before its agency's record changed,
// or that this node may no longer decide.
var ErrClosed = errors.New("agency is closing")

// ErrLapsed is the ErrClosed of a node that has not reached the table for longer than its
// lease: nothing is known of the agency.
var ErrLapsed = fmt.Errorf("%w: the right to decide has lapsed", ErrClosed)

// Source is the node's copy of the table.
type Source interface {
	// State returns the newest State; it is never nil.
	State() *routing.State
	// Fresh returns the moment before the table was last reached, and whether the copy
	// can be trusted at all.
	Fresh() (at time.Time, ok bool)
}

// Lease says for how long this node may decide after the table was last reached.
type Lease struct {
	Settled time.Duration // for settled agencies, and fixed addresses
	Armed   time.Duration // for armed agencies
	Margin  time.Duration // subtracted from both: the time between a decision and its effect
}

// Gate is this node's right to decide. Use [NewGate].
type Gate struct {
	source    Source
	lease     Lease
	separator string

	mu       sync.RWMutex
	agencies map[routing.AgencyID]*agency
	unknown  time.Time // until then anything may be in doubt, from before the start
}

// agency has what is under way for one agency, fixed addresses under the empty id.
type agency struct {
	mu      sync.Mutex
	epoch   routing.Epoch // of the newest record seen; what is older may have no dot
	nonce   routing.Nonce
	tickets map[*Ticket]struct{} // entered, no end yet
	doubts  map[*Ticket]time.Time
	changed chan struct{} // closed when the next ticket ends; nil: nobody waits for it
}

// NewGate returns a gate that decides by source. separator is that of sub-addressing,
// or empty. Call Update for every new State.
func NewGate(source Source, lease Lease, separator string) *Gate {
	return &Gate{source: source, lease: lease, separator: separator, agencies: make(map[routing.AgencyID]*agency)}
}

// Address decides for a recipient.
func (g *Gate) Address(a routing.Address) routing.Decision {
	right := g.right()
	return right.allow(g.source.State().DecideAddress(a, g.separator))
}

// Login decides for a login.
func (g *Gate) Login(l routing.Login) routing.Decision {
	right := g.right()
	return right.allow(g.source.State().DecideLogin(l))
}

// right is what this node may decide for at one moment. It is taken before the State is
// read, so that it never speaks for a State that is older than it.
type right struct{ settled, armed bool }

// right compares on the monotonic clock.
func (g *Gate) right() right {
	at, ok := g.source.Fresh()
	if !ok {
		return right{}
	}
	age := time.Since(at) + g.lease.Margin
	return right{settled: age < g.lease.Settled, armed: age < g.lease.Armed}
}

// allow turns a decision into "table can't be used" where the right to make it is gone.
func (r right) allow(d routing.Decision) routing.Decision {
	if !r.covers(d.Armed) {
		return routing.Decision{Reason: routing.ReasonTableUnavail}
	}
	return d
}

func (r right) covers(armed bool) bool {
	if armed {
		return r.armed
	}
	return r.settled
}

// Ready returns nil if this node may decide for settled agencies, else why not.
func (g *Gate) Ready() error {
	at, ok := g.source.Fresh()
	switch {
	case !ok:
		return errors.New("the copy of the table can't be trusted, or was not loaded yet")
	case !g.right().settled:
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
// and has no dot yet is cut. It returns after that, and doesn't wait for dots.
func (g *Gate) Update(old, current *routing.State) {
	for _, rec := range current.Agencies() {
		if was, ok := old.Agency(rec.ID); ok && was.Epoch == rec.Epoch && was.Nonce == rec.Nonce {
			continue
		}
		a := g.agency(rec.ID)
		a.mu.Lock()
		a.epoch, a.nonce = rec.Epoch, rec.Nonce
		var cut []func()
		for t := range a.tickets {
			if !t.dotted && !a.current(t) && t.cut != nil {
				cut = append(cut, t.cut)
				t.cut = nil
			}
		}
		a.mu.Unlock()
		for _, f := range cut {
			f()
		}
	}
}

// current reports whether t was decided from the newest record seen, or from a newer
// one, which a decision may see a moment before Update does. a.mu is held.
func (a *agency) current(t *Ticket) bool {
	switch t.epoch.Compare(a.epoch) {
	case 0:
		return t.nonce == a.nonce
	case 1:
		return true
	default:
		return false
	}
}

// Ticket is one delivery, or one login, under way. Its methods are called by one
// goroutine, in the order Dot, Acknowledge or InDoubt, and at last End.
type Ticket struct {
	gate   *Gate
	agency *agency
	epoch  routing.Epoch
	nonce  routing.Nonce
	armed  bool
	fixed  bool
	cut    func()
	dotted bool
}

// Enter registers a delivery under d, which must be one to deliver. cut is called at
// most once, by another goroutine, when the agency's record changes before the dot; it
// must not block. ErrClosed if that has already happened.
func (g *Gate) Enter(d *routing.Decision, cut func()) (*Ticket, error) {
	if !d.Deliver() {
		return nil, fmt.Errorf("enter %s: %w: %s", d.Agency, ErrClosed, d.Reason)
	}
	t := &Ticket{gate: g, agency: g.agency(d.Agency), epoch: d.Epoch, nonce: d.Nonce, armed: d.Armed, fixed: d.Reason == routing.ReasonFixed, cut: cut}
	a := t.agency
	a.mu.Lock()
	defer a.mu.Unlock()
	if !t.fixed && !a.current(t) {
		return nil, fmt.Errorf("enter %s: %w: decided in epoch %s, now %s", d.Agency, ErrClosed, d.Epoch, a.epoch)
	}
	a.tickets[t] = struct{}{}
	return t, nil
}

// Dot is the last question before the final dot, which must follow at once. After nil
// the drain waits for this ticket; after ErrClosed no dot may be sent.
func (t *Ticket) Dot(_ context.Context) error {
	if !t.gate.right().covers(t.armed) {
		return fmt.Errorf("before the dot: %w", ErrLapsed)
	}
	t.agency.mu.Lock()
	defer t.agency.mu.Unlock()
	if !t.fixed && !t.agency.current(t) {
		return fmt.Errorf("before the dot: %w: decided in epoch %s, now %s", ErrClosed, t.epoch, t.agency.epoch)
	}
	t.dotted = true
	t.cut = nil
	return nil
}

// Acknowledge reports whether a platform's 250 may be passed on: if the right to decide
// is still there. If not, the peer gets a temporary answer, and the copy is a possible
// duplicate (docs/architecture/switch.md, node rule 4).
func (t *Ticket) Acknowledge() error {
	if !t.gate.right().covers(t.armed) {
		return fmt.Errorf("after the dot: %w", ErrLapsed)
	}
	return nil
}

// InDoubt says that the answer to the dot was lost: the agency isn't drained before
// until. It ends the ticket.
func (t *Ticket) InDoubt(until time.Time) {
	a := t.agency
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.tickets, t)
	a.doubts[t] = until
	a.signal()
}

// End says that nothing of this ticket is under way any more. It may be called again.
func (t *Ticket) End() {
	a := t.agency
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.tickets[t]; ok {
		delete(a.tickets, t)
		a.signal()
	}
}

func (a *agency) signal() {
	if a.changed != nil {
		close(a.changed)
		a.changed = nil
	}
}

// Remember notes a message that was in doubt when this node's process ended: it may
// still arrive until then, under a decision of that epoch. It is called before Run of
// whatever delivers, for each agency concerned.
func (g *Gate) Remember(id routing.AgencyID, epoch routing.Epoch, until time.Time) {
	a := g.agency(id)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.doubts[&Ticket{gate: g, agency: a, epoch: epoch}] = until
}

// RememberAny notes that for any agency messages may be in doubt: the record of what was
// under way when this node's process ended is not complete.
func (g *Gate) RememberAny(until time.Time) {
	g.mu.Lock()
	g.unknown = until
	known := slices.Collect(maps.Keys(g.agencies))
	g.mu.Unlock()
	for _, id := range known {
		g.Remember(id, routing.Epoch{}, until)
	}
}

// Load says what is under way for an agency.
type Load struct {
	Open    int // entered, without a dot
	Dotted  int // dot sent, answer awaited
	InDoubt int // dot sent, answer lost, the platform's limit not yet passed
}

// Load returns what is under way for an agency now.
func (g *Gate) Load(id routing.AgencyID) Load {
	a := g.agency(id)
	a.mu.Lock()
	defer a.mu.Unlock()
	l, _ := a.load(func(*Ticket) bool { return true })
	return l
}

// load counts the tickets that match, and returns the time at which the last doubt ends.
// a.mu is held.
func (a *agency) load(match func(*Ticket) bool) (l Load, last time.Time) {
	for t := range a.tickets {
		switch {
		case !match(t):
		case t.dotted:
			l.Dotted++
		default:
			l.Open++
		}
	}
	now := time.Now()
	for t, until := range a.doubts {
		if !now.Before(until) {
			delete(a.doubts, t)
		} else if match(t) {
			l.InDoubt++
			if until.After(last) {
				last = until
			}
		}
	}
	return l, last
}

// InDoubt returns the time until which a message of the agency is in doubt: it can't be
// drained before. Zero: none is.
func (g *Gate) InDoubt(id routing.AgencyID) time.Time {
	a := g.agency(id)
	a.mu.Lock()
	defer a.mu.Unlock()
	_, last := a.load(func(*Ticket) bool { return true })
	return last
}

// Drain returns nil once nothing that was decided for the agency before epoch can reach
// a platform any more: no dot is awaited, none is in doubt, and what had no dot can get
// none. The gate must have seen the record of that epoch. It tells progress, if not nil,
// what it still waits for. On the context's end it returns an error that says so.
func (g *Gate) Drain(ctx context.Context, id routing.AgencyID, epoch routing.Epoch, progress func(Load)) error {
	a := g.agency(id)
	old := func(t *Ticket) bool { return t.epoch.Compare(epoch) < 0 }
	for {
		a.mu.Lock()
		if a.changed == nil {
			a.changed = make(chan struct{})
		}
		seen, changed := a.epoch, a.changed
		l, until := a.load(old)
		a.mu.Unlock()
		if seen.Compare(epoch) < 0 {
			return fmt.Errorf("drain %s: this node has seen epoch %s, not yet %s", id, seen, epoch)
		}
		if progress != nil {
			progress(l)
		}
		if l.Dotted == 0 && l.InDoubt == 0 {
			return nil
		}
		var doubtEnds <-chan time.Time
		if l.InDoubt > 0 {
			timer := time.NewTimer(time.Until(until))
			defer timer.Stop()
			doubtEnds = timer.C
		}
		select {
		case <-changed:
		case <-doubtEnds:
		case <-ctx.Done():
			doubts := "none in doubt"
			if l.InDoubt > 0 {
				doubts = fmt.Sprintf("%d in doubt until %s", l.InDoubt, until.Format(time.RFC3339))
			}
			return fmt.Errorf("drain %s: %w: %d dots awaited, %s", id, context.Cause(ctx), l.Dotted, doubts)
		}
	}
}
