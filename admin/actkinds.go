package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"mailcutover/approval"
	"mailcutover/audit"
	"mailcutover/rollback/control"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// actOf is the act of whoever uses a proposal; with its id it happens once.
func (s *Server) actOf(ctx context.Context, p *approval.Proposal) control.Act {
	act := s.act(ctx, "proposal/"+p.ID, p.Reason)
	act.Expected = p.Epochs
	return act
}

// controlRefused reports whether nothing was changed.
func controlRefused(err error) bool {
	for _, known := range []error{
		control.ErrNoAgency, control.ErrNoNode, control.ErrEpoch, control.ErrNothing, control.ErrLives, audit.ErrUnwritten, table.ErrGuard, table.ErrRejoining,
		routing.ErrNotLocked, routing.ErrOperationOpen, routing.ErrUnconfirmed, routing.ErrFinalised, routing.ErrNotTarget, context.DeadlineExceeded,
	} {
		if errors.Is(err, known) && !errors.Is(err, table.ErrUnavailable) {
			return true
		}
	}
	return false
}

// parameters encodes what a proposal is for beside its agency or node.
func parameters(kind string, v any) (json.RawMessage, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("propose %s: %w", kind, err)
	}
	return b, nil
}

// agencyKind is an act on one agency. next is what it makes of the agency's record, or why
// that can't be: then it isn't proposed either. undo is the command that takes it back;
// empty: there is none.
func agencyKind(name, about, undo string, next func(routing.Agency) (routing.Agency, error), do func(Control, context.Context, control.Act, []routing.AgencyID) (control.Result, error)) *kind {
	return &kind{
		name: name, about: about, right: mayOperate, needs: []string{"agency", "expected_epoch"},
		content: func(s *Server, _ context.Context, state *routing.State, in *NewProposal) (c approval.Content, text []string, err error) {
			a, err := s.expected(state, in.Agency, in.ExpectedEpoch)
			if err != nil {
				return c, nil, err
			}
			after, err := next(a)
			if err != nil {
				return c, nil, err
			}
			c = approval.Content{Kind: name, Agency: a.ID, Epochs: map[routing.AgencyID]routing.Epoch{a.ID: a.Epoch}, List: a.Mapping}
			return c, []string{name + " agency " + in.Agency + ": " + about, "now   " + agencyText(&a), "then  " + agencyText(&after)}, nil
		},
		now: func(_ *Server, _ context.Context, state *routing.State, p *approval.Proposal) (approval.Content, error) {
			c := p.Content
			c.Epochs = epochsNow(state, p.Epochs)
			if a, ok := state.Agency(p.Agency); ok {
				c.List = a.Mapping
			}
			return c, nil
		},
		use: func(s *Server, ctx context.Context, p *approval.Proposal) (*Started, error) {
			a, _ := s.Replica.State().Agency(p.Agency)
			e := audit.Entry{What: name, Subject: "agency " + string(p.Agency), Reason: p.Reason, Before: agencyText(&a), Epoch: a.Epoch.String(), Proposal: p.ID}
			e.After = afterwards(a, next)
			if err := s.record(ctx, e); err != nil {
				return nil, err
			}
			r, err := do(s.Control, ctx, s.actOf(ctx, p), []routing.AgencyID{p.Agency})
			if err != nil {
				return nil, err
			}
			out := &Started{Done: fmt.Sprintf("%s of agency %s is done, in revision %d", name, p.Agency, r.Position.Revision), Nodes: receipts(r.Nodes)}
			if undo != "" {
				out.Undo = undo + " " + string(p.Agency)
			}
			return out, nil
		},
		refusal: controlRefused,
	}
}

// afterwards is what the audit log says of an agency's record once next was done to it;
// empty where that is refused.
func afterwards(a routing.Agency, next func(routing.Agency) (routing.Agency, error)) string {
	after, err := next(a)
	if err != nil {
		return ""
	}
	return agencyText(&after)
}

// dropKind removes spooled mail of this node.
func dropKind() *kind {
	drop := func(s *Server) *act {
		return &act{name: "drop", do: s.Queue.Drop}
	}
	return &kind{
		name: "drop-spooled", about: "remove mail from the spool of the node that is asked, for good", right: mayOperate, needs: []string{"spool"},
		content: func(s *Server, ctx context.Context, _ *routing.State, in *NewProposal) (c approval.Content, text []string, err error) {
			what := *in.Spool
			what.Reason, what.DryRun = in.Reason, true
			counted, err := s.spoolActs(ctx, drop(s), what)
			if err != nil {
				return c, nil, err
			}
			what.DryRun, what.Expected, what.Digest = false, &counted.Body.Named, counted.Body.Digest
			c = approval.Content{Kind: in.Kind, Node: routing.NodeID(s.Node), Agency: routing.AgencyID(what.Agency)}
			c.Parameters, err = parameters(in.Kind, what)
			return c, []string{fmt.Sprintf("drop %d recipients from the spool of node %s: %s", counted.Body.Named, s.Node, what.subject()), "nobody is told, and nothing brings that mail back"}, err
		},
		now: func(s *Server, _ context.Context, _ *routing.State, p *approval.Proposal) (approval.Content, error) {
			if p.Node != routing.NodeID(s.Node) {
				return p.Content, problem(http.StatusConflict, "say it to node "+string(p.Node), "proposal %s is for the spool of node %s, this is %s", p.ID, p.Node, s.Node)
			}
			return p.Content, nil // which recipients they are is compared when it is done
		},
		use: func(s *Server, ctx context.Context, p *approval.Proposal) (*Started, error) {
			var what SpoolAct
			if err := json.Unmarshal(p.Parameters, &what); err != nil {
				return nil, fmt.Errorf("proposal %s: %w: %w", p.ID, approval.ErrUnreadable, err)
			}
			done, err := s.spoolActs(ctx, drop(s), what)
			if err != nil {
				return nil, err
			}
			return &Started{Done: fmt.Sprintf("%d recipients dropped, %d left because a delivery is under way", done.Body.Changed, done.Body.Busy)}, nil
		},
		refusal: func(err error) bool {
			p, ok := errors.AsType[*Problem](err)
			return ok && p.Status != http.StatusServiceUnavailable || errors.Is(err, audit.ErrUnwritten)
		},
	}
}

// nodeParameters bind a proposal to one life of a node.
type nodeParameters struct {
	Instance routing.InstanceID `json:"instance"`
}

func nodeKind(name, about string, use func(*Server, context.Context, *approval.Proposal, routing.InstanceID) (*Started, error)) *kind {
	now := func(state *routing.State, node routing.NodeID) (approval.Content, routing.Member, error) {
		m, ok := state.Member(node)
		if !ok || m.Evicted {
			return approval.Content{}, m, fmt.Errorf("%s: node %q: %w", name, node, control.ErrNoNode)
		}
		c := approval.Content{Kind: name, Node: node}
		var err error
		c.Parameters, err = parameters(name, nodeParameters{m.Instance})
		return c, m, err
	}
	return &kind{
		name: name, about: about, right: mayAdminister, needs: []string{"node"},
		content: func(s *Server, ctx context.Context, state *routing.State, in *NewProposal) (approval.Content, []string, error) {
			c, m, err := now(state, routing.NodeID(in.Node))
			if err != nil {
				return c, nil, err
			}
			text := []string{name + " node " + m.String() + ": " + about}
			if n, err := s.Table.Nodes(ctx); err == nil {
				for _, one := range nodesView(&n).Nodes {
					if one.Node == in.Node {
						text = append(text, fmt.Sprintf("it is %s now, with %d messages held, %d waiting, %d in doubt, as it last said", one.State, one.Held, one.Waiting, one.InDoubt))
					}
				}
			}
			return c, text, nil
		},
		now: func(_ *Server, _ context.Context, state *routing.State, p *approval.Proposal) (approval.Content, error) {
			c, _, err := now(state, p.Node)
			return c, err
		},
		use: func(s *Server, ctx context.Context, p *approval.Proposal) (*Started, error) {
			var with nodeParameters
			if err := json.Unmarshal(p.Parameters, &with); err != nil {
				return nil, fmt.Errorf("proposal %s: %w: %w", p.ID, approval.ErrUnreadable, err)
			}
			if err := s.record(ctx, audit.Entry{What: name, Subject: "node " + string(p.Node), Reason: p.Reason, Before: "instance " + string(with.Instance), Proposal: p.ID}); err != nil {
				return nil, err
			}
			return use(s, ctx, p, with.Instance)
		},
		refusal: controlRefused,
	}
}

func useEvict(s *Server, ctx context.Context, p *approval.Proposal, _ routing.InstanceID) (*Started, error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if err := s.Control.Evict(ctx, s.actOf(ctx, p), p.Node, s.Limit()); err != nil {
		return nil, err
	}
	return &Started{Done: fmt.Sprintf("node %s is evicted: it is not waited for any more, and joins again as another instance", p.Node)}, nil
}

func useAttest(s *Server, ctx context.Context, p *approval.Proposal, instance routing.InstanceID) (*Started, error) {
	if err := s.Control.Attest(ctx, s.actOf(ctx, p), p.Node, instance); err != nil {
		return nil, err
	}
	return &Started{Done: fmt.Sprintf("node %s (instance %s) is attested dead: it gets no lease any more, and operations go on without it", p.Node, instance)}, nil
}

// reconcileKind gives agencies whose record the table lost the highest one seen.
func reconcileKind() *kind {
	type record struct {
		Agency routing.AgencyID `json:"agency"`
		Table  string           `json:"table"`
		Seen   string           `json:"seen"`
	}
	const name = "reconcile"
	now := func(state *routing.State, id routing.AgencyID) (approval.Content, []record, error) {
		c := approval.Content{Kind: name, Agency: id, Epochs: map[routing.AgencyID]routing.Epoch{}}
		seen, ok := state.Seen(id)
		if !ok {
			return c, nil, fmt.Errorf("reconcile agency %s: %w: no node has seen a record that the table lost", id, control.ErrNothing)
		}
		var records []record
		for _, other := range state.Regressed() {
			with, _ := state.Seen(other)
			if other != id && (seen.Operation == "" || with.Operation != seen.Operation) {
				continue
			}
			a, _ := state.Agency(other)
			c.Epochs[other] = a.Epoch
			records = append(records, record{other, agencyText(&a), agencyText(&with)})
		}
		var err error
		c.Parameters, err = parameters(name, records)
		return c, records, err
	}
	return &kind{
		name: name, right: mayAdminister, needs: []string{"agency"},
		about: "give an agency whose record the table lost the highest one that any node has seen, locked, with a higher epoch; with those of the same operation",
		content: func(_ *Server, _ context.Context, state *routing.State, in *NewProposal) (approval.Content, []string, error) {
			c, records, err := now(state, routing.AgencyID(in.Agency))
			text := []string{"reconcile agency " + in.Agency}
			for _, r := range records {
				text = append(text, "the table has  "+r.Table, "nodes have seen "+r.Seen)
			}
			return c, append(text, "the second one comes into force, locked; unlock it when you have looked"), err
		},
		now: func(_ *Server, _ context.Context, state *routing.State, p *approval.Proposal) (approval.Content, error) {
			c, _, err := now(state, p.Agency)
			return c, err
		},
		use: func(s *Server, ctx context.Context, p *approval.Proposal) (*Started, error) {
			ids := concerns(p)
			if err := s.record(ctx, audit.Entry{What: name, Subject: "agency " + strings.Join(texts(ids), ", "), Reason: p.Reason, Before: clip(string(p.Parameters)), Proposal: p.ID}); err != nil {
				return nil, err
			}
			r, err := s.Control.Reconcile(ctx, s.actOf(ctx, p), ids)
			if err != nil {
				return nil, err
			}
			return &Started{Done: fmt.Sprintf("agency %s is reconciled and locked, in revision %d", strings.Join(texts(ids), ", "), r.Position.Revision), Nodes: receipts(r.Nodes)}, nil
		},
		refusal: controlRefused,
	}
}

// rejoinKind ends a rejoin of the table on people's word.
func rejoinKind() *kind {
	const name = "end-rejoin"
	now := func(s *Server, ctx context.Context) (approval.Content, table.Nodes, error) {
		c := approval.Content{Kind: name}
		n, err := s.Table.Nodes(ctx)
		if err == nil && n.Rejoining == "" {
			err = fmt.Errorf("end the rejoin: %w: the table isn't rejoining", control.ErrNothing)
		}
		if err != nil {
			return c, n, err
		}
		c.Parameters, err = parameters(name, map[string]any{"server": n.Server, "term": n.Position.Term})
		return c, n, err
	}
	return &kind{
		name: name, right: mayAdminister,
		about: "take people's word that the table is as it should be, although nodes are missing or have seen more",
		content: func(s *Server, ctx context.Context, _ *routing.State, _ *NewProposal) (approval.Content, []string, error) {
			c, n, err := now(s, ctx)
			return c, []string{"end the rejoin of the table, server " + n.Server, "it waits for: " + n.Rejoining,
				"what a node has seen and this table lost, stays closed until it is reconciled; what nobody has seen any more is gone"}, err
		},
		now: func(s *Server, ctx context.Context, _ *routing.State, _ *approval.Proposal) (approval.Content, error) {
			c, _, err := now(s, ctx)
			return c, err
		},
		use: func(s *Server, ctx context.Context, p *approval.Proposal) (*Started, error) {
			if err := s.record(ctx, audit.Entry{What: name, Subject: "the table", Reason: p.Reason, Before: clip(string(p.Parameters)), Proposal: p.ID}); err != nil {
				return nil, err
			}
			if err := s.Control.EndRejoin(ctx, s.actOf(ctx, p)); err != nil {
				return nil, err
			}
			return &Started{Done: "the table takes changes again"}, nil
		},
		refusal: controlRefused,
	}
}
