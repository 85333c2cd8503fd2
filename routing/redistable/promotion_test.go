package redistable

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// clocked renews at moments and with servers that the test sets.
type clocked struct {
	t      *testing.T
	now    time.Time
	become func(n int, former string)
	renew  func(r table.Renewal) (table.Renewed, error)
	nodes  func() table.Nodes
}

// both runs a test against the scripts and against table.Book.
func both(t *testing.T, test func(t *testing.T, c *clocked, pos routing.Position)) {
	start := time.Unix(1_700_000_000, 0).UTC()
	t.Run("scripts", func(t *testing.T) {
		m := startMini(t)
		c := &clocked{t: t, now: start, become: m.become}
		m.SetTime(c.now)
		tb := open(t, Options{URL: "redis://" + m.Addr()})
		pos, err := tb.Init(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.renew = func(r table.Renewal) (table.Renewed, error) {
			m.SetTime(c.now)
			return tb.Renew(t.Context(), r)
		}
		c.nodes = func() table.Nodes {
			m.SetTime(c.now)
			n, err := tb.Nodes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		test(t, c, pos)
	})
	t.Run("book", func(t *testing.T) {
		var s table.Server
		c := &clocked{t: t, now: start, become: func(n int, former string) {
			s = table.Server{Run: fmt.Sprintf("%040x", n), Replication: fmt.Sprintf("%040x", 1000+n), Former: former}
		}}
		c.become(1, "")
		pos := routing.Position{Incarnation: "i", Revision: 1, Mapped: 1, Term: 1}
		b := table.NewBook(pos, s, c.now)
		c.renew = func(r table.Renewal) (table.Renewed, error) {
			next := b.Clone()
			answer, _, err := next.Renew(c.now, s, &r, func(routing.AgencyID) (routing.Agency, bool) { return routing.Agency{}, false })
			if err == nil {
				b = next
			}
			return answer, err
		}
		c.nodes = func() table.Nodes { return b.Nodes(c.now, s) }
		test(t, c, pos)
	})
}

// as renews as a node that last renewed with server n.
func (c *clocked) as(node routing.NodeID, at routing.Position, n int) table.Renewed {
	c.t.Helper()
	r := renewal(at, node, routing.InstanceID(node)+"-1")
	r.Replication = fmt.Sprintf("%040x", 1000+n)
	answer, err := c.renew(r)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer
}

// joined lets three nodes renew with server 1.
func joined(c *clocked, pos routing.Position) routing.Position {
	c.t.Helper()
	for range 2 {
		for _, node := range []routing.NodeID{"n1", "n2", "n3"} {
			pos = c.as(node, pos, 1).Position
		}
	}
	return pos
}

// A node died together with the primary. The two that are left go on when the dead one's
// lease is over, since the server that was promoted is the replica of the one that they knew.
func TestMajorityAfterPromotion(t *testing.T) {
	both(t, func(t *testing.T, c *clocked, pos routing.Position) {
		pos = joined(c, pos)
		c.become(2, fmt.Sprintf("%040x", 1001))
		c.as("n1", pos, 1)
		if answer := c.as("n2", pos, 1); answer.Armed || !answer.Settled || c.nodes().Rejoining == "" {
			t.Errorf("two of three: %+v", answer)
		}
		c.now = c.now.Add(10*time.Second + table.RejoinGrace)
		if answer := c.as("n2", pos, 2); answer.Armed {
			t.Errorf("at the end of the grace: %+v", answer)
		}
		c.now = c.now.Add(time.Second)
		if answer := c.as("n2", pos, 2); !answer.Armed || c.nodes().Rejoining != "" {
			t.Errorf("after the grace: %+v", answer)
		}
	})
}

// Without the proof of a promotion, or without a majority, people decide.
func TestNoMajorityWithoutPromotion(t *testing.T) {
	for name, tt := range map[string]struct {
		former string
		nodes  []routing.NodeID
	}{
		"another history": {fmt.Sprintf("%040x", 77), []routing.NodeID{"n1", "n2"}},
		"a restart":       {"", []routing.NodeID{"n1", "n2"}},
		"one of three":    {fmt.Sprintf("%040x", 1001), []routing.NodeID{"n1"}},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, c *clocked, pos routing.Position) {
				pos = joined(c, pos)
				c.become(2, tt.former)
				for _, node := range tt.nodes {
					c.as(node, pos, 1)
				}
				c.now = c.now.Add(24 * time.Hour)
				for _, node := range tt.nodes {
					if answer := c.as(node, pos, 2); answer.Armed {
						t.Errorf("%s: %+v", node, answer)
					}
				}
			})
		})
	}
}

// Of a lease that the old server granted, the new one may not know the last renewal: to it,
// the lease is over only as long after the takeover as a lease lasts.
func TestLeaseOfTheServerBefore(t *testing.T) {
	both(t, func(t *testing.T, c *clocked, pos routing.Position) {
		pos = joined(c, pos)
		given := renewal(pos, "n3", "n3-1")
		given.Short, given.Long = 0, 0
		runs := renewal(pos, "n2", "n2-1")
		for _, r := range []*table.Renewal{&given, &runs} {
			r.Member.ClockRuns = true // else no time is enough
			if _, err := c.renew(*r); err != nil {
				t.Fatal(err)
			}
		}
		another := func(node routing.NodeID) table.Renewal {
			r := renewal(pos, node, "other")
			l := c.nodes().Leases[node]
			r.Gone = table.Fence{Node: node, Instance: l.Instance, Counter: l.Counter, Kind: table.FenceLong}
			return r
		}
		c.now = c.now.Add(time.Minute)
		c.become(2, fmt.Sprintf("%040x", 1001))
		c.as("n1", pos, 1)
		for _, node := range []routing.NodeID{"n2", "n3"} {
			if _, err := c.renew(another(node)); !errors.Is(err, table.ErrInstance) {
				t.Errorf("another instance of %s right after the takeover: %v", node, err)
			}
		}
		c.now = c.now.Add(10*time.Second + time.Microsecond)
		for _, node := range []routing.NodeID{"n2", "n3"} {
			if _, err := c.renew(another(node)); err != nil {
				t.Errorf("another instance of %s later: %v", node, err)
			}
		}
	})
}

// The history of a server gets another name when its first replica comes, and that is no
// takeover. A server that was a replica meanwhile is another one.
func TestFirstReplicaIsNoTakeover(t *testing.T) {
	m := startMini(t)
	tb := open(t, Options{URL: "redis://" + m.Addr()})
	pos, err := tb.Init(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n1 := join(t, tb, pos, "n1")
	now := *m.server.Load()
	now.Replication = fmt.Sprintf("%040x", 5)
	m.server.Store(&now)
	if err := n1.renew(t); err != nil || !n1.say.Armed || n1.say.Position.Term != 1 || n1.say.Replication != now.Replication {
		t.Errorf("with a replica: %+v, %v", n1.say, err)
	}
	if err := n1.renew(t); err != nil || n1.say.Position.Term != 1 {
		t.Errorf("again: %+v, %v", n1.say, err)
	}
	back := now
	back.Replication, back.Former = fmt.Sprintf("%040x", 7), fmt.Sprintf("%040x", 6)
	m.server.Store(&back)
	if err := n1.renew(t); err != nil || n1.say.Position.Term != 2 {
		t.Errorf("a replica meanwhile: %+v, %v", n1.say, err)
	}
}
