package control

import (
	"context"
	"fmt"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Drain asks a node to take no new work, for maintenance, or lets it work again.
func (c *Control) Drain(ctx context.Context, act Act, node routing.NodeID, drain bool) error {
	what := "drain node "
	if !drain {
		what = "let work node "
	}
	_, err := c.change(ctx, act, "drain", func(state *routing.State) (table.Change, error) {
		m, err := member(state, node)
		if err == nil && m.Draining == drain {
			err = fmt.Errorf("%s%s: %w: draining is %t", what, node, ErrNothing, drain)
		}
		m.Draining = drain
		return table.Change{Members: []routing.Member{m}, What: what + string(node)}, err
	})
	return err
}

// Attest takes people's word that the node's present instance is powered off, or cut off
// from the platforms: it can deliver no more. Operations then go on without it. Whoever
// calls has asked enough people. The instance never gets a lease again; a new one does.
// ErrLives: it renews while Attest looks, so that the word can't be right.
func (c *Control) Attest(ctx context.Context, act Act, node routing.NodeID, instance routing.InstanceID) error {
	return c.attest(ctx, act, node, instance, "")
}

// AttestAlone is Attest on one person's word, in an emergency of this id (a word): only
// emergencies go on without the node by it. Until a second person has confirmed it
// ([Control.ConfirmEmergency]), no other operation begins and no agency is finalised.
func (c *Control) AttestAlone(ctx context.Context, act Act, node routing.NodeID, instance routing.InstanceID, emergency routing.OperationID) error {
	return c.attest(ctx, act, node, instance, emergency)
}

func (c *Control) attest(ctx context.Context, act Act, node routing.NodeID, instance routing.InstanceID, emergency routing.OperationID) error {
	if err := c.fallsSilent(ctx, node, instance); err != nil {
		return fmt.Errorf("attest node %s: %w", node, err)
	}
	_, err := c.change(ctx, act, "attest", func(state *routing.State) (table.Change, error) {
		m, err := member(state, node)
		switch {
		case err != nil:
		case m.Instance != instance:
			err = fmt.Errorf("attest node %s: its instance is %s, not %s: look again", node, m.Instance, instance)
		case m.Attested == instance:
			err = fmt.Errorf("attest node %s: %w: it is attested", node, ErrNothing)
		}
		m.Attested, m.Unconfirmed = instance, m.Unconfirmed.With(emergency)
		return table.Change{Members: []routing.Member{m}, What: "attest that node " + string(node) + " is dead", Guard: table.Guard{Rejoining: true}}, err
	})
	return err
}

// fallsSilent returns once an instance's short lease is over, or its counter has stood still for
// as long as a renewal may take; ErrLives if it renews meanwhile. Of an instance without a
// lease it says nothing.
func (c *Control) fallsSilent(ctx context.Context, node routing.NodeID, instance routing.InstanceID) error {
	began, counter := time.Now(), uint64(0)
	for first := true; ; first = false {
		n, err := c.Table.Nodes(ctx)
		if err != nil {
			return err
		}
		l := n.Leases[node]
		switch {
		case l.Instance != instance || l.Server != n.Server || l.GivenUp() || !n.Time.Before(l.ShortEnd):
			return nil
		case !first && l.Counter != counter:
			return fmt.Errorf("%w (instance %s)", ErrLives, instance)
		case time.Since(began) >= c.Silence:
			return nil
		}
		counter = l.Counter
		select {
		case <-time.After(min(200*time.Millisecond, c.Silence/4)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Evict takes a node out of the table: no operation waits for it any more, and it gets no
// lease. It needs a fence: the node gave up its lease, or it is attested, or its clock is
// declared to go on while its machine is stopped, and since Evict first looked at it, its
// renewal counter has stood still for what its long lease had still to go and the platform's
// limit after that. ctx bounds the wait in this call; a later one
// goes on where it ended.
func (c *Control) Evict(ctx context.Context, act Act, node routing.NodeID, limit time.Duration) error {
	fence, err := c.fence(ctx, node, limit)
	if err != nil {
		return err
	}
	_, err = c.change(ctx, act, "evict", func(state *routing.State) (table.Change, error) {
		m, err := member(state, node)
		m.Evicted = true
		return table.Change{
			Members: []routing.Member{m}, What: "evict node " + string(node),
			Guard: table.Guard{Fenced: []table.Fence{fence}, Rejoining: true},
		}, err
	})
	return err
}

// silent is a node whose renewal counter stands still, as far as this process has seen it.
type silent struct {
	fence  table.Fence
	server string        // of the table: another one counts anew
	since  time.Time     // of the first look, on this process's monotonic clock
	lease  time.Duration // that it had still to go then, by the table's clock
}

// look takes note of a node's counter at this moment, and returns since when it stands so.
func (c *Control) look(now time.Time, f table.Fence, n *table.Nodes, lease *table.Lease) silent {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.silents[f.Node]
	if was.fence != f || was.server != n.Server {
		was = silent{fence: f, server: n.Server, since: now, lease: max(0, lease.LongEnd.Sub(n.Time))}
		c.silents[f.Node] = was
	}
	return was
}

// fence waits for the long fence of a node. That its lease is over by the table's clock, the
// table looks at itself; here it has to be over by this node's clock too, and the platform's
// limit after it.
func (c *Control) fence(ctx context.Context, node routing.NodeID, limit time.Duration) (table.Fence, error) {
	var at table.Fence
	for {
		n, err := c.Table.Nodes(ctx)
		if err != nil {
			return at, fmt.Errorf("fence of node %s: %w", node, err)
		}
		m, l, err := find(&n, node)
		if err != nil {
			return at, err
		}
		at = table.Fence{Node: node, Instance: m.Instance, Counter: l.Counter, Kind: table.FenceLong}
		switch {
		case m.Dead():
			at.Kind = table.FenceAttested
			return at, nil
		case m.Attested == m.Instance:
			return at, fmt.Errorf("fence of node %s: %w: one person alone attested that it is dead: a second one has to confirm %s", node, table.ErrGuard, m.Unconfirmed)
		case l.Instance == m.Instance && l.LongEnd.IsZero():
			return at, nil
		}
		now := time.Now()
		s := c.look(now, at, &n, &l)
		still := now.Sub(s.since)
		left := max(l.LongEnd.Sub(n.Time), s.lease+limit-still)
		switch {
		case l.GivenUp() && l.Instance == m.Instance && l.Server == n.Server:
			left = l.LongEnd.Sub(n.Time) // so it said itself
		case !m.ClockRuns:
			return at, fmt.Errorf("fence of node %s: %w: it is silent for %s, and its clock isn't declared to go on while its machine is stopped, so no time proves that it can deliver no more: stop it orderly, or attest that it is off",
				node, table.ErrGuard, still.Round(time.Second))
		}
		if left <= 0 {
			return at, nil
		}
		select {
		case <-time.After(min(max(left, 10*time.Millisecond), time.Second)):
		case <-ctx.Done():
			return at, fmt.Errorf("fence of node %s: %w: it is silent for %s, and can deliver no more in %s: say it again then, stop it orderly, or attest that it is dead",
				node, context.Cause(ctx), still.Round(time.Second), left.Round(time.Second))
		}
	}
}

func find(n *table.Nodes, node routing.NodeID) (routing.Member, table.Lease, error) {
	for _, m := range n.Members {
		if m.Node == node && !m.Evicted {
			return m, n.Leases[node], nil
		}
	}
	return routing.Member{}, table.Lease{}, fmt.Errorf("node %q: %w", node, ErrNoNode)
}

func member(state *routing.State, node routing.NodeID) (routing.Member, error) {
	m, ok := state.Member(node)
	if !ok || m.Evicted {
		return m, fmt.Errorf("node %q: %w", node, ErrNoNode)
	}
	return m, nil
}
