package admin

import (
	"context"
	"net/http"
	"net/url"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/routing"
)

// LoginRoute says where a login goes now.
type LoginRoute struct {
	Login    string `json:"login" doc:"The name that was asked for"`
	Open     bool   `json:"open" doc:"It may go to the platform now; else let the user wait, or come back"`
	Platform string `json:"platform,omitempty" doc:"That holds the mailbox now, or did last"`
	Agency   string `json:"agency,omitempty"`
	Mailbox  string `json:"mailbox,omitempty" doc:"Directory id"`
	Phase    string `json:"phase,omitempty"`
	Epoch    string `json:"epoch,omitempty" doc:"Changes whenever the answer does"`
	Reason   string `json:"reason" doc:"Why, in words"`
}

func (s *Server) registerRouteLogin(api huma.API) {
	handle(s, api, huma.Operation{
		OperationID: "route-login", Method: http.MethodGet, Path: "/v1/route/login/{name}", Tags: []string{"routing"},
		Summary:     "Where a login goes now: for what stands in front of web mail",
		Description: "By this node's copy of the table and its right to decide; nothing is asked of anybody. Ask it for each login, and keep the answer for no longer than a few seconds. GET /v1/route explains more.",
	}, func(_ context.Context, in *struct {
		Name string `path:"name" maxLength:"255"`
	}) (*reply[LoginRoute], error) {
		return s.routeLogin(in.Name)
	})
}

func (s *Server) routeLogin(name string) (*reply[LoginRoute], error) {
	d, err := s.decideLogin(name)
	if err != nil {
		return nil, problem(http.StatusBadRequest, "an address, or a login as the table has it", "%s", err)
	}
	if d.Reason == routing.ReasonNoSuchName || d.Reason == routing.ReasonForeign {
		return nil, notFound("see mailcutover route explain --login", "no mailbox has the login %q", name)
	}
	v := LoginRoute{
		Login: name, Open: d.Deliver(), Platform: string(d.Platform), Agency: string(d.Agency), Reason: d.Reason.String(),
	}
	if d.Agency != "" {
		v.Mailbox, v.Phase, v.Epoch = d.Mailbox.String(), d.Phase.String(), d.Epoch.String()
	}
	return &reply[LoginRoute]{Body: v}, nil
}

// decideLogin is what this node would do with a login.
func (s *Server) decideLogin(name string) (routing.Decision, error) {
	if s.Login != nil {
		return s.Login(name)
	}
	l, err := routing.ParseLogin(name)
	if err != nil {
		return routing.Decision{}, err
	}
	return s.Gate.Login(l), nil
}

// RouteLogin says where a login goes now.
func (c *Client) RouteLogin(ctx context.Context, name string) (LoginRoute, error) {
	return get[LoginRoute](ctx, c, "/v1/route/login/"+url.PathEscape(name), nil)
}
