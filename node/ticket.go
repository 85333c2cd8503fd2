package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Ticket is one delivery, or one login, under way. Its methods are called by one
// goroutine: for a delivery in the order Dot, Acknowledge or InDoubt, and at last End; for
// a login in the order Open, Acknowledge, and End. After Open Flows may be called by any
// goroutine at any time, and Resume and End by any, one at a time.
type Ticket struct {
	gate    *Gate
	agency  *agency
	id      routing.AgencyID
	epoch   routing.Epoch
	nonce   routing.Nonce
	armed   bool
	fixed   bool
	cut     func()
	dotted  bool   // or open, for a login
	session bool   // of a login: cut even if open
	checked bool   // the right of the dot was that for armed agencies
	life    uint64 // of the right, at the dot

	stopped atomic.Bool  // not current any more, and never again
	lives   sessionLives // of the right in which a session's bytes may flow
}

// Enter registers a delivery under d, which must be one to deliver. cut is called at
// most once, by another goroutine, when the agency's record changes before the dot; it
// must not block. ErrClosed if that has already happened.
func (g *Gate) Enter(d *routing.Decision, cut func()) (*Ticket, error) {
	if !d.Deliver() {
		return nil, fmt.Errorf("enter %s: %w: %s", d.Agency, ErrClosed, d.Reason)
	}
	t := &Ticket{
		gate: g, agency: g.agency(d.Agency), id: d.Agency, epoch: d.Epoch, nonce: d.Nonce,
		armed: d.Armed, fixed: d.Reason == routing.ReasonFixed, cut: cut,
	}
	a := t.agency
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.current(t) {
		return nil, fmt.Errorf("enter %s: %w", d.Agency, t.stale())
	}
	a.tickets[t] = struct{}{}
	return t, nil
}

// stale says why the ticket is not current. Its agency's mu is held.
func (t *Ticket) stale() error {
	switch {
	case t.agency.locked:
		return fmt.Errorf("%w: locked on this node", ErrClosed)
	case t.agency.lost:
		return fmt.Errorf("%w: its record is older than one that was seen", ErrClosed)
	}
	return fmt.Errorf("%w: decided in epoch %s, now %s", ErrClosed, t.epoch, t.agency.epoch)
}

// Dot is the last question before the final dot, which must follow at once. After nil
// the drain waits for this ticket; after ErrClosed no dot may be sent. For an armed agency
// the table is asked, for 250 ms at most.
func (t *Ticket) Dot(ctx context.Context) error {
	if err := t.gate.last(ctx, t); err != nil {
		return fmt.Errorf("before the dot: %w", err)
	}
	return nil
}

// Dots is Dot for all tickets of one message, which are of one gate, with one question to
// the table. After an error none of them has a dot.
func Dots(ctx context.Context, tickets ...*Ticket) error {
	if len(tickets) == 0 {
		return nil
	}
	if err := tickets[0].gate.last(ctx, tickets...); err != nil {
		return fmt.Errorf("before the dot: %w", err)
	}
	return nil
}

// Open is the last question before a login's session begins on its platform. After nil
// the drain waits for the End of this ticket, and cut is still called when the agency's
// record changes (docs/architecture/switch.md, node rule 6); after ErrClosed no session
// may begin. For an armed agency the table is asked as by Dot.
func (t *Ticket) Open(ctx context.Context) error {
	t.session = true
	if err := t.gate.last(ctx, t); err != nil {
		t.session = false
		return fmt.Errorf("before the login: %w", err)
	}
	return nil
}

// last asks whether these tickets may have their effect, and makes the drain wait for
// them: the own right and the records seen, for armed agencies the table, and, since that
// took its time, the own right and the records again.
func (g *Gate) last(ctx context.Context, tickets ...*Ticket) error {
	var asked []table.AgencyEpoch
	right := g.right()
	for _, t := range tickets {
		a := t.agency
		a.mu.Lock()
		t.checked = t.armed || a.armed.Load() && !t.fixed
		covered, current := right.covers(t.checked), a.current(t)
		err := ErrLapsed
		if covered && !current {
			err = t.stale()
		}
		a.mu.Unlock()
		if !covered || !current {
			return err
		}
		if v := (table.AgencyEpoch{Agency: t.id, Epoch: t.epoch}); t.checked && !slices.Contains(asked, v) {
			asked = append(asked, v)
		}
	}
	if len(asked) > 0 {
		switch err := g.rights.Check(ctx, asked...); {
		case errors.Is(err, table.ErrStale):
			return fmt.Errorf("%w: %w", ErrClosed, err)
		case err != nil:
			return fmt.Errorf("%w: %w", ErrLapsed, err)
		}
		right = g.right()
	}
	for i, t := range tickets {
		if err := t.dot(&right); err != nil {
			for _, before := range tickets[:i] {
				before.undot()
			}
			return err
		}
	}
	return nil
}

// dot makes the drain wait for the ticket, if it still may have its effect.
func (t *Ticket) dot(right *Right) error {
	a := t.agency
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case !right.covers(t.checked):
		return ErrLapsed
	case !a.current(t):
		return t.stale()
	}
	t.dotted, t.life = true, right.life(t.checked)
	t.lives.set(right)
	if !t.session {
		t.cut = nil
	}
	return nil
}

// undot takes back what dot did: another recipient of the message may not have it.
func (t *Ticket) undot() {
	a := t.agency
	a.mu.Lock()
	defer a.mu.Unlock()
	t.dotted = false
	t.ended()
}

// Acknowledge reports whether a platform's 250 may be passed on: if the right to decide
// is still there, and was all the time since the dot. If not, the peer gets a temporary
// answer, and the copy is a possible duplicate (docs/architecture/switch.md, node rule 4).
//
// For a login it reports whether the right was there all the time since Open, or Resume,
// whatever became of the record: what the platform answered, and a submission that is being
// ended, may still be passed on then, since the drain waits for this ticket.
func (t *Ticket) Acknowledge() error {
	right := t.gate.right()
	if t.session {
		if !t.lives.cover(&right, t.underArmed()) {
			return fmt.Errorf("after the login: %w", ErrLapsed)
		}
		return nil
	}
	if !right.covers(t.checked) || right.life(t.checked) != t.life {
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
	t.gate.wake()
}

// End says that nothing of this ticket is under way any more. It may be called again.
func (t *Ticket) End() {
	a := t.agency
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.tickets[t]; ok {
		delete(a.tickets, t)
		t.ended()
	}
}

// ended tells those who wait for the ticket. Its agency's mu is held.
func (t *Ticket) ended() {
	t.agency.signal()
	if !t.fixed && t.epoch.Compare(t.agency.epoch) < 0 {
		t.gate.wake()
	}
}

func (a *agency) signal() {
	if a.changed != nil {
		close(a.changed)
		a.changed = nil
	}
}
