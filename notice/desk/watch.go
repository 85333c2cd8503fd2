package desk

import (
	"context"
	"strconv"
	"strings"
	"time"

	"mailcutover/notice"
	"mailcutover/notice/outbox"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

const (
	// missingAfter is how long after its short lease's end a node is said to be missing: one that
	// restarts, or that a failover keeps waiting, is back by then.
	missingAfter = 30 * time.Second

	// othersTurn is how long something is seen before it is taken as told by the node whose turn
	// it is; until then we tell of it, if it becomes ours.
	othersTurn = time.Minute

	// expiredLong is after how long nobody is told any more that a proposal's time was over.
	expiredLong = 24 * time.Hour
)

// Where nodes stand, as the table's leases show.
const (
	nodeUp      = "up"
	nodeStopped = "stopped"
	nodeMissing = "missing"
)

// watch tells of what no change of the table says: nodes that stop or are missing, and
// proposals whose time is over. Every node sees it and the one whose turn it is tells, under an id that
// is the same from any node: when the turn goes over, who has it next may tell once more.
// It belongs to the goroutine of the turns.
type watch struct {
	*Desk
	since map[string]time.Time // when what wasn't told yet was first seen, by key
}

// glance is one look.
type glance struct {
	nodes  *table.Nodes
	teller routing.NodeID
	turn   bool // it is ours
}

// look compares what there is with what was told.
func (w *watch) look(ctx context.Context, g *glance) bool {
	if _, ok := w.box.Known(); !ok {
		return true // nothing is known yet with which to compare
	}
	a := outbox.Addition{Stream: outbox.Node}
	kept := make(map[string]bool)
	w.lookAtNodes(g, &a, kept)
	w.lookAtProposals(g, &a, kept)
	for key := range w.box.Keys() {
		if (strings.HasPrefix(key, notice.LeaseKey) || strings.HasPrefix(key, notice.ExpiredKey)) && !kept[key] {
			a.Records = append(a.Records, notice.Record{Key: key})
		}
	}
	for key := range w.since {
		if !kept[key] {
			delete(w.since, key)
		}
	}
	return len(a.Records) == 0 || w.put(ctx, a)
}

func (w *watch) lookAtNodes(g *glance, a *outbox.Addition, kept map[string]bool) {
	for i := range g.nodes.Members {
		m := &g.nodes.Members[i]
		key := notice.LeaseKey + string(m.Node)
		if m.Evicted || m.Dead() || m.Node == w.o.Node {
			continue // people know, or it is us
		}
		kept[key] = true
		lease, leased := g.nodes.Leases[m.Node]
		if !leased || lease.Instance != m.Instance {
			continue
		}
		stands := ""
		switch {
		case lease.GivenUp():
			stands = nodeStopped
		case lease.ShortEnd.After(g.nodes.Time):
			stands = nodeUp
		case g.nodes.Time.Sub(lease.ShortEnd) > missingAfter:
			stands = nodeMissing
		}
		was := w.box.Facts(key)
		is := notice.Facts{"state": stands, "instance": string(m.Instance), "counter": strconv.FormatUint(lease.Counter, 10)}
		switch {
		case stands == "" || was["state"] == stands && was["instance"] == is["instance"]:
			delete(w.since, key)
		case was == nil || was["instance"] != is["instance"] || was["state"] == nodeStopped:
			a.Records = append(a.Records, notice.Record{Key: key, Facts: is}) // that it starts it tells itself
		default:
			t, counter, at := notice.NodeSeen, was["counter"], g.nodes.Time
			switch stands {
			case nodeStopped:
				t, counter = notice.NodeStopped, is["counter"]
			case nodeMissing:
				t, counter, at = notice.NodeMissing, is["counter"], lease.ShortEnd
			}
			w.tell(g, a, key, is, notice.NewNode(w.o.Installation, string(m.Node), t, string(m.Instance), m.Build, counter, at))
		}
	}
}

func (w *watch) lookAtProposals(g *glance, a *outbox.Addition, kept map[string]bool) {
	for key := range w.box.Keys() {
		facts := w.box.Facts(key)
		e, id, ok := notice.Expired(w.o.Installation, key, facts)
		if !ok {
			continue
		}
		key := notice.ExpiredKey + id
		kept[key] = true
		if age := g.nodes.Time.Sub(e.Time); age < 0 || age > expiredLong || w.box.Facts(key) != nil {
			delete(w.since, key)
			continue
		}
		w.tell(g, a, key, notice.Facts{"told": "yes"}, e)
	}
}

// tell adds an event, if it is our turn; if it is another one's, that has told it in a while.
func (w *watch) tell(g *glance, a *outbox.Addition, key string, is notice.Facts, e notice.Event) {
	since, seen := w.since[key]
	if !seen {
		since = time.Now()
		w.since[key] = since
	}
	switch {
	case g.turn:
		a.Events = append(a.Events, e)
	case g.teller == "" || g.teller == w.o.Node || time.Since(since) < othersTurn:
		return
	}
	delete(w.since, key)
	a.Records = append(a.Records, notice.Record{Key: key, Facts: is})
}
