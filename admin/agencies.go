package admin

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/rollback/operation"
	"mailcutover/routing"
)

// NewAgency is what a new agency needs.
type NewAgency struct {
	ID      string   `json:"id" doc:"1 to 63 characters of a-z, 0-9 and hyphen" maxLength:"63"`
	Source  string   `json:"source" doc:"Platform that holds its mailboxes now"`
	Target  string   `json:"target" doc:"Platform that it moves to"`
	Parent  string   `json:"parent,omitempty" doc:"Agency that it is a pilot group of"`
	Domains []string `json:"domains,omitempty" doc:"Domains that are served from now on, if they aren't already" maxItems:"1000"`
	Reason  string   `json:"reason" minLength:"1" maxLength:"1000"`
}

// Agencies is a list of them.
type Agencies struct {
	Agencies []Agency `json:"agencies"`
}

func (s *Server) registerAgencies(api huma.API) {
	handle(s, api, huma.Operation{
		OperationID: "list-agencies", Method: http.MethodGet, Path: "/v1/agencies", Summary: "All agencies, by id", Tags: []string{"agencies"},
	}, func(context.Context, *struct{}) (*reply[Agencies], error) {
		state := s.Replica.State()
		out := &reply[Agencies]{Body: Agencies{Agencies: []Agency{}}}
		all := state.Agencies()
		children := pilots(all)
		for _, a := range all {
			out.Body.Agencies = append(out.Body.Agencies, agencyView(state, a, children[a.ID], s.Gate.Load(a.ID)))
		}
		return out, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "add-agency", Method: http.MethodPost, Path: "/v1/agencies", Summary: "Add an agency, open on its source platform",
		Description:   "On one person's word in a lab only; else it is proposed, with the kind add-agency.",
		DefaultStatus: http.StatusCreated, Tags: []string{"agencies"},
	}, func(ctx context.Context, in *struct {
		Mutation
		Body NewAgency
	}) (*reply[Agency], error) {
		if err := s.alone("agency "+in.Body.ID, "mailcutover agency add "+in.Body.ID); err != nil {
			return nil, err
		}
		return s.addAgency(ctx, in.Body)
	})
	handle(s, api, huma.Operation{
		OperationID: "show-agency", Method: http.MethodGet, Path: "/v1/agencies/{id}", Summary: "One agency", Tags: []string{"agencies"},
	}, func(_ context.Context, in *struct {
		ID string `path:"id" maxLength:"63"`
	}) (*reply[Agency], error) {
		return s.agency(s.Replica.State(), in.ID)
	})
	for _, kind := range []operation.Kind{operation.Cutover, operation.Rollback} {
		summary := "Move an agency to its target platform"
		if kind == operation.Rollback {
			summary = "Bring an agency, and its pilot groups on the target, back to its source platform"
		}
		handle(s, api, huma.Operation{
			OperationID: string(kind), Method: http.MethodPost, Path: "/v1/agencies/{id}/" + string(kind), Summary: summary,
			Description:   "On one person's word: with approval: none, or for a rollback as an emergency, which a second person has to confirm afterwards. All else is proposed (/v1/proposals). Closes, drains, commits and publishes. The answer comes when the agency is closed; the operation then runs on, whether or not the caller stays. Watch it at /v1/operations/{id}/events.",
			DefaultStatus: http.StatusAccepted, Tags: []string{"agencies"},
		}, func(ctx context.Context, in *switchAgency) (*started, error) {
			return s.startOperation(ctx, kind, in)
		})
	}
}

type changeAgency struct {
	Mutation
	ID   string `path:"id" maxLength:"63"`
	Body reasoned
}

func (in *changeAgency) scope() []routing.AgencyID {
	return []routing.AgencyID{routing.AgencyID(in.ID)}
}

// switchAgency is a cutover or a rollback on one person's word.
type switchAgency struct {
	Mutation
	ID   string `path:"id" maxLength:"63"`
	Body NewSwitch
}

// NewSwitch is a cutover or a rollback that one person starts.
type NewSwitch struct {
	Reason        string   `json:"reason" minLength:"1" maxLength:"1000" doc:"Why; stands in the table's log, the journal and the audit log"`
	ExpectedEpoch string   `json:"expected_epoch,omitempty" doc:"Epoch of the record that you have seen; without it 428, if it is another 412" example:"1.7"`
	Without       []string `json:"without,omitempty" maxItems:"50" doc:"Hooks that are left out"`
	Emergency     bool     `json:"emergency,omitempty" doc:"Of a rollback: without approval, freezes and checks don't keep it back, and an open operation of the agency is ended by it"`
	TargetDead    bool     `json:"target_dead,omitempty" doc:"With emergency: what is under way at the target is listed, not awaited"`
}

func (in *switchAgency) scope() []routing.AgencyID {
	return []routing.AgencyID{routing.AgencyID(in.ID)}
}

// started is the answer to a call that starts an operation.
type started struct {
	Location string `header:"Location" doc:"Of the operation"`
	Body     Operation
}

func (s *Server) agency(state *routing.State, id string) (*reply[Agency], error) {
	a, ok := state.Agency(routing.AgencyID(id))
	if !ok {
		return nil, noAgency(id)
	}
	return &reply[Agency]{Body: agencyView(state, a, pilots(state.Agencies())[a.ID], s.Gate.Load(a.ID))}, nil
}

func noAgency(id string) error {
	return notFound("see mailcutover agency list", "no agency %q in the table", id)
}

// addAgency stores a new agency, and the domains that are not served yet, in one change.
func (s *Server) addAgency(ctx context.Context, in NewAgency) (*reply[Agency], error) {
	reason, err := checkReason(in.Reason)
	if err != nil {
		return nil, err
	}
	n, err := s.newAgency(&AddedAgency{ID: in.ID, Source: in.Source, Target: in.Target, Parent: in.Parent, Domains: in.Domains})
	if err != nil {
		return nil, err
	}
	state, err := s.storeAgency(ctx, n, reason, "")
	if err != nil {
		return nil, err
	}
	return s.agency(state, in.ID)
}

func (s *Server) knownPlatform(id string) error {
	var known []string
	for _, p := range s.Platforms() {
		known = append(known, p.ID)
	}
	if !slices.Contains(known, id) {
		return problem(http.StatusBadRequest, "configured are: "+strings.Join(known, ", "), "platform %q is not configured on this node", id)
	}
	return nil
}

// checkParent says what keeps an agency from being a pilot group. A rollback takes the
// groups of an agency along, so they move between the same platforms, and have none of
// their own.
func checkParent(state *routing.State, a routing.Agency) error {
	if a.Parent == "" {
		return nil
	}
	parent, ok := state.Agency(a.Parent)
	switch {
	case !ok:
		return problem(http.StatusBadRequest, "add the parent first", "parent: no agency %q in the table", a.Parent)
	case parent.Parent != "":
		return problem(http.StatusBadRequest, "name "+string(parent.Parent)+" as parent", "parent: %s is a pilot group itself", a.Parent)
	case parent.Source != a.Source || parent.Target != a.Target:
		return problem(http.StatusBadRequest, "", "a pilot group moves as its parent does: from %s to %s", parent.Source, parent.Target)
	}
	return nil
}

func parseDomains(names []string) ([]string, error) {
	var out []string
	for _, name := range names {
		d, err := routing.CanonicalDomain(name)
		if err == nil {
			_, err = routing.ParseAddress("x@" + name)
		}
		if err != nil || strings.HasPrefix(d, "[") {
			return nil, problem(http.StatusBadRequest, "write it as in an address, such as health.example", "domain %q is not a domain name", name)
		}
		if !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out, nil
}

// oneLine returns text without line ends, and without what a terminal obeys. Others read it inside
// what they approve: with lines of its own it could pass for a part of that.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp) {
			return ' '
		}
		return r
	}, text)
}

// checkReason returns the reason as one line, and refuses blanks.
func checkReason(reason string) (string, error) {
	if reason = strings.TrimSpace(oneLine(reason)); reason == "" {
		return "", problem(http.StatusBadRequest, "say why; it is journaled", "a reason is required")
	}
	return reason, nil
}

// expected returns the agency's record if the caller has seen it.
func (s *Server) expected(state *routing.State, id, epoch string) (routing.Agency, error) {
	a, ok := state.Agency(routing.AgencyID(id))
	if !ok {
		return a, noAgency(id)
	}
	if epoch == "" {
		return a, problem(http.StatusPreconditionRequired, fmt.Sprintf("it is %s now: look at the agency, then say so", a.Epoch), "expected_epoch is required")
	}
	want, err := routing.ParseEpoch(epoch)
	if err != nil {
		return a, err
	}
	if a.Epoch != want {
		return a, fmt.Errorf("agency %s: %w: it is %s, expected was %s", id, errStaleEpoch, a.Epoch, want)
	}
	return a, nil
}

// startOperation begins a cutover or a rollback on one person's word.
func (s *Server) startOperation(ctx context.Context, kind operation.Kind, in *switchAgency) (*started, error) {
	switch {
	case in.Body.Emergency && kind != operation.Rollback:
		return nil, problem(http.StatusBadRequest, "propose it", "only a rollback can be an emergency")
	case in.Body.TargetDead && !in.Body.Emergency:
		return nil, problem(http.StatusBadRequest, "say emergency too", "target_dead is for an emergency")
	case s.Approval != "none" && !in.Body.Emergency:
		return nil, problem(http.StatusForbidden, "propose it: mailcutover operation propose "+string(kind)+" --agency "+in.ID+" --reason ...",
			"%s of agency %s needs the approval of others", kind, in.ID)
	}
	reason, err := checkReason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	a, err := s.expected(s.Replica.State(), in.ID, in.Body.ExpectedEpoch)
	if a.Operation != "" && !in.Body.Emergency { // says more than the epoch that it changed
		return nil, fmt.Errorf("%s of agency %s: %w: %s", kind, in.ID, routing.ErrOperationOpen, a.Operation)
	}
	if err != nil {
		return nil, err
	}
	op, running, err := s.begin(ctx, operation.Request{
		Kind: kind, Agency: a.ID, Reason: reason, Expected: a.Epoch, Without: in.Body.Without, Emergency: in.Body.Emergency, TargetDead: in.Body.TargetDead,
	}, "")
	if err != nil {
		return nil, err
	}
	return &started{Location: "/v1/operations/" + string(op.ID), Body: operationView(op, running)}, nil
}
