package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"mailcutover/approval"
	"mailcutover/audit"
	"mailcutover/rollback/control"
	"mailcutover/routing"
	"mailcutover/routing/backup"
	"mailcutover/routing/table"
)

// Control carries out what people do besides operations; *control.Control does.
type Control interface {
	Lock(ctx context.Context, act control.Act, ids []routing.AgencyID, emergency bool) (control.Result, error)
	Unlock(ctx context.Context, act control.Act, ids []routing.AgencyID) (control.Result, error)
	Finalise(ctx context.Context, act control.Act, ids []routing.AgencyID) (control.Result, error)
	Arm(ctx context.Context, act control.Act, ids []routing.AgencyID) (control.Result, error)
	Settle(ctx context.Context, act control.Act, ids []routing.AgencyID) (control.Result, error)
	ConfirmEmergency(ctx context.Context, act control.Act, emergency routing.OperationID) (control.Result, error)
	Freeze(ctx context.Context, act control.Act, id routing.AgencyID) error
	Lift(ctx context.Context, act control.Act, id routing.AgencyID) error

	Drain(ctx context.Context, act control.Act, node routing.NodeID, drain bool) error
	Attest(ctx context.Context, act control.Act, node routing.NodeID, instance routing.InstanceID) error
	AttestAlone(ctx context.Context, act control.Act, node routing.NodeID, instance routing.InstanceID, emergency routing.OperationID) error
	Evict(ctx context.Context, act control.Act, node routing.NodeID, limit time.Duration) error
	Reconcile(ctx context.Context, act control.Act, ids []routing.AgencyID) (control.Result, error)
	EndRejoin(ctx context.Context, act control.Act) error
	NamesComplete(ctx context.Context, act control.Act) error
	Foundation() (control.Foundation, error)
	Bootstrap(ctx context.Context, act control.Act, digest routing.Digest) (routing.Position, error)
	Backup(w io.Writer, h backup.Header) (routing.Digest, error)
	Restoration(b *backup.Copy) (control.Restoration, error)
	Restore(ctx context.Context, act control.Act, b *backup.Copy, older bool) (routing.Position, error)
}

// Acted is what an act on an agency did.
type Acted struct {
	Agency    Agency    `json:"agency" doc:"As it is now"`
	Revision  uint64    `json:"revision" doc:"Of the table that has it so"`
	Complete  bool      `json:"complete" doc:"Every node has seen it, or can serve nothing"`
	Nodes     []Receipt `json:"nodes"`
	Emergency string    `json:"emergency,omitempty" doc:"Under which a second person has to confirm it"`
}

// Receipt is what a node has made of an act.
type Receipt struct {
	Node     string     `json:"node"`
	Standing string     `json:"standing" enum:"seen,closed,in-doubt,waiting,gone" doc:"seen: it has the new record; closed: and nothing old is under way; in-doubt: but a message whose answer was lost may still arrive; waiting: it has said nothing and may still serve as before; gone: its lease is over"`
	Until    *time.Time `json:"until,omitempty" doc:"waiting: from then on it serves nothing; in-doubt: until then"`
	Messages int        `json:"messages,omitempty" doc:"In doubt"`
	Held     int        `json:"held" doc:"In its spool, as it last said"`
}

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

// Emergency is what one person did alone, and a second one has not confirmed yet.
type Emergency struct {
	ID       string     `json:"id"`
	Agencies []string   `json:"agencies"`
	Nodes    []string   `json:"nodes" doc:"That were attested dead"`
	Person   string     `json:"person,omitempty" doc:"Absent: the table doesn't know any more"`
	What     string     `json:"what,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Time     *time.Time `json:"time,omitempty"`
}

// Emergencies is a list of them.
type Emergencies struct {
	Emergencies []Emergency `json:"emergencies"`
}

const freezesPath, emergenciesPath = "/v1/freezes", "/v1/emergencies"

func (s *Server) registerControl(api huma.API) {
	agencies := []string{"agencies"}
	for _, one := range []struct {
		name, summary, description string
		is                         routing.Tightness // afterwards
		next                       func(routing.Agency) (routing.Agency, error)
		do                         func(context.Context, control.Act, []routing.AgencyID) (control.Result, error)
	}{
		{"arm", "Make an agency ready to be switched", "Short leases, and a check before each final dot. No answer changes, and the epoch stays.", routing.Armed, armedRecord, s.Control.Arm},
		{"settle", "End the arming of an agency", "Long leases again: mail for it goes on for as long, should the table be away.", routing.Settled, settledRecord, s.Control.Settle},
	} {
		handle(s, api, huma.Operation{
			OperationID: one.name + "-agency", Method: http.MethodPost, Path: "/v1/agencies/{id}/" + one.name, Summary: one.summary, Description: one.description, Tags: agencies,
		}, func(ctx context.Context, in *changeAgency) (*reply[Agency], error) {
			ctx, cancel := context.WithTimeout(ctx, changeTimeout)
			defer cancel()
			a, err := s.expected(s.Replica.State(), in.ID, in.Body.ExpectedEpoch)
			if err != nil {
				return nil, err
			}
			if _, err := checkReason(in.Body.Reason); err != nil {
				return nil, err
			}
			if a.Tightness == one.is {
				return s.agency(s.Replica.State(), in.ID)
			}
			out, err := s.onAgency(ctx, in, a, "", one.next, one.do)
			if err != nil {
				return nil, err
			}
			return &reply[Agency]{Body: out.Body.Agency}, nil
		})
	}
	handle(s, api, huma.Operation{
		OperationID: "lock-agency", Method: http.MethodPost, Path: "/v1/agencies/{id}/lock", Tags: agencies,
		Summary:     "Close an agency at once, in an emergency",
		Description: "On one person's word, whatever the phase: mail is held, logins wait. The answer comes when all nodes have closed it, after two seconds at the latest, and says of each how far it is. A second person has to confirm it before the agency's next operation. expected_epoch isn't needed: closing is always safe.",
	}, func(ctx context.Context, in *changeAgency) (*reply[Acted], error) {
		return s.lock(ctx, in)
	})
	handle(s, api, huma.Operation{
		OperationID: "list-emergencies", Method: http.MethodGet, Path: emergenciesPath, Summary: "What one person did alone and a second one has not confirmed", Tags: agencies,
	}, func(ctx context.Context, _ *struct{}) (*reply[Emergencies], error) {
		ctx, cancel := context.WithTimeout(ctx, changeTimeout)
		defer cancel()
		list := s.emergencies(ctx)
		return &reply[Emergencies]{Body: Emergencies{Emergencies: list}}, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "confirm-emergency", Method: http.MethodPost, Path: emergenciesPath + "/{id}/confirm", Tags: agencies,
		Summary: "Confirm what another person did alone", Description: "It says that somebody has looked; nothing opens or closes by it.",
	}, func(ctx context.Context, in *struct {
		Mutation
		ID   string `path:"id" maxLength:"64"`
		Body struct {
			Reason string `json:"reason" minLength:"1" maxLength:"1000"`
		}
	}) (*reply[Emergency], error) {
		return s.confirmEmergency(ctx, in.ID, in.Body.Reason)
	})
	s.registerFreezes(api)
	s.registerDrain(api)
	s.registerAttest(api)
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

func (s *Server) registerDrain(api huma.API) {
	handle(s, api, huma.Operation{
		OperationID: "drain-node", Method: http.MethodPost, Path: "/v1/nodes/{node}/drain", Tags: []string{"nodes"},
		Summary: "Ask a node to take no new work, for maintenance, or let it work again",
	}, func(ctx context.Context, in *struct {
		Mutation
		Node string `path:"node" maxLength:"63"`
		Body struct {
			Drain  bool   `json:"drain"`
			Reason string `json:"reason" minLength:"1" maxLength:"1000"`
		}
	}) (*reply[Nodes], error) {
		ctx, cancel := context.WithTimeout(ctx, changeTimeout)
		defer cancel()
		reason, err := checkReason(in.Body.Reason)
		if err != nil {
			return nil, err
		}
		if err := s.record(ctx, audit.Entry{Subject: "node " + in.Node, Reason: reason, After: fmt.Sprintf("draining: %t", in.Body.Drain)}); err != nil {
			return nil, err
		}
		if err := s.Control.Drain(ctx, s.act(ctx, "drain/"+uuid.NewString(), reason), routing.NodeID(in.Node), in.Body.Drain); err != nil {
			return nil, err
		}
		n, err := s.Table.Nodes(ctx)
		if err != nil {
			return nil, err
		}
		return &reply[Nodes]{Body: nodesView(&n)}, nil
	})
}

// act names an act of the caller.
func (s *Server) act(ctx context.Context, id, reason string) control.Act {
	return control.Act{ID: id, Who: callerOf(ctx).person, Reason: reason}
}

func armedRecord(a routing.Agency) (routing.Agency, error) { return a.Arm(), nil }

// settledRecord is what settling ends with; it is two changes of the table.
func settledRecord(a routing.Agency) (routing.Agency, error) {
	a, err := a.Settle()
	if err != nil {
		return a, err
	}
	return a.EndSettle()
}

// onAgency records an act on an agency, which next does to its record, and carries it out.
func (s *Server) onAgency(ctx context.Context, in *changeAgency, a routing.Agency, emergency string, next func(routing.Agency) (routing.Agency, error), do func(context.Context, control.Act, []routing.AgencyID) (control.Result, error)) (*reply[Acted], error) {
	reason, err := checkReason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	if err := s.record(ctx, audit.Entry{
		Subject: "agency " + in.ID, Reason: reason, Before: agencyText(&a), After: afterwards(a, next), Epoch: a.Epoch.String(), Digests: []string{a.Mapping.String()},
		Operation: emergency, Emergency: emergency != "",
	}); err != nil {
		return nil, err
	}
	id := emergency
	if id == "" {
		id = requestOf(ctx).operation + "/" + uuid.NewString()
	}
	act := s.act(ctx, id, reason)
	if in.Body.ExpectedEpoch != "" {
		act.Expected = map[routing.AgencyID]routing.Epoch{a.ID: a.Epoch}
	}
	r, err := do(ctx, act, []routing.AgencyID{a.ID})
	if err != nil {
		return nil, err
	}
	return s.acted(r, emergency)
}

func (s *Server) acted(r control.Result, emergency string) (*reply[Acted], error) {
	state := s.Replica.State()
	out := &reply[Acted]{Body: Acted{Revision: uint64(r.Position.Revision), Complete: r.Complete, Nodes: receipts(r.Nodes), Emergency: emergency}}
	for _, a := range r.Agencies {
		out.Body.Agency = agencyView(state, a, pilots(state.Agencies())[a.ID], s.Gate.Load(a.ID))
	}
	return out, nil
}

func receipts(all []control.Receipt) []Receipt {
	out := []Receipt{}
	for _, r := range all {
		out = append(out, Receipt{Node: string(r.Node), Standing: string(r.Standing), Until: timeView(r.Until), Messages: r.Messages, Held: r.Held})
	}
	return out
}

// lock closes an agency on one person's word. Who that is, is in the table before it
// happens: the one who confirms has to be another.
func (s *Server) lock(ctx context.Context, in *changeAgency) (*reply[Acted], error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	state := s.Replica.State()
	a, ok := state.Agency(routing.AgencyID(in.ID))
	if !ok {
		return nil, noAgency(in.ID)
	}
	if in.Body.ExpectedEpoch != "" {
		if _, err := s.expected(state, in.ID, in.Body.ExpectedEpoch); err != nil {
			return nil, err
		}
	}
	reason, err := checkReason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	who := callerOf(ctx)
	e := emergencyRecord{ID: "lock-" + uuid.NewString(), Person: who.person, Token: who.token, What: "lock", Reason: reason, Time: time.Now().UTC().Truncate(time.Second)}
	d, err := e.document()
	if err != nil {
		return nil, err
	}
	entry := audit.Entry{Subject: "emergency " + e.ID + " of agency " + in.ID, Operation: e.ID, Emergency: true}
	if _, err := s.changeAs(ctx, &entry, func(state *routing.State) (table.Change, []*routing.Mapping, error) {
		gone := confirmedLongAgo(state, time.Now())
		return table.Change{Documents: append([]routing.Document{d}, gone...), What: "emergency lock of agency " + in.ID, Reason: reason, Guard: table.Guard{Rejoining: true}}, nil, nil
	}); err != nil {
		return nil, err
	}
	return s.onAgency(ctx, in, a, e.ID, routing.Agency.Lock, func(ctx context.Context, act control.Act, ids []routing.AgencyID) (control.Result, error) {
		return s.Control.Lock(ctx, act, ids, true)
	})
}

// emergencyRecord is what the table knows of an emergency that isn't an operation.
type emergencyRecord struct {
	ID     string    `json:"id"`
	Person string    `json:"person"`
	Token  string    `json:"token"`
	What   string    `json:"what"`
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
}

const emergencyPrefix = "emergency/"

func (e *emergencyRecord) document() (routing.Document, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return routing.Document{}, fmt.Errorf("store emergency %s: %w", e.ID, err)
	}
	return routing.Document{Key: emergencyPrefix + e.ID, Text: string(b)}, nil
}

// confirmedLongAgo returns the removals of emergencies that no agency waits for any more.
func confirmedLongAgo(state *routing.State, now time.Time) []routing.Document {
	const kept, most = 30 * 24 * time.Hour, 100
	open := map[routing.OperationID]bool{}
	for _, a := range state.Agencies() {
		for _, id := range a.Unconfirmed.All() {
			open[id] = true
		}
	}
	for _, m := range state.Members() {
		for _, id := range m.Unconfirmed.All() {
			open[id] = true
		}
	}
	var gone []routing.Document
	for _, d := range state.Documents(emergencyPrefix) {
		var e emergencyRecord
		if err := json.Unmarshal([]byte(d.Text), &e); err == nil && !open[routing.OperationID(e.ID)] && now.Sub(e.Time) > kept && len(gone) < most {
			gone = append(gone, routing.Document{Key: d.Key, Removed: true, Revision: d.Revision})
		}
	}
	return gone
}

// emergencies lists those that wait for a second person, with what is known of them.
func (s *Server) emergencies(ctx context.Context) []Emergency {
	state := s.Replica.State()
	list := []Emergency{}
	of := func(id routing.OperationID) *Emergency {
		i := slices.IndexFunc(list, func(e Emergency) bool { return e.ID == string(id) })
		if i < 0 {
			i, list = len(list), append(list, Emergency{ID: string(id), Agencies: []string{}, Nodes: []string{}})
		}
		return &list[i]
	}
	for _, a := range state.Agencies() {
		for _, id := range a.Unconfirmed.All() {
			e := of(id)
			e.Agencies = append(e.Agencies, string(a.ID))
		}
	}
	for _, m := range state.Members() {
		for _, id := range m.Unconfirmed.All() {
			e := of(id)
			e.Nodes = append(e.Nodes, string(m.Node))
		}
	}
	var ended []routing.Operation
	asked := false
	for i := range list {
		e := &list[i]
		if d, ok := state.Document(emergencyPrefix + e.ID); ok {
			var known emergencyRecord
			if err := json.Unmarshal([]byte(d.Text), &known); err == nil {
				e.Person, e.What, e.Reason, e.Time = known.Person, known.What, known.Reason, &known.Time
			}
			continue
		}
		op, ok := state.Operation(routing.OperationID(e.ID))
		if !ok {
			if !asked {
				asked = true
				ended, _ = s.Table.Operations(ctx) // without it, who it was isn't known
			}
			if at := slices.IndexFunc(ended, func(o routing.Operation) bool { return string(o.ID) == e.ID }); at >= 0 {
				op, ok = ended[at], true
			}
		}
		if ok {
			e.Person, e.What, e.Reason, e.Time = op.Who, op.Kind, op.Reason, &op.Started
		}
	}
	return list
}

func (s *Server) confirmEmergency(ctx context.Context, id, why string) (*reply[Emergency], error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	reason, err := checkReason(why)
	if err != nil {
		return nil, err
	}
	if err := s.notAdmin(ctx); err != nil {
		return nil, err
	}
	list := s.emergencies(ctx)
	i := slices.IndexFunc(list, func(e Emergency) bool { return e.ID == id })
	if i < 0 {
		return nil, notFound("see mailcutover emergency list", "no emergency %q waits for a second person", id)
	}
	e, who := list[i], callerOf(ctx)
	var ids []routing.AgencyID
	for _, id := range e.Agencies {
		ids = append(ids, routing.AgencyID(id))
	}
	if err := s.within(ctx, ids); err != nil {
		return nil, err
	}
	switch {
	case e.Person == "" && who.has(mayOperate) && !who.everything:
		return nil, problem(http.StatusForbidden, "take a token without the role operator", "who did emergency %s isn't known any more: it is confirmed by somebody who can't have done it", id)
	case e.Person != "" && approval.Person(e.Person) == approval.Person(who.person) && s.Approval != "none":
		return nil, problem(http.StatusForbidden, "somebody else has to look at it", "%s did this, and doesn't confirm it", e.Person)
	}
	if err := s.record(ctx, audit.Entry{Subject: "emergency " + id + " of agency " + strings.Join(append(slices.Clone(e.Agencies), e.Nodes...), ", "), Reason: reason, Before: "by " + e.Person + ": " + e.Reason, Operation: id}); err != nil {
		return nil, err
	}
	if _, err := s.Control.ConfirmEmergency(ctx, s.act(ctx, "confirm/"+uuid.NewString(), reason), routing.OperationID(id)); err != nil {
		return nil, err
	}
	return &reply[Emergency]{Body: e}, nil
}

// Settle ends the arming of an agency; epoch is that of the record the caller has seen.
func (c *Client) Settle(ctx context.Context, id, epoch, reason string) (Agency, error) {
	return post[Agency](ctx, c, "/v1/agencies/"+url.PathEscape(id)+"/settle", reasoned{Reason: reason, ExpectedEpoch: epoch})
}

// Lock closes an agency in an emergency; epoch may be empty.
func (c *Client) Lock(ctx context.Context, id, epoch, reason string) (Acted, error) {
	return post[Acted](ctx, c, "/v1/agencies/"+url.PathEscape(id)+"/lock", reasoned{Reason: reason, ExpectedEpoch: epoch})
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

// Emergencies returns what one person did alone and a second one has not confirmed.
func (c *Client) Emergencies(ctx context.Context) ([]Emergency, error) {
	out, err := get[Emergencies](ctx, c, emergenciesPath, nil)
	return out.Emergencies, err
}

// ConfirmEmergency confirms what another person did alone.
func (c *Client) ConfirmEmergency(ctx context.Context, id, reason string) (Emergency, error) {
	return post[Emergency](ctx, c, emergenciesPath+"/"+url.PathEscape(id)+"/confirm", map[string]string{"reason": reason})
}

// DrainNode asks a node to take no new work, or lets it work again.
func (c *Client) DrainNode(ctx context.Context, node string, drain bool, reason string) (Nodes, error) {
	return post[Nodes](ctx, c, "/v1/nodes/"+url.PathEscape(node)+"/drain", map[string]any{"drain": drain, "reason": reason})
}
