package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"mailcutover/approval"
	"mailcutover/audit"
	"mailcutover/routing"
)

const emergenciesPath = "/v1/emergencies"

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

// Emergencies returns what one person did alone and a second one has not confirmed.
func (c *Client) Emergencies(ctx context.Context) ([]Emergency, error) {
	out, err := get[Emergencies](ctx, c, emergenciesPath, nil)
	return out.Emergencies, err
}

// ConfirmEmergency confirms what another person did alone.
func (c *Client) ConfirmEmergency(ctx context.Context, id, reason string) (Emergency, error) {
	return post[Emergency](ctx, c, emergenciesPath+"/"+url.PathEscape(id)+"/confirm", map[string]string{"reason": reason})
}
