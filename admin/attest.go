package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"mailcutover/approval"
	"mailcutover/audit"
	"mailcutover/rollback/control"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// AttestedAlone is a node that one person attested dead in an emergency.
type AttestedAlone struct {
	Node      string `json:"node"`
	Instance  string `json:"instance"`
	Emergency string `json:"emergency" doc:"Under which a second person has to confirm it"`
}

// attestCall says that a node is dead.
type attestCall struct {
	Mutation
	Node string `path:"node" maxLength:"253"`
	Body struct {
		Instance string `json:"instance,omitempty" maxLength:"100" doc:"That is meant; absent: the one that the table knows"`
		Reason   string `json:"reason" minLength:"1" maxLength:"1000"`
	}
}

func (s *Server) registerAttest(api huma.API) {
	handle(s, api, huma.Operation{
		OperationID: "attest-node", Method: http.MethodPost, Path: "/v1/nodes/{node}/attest", Tags: []string{"nodes"},
		Summary:     "Say alone, in an emergency, that a node is powered off or cut off from the platforms",
		Description: "Emergencies go on without it at once. Until a second person has confirmed it, no other operation begins and no agency is finalised. Two people say it by a proposal of the kind attest.",
	}, s.attestAlone)
}

func (s *Server) attestAlone(ctx context.Context, in *attestCall) (*reply[AttestedAlone], error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	reason, err := checkReason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	node := routing.NodeID(in.Node)
	m, ok := s.Replica.State().Member(node)
	switch {
	case !ok || m.Evicted:
		return nil, fmt.Errorf("attest node %s: %w", node, control.ErrNoNode)
	case in.Body.Instance != "" && in.Body.Instance != string(m.Instance):
		return nil, problem(http.StatusConflict, "look again: mailcutover node list", "node %s has the instance %s, not %s", node, m.Instance, in.Body.Instance)
	case m.Attested == m.Instance:
		return nil, fmt.Errorf("attest node %s: %w: it is attested", node, control.ErrNothing)
	}
	who := callerOf(ctx)
	e := emergencyRecord{ID: "attest-" + uuid.NewString(), Person: who.person, Token: who.token, What: "attest node " + in.Node, Reason: reason, Time: time.Now().UTC().Truncate(time.Second)}
	d, err := e.document()
	if err != nil {
		return nil, err
	}
	entry := audit.Entry{Subject: "emergency " + e.ID + " at node " + in.Node, Operation: e.ID, Emergency: true}
	if _, err := s.changeAs(ctx, &entry, func(state *routing.State) (table.Change, []*routing.Mapping, error) {
		gone := confirmedLongAgo(state, time.Now())
		return table.Change{Documents: append([]routing.Document{d}, gone...), What: "emergency attestation of node " + in.Node, Reason: reason, Guard: table.Guard{Rejoining: true}}, nil, nil
	}); err != nil {
		return nil, err
	}
	if err := s.record(ctx, audit.Entry{What: "attest", Subject: "node " + in.Node, Reason: reason, Before: "instance " + string(m.Instance), Operation: e.ID, Emergency: true}); err != nil {
		return nil, err
	}
	if err := s.Control.AttestAlone(ctx, s.act(ctx, e.ID, reason), node, m.Instance, routing.OperationID(e.ID)); err != nil {
		return nil, err
	}
	return &reply[AttestedAlone]{Body: AttestedAlone{Node: in.Node, Instance: string(m.Instance), Emergency: e.ID}}, nil
}

// AttestAlone says alone, in an emergency, that a node is dead.
func (c *Client) AttestAlone(ctx context.Context, node, reason string) (AttestedAlone, error) {
	return post[AttestedAlone](ctx, c, "/v1/nodes/"+url.PathEscape(node)+"/attest", map[string]string{"reason": reason})
}

// namesKind takes people's word that the table has all names again.
func namesKind() *kind {
	const name = "names-complete"
	now := func(state *routing.State) (approval.Content, routing.Document, error) {
		c := approval.Content{Kind: name}
		d, ok := state.Document(routing.NamesLost)
		if !ok {
			return c, d, fmt.Errorf("names are complete: %w: the table doesn't say that any were lost", control.ErrNothing)
		}
		var err error
		c.Parameters, err = parameters(name, map[string]any{"since": d.Revision})
		return c, d, err
	}
	return &kind{
		name: name, right: mayAdminister,
		about: "take people's word that the table, which lost names, has all of them again: unknown names are answered 550 again",
		content: func(_ *Server, _ context.Context, state *routing.State, _ *NewProposal) (approval.Content, []string, error) {
			c, d, err := now(state)
			return c, []string{"take the table's names as complete", fmt.Sprintf("%s, told in revision %d", d.Text, d.Revision),
				fmt.Sprintf("it has %d agencies with %d mailboxes, %d domains now", state.Len(), state.Mailboxes(), len(state.Domains())),
				"import again what was imported after the backup, or was lost in the failover, before you approve it"}, err
		},
		now: func(_ *Server, _ context.Context, state *routing.State, _ *approval.Proposal) (approval.Content, error) {
			c, _, err := now(state)
			return c, err
		},
		use: func(s *Server, ctx context.Context, p *approval.Proposal) (*Started, error) {
			if err := s.record(ctx, audit.Entry{What: name, Subject: "the table", Reason: p.Reason, Before: clip(string(p.Parameters)), Proposal: p.ID}); err != nil {
				return nil, err
			}
			if err := s.Control.NamesComplete(ctx, s.actOf(ctx, p)); err != nil {
				return nil, err
			}
			return &Started{Done: "names that the table doesn't have are nobody's again"}, nil
		},
		refusal: controlRefused,
	}
}
