package daemon

import (
	"context"
	"time"

	"mailcutover/node"
	"mailcutover/routing"
	"mailcutover/routing/replica"
	"mailcutover/routing/table"
)

// aloneNode is the name of a node that shares its table with nobody.
const aloneNode routing.NodeID = "alone"

// alone is the table of a node that shares it with nobody and renews no lease there: what
// the members say, its own gate says.
type alone struct {
	table.Table
	gate     *node.Gate
	replica  *replica.Replica
	instance routing.InstanceID
}

// Nodes returns the one member that there is.
func (a *alone) Nodes(ctx context.Context) (table.Nodes, error) {
	pos, err := a.Position(ctx)
	if err != nil {
		return table.Nodes{}, err
	}
	now := time.Now()
	state := a.replica.State()
	lease := table.Lease{
		Node: aloneNode, Instance: a.instance, Counter: uint64(now.UnixNano()), ShortEnd: now.Add(time.Minute), LongEnd: now.Add(time.Minute),
		Term: state.Position().Term, Applied: state.Position().Revision, Drained: make(map[routing.AgencyID]routing.Epoch),
	}
	for _, rec := range state.Agencies() {
		load := a.gate.Load(rec.ID)
		if until := a.gate.InDoubt(rec.ID); until.After(now) {
			lease.Doubts = append(lease.Doubts, table.Doubt{Agency: rec.ID, Messages: max(1, load.InDoubt), Until: until})
		} else if !rec.Open() && load.Dotted+load.InDoubt == 0 {
			lease.Drained[rec.ID] = rec.Epoch
		}
	}
	return table.Nodes{
		Position: pos, Time: now, Leases: map[routing.NodeID]table.Lease{aloneNode: lease},
		Members: []routing.Member{{Node: aloneNode, Instance: a.instance, Protocol: table.Protocol}},
	}, nil
}
