package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/audit"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

func (s *Server) registerDomains(api huma.API) {
	handle(s, api, huma.Operation{
		OperationID: "complete-domain", Method: http.MethodPost, Path: "/v1/domains/{name}/complete", Tags: []string{"routing"},
		Summary:     "Say whether all addresses of a domain are in the table",
		Description: "That one is complete is proposed, with the kind complete-domain, unless in a lab; that it isn't, one person says. In a domain that is complete, an address that neither the table nor the directory knows, when it was read within the hour nor now, is answered 550 5.1.1; in all others 451.",
	}, func(ctx context.Context, in *struct {
		Mutation
		Name string `path:"name" maxLength:"255"`
		Body struct {
			Complete bool   `json:"complete"`
			Reason   string `json:"reason" minLength:"1" maxLength:"1000"`
		}
	}) (*reply[Domain], error) {
		if in.Body.Complete {
			if err := s.alone("domain "+in.Name+" complete", "mailcutover table domain "+in.Name); err != nil {
				return nil, err
			}
		}
		return s.completeDomain(ctx, in.Name, in.Body.Complete, in.Body.Reason)
	})
}

func (s *Server) completeDomain(ctx context.Context, name string, complete bool, why string) (*reply[Domain], error) {
	reason, err := checkReason(why)
	if err != nil {
		return nil, err
	}
	return s.storeComplete(ctx, name, complete, reason, "")
}

// storeComplete stores whether all addresses of a domain are in the table; proposal is the one
// that was approved, or empty.
func (s *Server) storeComplete(ctx context.Context, name string, complete bool, reason, proposal string) (*reply[Domain], error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if canonical, err := routing.CanonicalDomain(name); err == nil {
		name = canonical
	}
	entry := audit.Entry{Proposal: proposal}
	_, err := s.changeAs(ctx, &entry, func(state *routing.State) (c table.Change, _ []*routing.Mapping, err error) {
		d, ok := state.Domain(name)
		switch {
		case !ok:
			return c, nil, notFound("see mailcutover table show", "no domain %q is served", name)
		case d.Complete == complete:
			return c, nil, nil
		}
		entry.Before = fmt.Sprintf("complete=%t", d.Complete)
		d.Complete = complete
		return table.Change{Domains: []routing.Domain{d}, Mapped: state.Position().Mapped, Reason: reason, What: fmt.Sprintf("domain %s: complete=%t", name, complete)}, nil, nil
	})
	return &reply[Domain]{Body: Domain{Name: name, Complete: complete}}, err
}

// CompleteDomain says whether all addresses of a domain are in the table.
func (c *Client) CompleteDomain(ctx context.Context, name string, complete bool, reason string) (Domain, error) {
	return post[Domain](ctx, c, "/v1/domains/"+url.PathEscape(name)+"/complete", map[string]any{"complete": complete, "reason": reason})
}
