package admin

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

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

// Settle ends the arming of an agency; epoch is that of the record the caller has seen.
func (c *Client) Settle(ctx context.Context, id, epoch, reason string) (Agency, error) {
	return post[Agency](ctx, c, "/v1/agencies/"+url.PathEscape(id)+"/settle", reasoned{Reason: reason, ExpectedEpoch: epoch})
}

// Lock closes an agency in an emergency; epoch may be empty.
func (c *Client) Lock(ctx context.Context, id, epoch, reason string) (Acted, error) {
	return post[Acted](ctx, c, "/v1/agencies/"+url.PathEscape(id)+"/lock", reasoned{Reason: reason, ExpectedEpoch: epoch})
}

// DrainNode asks a node to take no new work, or lets it work again.
func (c *Client) DrainNode(ctx context.Context, node string, drain bool, reason string) (Nodes, error) {
	return post[Nodes](ctx, c, "/v1/nodes/"+url.PathEscape(node)+"/drain", map[string]any{"drain": drain, "reason": reason})
}
