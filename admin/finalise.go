package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"mailcutover/approval"
	"mailcutover/rollback/recall/desk"
	"mailcutover/routing"
)

// errReturning is about an agency whose way back can't be ended yet.
var errReturning = errors.New("what the way back is for isn't settled")

// finaliseKind ends the way back of an agency, unless something of it is open: a run that
// brings mail over, or what one left.
func finaliseKind() *kind {
	k := agencyKind("finalise", "end the way back of an agency that is on its target platform; every node removes its retained copies for good", "", routing.Agency.Finalise, Control.Finalise)
	content, use := k.content, k.use
	k.content = func(s *Server, ctx context.Context, state *routing.State, in *NewProposal) (c approval.Content, text []string, err error) {
		if c, text, err = content(s, ctx, state, in); err == nil {
			err = s.returned(state, c.Agency)
		}
		return c, text, err
	}
	k.use = func(s *Server, ctx context.Context, p *approval.Proposal) (*Started, error) {
		if err := s.returned(s.Replica.State(), p.Agency); err != nil {
			return nil, err
		}
		return use(s, ctx, p)
	}
	k.refusal = func(err error) bool { return errors.Is(err, errReturning) || controlRefused(err) }
	return k
}

// returned refuses while something of an agency's way back is open.
func (s *Server) returned(state *routing.State, id routing.AgencyID) error {
	open := desk.Open(state, id)
	if s.Verify != nil {
		open = append(open, s.Verify.Open(id)...)
	}
	if len(open) == 0 {
		return nil
	}
	return fmt.Errorf("finalise agency %s: %w: %s", id, errReturning, strings.Join(open, "; "))
}
