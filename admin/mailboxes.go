package admin

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/routing"
)

// Mailboxes is a page of an agency's mailboxes.
type Mailboxes struct {
	Mailboxes []Mailbox `json:"mailboxes"`
	Next      string    `json:"next,omitempty" doc:"Say it as after to get the next page; absent on the last"`
}

const maxPage = 1000

func (s *Server) registerMailboxes(api huma.API) {
	tags := []string{"mailboxes"}
	handle(s, api, huma.Operation{
		OperationID: "list-mailboxes", Method: http.MethodGet, Path: "/v1/mailboxes", Summary: "An agency's mailboxes, ascending by directory id", Tags: tags,
	}, func(_ context.Context, in *struct {
		Agency string `query:"agency" required:"true" maxLength:"63"`
		After  string `query:"after" doc:"Directory id; only those that follow"`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"1000"`
	}) (*reply[Mailboxes], error) {
		return s.mailboxes(in.Agency, in.After, in.Limit)
	})
	handle(s, api, huma.Operation{
		OperationID: "show-mailbox", Method: http.MethodGet, Path: "/v1/mailboxes/{name}", Tags: tags,
		Summary: "The mailbox that has a directory id, an address or a login",
	}, func(_ context.Context, in *struct {
		Name string `path:"name" maxLength:"1000"`
	}) (*reply[Mailbox], error) {
		return s.mailbox(in.Name)
	})
}

func (s *Server) mailboxes(agency, after string, limit int) (*reply[Mailboxes], error) {
	state := s.Replica.State()
	a, ok := state.Agency(routing.AgencyID(agency))
	if !ok {
		return nil, noAgency(agency)
	}
	if after != "" {
		id, err := routing.ParseMailboxID(after)
		if err != nil {
			return nil, err
		}
		after = id.String()
	}
	m := state.Mapping(a.ID)
	if m == nil {
		return nil, problem(http.StatusServiceUnavailable, "see mailcutover table show", "the mapping of agency %s is not on this node", a.ID)
	}
	out := &reply[Mailboxes]{Body: Mailboxes{Mailboxes: []Mailbox{}}}
	for r := range m.Rows() {
		if after != "" && r.Mailbox.String() <= after {
			continue
		}
		if len(out.Body.Mailboxes) == min(limit, maxPage) {
			out.Body.Next = out.Body.Mailboxes[len(out.Body.Mailboxes)-1].ID
			break
		}
		out.Body.Mailboxes = append(out.Body.Mailboxes, mailboxView(a, r))
	}
	return out, nil
}

// mailbox looks for a directory id first: no address and no login of ours looks like one.
func (s *Server) mailbox(name string) (*reply[Mailbox], error) {
	state := s.Replica.State()
	if id, err := routing.ParseMailboxID(name); err == nil {
		for _, a := range state.Agencies() {
			if m := state.Mapping(a.ID); m != nil {
				if row, ok := m.Mailbox(id); ok {
					return &reply[Mailbox]{Body: mailboxView(a, row)}, nil
				}
			}
		}
		return nil, notFound("", "no mailbox with the directory id %s", id)
	}
	var d routing.Decision
	if address, err := routing.ParseAddress(name); err == nil {
		d = state.DecideAddress(address, s.Separator)
		if d.Reason == routing.ReasonFixed {
			return nil, notFound("see mailcutover route explain", "%s is a fixed address, not a mailbox", address)
		}
	}
	if login, err := routing.ParseLogin(name); err == nil && d.Agency == "" {
		d = state.DecideLogin(login)
	}
	a, ok := state.Agency(d.Agency)
	if !ok {
		return nil, notFound("it takes a directory id, an address or a login", "no mailbox %q", name)
	}
	row, ok := state.Mapping(a.ID).Mailbox(d.Mailbox)
	if !ok {
		return nil, notFound("", "no mailbox %q", name)
	}
	return &reply[Mailbox]{Body: mailboxView(a, row)}, nil
}
