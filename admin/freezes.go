package admin

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"mailcutover/audit"
	"mailcutover/rollback/control"
	"mailcutover/routing"
)

const freezesPath = "/v1/freezes"

// Freeze forbids operations to begin.
type Freeze struct {
	Agency string    `json:"agency,omitempty" doc:"Absent: all agencies"`
	Person string    `json:"person"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// Freezes is a list of them.
type Freezes struct {
	Freezes []Freeze `json:"freezes"`
}

// freezeCall names what is frozen or no longer.
type freezeCall struct {
	Mutation
	Body struct {
		Agency string `json:"agency,omitempty" maxLength:"63" doc:"Absent: all agencies"`
		Reason string `json:"reason" minLength:"1" maxLength:"1000"`
	}
}

func (in *freezeCall) scope() []routing.AgencyID {
	if in.Body.Agency == "" {
		return nil
	}
	return []routing.AgencyID{routing.AgencyID(in.Body.Agency)}
}

func (s *Server) registerFreezes(api huma.API) {
	tags := []string{"freezes"}
	list := func() *reply[Freezes] {
		out := &reply[Freezes]{Body: Freezes{Freezes: []Freeze{}}}
		for _, f := range s.Replica.State().Freezes() {
			out.Body.Freezes = append(out.Body.Freezes, Freeze{string(f.Agency), f.Who, f.Reason, f.Since})
		}
		return out
	}
	handle(s, api, huma.Operation{
		OperationID: "list-freezes", Method: http.MethodGet, Path: freezesPath, Summary: "The freezes in force, that of all agencies first", Tags: tags,
	}, func(context.Context, *struct{}) (*reply[Freezes], error) { return list(), nil })
	for _, one := range []struct {
		id, path, summary, after string
		do                       func(context.Context, control.Act, routing.AgencyID) error
	}{
		{"freeze", freezesPath, "Forbid operations of an agency, or of all, to begin; emergencies go on", "frozen", s.Control.Freeze},
		{"lift-freeze", freezesPath + "/lift", "End a freeze", "not frozen", s.Control.Lift},
	} {
		handle(s, api, huma.Operation{OperationID: one.id, Method: http.MethodPost, Path: one.path, Summary: one.summary, Tags: tags},
			func(ctx context.Context, in *freezeCall) (*reply[Freezes], error) {
				ctx, cancel := context.WithTimeout(ctx, changeTimeout)
				defer cancel()
				reason, err := checkReason(in.Body.Reason)
				if err != nil {
					return nil, err
				}
				subject := "all agencies"
				if in.Body.Agency != "" {
					subject = "agency " + in.Body.Agency
				}
				if err := s.record(ctx, audit.Entry{Subject: subject, Reason: reason, Before: frozenText(s.Replica.State(), routing.AgencyID(in.Body.Agency)), After: one.after}); err != nil {
					return nil, err
				}
				if err := one.do(ctx, s.act(ctx, one.id+"/"+uuid.NewString(), reason), routing.AgencyID(in.Body.Agency)); err != nil {
					return nil, err
				}
				return list(), nil
			})
	}
}

// frozenText is what the audit log says of a freeze; an empty id stands for that of all.
func frozenText(state *routing.State, id routing.AgencyID) string {
	for _, f := range state.Freezes() {
		if f.Agency == id {
			return "frozen by " + f.Who + ": " + f.Reason
		}
	}
	return "not frozen"
}

// Freezes returns the freezes in force.
func (c *Client) Freezes(ctx context.Context) ([]Freeze, error) {
	out, err := get[Freezes](ctx, c, freezesPath, nil)
	return out.Freezes, err
}

// Freeze forbids operations of an agency to begin; of all, if it is empty.
func (c *Client) Freeze(ctx context.Context, agency, reason string) ([]Freeze, error) {
	out, err := post[Freezes](ctx, c, freezesPath, frozen(agency, reason))
	return out.Freezes, err
}

// Lift ends a freeze.
func (c *Client) Lift(ctx context.Context, agency, reason string) ([]Freeze, error) {
	out, err := post[Freezes](ctx, c, freezesPath+"/lift", frozen(agency, reason))
	return out.Freezes, err
}

func frozen(agency, reason string) map[string]string {
	body := map[string]string{"reason": reason}
	if agency != "" {
		body["agency"] = agency
	}
	return body
}
