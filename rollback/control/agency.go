package control

import (
	"context"
	"fmt"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Lock closes agencies whatever their phase, also those that are locked already. With
// emergency it is marked as one person's word, which a second one has to confirm. It is
// taken while the table is rejoining too: closing is always safe.
func (c *Control) Lock(ctx context.Context, act Act, ids []routing.AgencyID, emergency bool) (Result, error) {
	d, err := c.change(ctx, act, "lock", func(state *routing.State) (table.Change, error) {
		list, err := agencies(state, act, ids, func(a routing.Agency) (routing.Agency, error) {
			if emergency {
				a = a.Emergency(routing.OperationID(act.ID))
			}
			if a.Locked {
				return a, nil
			}
			return a.Lock()
		})
		return table.Change{Agencies: list, What: "lock agency " + names(ids), Guard: table.Guard{Rejoining: true}}, err
	})
	return c.result(ctx, ids, d, err)
}

// Unlock ends locks. That is an opening, so two people have to agree before the call.
func (c *Control) Unlock(ctx context.Context, act Act, ids []routing.AgencyID) (Result, error) {
	d, err := c.change(ctx, act, "unlock", func(state *routing.State) (table.Change, error) {
		list, err := agencies(state, act, ids, routing.Agency.Unlock)
		return table.Change{Agencies: list, What: "unlock agency " + names(ids)}, err
	})
	return c.result(ctx, ids, d, err)
}

// Finalise ends the way back of agencies.
func (c *Control) Finalise(ctx context.Context, act Act, ids []routing.AgencyID) (Result, error) {
	d, err := c.change(ctx, act, "finalise", func(state *routing.State) (table.Change, error) {
		if err := state.Unconfirmed(); err != nil {
			return table.Change{}, fmt.Errorf("finalise agency %s: %w", names(ids), err)
		}
		list, err := agencies(state, act, ids, routing.Agency.Finalise)
		return table.Change{Agencies: list, What: "finalise agency " + names(ids)}, err
	})
	return c.result(ctx, ids, d, err)
}

// ConfirmEmergency takes a second person's word that an emergency was right. Whoever calls
// makes sure that it is another person. It is taken while the table is rejoining too, which
// may wait for it.
func (c *Control) ConfirmEmergency(ctx context.Context, act Act, emergency routing.OperationID) (Result, error) {
	var ids []routing.AgencyID
	d, err := c.change(ctx, act, "confirm", func(state *routing.State) (table.Change, error) {
		ids = nil
		for _, a := range state.Agencies() {
			if a.Unconfirmed.Has(emergency) {
				ids = append(ids, a.ID)
			}
		}
		var members []routing.Member
		what := "confirm emergency " + string(emergency)
		for _, m := range state.Members() {
			if m.Unconfirmed.Has(emergency) {
				m.Unconfirmed = m.Unconfirmed.Without(emergency)
				members = append(members, m)
				what += " at node " + string(m.Node)
			}
		}
		if len(ids)+len(members) == 0 {
			return table.Change{}, fmt.Errorf("confirm emergency %q: %w: no agency and no node waits for it", emergency, ErrNothing)
		}
		if len(ids) == 0 {
			return table.Change{Members: members, What: what, Guard: table.Guard{Rejoining: true}}, nil
		}
		list, err := agencies(state, act, ids, func(a routing.Agency) (routing.Agency, error) { return a.Confirmed(emergency) })
		return table.Change{Agencies: list, Members: members, What: what + " of agency " + names(ids), Guard: table.Guard{Rejoining: true}}, err
	})
	return c.result(ctx, ids, d, err)
}

// Freeze forbids operations of an agency to begin, of all agencies if id is empty.
// Emergencies go on. Operations under way end as planned.
func (c *Control) Freeze(ctx context.Context, act Act, id routing.AgencyID) error {
	_, err := c.change(ctx, act, "freeze", func(state *routing.State) (table.Change, error) {
		f, there, err := freezeOf(state, id)
		if err == nil && there {
			err = fmt.Errorf("freeze %s: %w: it is frozen by %s", freezeName(id), ErrNothing, f.Who)
		}
		f = routing.Freeze{Agency: id, Who: act.Who, Reason: act.Reason, Since: time.Now().UTC().Truncate(time.Second), Revision: f.Revision}
		return table.Change{Freezes: []routing.Freeze{f}, What: "freeze " + freezeName(id), Guard: table.Guard{Rejoining: true}}, err
	})
	return err
}

// Lift ends a freeze; that of all agencies leaves those of single ones.
func (c *Control) Lift(ctx context.Context, act Act, id routing.AgencyID) error {
	_, err := c.change(ctx, act, "lift", func(state *routing.State) (table.Change, error) {
		f, there, err := freezeOf(state, id)
		if err == nil && !there {
			err = fmt.Errorf("lift the freeze of %s: %w: it is not frozen", freezeName(id), ErrNothing)
		}
		f.Removed = true
		return table.Change{Freezes: []routing.Freeze{f}, What: "lift the freeze of " + freezeName(id)}, err
	})
	return err
}

func freezeOf(state *routing.State, id routing.AgencyID) (f routing.Freeze, there bool, err error) {
	if id != "" {
		if _, ok := state.Agency(id); !ok {
			return f, false, fmt.Errorf("agency %q: %w", id, ErrNoAgency)
		}
	}
	for _, f := range state.Freezes() {
		if f.Agency == id {
			return f, true, nil
		}
	}
	return f, false, nil
}

func freezeName(id routing.AgencyID) string {
	if id == "" {
		return "all agencies"
	}
	return "agency " + string(id)
}

// Arm makes agencies ready to begin. Done means that every node with a lease knows it.
func (c *Control) Arm(ctx context.Context, act Act, ids []routing.AgencyID) (Result, error) {
	d, err := c.change(ctx, act, "arm", func(state *routing.State) (table.Change, error) {
		list, err := agencies(state, act, ids, func(a routing.Agency) (routing.Agency, error) { return a.Arm(), nil })
		return table.Change{Agencies: list, What: "arm agency " + names(ids)}, err
	})
	return c.result(ctx, ids, d, err)
}

// Settle ends the arming of agencies, in two changes: between them they are still leased
// and checked as armed ones. One that is interrupted is ended by Tend.
func (c *Control) Settle(ctx context.Context, act Act, ids []routing.AgencyID) (Result, error) {
	_, err := c.change(ctx, act, "settle", func(state *routing.State) (table.Change, error) {
		list, err := agencies(state, act, ids, routing.Agency.Settle)
		return table.Change{Agencies: list, What: "settle agency " + names(ids)}, err
	})
	if err != nil {
		return Result{}, err
	}
	return c.endSettle(ctx, act, ids)
}

// endSettle is the second change; the first one is durable.
func (c *Control) endSettle(ctx context.Context, act Act, ids []routing.AgencyID) (Result, error) {
	act.Expected = nil // of the first change
	d, err := c.change(ctx, act, "settled", func(state *routing.State) (table.Change, error) {
		list, err := agencies(state, act, ids, routing.Agency.EndSettle)
		return table.Change{Agencies: list, What: "settle agency " + names(ids) + ", durable"}, err
	})
	return c.result(ctx, ids, d, err)
}

// result collects the nodes' receipts after a change.
func (c *Control) result(ctx context.Context, ids []routing.AgencyID, d done, err error) (Result, error) {
	if err != nil {
		return Result{}, err
	}
	state := c.Replica.State()
	r := Result{Position: d.at}
	for _, id := range ids {
		if a, ok := state.Agency(id); ok {
			r.Agencies = append(r.Agencies, a)
		}
	}
	r.Nodes, r.Complete = c.receipts(ctx, r.Agencies, d)
	return r, nil
}
