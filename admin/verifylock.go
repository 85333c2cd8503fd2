package admin

import (
	"context"

	"mailcutover/routing"
)

// Comparison is the person in whose name the table and the audit log have what comparing
// mailboxes leads to by itself.
const Comparison = "comparison of mailboxes"

// LockCrossed locks an agency for what comparing its mailboxes found, as an emergency in the name of
// [Comparison]: a person has to confirm it. routing.ErrLocked if it is locked already.
func (s *Server) LockCrossed(ctx context.Context, id routing.AgencyID, reason string) error {
	if a, ok := s.Replica.State().Agency(id); ok && a.Locked {
		return routing.ErrLocked
	}
	ctx = inNameOf(ctx, Comparison, "lock-agency")
	in := &changeAgency{ID: string(id)}
	in.Body.Reason = reason
	_, err := s.lock(ctx, in)
	if err != nil {
		s.recordFailure(ctx, err)
	}
	return err
}
