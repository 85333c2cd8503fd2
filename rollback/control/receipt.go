package control

import (
	"context"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Result is an act that is done.
type Result struct {
	Position routing.Position // of the table, after it
	Agencies []routing.Agency // as they are now
	Nodes    []Receipt        // of each member that isn't evicted; empty: the table couldn't be asked
	Complete bool             // every member has seen it, or can serve nothing
}

// Standing is what a node has made of an act.
type Standing string

const (
	Seen    Standing = "seen"     // it has the new records, and acts on them
	Closed  Standing = "closed"   // and of the agencies that are closed nothing old is under way
	InDoubt Standing = "in-doubt" // of a closed agency a message may still arrive at its platform
	Waiting Standing = "waiting"  // it has not said anything yet, and may still serve as before
	Gone    Standing = "gone"     // its lease is over or given up: it serves nothing
)

// Receipt is one node's.
type Receipt struct {
	Node     routing.NodeID `json:"node"`
	Standing Standing       `json:"standing"`
	Until    time.Time      `json:"until,omitzero"` // waiting: from when on it can't serve; in doubt: until when; both by the table's clock
	Messages int            `json:"messages,omitempty"`
	Held     int            `json:"held,omitempty"` // of these agencies' messages, in its spool
}

// receipts waits until each member has seen the position and, of the agencies that are
// closed, has nothing under way any more; no longer than Options.Receipts. A table that
// can't be asked any more leaves what was known last.
func (c *Control) receipts(ctx context.Context, list []routing.Agency, d done) (all []Receipt, complete bool) {
	ctx, cancel := context.WithTimeout(ctx, c.Receipts)
	defer cancel()
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		if n, err := c.Table.Nodes(ctx); err == nil {
			var settled bool
			if all, complete, settled = judge(&n, list, d); settled {
				return all, complete
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return all, complete
		}
	}
}

// judge says what each member has made of it. settled: waiting longer changes nothing.
func judge(n *table.Nodes, list []routing.Agency, d done) (all []Receipt, complete, settled bool) {
	complete, settled = true, true
	for i := range n.Members {
		m := &n.Members[i]
		if m.Evicted {
			continue
		}
		l, ok := n.Leases[m.Node]
		r := Receipt{Node: m.Node}
		for _, count := range l.Counts {
			for j := range list {
				if count.Agency == list[j].ID {
					r.Held += count.Held
				}
			}
		}
		switch {
		case !ok || m.Attested == m.Instance || !n.Time.Before(l.LongEnd):
			r.Standing = Gone
		case l.Server != n.Server || l.Term != d.at.Term || l.Applied < d.at.Revision:
			r.Standing, r.Until = Waiting, l.LongEnd
			if armed(list) && d.base > 0 && l.Term == d.at.Term && l.Applied >= d.base {
				r.Until = l.ShortEnd
			}
			complete, settled = false, false
		default:
			r.Standing = Closed
			for j := range list {
				a := &list[j]
				if a.Open() {
					r.Standing = Seen
					continue
				}
				if at, ok := l.Drained[a.ID]; !ok || at.Compare(a.Epoch) < 0 {
					r.Standing, settled = Seen, false
				}
			}
			for _, doubt := range l.Doubts {
				for j := range list {
					if doubt.Agency == list[j].ID && !list[j].Open() {
						r.Standing, r.Until = InDoubt, later(r.Until, doubt.Until)
						r.Messages += doubt.Messages
					}
				}
			}
		}
		all = append(all, r)
	}
	return all, complete, settled
}

// armed reports whether all of them are leased tightly: a member that knows them so
// serves them for its short lease only.
func armed(list []routing.Agency) bool {
	for i := range list {
		if list[i].Tightness == routing.Settled {
			return false
		}
	}
	return len(list) > 0
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
