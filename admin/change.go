package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"mailcutover/audit"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// errStaleEpoch is for a caller who has not seen the newest record.
var errStaleEpoch = errors.New("expected_epoch is not the agency's")

const (
	changeTimeout = 15 * time.Second // for a change of some records
	listTimeout   = 5 * time.Minute  // for a list of mailboxes
	changeTries   = 20               // when others change the same records
)

// change stores what compute makes of the newest State, again if that was overtaken.
// compute sets the records, Mapped, What and Reason; a Change without records stores
// nothing, and is not in the audit log. mappings are put into the table before. It returns the State that has it.
func (s *Server) change(ctx context.Context, compute func(*routing.State) (c table.Change, mappings []*routing.Mapping, err error)) (*routing.State, error) {
	return s.changeAs(ctx, new(audit.Entry), compute)
}

// changeAs is change with what the audit record says besides the records' change, which
// compute may set.
func (s *Server) changeAs(ctx context.Context, entry *audit.Entry, compute func(*routing.State) (c table.Change, mappings []*routing.Mapping, err error)) (*routing.State, error) {
	id := "api/" + requestOf(ctx).id
	for try := 0; ; try++ {
		state := s.Replica.State()
		c, mappings, err := compute(state)
		if err != nil {
			return nil, err
		}
		if len(c.Agencies)+len(c.Domains)+len(c.Fixed)+len(c.Documents)+len(c.Freezes) == 0 {
			return state, nil
		}
		if err := s.recordChange(ctx, state, &c, *entry); err != nil {
			return nil, err
		}
		for _, m := range mappings {
			if err := table.Persist(ctx, func() error { return s.Table.PutMapping(ctx, m) }); err != nil {
				return nil, err
			}
		}
		c.ID, c.Who = fmt.Sprintf("%s/%d/%s", id, try, uuid.NewString()), callerOf(ctx).person
		c.Incarnation, c.Term = state.Position().Incarnation, state.Position().Term
		var pos routing.Position
		err = table.Persist(ctx, func() (err error) { pos, err = s.Table.Change(ctx, c); return err })
		if (errors.Is(err, table.ErrStale) || errors.Is(err, table.ErrTerm)) && try < changeTries {
			if pos, err = s.Table.Position(ctx); err == nil {
				err = s.Replica.Wait(ctx, pos)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.What, err)
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.What, err)
		}
		s.Logger.InfoContext(ctx, "table changed", "request", requestOf(ctx).id, "what", c.What, "person", c.Who, "reason", c.Reason, "revision", pos.Revision)
		// What may happen while the table waits for its nodes opens and names nothing: it
		// closes, or is what people propose. That never waits for replicas that are gone.
		if !c.Guard.Rejoining {
			err = table.Confirm(ctx, s.Table)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: stored as revision %d, but not known to be durable: %w", c.What, pos.Revision, err)
		}
		if err := s.Replica.Wait(ctx, pos); err != nil {
			return nil, fmt.Errorf("%s: stored as revision %d, but this node's copy has not followed yet: %w", c.What, pos.Revision, err)
		}
		return s.Replica.State(), nil
	}
}
