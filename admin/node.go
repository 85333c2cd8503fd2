package admin

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/audit"
	"mailcutover/internal/alarm"
	"mailcutover/routing"
)

// Domains is a list of them.
type Domains struct {
	Domains []Domain `json:"domains"`
}

// Platforms is a list of them.
type Platforms struct {
	Platforms []Platform `json:"platforms"`
}

// AlarmList is a list of alarms.
type AlarmList struct {
	Alarms []alarm.Alarm `json:"alarms"`
}

// registerNode registers the calls about this node, its copy of the table and its settings.
func (s *Server) registerNode(api huma.API) {
	handle(s, api, huma.Operation{
		OperationID: "explain-route", Method: http.MethodGet, Path: "/v1/route", Tags: []string{"routing"},
		Summary: "What would be done now with mail for an address, or with a login", Description: "Name exactly one of the two. Nothing is changed and nothing is sent.",
	}, func(_ context.Context, in *struct {
		Address string `query:"address" maxLength:"1000"`
		Login   string `query:"login" maxLength:"1000"`
	}) (*reply[Route], error) {
		return s.route(in.Address, in.Login)
	})
	handle(s, api, huma.Operation{
		OperationID: "list-domains", Method: http.MethodGet, Path: "/v1/domains", Summary: "The served domains, by name", Tags: []string{"routing"},
	}, func(context.Context, *struct{}) (*reply[Domains], error) {
		out := &reply[Domains]{Body: Domains{Domains: []Domain{}}}
		for _, d := range s.Replica.State().Domains() {
			out.Body.Domains = append(out.Body.Domains, Domain{Name: d.Name, Complete: d.Complete})
		}
		return out, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "show-table", Method: http.MethodGet, Path: "/v1/table", Summary: "Where this node's copy of the table stands", Tags: []string{"node"},
	}, func(context.Context, *struct{}) (*reply[Table], error) {
		return &reply[Table]{Body: s.tableView()}, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "list-platforms", Method: http.MethodGet, Path: "/v1/platforms", Summary: "The platforms as this node sees them", Tags: []string{"node"},
	}, func(context.Context, *struct{}) (*reply[Platforms], error) {
		return &reply[Platforms]{Body: Platforms{Platforms: append([]Platform{}, s.Platforms()...)}}, nil
	})
	s.registerConfig(api)
	handle(s, api, huma.Operation{
		OperationID: "list-alarms", Method: http.MethodGet, Path: "/v1/alarms", Summary: "What a human has to see, the oldest first", Tags: []string{"node"},
	}, func(context.Context, *struct{}) (*reply[AlarmList], error) {
		return &reply[AlarmList]{Body: AlarmList{Alarms: append([]alarm.Alarm{}, s.Alarms.List()...)}}, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "clear-alarm", Method: http.MethodPost, Path: "/v1/alarms/{key}/clear", Tags: []string{"node"},
		Summary: "Mark an alarm as done", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, in *struct {
		Mutation
		Key  string `path:"key" maxLength:"1000"`
		Body struct {
			Reason string `json:"reason" minLength:"1" maxLength:"1000" doc:"What was done about it"`
		}
	}) (*struct{}, error) {
		reason, err := checkReason(in.Body.Reason)
		if err != nil {
			return nil, err
		}
		if err := s.record(ctx, audit.Entry{Subject: "alarm " + in.Key, Reason: reason}); err != nil {
			return nil, err
		}
		if !s.Alarms.Clear(in.Key) {
			return nil, notFound("see mailcutover alarm list", "no alarm %q", in.Key)
		}
		s.Logger.InfoContext(ctx, "alarm cleared by a person", "request", requestOf(ctx).id, "alarm", in.Key, "person", callerOf(ctx).person, "reason", reason)
		return nil, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "show-version", Method: http.MethodGet, Path: "/v1/version", Summary: "The running program", Tags: []string{"node"},
	}, func(context.Context, *struct{}) (*reply[Version], error) {
		return &reply[Version]{Body: s.Version}, nil
	})
}

// registerConfig registers the calls about this node's settings.
func (s *Server) registerConfig(api huma.API) {
	type yaml struct {
		ContentType string `header:"Content-Type"`
		Body        []byte
	}
	handle(s, api, huma.Operation{
		OperationID: "show-config", Method: http.MethodGet, Path: "/v1/config", Summary: "The settings in force, secrets left out", Tags: []string{"node"},
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{"application/yaml": {Schema: &huma.Schema{Type: huma.TypeString}}}}},
	}, func(_ context.Context, in *struct {
		Changed bool `query:"changed" doc:"Only those that differ from the defaults"`
	}) (*yaml, error) {
		return &yaml{ContentType: "application/yaml", Body: []byte(s.Config(in.Changed))}, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "reload-config", Method: http.MethodPost, Path: "/v1/config/reload", Tags: []string{"node"},
		Summary: "Read the configuration again", Description: "It is taken over as a whole or not at all.",
	}, func(ctx context.Context, in *struct {
		Mutation
		Body struct {
			Reason string `json:"reason" minLength:"1" maxLength:"1000"`
		}
	}) (*reply[Reloaded], error) {
		reason, err := checkReason(in.Body.Reason)
		if err != nil {
			return nil, err
		}
		if err := s.record(ctx, audit.Entry{Subject: "configuration of node " + s.Node, Reason: reason}); err != nil {
			return nil, err
		}
		done, err := s.Reload(ctx)
		if err != nil {
			p := problem(http.StatusConflict, "nothing was taken over; correct the file and reload again", "the configuration can't be taken over")
			for line := range strings.Lines(err.Error()) {
				p.Errors = append(p.Errors, Detail{Message: strings.TrimSpace(line)})
			}
			return nil, p
		}
		s.Logger.InfoContext(ctx, "configuration reloaded", "request", requestOf(ctx).id, "person", callerOf(ctx).person, "reason", reason, "changed", done.Changed)
		done.Changed = append([]string{}, done.Changed...)
		return &reply[Reloaded]{Body: done}, nil
	})
}

// claims returns who has a name that two claim, or has it without its detail.
func (s *Server) claims(state *routing.State, name string) []routing.Claim {
	list := state.Claims(name)
	if base, ok := routing.Address(name).WithoutDetail(s.Separator); ok && len(list) == 0 {
		list = state.Claims(string(base))
	}
	return list
}

// explain returns a decision in words, and where no record says it, what was looked for.
func explain(state *routing.State, name string, d *routing.Decision) string {
	switch d.Reason {
	case routing.ReasonNoSuchName:
		return fmt.Sprintf("neither a mailbox nor a fixed address has %s", name)
	case routing.ReasonForeign:
		return fmt.Sprintf("the domain %s is not in the table", routing.Address(name).Domain())
	case routing.ReasonTableUnavail:
		if missing := state.Missing(); len(missing) > 0 {
			return fmt.Sprintf("it may be a name of an agency whose mapping is not on this node: %v", missing)
		}
	}
	return d.Explain()
}

// route explains a decision.
func (s *Server) route(address, login string) (*reply[Route], error) {
	if (address == "") == (login == "") {
		return nil, problem(http.StatusBadRequest, "", "name an address or a login, one of them")
	}
	var v Route
	var d, may routing.Decision
	state := s.Replica.State()
	if address != "" {
		a, err := routing.ParseAddress(address)
		if err != nil {
			return nil, problem(http.StatusBadRequest, "write it as local-part@domain", "%s", err)
		}
		v = Route{Name: string(a), As: "address"}
		d, may = state.DecideAddress(a, s.Separator), s.Gate.Address(a)
	} else {
		l, err := routing.ParseLogin(login)
		if err != nil {
			return nil, err
		}
		v = Route{Name: string(l), As: "login"}
		d, may = state.DecideLogin(l), s.Gate.Login(l)
	}
	v.Explain = explain(state, v.Name, &d)
	if may.Reason == routing.ReasonTableUnavail && d.Reason != may.Reason {
		// The gate's word counts; what the copy says is still worth knowing.
		v.Explain = "this node may not decide now; its copy of the table says: " + v.Explain
		d.Reason = may.Reason
	}
	v.Deliver, v.Reason, v.Platform, v.Address, v.Armed = d.Deliver(), d.Reason.String(), string(d.Platform), string(d.Address), d.Armed
	if v.As == "address" {
		v.Answer = s.Answer(&d)
	}
	if d.Reason == routing.ReasonConflict {
		for _, c := range s.claims(state, v.Name) {
			v.Claims = append(v.Claims, c.String())
		}
		v.Explain = fmt.Sprintf("%s; closed until it is taken from one of them (mailcutover mailbox release)", strings.Join(v.Claims, ", and "))
	}
	v.Table = s.tableView()
	if d.Agency != "" {
		v.Agency, v.Phase, v.Epoch, v.Login = string(d.Agency), d.Phase.String(), d.Epoch.String(), d.Login
		a, _ := state.Agency(d.Agency)
		if m := state.Mapping(d.Agency); m != nil {
			if row, ok := m.Mailbox(d.Mailbox); ok {
				box := mailboxView(a, row)
				v.Mailbox = &box
			}
		}
	}
	return &reply[Route]{Body: v}, nil
}
