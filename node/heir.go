package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// heir is what a process sees of another instance that has its node's name, and that it
// doesn't follow on the same directory: what that one had under way nothing here knows. Before
// this one takes the name, the other has to be fenced: its counter stands still on this
// process's clock for as long as its lease lasts, and as a platform keeps a connection after
// that. It is used by Run's goroutine only.
type heir struct {
	fence  table.Fence
	server string        // of the table: another one counts anew
	since  time.Time     // when it was first seen so
	lease  time.Duration // that it had still to go then
	runs   bool          // its clock goes on while its machine is stopped
}

// look takes note of the instance that has the name.
func (k *Keeper) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 4*soon)
	defer cancel()
	n, err := k.o.Table.Nodes(ctx)
	if err != nil {
		return
	}
	i := slices.IndexFunc(n.Members, func(m routing.Member) bool { return m.Node == k.o.Node })
	if i < 0 {
		k.heir = heir{}
		return
	}
	m, l := &n.Members[i], n.Leases[k.o.Node]
	f := table.Fence{Node: k.o.Node, Instance: m.Instance, Counter: l.Counter, Kind: table.FenceLong}
	if k.heir.fence != f || k.heir.server != n.Server {
		k.heir = heir{fence: f, server: n.Server, since: k.o.Now(), lease: max(k.o.Lease.Settled, l.LongEnd.Sub(n.Time))}
	}
	k.heir.runs = m.ClockRuns
}

// left is for how long the other instance has to stand still yet.
func (h *heir) left(now time.Time, limit, margin time.Duration) time.Duration {
	return max(0, h.since.Add(h.lease+limit+margin).Sub(now))
}

// gone is the fence of the other instance, once it stands.
func (k *Keeper) gone() table.Fence {
	if h := &k.heir; h.fence.Instance != "" && h.runs && h.left(k.o.Now(), k.o.Limit, k.o.Lease.Margin) == 0 {
		return h.fence
	}
	return table.Fence{}
}

// outlives says what keeps this process from its node's name, and what to do.
func (k *Keeper) outlives() string {
	h := &k.heir
	switch {
	case h.fence.Instance == "":
		return ""
	case !h.runs:
		return fmt.Sprintf("no time proves that instance %s can deliver no more: attest that it is off, or evict it", h.fence.Instance)
	}
	stands := h.since.Add(h.lease + k.o.Limit + k.o.Lease.Margin)
	return fmt.Sprintf("instance %s is fenced at %s, if it stays silent until then", h.fence.Instance, stands.UTC().Format(time.RFC3339))
}
