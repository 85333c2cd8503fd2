package node

import (
	"errors"
	"time"

	"mailcutover/routing/table"
)

// errMaintenance is why a node that people are draining takes no new work.
var errMaintenance = errors.New("people have taken this node out for maintenance; mailcutover node drain --end lets it work again")

// maintenance is how far a node is that people have taken out. It is used by Run's
// goroutine.
type maintenance struct {
	dropped bool // nothing was under way at the last look, and the right was dropped then
	given   bool // the lease is given up
}

// Draining reports whether people have taken this node out for maintenance: it begins
// nothing new, ends what is under way, and then gives its lease up.
func (k *Keeper) Draining() bool { return k.draining.Load() }

// maintain looks whether this node is to rest, and whether it may.
func (k *Keeper) maintain() {
	m, _ := k.o.Replica.State().Member(k.o.Node)
	if was := k.draining.Swap(m.Draining); was != m.Draining {
		k.rest = maintenance{}
		k.o.Logger.Info("maintenance of this node", "node", k.o.Node, "draining", m.Draining)
		k.gate.tellAll()
	}
	if !m.Draining {
		return
	}
	open, dotted := k.gate.underWay()
	switch {
	case k.rest.dropped && dotted == 0:
		// Whatever had its last look before the right went shows by now.
		k.rest.given = true
	case open+dotted == 0:
		k.drop()
		k.rest.dropped = true
	}
}

// surrendered turns a renewal into one that gives the lease up, but for the time in which
// something may still arrive.
func surrendered(r *table.Renewal) {
	r.Short, r.Long, r.Lapsed = 0, 0, true
	for _, d := range r.Doubts {
		r.Long = max(r.Long, time.Until(d.Until), time.Second)
	}
	r.Short = r.Long
}
