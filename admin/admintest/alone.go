package admintest

import (
	"context"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// alone is the table of a node that shares it with nobody: what the members say, its own
// gate says.
type alone struct {
	table.Table
	node *Node
}

// Found fills the table anew.
func (a *alone) Found(ctx context.Context, f table.Foundation) (routing.Position, error) {
	return a.node.Table.Found(ctx, f)
}

// Nodes returns the one member that there is.
func (a *alone) Nodes(ctx context.Context) (table.Nodes, error) {
	pos, err := a.Position(ctx)
	if err != nil {
		return table.Nodes{}, err
	}
	now := time.Now()
	state := a.node.Replica.State()
	lease := table.Lease{
		Node: Name, Instance: "test", Counter: uint64(now.UnixNano()), ShortEnd: now.Add(time.Minute), LongEnd: now.Add(time.Minute),
		Term: state.Position().Term, Applied: state.Position().Revision, Drained: make(map[routing.AgencyID]routing.Epoch),
	}
	for _, rec := range state.Agencies() {
		if load := a.node.Gate.Load(rec.ID); !rec.Open() && load.Dotted+load.InDoubt == 0 {
			lease.Drained[rec.ID] = rec.Epoch
		}
	}
	return table.Nodes{
		Position: pos, Time: now, Leases: map[routing.NodeID]table.Lease{lease.Node: lease},
		Members: []routing.Member{{Node: lease.Node, Instance: lease.Instance, Protocol: table.Protocol}},
	}, nil
}

// WithMembers returns t with these members instead of its own, none of which has a lease.
func WithMembers(t table.Table, members func() []routing.Member) table.Table {
	return &withMembers{t, members}
}

type withMembers struct {
	table.Table
	members func() []routing.Member
}

// Nodes returns the members.
func (w *withMembers) Nodes(ctx context.Context) (table.Nodes, error) {
	n, err := w.Table.Nodes(ctx)
	n.Members, n.Leases = w.members(), nil
	return n, err
}
