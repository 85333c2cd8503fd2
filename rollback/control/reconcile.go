package control

import (
	"context"
	"errors"
	"fmt"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Lost is an agency whose record the table lost, or of which there are two histories.
type Lost struct {
	Table routing.Agency // what the table has
	Seen  routing.Agency // what nodes have seen, and the table's doesn't follow
}

// Lost returns the agencies that Reconcile is for, as this node knows them.
func (c *Control) Lost() []Lost {
	state := c.Replica.State()
	var all []Lost
	for _, id := range state.Regressed() {
		a, _ := state.Agency(id)
		seen, _ := state.Seen(id)
		all = append(all, Lost{Table: a, Seen: seen})
	}
	return all
}

// Reconcile gives agencies whose record the table lost the highest one that any node has
// seen, locked and with an epoch above all that were seen. Agencies of one operation go
// together: what one of them names, has to be named with it. An operation that owns them
// is still open then, and is ended by its runner, or by abort; the lock stays until two
// people unlock. Where the mapping of that record is lost too, the table's stays: its list
// has to be imported again before the unlock. Whoever calls has shown both records to
// people.
func (c *Control) Reconcile(ctx context.Context, act Act, ids []routing.AgencyID) (Result, error) {
	r, err := c.reconcile(ctx, act, ids, false)
	if errors.Is(err, table.ErrNoMapping) {
		c.Logger.WarnContext(ctx, "the mapping of a lost record is lost too: the table's stays", "person", act.Who, "error", err)
		r, err = c.reconcile(ctx, act, ids, true)
	}
	return r, err
}

func (c *Control) reconcile(ctx context.Context, act Act, ids []routing.AgencyID, keepMapping bool) (Result, error) {
	d, err := c.change(ctx, act, "reconcile", func(state *routing.State) (table.Change, error) {
		named := make(map[routing.AgencyID]bool, len(ids))
		for _, id := range ids {
			named[id] = true
		}
		for _, id := range state.Regressed() {
			seen, _ := state.Seen(id)
			for _, other := range ids {
				with, ok := state.Seen(other)
				if ok && seen.Operation != "" && seen.Operation == with.Operation && !named[id] {
					return table.Change{}, fmt.Errorf("reconcile agency %s: agency %s is of the same operation %s: name both", other, id, seen.Operation)
				}
			}
		}
		list, err := agencies(state, act, ids, func(a routing.Agency) (routing.Agency, error) { return reconciled(state, a) })
		c := table.Change{Agencies: list, What: "reconcile agency " + names(ids), Guard: table.Guard{Rejoining: true}}
		for i := range list {
			a, _ := state.Agency(list[i].ID)
			if keepMapping {
				list[i].Mapping = a.Mapping
			}
			if a.Mapping != list[i].Mapping {
				c.Mapped = state.Position().Mapped
			}
		}
		return c, err
	})
	return c.result(ctx, ids, d, err)
}

// reconciled is the record that an agency gets.
func reconciled(state *routing.State, a routing.Agency) (routing.Agency, error) {
	seen, ok := state.Seen(a.ID)
	if !ok {
		return a, fmt.Errorf("reconcile agency %s: %w: no node has seen a record that the table lost", a.ID, ErrNothing)
	}
	next := seen
	if a.Epoch.Compare(seen.Epoch) > 0 {
		next.Epoch = a.Epoch
	}
	next = next.InTerm(state.Position().Term)
	next.Epoch.Number = max(a.Epoch.Number, seen.Epoch.Number) // the table wants it above in number, too
	next.Epoch = next.Epoch.Next()
	next.Locked, next.Revision = true, a.Revision
	return next, nil
}

// NamesComplete takes people's word that the table has all names again: who isn't in it is
// nobody's. Whoever calls has shown them that names were lost, and since when.
func (c *Control) NamesComplete(ctx context.Context, act Act) error {
	_, err := c.change(ctx, act, "names-complete", func(state *routing.State) (table.Change, error) {
		d, ok := state.Document(routing.NamesLost)
		if !ok {
			return table.Change{}, fmt.Errorf("names are complete: %w: the table doesn't say that any were lost", ErrNothing)
		}
		d.Removed = true
		return table.Change{Documents: []routing.Document{d}, What: "take the names as complete"}, nil
	})
	return err
}

// EndRejoin ends a rejoin on people's word that the table is as it should be, although
// nodes are missing or have seen more. These may have seen names that the table lost: until
// people say that they are complete, none counts as unknown.
func (c *Control) EndRejoin(ctx context.Context, act Act) error {
	_, err := c.change(ctx, act, "end-rejoin", func(state *routing.State) (table.Change, error) {
		c := table.Change{What: "end the rejoin", Guard: table.Guard{EndRejoin: true}}
		if _, ok := state.Document(routing.NamesLost); !ok {
			c.Documents = []routing.Document{routing.UnheardDocument()}
		}
		return c, nil
	})
	return err
}
