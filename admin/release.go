package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/approval"
	"mailcutover/audit"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// ReleasedName says which name is taken from whom.
type ReleasedName struct {
	Name   string `json:"name" minLength:"1" maxLength:"1000" doc:"Address or login"`
	Agency string `json:"agency,omitempty" maxLength:"63" doc:"That gives it up"`
	Fixed  bool   `json:"fixed,omitempty" doc:"The fixed address is what gives it up"`
}

// Release takes a name that two claim from one of them.
type Release struct {
	ReleasedName
	Reason string `json:"reason" minLength:"1" maxLength:"1000"`
}

// Released says who has a name now.
type Released struct {
	Name     string   `json:"name" doc:"In canonical form"`
	Claims   []string `json:"claims" doc:"Who has it now"`
	Revision uint64   `json:"revision" doc:"Of the table that has it so"`
}

const (
	releasePath = "/v1/names/release"
	releaseName = "release-name"
)

func (s *Server) registerRelease(api huma.API) {
	handle(s, api, huma.Operation{
		OperationID: releaseName, Method: http.MethodPost, Path: releasePath, Tags: []string{"mailboxes"},
		Summary: "Take a name that two claim from one of them",
		Description: "Name an agency, or say fixed. Nobody gets mail or logs in under such a name, so no answer is lost; what else a mailbox has, it keeps. " +
			"A mailbox of which others have every name goes as a whole. A name that one has alone is never released, since that is a switch; but a fixed address is that is a mailbox's by the directory. " +
			"From then on the other one gets the name's mail: unless in a lab it is proposed, with the kind release-name.",
	}, func(ctx context.Context, in *struct {
		Mutation
		Body Release
	}) (*reply[Released], error) {
		if err := s.alone("taking a name from one of two", "mailcutover mailbox release"); err != nil {
			return nil, err
		}
		reason, err := checkReason(in.Body.Reason)
		if err != nil {
			return nil, err
		}
		return s.release(ctx, in.Body.ReleasedName, reason, "")
	})
}

// canonical returns what is to be released in canonical form.
func (r *ReleasedName) canonical() (ReleasedName, error) {
	if (r.Agency == "") == !r.Fixed {
		return *r, problem(http.StatusBadRequest, "", "name an agency, or say fixed, one of them")
	}
	out := *r
	if a, err := routing.ParseAddress(r.Name); err == nil {
		out.Name = string(a)
	} else if l, err := routing.ParseLogin(r.Name); err == nil {
		out.Name = string(l)
	}
	return out, nil
}

// String is the release in words.
func (r *ReleasedName) String() string {
	if r.Fixed {
		return "release the fixed address " + r.Name
	}
	return fmt.Sprintf("release %s of agency %s", r.Name, r.Agency)
}

// holder returns the mailbox that has an address by the directory; ok is false if none has.
type holder func(routing.Address) (id routing.MailboxID, ok bool, err error)

// holder asks the last reading of the directory; without one no mailbox has any.
func (s *Server) holder(a routing.Address) (id routing.MailboxID, ok bool, err error) {
	d := s.Desk()
	if d == nil {
		return id, false, nil
	}
	if id, ok, err = d.Holder(a); err != nil {
		err = deskProblem(err)
	}
	return id, ok, err
}

// change returns what a release stores.
func (r *ReleasedName) change(state *routing.State, of holder) (c table.Change, mapping *routing.Mapping, err error) {
	c = table.Change{Mapped: state.Position().Mapped, What: r.String()}
	if r.Fixed {
		c.Fixed, err = releaseFixed(state, routing.Address(r.Name), of)
		return c, nil, err
	}
	a, ok := state.Agency(routing.AgencyID(r.Agency))
	switch {
	case !ok:
		return c, nil, noAgency(r.Agency)
	case a.Operation != "":
		return c, nil, fmt.Errorf("release %s: agency %s: %w: %s", r.Name, a.ID, routing.ErrOperationOpen, a.Operation)
	}
	if mapping, err = state.Release(r.Name, a.ID); err != nil {
		return c, nil, err
	}
	a.Mapping = mapping.Digest()
	c.Agencies = []routing.Agency{a}
	return c, mapping, nil
}

// release stores that a name is released; proposal is the one that was approved, or empty.
func (s *Server) release(ctx context.Context, in ReleasedName, reason, proposal string) (*reply[Released], error) {
	r, err := in.canonical()
	if err != nil {
		return nil, err
	}
	entry := audit.Entry{Proposal: proposal}
	state, err := s.changeAs(ctx, &entry, func(state *routing.State) (c table.Change, mappings []*routing.Mapping, err error) {
		c, m, err := r.change(state, s.holder)
		c.Reason = reason
		if m != nil {
			mappings = append(mappings, m)
		}
		return c, mappings, err
	})
	if err != nil {
		return nil, err
	}
	out := &reply[Released]{Body: Released{Name: r.Name, Claims: claimsOf(state, r.Name), Revision: uint64(state.Position().Revision)}}
	return out, nil
}

// claimsOf says who has a name.
func claimsOf(state *routing.State, name string) []string {
	out := []string{}
	for _, c := range state.Claims(name) {
		out = append(out, c.String())
	}
	return out
}

// releaseParameters are what a release is proposed with: what it does is the same as long as they
// are.
type releaseParameters struct {
	ReleasedName
	Claims []string `json:"claims"`
	Whole  bool     `json:"whole,omitempty"` // its mailbox goes with the name

	// Mailbox has the fixed address by the directory, where nobody else claims it.
	Mailbox routing.MailboxID `json:"mailbox,omitzero"`
}

// releasing returns what a release would do now.
func releasing(state *routing.State, in ReleasedName, of holder) (c approval.Content, with releaseParameters, err error) {
	r, err := in.canonical()
	if err != nil {
		return c, with, err
	}
	_, m, err := r.change(state, of)
	if err != nil {
		return c, with, err
	}
	with = releaseParameters{ReleasedName: r, Claims: claimsOf(state, r.Name)}
	if r.Fixed && len(with.Claims) == 1 {
		if with.Mailbox, _, err = of(routing.Address(r.Name)); err != nil {
			return c, with, err
		}
	}
	if m != nil {
		with.Whole = m.Len() < state.Mapping(routing.AgencyID(r.Agency)).Len()
	}
	c = approval.Content{Kind: releaseName}
	c.Parameters, err = parameters(c.Kind, with)
	return c, with, err
}

// released returns what a proposal releases; nil: it is of another kind, or of another version.
func released(p *approval.Proposal) *ReleasedName {
	var with releaseParameters
	if p.Kind != releaseName || json.Unmarshal(p.Parameters, &with) != nil {
		return nil
	}
	return &with.ReleasedName
}

// releaseKind gives a name that two claim to one of them.
func releaseKind() *kind {
	return &kind{
		name: releaseName, right: mayList, needs: []string{"release"},
		about: "take a name that two claim from one of them, so that the other gets its mail: mailcutover mailbox release",
		content: func(s *Server, _ context.Context, state *routing.State, in *NewProposal) (approval.Content, []string, error) {
			c, with, err := releasing(state, *in.Release, s.holder)
			if err != nil {
				return c, nil, err
			}
			if !with.Mailbox.IsZero() {
				return c, []string{with.String(), fmt.Sprintf("by the directory it is an address of the mailbox %s now, whose list can't come into force while it is fixed", with.Mailbox),
					"from then on nobody has it: mail to it is put off until that mailbox is in the table with it, so have the list at hand"}, nil
			}
			text := []string{with.String(), "nobody gets mail or logs in under it now, since these claim it:"}
			for _, one := range with.Claims {
				text = append(text, "  "+one)
			}
			if with.Whole {
				text = append(text, "WARNING: others have every name of the mailbox, so it goes as a whole")
			}
			return c, append(text, "from then on the other one gets its mail: look at both in the directory before you approve it"), nil
		},
		now: func(s *Server, _ context.Context, state *routing.State, p *approval.Proposal) (approval.Content, error) {
			r := released(p)
			if r == nil {
				return p.Content, fmt.Errorf("proposal %s: %w", p.ID, approval.ErrUnreadable)
			}
			c, _, err := releasing(state, *r, s.holder)
			return c, err
		},
		use: func(s *Server, ctx context.Context, p *approval.Proposal) (*Started, error) {
			r := released(p)
			if r == nil {
				return nil, fmt.Errorf("proposal %s: %w", p.ID, approval.ErrUnreadable)
			}
			done, err := s.release(ctx, *r, p.Reason, p.ID)
			if err != nil {
				return nil, err
			}
			if len(done.Body.Claims) == 0 {
				return &Started{Done: fmt.Sprintf("%s belongs to nobody, in revision %d; mail to it is put off until a list brings it", done.Body.Name, done.Body.Revision)}, nil
			}
			return &Started{Done: fmt.Sprintf("%s belongs to %s, in revision %d", done.Body.Name, strings.Join(done.Body.Claims, ", and "), done.Body.Revision)}, nil
		},
		refusal: func(err error) bool {
			return !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, table.ErrUnavailable)
		},
	}
}

// releaseFixed returns the removal of a fixed address that a mailbox claims too, or has by the
// directory: a group's address that was given to a mailbox, say.
func releaseFixed(state *routing.State, name routing.Address, of holder) ([]routing.Fixed, error) {
	for f := range state.FixedAddresses() {
		if f.Address != name {
			continue
		}
		if len(state.Claims(string(name))) < 2 {
			if _, is, err := of(name); err != nil {
				return nil, err
			} else if !is {
				break
			}
		}
		f.Removed = true
		return []routing.Fixed{f}, nil
	}
	return nil, fmt.Errorf("fixed address %s: %w: only one that a mailbox claims too, or has by the directory, is released", name, routing.ErrNotReleased)
}
