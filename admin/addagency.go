package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"mailcutover/approval"
	"mailcutover/audit"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// AddedAgency is an agency that is proposed to be added.
type AddedAgency struct {
	ID      string   `json:"id" doc:"1 to 63 characters of a-z, 0-9 and hyphen" maxLength:"63"`
	Source  string   `json:"source" doc:"Platform that holds its mailboxes now"`
	Target  string   `json:"target" doc:"Platform that it moves to"`
	Parent  string   `json:"parent,omitempty" doc:"Agency that it is a pilot group of"`
	Domains []string `json:"domains,omitempty" doc:"Domains that are served from now on, if they aren't already" maxItems:"1000"`
}

const (
	addAgencyName      = "add-agency"
	completeDomainName = "complete-domain"
)

// alone refuses what one person may do in a lab only (docs/architecture/promises.md, P9).
func (s *Server) alone(what, command string) error {
	if s.Lab || s.Approval == "none" {
		return nil
	}
	return problem(http.StatusForbidden, "propose it: "+command+" does, or POST "+proposalsPath, "%s needs the approval of others", what)
}

// newAgency is an agency that can be added, as far as this node's settings go.
type newAgency struct {
	record  routing.Agency
	domains []string
}

func (s *Server) newAgency(in *AddedAgency) (n newAgency, err error) {
	id, err := routing.ParseAgencyID(in.ID)
	if err != nil {
		return n, err
	}
	for _, p := range []string{in.Source, in.Target} {
		if err := s.knownPlatform(p); err != nil {
			return n, err
		}
	}
	if n.record, err = routing.NewAgency(id, routing.PlatformID(in.Source), routing.PlatformID(in.Target)); err != nil {
		return n, problem(http.StatusBadRequest, "", "%s", err)
	}
	n.record.Parent = routing.AgencyID(in.Parent)
	n.domains, err = parseDomains(in.Domains)
	return n, err
}

// fits says what in the table keeps an agency from being added.
func (n *newAgency) fits(state *routing.State) error {
	if _, ok := state.Agency(n.record.ID); ok {
		return problem(http.StatusConflict, "see mailcutover agency show "+string(n.record.ID), "agency %s is in the table already", n.record.ID)
	}
	return checkParent(state, n.record)
}

// unserved are its domains that the table doesn't serve yet.
func (n *newAgency) unserved(state *routing.State) (out []string) {
	for _, name := range n.domains {
		if _, ok := state.Domain(name); !ok {
			out = append(out, name)
		}
	}
	return out
}

// storeAgency stores a new agency, and the domains that are not served yet, in one change.
// proposal is the one that was approved, or empty.
func (s *Server) storeAgency(ctx context.Context, n newAgency, reason, proposal string) (*routing.State, error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	return s.changeAs(ctx, &audit.Entry{Proposal: proposal}, func(state *routing.State) (c table.Change, _ []*routing.Mapping, err error) {
		if err := n.fits(state); err != nil {
			return c, nil, err
		}
		c = table.Change{Agencies: []routing.Agency{n.record.InTerm(state.Position().Term)}, What: "add agency " + string(n.record.ID), Reason: reason}
		for _, name := range n.unserved(state) {
			c.Domains = append(c.Domains, routing.Domain{Name: name})
			c.Mapped = state.Position().Mapped
		}
		return c, nil, nil
	})
}

// addAgencyKind adds an agency: which platforms its mailboxes are on is believed of all lists
// that come after it.
func addAgencyKind() *kind {
	return &kind{
		name: addAgencyName, right: mayList, needs: []string{"add"},
		about: "add an agency, open on its source platform: mailcutover agency add",
		content: func(s *Server, _ context.Context, state *routing.State, in *NewProposal) (c approval.Content, text []string, err error) {
			n, err := s.newAgency(in.Add)
			if err == nil {
				err = n.fits(state)
			}
			if err != nil {
				return c, nil, err
			}
			c = approval.Content{Kind: addAgencyName, Agency: n.record.ID}
			c.Parameters, err = parameters(c.Kind, &AddedAgency{
				ID: string(n.record.ID), Source: in.Add.Source, Target: in.Add.Target, Parent: in.Add.Parent, Domains: slices.Sorted(slices.Values(n.domains)),
			})
			text = []string{
				"add agency " + in.Add.ID,
				"its mailboxes are on " + in.Add.Source + " now, and move to " + in.Add.Target,
			}
			if in.Add.Parent != "" {
				text = append(text, "it is a pilot group of agency "+in.Add.Parent+", and goes back with it")
			}
			if fresh := n.unserved(state); len(fresh) > 0 {
				text = append(text, "served from then on: "+strings.Join(fresh, ", ")+": mail for them is taken, and put off while nobody has the address")
			}
			if served := slices.DeleteFunc(slices.Clone(n.domains), func(d string) bool { return slices.Contains(n.unserved(state), d) }); len(served) > 0 {
				text = append(text, "served already: "+strings.Join(served, ", "))
			}
			return c, append(text, "no address is routed by it before a list of its mailboxes is in force"), err
		},
		now: func(s *Server, _ context.Context, state *routing.State, p *approval.Proposal) (approval.Content, error) {
			n, err := s.proposedAgency(p)
			if err == nil {
				err = n.fits(state)
			}
			return p.Content, err
		},
		use: func(s *Server, ctx context.Context, p *approval.Proposal) (*Started, error) {
			n, err := s.proposedAgency(p)
			if err != nil {
				return nil, err
			}
			state, err := s.storeAgency(ctx, n, p.Reason, p.ID)
			if err != nil {
				return nil, err
			}
			a, _ := state.Agency(n.record.ID)
			return &Started{Done: fmt.Sprintf("agency %s is added: open on %s, epoch %s", a.ID, a.Platform(), a.Epoch)}, nil
		},
		refusal: func(err error) bool {
			return !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, table.ErrUnavailable)
		},
	}
}

func (s *Server) proposedAgency(p *approval.Proposal) (n newAgency, err error) {
	in, _ := added(p)
	if in == nil {
		return n, fmt.Errorf("proposal %s: %w", p.ID, approval.ErrUnreadable)
	}
	return s.newAgency(in)
}

// added returns which agency a proposal adds, and which domain it calls complete; of one that
// another version has made, nothing.
func added(p *approval.Proposal) (a *AddedAgency, domain string) {
	switch p.Kind {
	case addAgencyName:
		a = new(AddedAgency)
		if err := json.Unmarshal(p.Parameters, a); err != nil {
			return nil, ""
		}
	case completeDomainName:
		var with domainParameters
		if err := json.Unmarshal(p.Parameters, &with); err == nil {
			domain = with.Domain
		}
	}
	return a, domain
}

// domainParameters are what a domain is proposed with.
type domainParameters struct {
	Domain string `json:"domain"`
}

// completeDomainKind lets addresses be denied for good.
func completeDomainKind() *kind {
	served := func(state *routing.State, name string) error {
		d, ok := state.Domain(name)
		switch {
		case !ok:
			return notFound("see mailcutover table show", "no domain %q is served", name)
		case d.Complete:
			return problem(http.StatusConflict, "", "domain %s is complete already", name)
		}
		return nil
	}
	return &kind{
		name: completeDomainName, right: mayList, needs: []string{"domain"},
		about: "say that all addresses of a domain are in the table, so that others are denied for good: mailcutover table domain",
		content: func(s *Server, _ context.Context, state *routing.State, in *NewProposal) (c approval.Content, text []string, err error) {
			name, err := routing.CanonicalDomain(in.Domain)
			if err == nil {
				err = served(state, name)
			}
			if err != nil {
				return c, nil, err
			}
			c = approval.Content{Kind: completeDomainName}
			c.Parameters, err = parameters(c.Kind, domainParameters{Domain: name})
			text = []string{
				"call domain " + name + " complete",
				"from then on, who writes to an address of it that neither the table nor the directory has is told for good that it doesn't exist (550)",
			}
			return c, append(text, s.completeness(state, name)...), err
		},
		now: func(_ *Server, _ context.Context, state *routing.State, p *approval.Proposal) (approval.Content, error) {
			_, name := added(p)
			return p.Content, served(state, name)
		},
		use: func(s *Server, ctx context.Context, p *approval.Proposal) (*Started, error) {
			_, name := added(p)
			if _, err := s.storeComplete(ctx, name, true, p.Reason, p.ID); err != nil {
				return nil, err
			}
			return &Started{Done: "domain " + name + " is complete", Undo: "mailcutover table domain " + name + " --incomplete"}, nil
		},
		refusal: func(err error) bool {
			return !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, table.ErrUnavailable)
		},
	}
}

// completeness says what table and directory have of a domain, for who approves that it is
// complete.
func (s *Server) completeness(state *routing.State, domain string) (text []string) {
	inDomain := func(a routing.Address) bool { return a.Domain() == domain }
	for _, a := range state.Agencies() {
		m := state.Mapping(a.ID)
		if m == nil {
			text = append(text, fmt.Sprintf("WARNING: the mapping of agency %s is not on this node", a.ID))
			continue
		}
		n := 0
		for row := range m.Rows() {
			for _, address := range row.Addresses {
				if inDomain(address) {
					n++
				}
			}
		}
		if n > 0 {
			text = append(text, fmt.Sprintf("the table has %d addresses of it in agency %s", n, a.ID))
		}
	}
	fixed := 0
	for f := range state.FixedAddresses() {
		if inDomain(f.Address) {
			fixed++
		}
	}
	text = append(text, fmt.Sprintf("the table has %d fixed addresses of it", fixed))
	d := s.Desk()
	if d == nil {
		return append(text, "WARNING: no directory is configured on this node, and without one nothing is denied for good")
	}
	missing, read, err := d.Missing(domain)
	if err != nil {
		return append(text, "WARNING: what the directory has of it isn't known: "+err.Error())
	}
	text = append(text, fmt.Sprintf("the directory, read at %s, has %d addresses of it that the table lacks", read.UTC().Format("2006-01-02 15:04 MST"), len(missing)))
	const most = 10
	for i, a := range missing {
		if i == most {
			text = append(text, fmt.Sprintf("  and %d more", len(missing)-most))
			break
		}
		text = append(text, "  "+string(a))
	}
	return text
}
