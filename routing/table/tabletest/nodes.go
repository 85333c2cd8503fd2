package tabletest

import (
	"errors"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

const (
	short = 20 * time.Second
	long  = 40 * time.Second
)

// node is what a node would be that renews and applies.
type node struct {
	t  *testing.T
	tb table.Table
	r  table.Renewal
}

func newNode(t *testing.T, tb table.Table, pos routing.Position, id routing.NodeID) *node {
	return &node{t: t, tb: tb, r: table.Renewal{
		Incarnation: pos.Incarnation, Short: short, Long: long, Lapsed: true,
		Member: routing.Member{Node: id, Instance: routing.InstanceID(id) + "-1", Protocol: table.Protocol, Build: "test", Address: "127.0.0.1:1"},
	}}
}

// renew sends a renewal, which must be taken.
func (n *node) renew() table.Renewed {
	n.t.Helper()
	answer, err := n.try()
	if err != nil {
		n.t.Fatal(err)
	}
	return answer
}

func (n *node) try() (table.Renewed, error) {
	n.r.Sequence++
	answer, err := n.tb.Renew(n.t.Context(), n.r)
	if err == nil {
		n.r.Lapsed, n.r.Replication = n.r.Long == 0, answer.Replication
	}
	return answer, err
}

// follow lets the node have applied all that the table has.
func (n *node) follow() {
	n.t.Helper()
	pos, err := n.tb.Position(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	n.r.Term, n.r.Applied = pos.Term, pos.Revision
}

// granted renews, and the node must be allowed to decide for everything.
func (n *node) granted() table.Renewed {
	n.t.Helper()
	answer := n.renew()
	if !answer.Settled || !answer.Armed {
		n.t.Fatalf("node %s isn't granted everything: %+v", n.r.Member.Node, answer)
	}
	return answer
}

// nodes reads what the table knows of nodes.
func nodes(t *testing.T, tb table.Table) table.Nodes {
	t.Helper()
	n, err := tb.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func testRenew(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	n := newNode(t, tb, pos, "n1")
	first := n.granted()
	if first.Position.Revision != pos.Revision+1 || first.Position.Term != pos.Term || first.Position.Mapped != pos.Mapped {
		t.Errorf("position after joining: %+v, was %+v", first.Position, pos)
	}
	e := follow(t, tb, pos, time.Second).next(t)
	if len(e.Members) != 1 || e.Members[0].Node != "n1" || e.Members[0].Instance != "n1-1" || e.Members[0].Revision != first.Position.Revision ||
		e.Members[0].Joined.IsZero() || e.Position != first.Position || e.What != "join" || e.Who != "n1" {
		t.Errorf("entry: %+v", e)
	}
	u, err := tb.Snapshot(t.Context())
	if err != nil || len(u.Members) != 1 || u.Members[0] != e.Members[0] {
		t.Errorf("snapshot: %+v, %v; want %+v", u.Members, err, e.Members[0])
	}
	n.follow()
	if again := n.granted(); again.Position != first.Position {
		t.Errorf("second renewal made a revision: %+v, was %+v", again.Position, first.Position)
	}
	n.r.Doubts = []table.Doubt{{Agency: "health", Messages: 3, Until: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}}
	n.r.Counts = []table.Count{{Agency: "health", Held: 4, Waiting: 5}}
	n.r.Drained = []table.AgencyEpoch{{Agency: "health", Epoch: routing.Epoch{Term: 1, Number: 2}}}
	n.granted()
	n.r.Drained = []table.AgencyEpoch{{Agency: "roads", Epoch: routing.Epoch{Term: 1, Number: 7}}}
	n.granted()
	all := nodes(t, tb)
	l := all.Leases["n1"]
	if all.Position != first.Position || all.Rejoining != "" || len(all.Members) != 1 || all.Members[0] != e.Members[0] {
		t.Errorf("nodes: %+v", all)
	}
	if l.Node != "n1" || l.Instance != "n1-1" || l.Counter != 4 || l.Server != all.Server || l.Term != 1 || l.Applied != first.Position.Revision || l.Behind ||
		len(l.Doubts) != 1 || l.Doubts[0] != n.r.Doubts[0] || len(l.Counts) != 1 || l.Counts[0] != n.r.Counts[0] ||
		len(l.Drained) != 2 || l.Drained["health"] != (routing.Epoch{Term: 1, Number: 2}) || l.Drained["roads"] != (routing.Epoch{Term: 1, Number: 7}) {
		t.Errorf("lease: %+v", l)
	}
	if s, l := l.ShortEnd.Sub(all.Time), l.LongEnd.Sub(all.Time); s > short || s < 0 || l-s != long-short {
		t.Errorf("lease ends in %s and %s", s, l)
	}
	// A renewal that was on its way for long changes nothing.
	late := n.r
	late.Sequence--
	if _, err := tb.Renew(t.Context(), late); !errors.Is(err, table.ErrStale) {
		t.Errorf("late renewal: %v", err)
	}
	n.r.Short, n.r.Long = 0, 0
	if answer := n.renew(); answer.Settled || answer.Armed || answer.Why == "" {
		t.Errorf("given up: %+v", answer)
	}
	if l := nodes(t, tb).Leases["n1"]; !l.ShortEnd.IsZero() || !l.LongEnd.IsZero() || l.Counter != 5 {
		t.Errorf("given up: %+v", l)
	}
}

func testGuards(t *testing.T, open opener) {
	tb, pos := begun(t, open)
	n1, n2 := newNode(t, tb, pos, "n1"), newNode(t, tb, pos, "n2")
	n1.granted()
	n2.granted()
	at := change(t, tb, table.Change{ID: "add", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{agency(t, "health").Arm()}})
	n1.follow()
	n1.granted()
	health := current(t, tb, "health")
	begin, err := health.Begin("op", 7, routing.EventBegin)
	if err != nil {
		t.Fatal(err)
	}
	c := table.Change{ID: "begin", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{begin}, Guard: table.Guard{Applied: health.Revision, Protocol: table.Protocol}}
	refused(t, tb, c, table.ErrGuard)
	n2.follow()
	n2.granted()
	other := c
	other.Guard.Protocol++
	refused(t, tb, other, table.ErrGuard)
	check := table.Check{Incarnation: pos.Incarnation, Node: "n1", Instance: "n1-1", Agencies: []table.AgencyEpoch{{Agency: "health", Epoch: health.Epoch}}}
	if err := tb.Check(t.Context(), check); err != nil {
		t.Error(err)
	}
	begun := change(t, tb, c)
	if err := tb.Check(t.Context(), check); !errors.Is(err, table.ErrStale) {
		t.Errorf("check after begin: %v", err)
	}
	if begun.Revision != at.Revision+1 {
		t.Errorf("after begin: %+v", begun)
	}
	health = current(t, tb, "health")
	commit, err := health.Commit("op", 7)
	if err != nil {
		t.Fatal(err)
	}
	c = table.Change{ID: "commit", Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{commit}, Guard: table.Guard{Drained: []table.AgencyEpoch{{Agency: "health", Epoch: health.Epoch}}}}
	refused(t, tb, c, table.ErrGuard)
	n1.r.Drained = c.Guard.Drained
	n1.granted()
	refused(t, tb, c, table.ErrGuard)
	n2.r.Drained = c.Guard.Drained
	n2.granted()
	change(t, tb, c)
}
