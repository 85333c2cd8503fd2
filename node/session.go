package node

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// sessionLives are the two lives of the right in which a session was allowed to flow: if its agency
// is armed later, that for armed agencies counts.
type sessionLives struct{ settled, armed atomic.Uint64 }

func (l *sessionLives) set(r *Right) {
	l.settled.Store(r.SettledLife)
	l.armed.Store(r.ArmedLife)
}

// Flows says whether bytes of the session may flow now. It is asked before each piece that is
// passed on: a process that was stopped, and goes on, knows nothing else of the time in between.
// [ErrLapsed]: not now, and perhaps again after [Ticket.Resume]. [ErrClosed] alone: never
// again, since the agency's record has changed. It neither waits, locks nor allocates.
func (t *Ticket) Flows() error {
	right := t.gate.right() // first, so that it doesn't speak for a change that came after
	if t.stopped.Load() {
		return ErrClosed
	}
	if !t.lives.cover(&right, t.underArmed()) {
		return ErrLapsed
	}
	return nil
}

// underArmed reports whether the right for armed agencies is the one that counts now.
func (t *Ticket) underArmed() bool { return t.agency.armed.Load() && !t.fixed }

// cover reports whether right is there, and has been since it was set.
func (l *sessionLives) cover(right *Right, armed bool) bool {
	since := &l.settled
	if armed {
		since = &l.armed
	}
	return right.covers(armed) && right.life(armed) == since.Load()
}

// Resume asks anew for a session that has lapsed, as Open did: the right, the record, and for
// an armed agency the table. After nil its bytes may flow again, since the record is the one
// that it was decided from. [ErrLapsed]: not yet; [Gate.News] tells when it is worth another
// try. [ErrClosed] alone: never again.
func (t *Ticket) Resume(ctx context.Context) error {
	armed := t.underArmed()
	right := t.gate.right()
	if err := t.resumable(&right, armed); err != nil {
		return err
	}
	if armed {
		switch err := t.gate.rights.Check(ctx, table.AgencyEpoch{Agency: t.id, Epoch: t.epoch}); {
		case errors.Is(err, table.ErrStale):
			return fmt.Errorf("resume a session: %w: %w", ErrClosed, err)
		case err != nil:
			return fmt.Errorf("resume a session: %w: %w", ErrLapsed, err)
		}
		right = t.gate.right()
	}
	if err := t.resumable(&right, armed); err != nil {
		return err
	}
	t.lives.set(&right)
	return nil
}

func (t *Ticket) resumable(right *Right, armed bool) error {
	t.agency.mu.Lock()
	defer t.agency.mu.Unlock()
	switch {
	case t.stopped.Load() || !t.agency.current(t):
		return fmt.Errorf("resume a session: %w", t.stale())
	case !right.covers(armed):
		return fmt.Errorf("resume a session: %w", ErrLapsed)
	}
	return nil
}

// News returns a channel that is closed when the answer for this agency's names may have
// changed: its record, a lock of this node, or the right to decide, when that begins anew or
// maintenance begins or ends. The empty id stands for all agencies. Who waits takes the
// channel first and decides then, so that nothing is missed. A channel may be closed a moment
// before the change is in force; then another one is closed after it.
func (g *Gate) News(id routing.AgencyID) <-chan struct{} {
	if id == "" {
		g.newsMu.Lock()
		defer g.newsMu.Unlock()
		if g.news == nil {
			g.news = make(chan struct{})
		}
		return g.news
	}
	a := g.agency(id)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.news == nil {
		a.news = make(chan struct{})
	}
	return a.news
}

// tell wakes those who wait for news of the agency. Its mu is held.
func (a *agency) tell() {
	if a.news != nil {
		close(a.news)
		a.news = nil
	}
}

// tell wakes those who wait for news of any agency.
func (g *Gate) tell() {
	g.newsMu.Lock()
	defer g.newsMu.Unlock()
	if g.news != nil {
		close(g.news)
		g.news = nil
	}
}

// tellAll wakes all who wait: the right to decide is another one.
func (g *Gate) tellAll() {
	g.mu.RLock()
	known := make([]*agency, 0, len(g.agencies))
	for _, a := range g.agencies {
		known = append(known, a)
	}
	g.mu.RUnlock()
	for _, a := range known {
		a.mu.Lock()
		a.tell()
		a.mu.Unlock()
	}
	g.tell()
}

// Resting reports whether people have taken this node out for maintenance: nothing new is
// decided, and what is under way is to end.
func (g *Gate) Resting() bool { return g.resting != nil && g.resting() }
