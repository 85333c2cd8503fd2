package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

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
	Dotted  int // dot sent, answer awaited; or a login's session
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

// Drained returns each agency that isn't both settled and open, with its record's epoch,
// of which nothing older can reach a platform any more: no dot of an older decision is
// awaited, none is in doubt, and what had no dot can get none. It goes by the State in
// force, whose marks are durable. An agency whose record doesn't follow one that was seen
// isn't among them.
func (g *Gate) Drained() []table.AgencyEpoch {
	var drained []table.AgencyEpoch
	state := g.source.State()
	for _, rec := range state.Agencies() {
		if _, lost := state.Seen(rec.ID); lost || rec.Tightness == routing.Settled && rec.Open() {
			continue
		}
		a := g.agency(rec.ID)
		a.mu.Lock()
		// An epoch above the State's is on its way to it; what it cut, it cut for both.
		l, _ := a.load(func(t *Ticket) bool { return t.epoch.Compare(rec.Epoch) < 0 })
		if a.epoch.Compare(rec.Epoch) >= 0 && l.Dotted == 0 && l.InDoubt == 0 {
			drained = append(drained, table.AgencyEpoch{Agency: rec.ID, Epoch: rec.Epoch})
		}
		a.mu.Unlock()
	}
	return drained
}

// Doubts returns the agencies with messages in doubt, by id, fixed addresses left out.
func (g *Gate) Doubts() []table.Doubt {
	g.mu.RLock()
	known := maps.Clone(g.agencies)
	g.mu.RUnlock()
	var doubts []table.Doubt
	for _, id := range slices.Sorted(maps.Keys(known)) {
		a := known[id]
		a.mu.Lock()
		l, until := a.load(func(*Ticket) bool { return true })
		a.mu.Unlock()
		if l.InDoubt > 0 && id != "" {
			doubts = append(doubts, table.Doubt{Agency: id, Messages: l.InDoubt, Until: until})
		}
	}
	return doubts
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

// dotted returns how many dots are awaited and sessions open, in all.
func (g *Gate) dotted() int {
	_, n := g.underWay()
	return n
}

// underWay returns how many tickets have no dot yet, and how many have one or a session.
func (g *Gate) underWay() (open, dotted int) {
	g.mu.RLock()
	known := maps.Clone(g.agencies)
	g.mu.RUnlock()
	for _, a := range known {
		a.mu.Lock()
		l, _ := a.load(func(*Ticket) bool { return true })
		a.mu.Unlock()
		open += l.Open
		dotted += l.Dotted
	}
	return open, dotted
}
