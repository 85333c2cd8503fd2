package admin

import (
	"context"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Release takes a name that two claim from one of them.
type Release struct {
	Name   string `json:"name" minLength:"1" maxLength:"1000" doc:"Address or login"`
	Agency string `json:"agency,omitempty" maxLength:"63" doc:"That gives it up"`
	Fixed  bool   `json:"fixed,omitempty" doc:"The fixed address is what gives it up"`
	Reason string `json:"reason" minLength:"1" maxLength:"1000"`
}

// Released says who has a name now.
type Released struct {
	Name     string   `json:"name" doc:"In canonical form"`
	Claims   []string `json:"claims" doc:"Who has it now"`
	Revision uint64   `json:"revision" doc:"Of the table that has it so"`
}

const releasePath = "/v1/names/release"

func (s *Server) registerRelease(api huma.API) {
	handle(s, api, huma.Operation{
		OperationID: "release-name", Method: http.MethodPost, Path: releasePath, Tags: []string{"mailboxes"},
		Summary: "Take a name that two claim from one of them",
		Description: "Name an agency, or say fixed. Nobody gets mail or logs in under such a name, so no answer is lost; what else a mailbox has, it keeps. " +
			"A mailbox of which others have every name goes as a whole. A name that one has alone is never released: that is a switch.",
	}, func(ctx context.Context, in *struct {
		Mutation
		Body Release
	}) (*reply[Released], error) {
		return s.release(ctx, in.Body)
	})
}

func (s *Server) release(ctx context.Context, r Release) (*reply[Released], error) {
	reason, err := checkReason(r.Reason)
	if err != nil {
		return nil, err
	}
	if (r.Agency == "") == !r.Fixed {
		return nil, problem(http.StatusBadRequest, "", "name an agency, or say fixed, one of them")
	}
	name := r.Name
	if a, err := routing.ParseAddress(r.Name); err == nil {
		name = string(a)
	} else if l, err := routing.ParseLogin(r.Name); err == nil {
		name = string(l)
	}
	state, err := s.change(ctx, func(state *routing.State) (c table.Change, mappings []*routing.Mapping, err error) {
		c = table.Change{Mapped: state.Position().Mapped, Reason: reason, What: fmt.Sprintf("release %s of agency %s", name, r.Agency)}
		if r.Fixed {
			c.What = fmt.Sprintf("release the fixed address %s", name)
			c.Fixed, err = releaseFixed(state, routing.Address(name))
			return c, nil, err
		}
		a, ok := state.Agency(routing.AgencyID(r.Agency))
		switch {
		case !ok:
			return c, nil, noAgency(r.Agency)
		case a.Operation != "":
			return c, nil, fmt.Errorf("release %s: agency %s: %w: %s", name, a.ID, routing.ErrOperationOpen, a.Operation)
		}
		m, err := state.Release(name, a.ID)
		if err != nil {
			return c, nil, err
		}
		a.Mapping = m.Digest()
		c.Agencies = []routing.Agency{a}
		return c, []*routing.Mapping{m}, nil
	})
	if err != nil {
		return nil, err
	}
	out := &reply[Released]{Body: Released{Name: name, Claims: []string{}, Revision: uint64(state.Position().Revision)}}
	for _, c := range state.Claims(name) {
		out.Body.Claims = append(out.Body.Claims, c.String())
	}
	return out, nil
}

// releaseFixed returns the removal of a fixed address that a mailbox claims too.
func releaseFixed(state *routing.State, name routing.Address) ([]routing.Fixed, error) {
	for f := range state.FixedAddresses() {
		if f.Address == name && len(state.Claims(string(name))) > 1 {
			f.Removed = true
			return []routing.Fixed{f}, nil
		}
	}
	return nil, fmt.Errorf("fixed address %s: %w: only a name that two claim is released", name, routing.ErrNotReleased)
}
