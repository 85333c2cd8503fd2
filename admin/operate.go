package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/audit"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
)

// PlanRequest says for what a plan is made.
type PlanRequest struct {
	Kind       string   `json:"kind" enum:"cutover,rollback,remap"`
	Agency     string   `json:"agency,omitempty" maxLength:"63" doc:"Required, but of a remap"`
	Proposal   string   `json:"proposal,omitempty" maxLength:"64" doc:"Of a remap: the proposal that has its mappings"`
	Without    []string `json:"without,omitempty" maxItems:"50" doc:"Hooks that are left out"`
	Emergency  bool     `json:"emergency,omitempty"`
	TargetDead bool     `json:"target_dead,omitempty"`
}

// Plan is what an operation would do: a dry run with all its checks.
type Plan struct {
	Kind     string      `json:"kind"`
	Agency   string      `json:"agency"`
	Digest   string      `json:"digest" doc:"Of what an approval is bound to"`
	Text     string      `json:"text" doc:"The whole plan, for people"`
	Agencies []string    `json:"agencies" doc:"That change together"`
	Expected float64     `json:"expected_seconds" doc:"How long they are likely to be closed, without external steps"`
	Refused  bool        `json:"refused" doc:"A check would refuse it"`
	Checks   []PlanCheck `json:"checks"`
	Undo     string      `json:"undo" doc:"How to go back"`
}

// PlanCheck is one check of a plan.
type PlanCheck struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Informs bool   `json:"informs,omitempty" doc:"It refuses nothing"`
	Text    string `json:"text"`
}

type planCall struct{ Body PlanRequest }

func (*planCall) looksItself() {}

// operationAct is a call about one operation; the call's own code looks at its agencies.
type operationAct struct {
	Mutation
	ID   string `path:"id" maxLength:"64"`
	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"1000"`
	}
}

func (*operationAct) looksItself() {}

type tellHook struct {
	Mutation
	ID   string `path:"id" maxLength:"64"`
	Hook string `path:"hook" maxLength:"63"`
	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"1000" doc:"What was done: the receipt"`
	}
}

func (*tellHook) looksItself() {}

type undoHook struct {
	Mutation
	ID   string `path:"id" maxLength:"64"`
	Hook string `path:"hook" maxLength:"63"`
	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"1000"`
		ByHand bool   `json:"by_hand,omitempty" doc:"It was undone by hand: nothing is called, the reason is the receipt"`
	}
}

func (*undoHook) looksItself() {}

func (s *Server) registerOperate(api huma.API) {
	tags := []string{"operations"}
	handle(s, api, huma.Operation{
		OperationID: "plan-operation", Method: http.MethodPost, Path: "/v1/plans", Tags: tags,
		Summary: "What a cutover, a rollback or a proposed remap would do: the dry run", Description: "All checks are made, and both platforms take a probe where probes are configured. Nothing is changed.",
	}, func(ctx context.Context, in *planCall) (*reply[Plan], error) {
		ctx, cancel := context.WithTimeout(ctx, startTimeout)
		defer cancel()
		req, err := s.planned(ctx, &in.Body)
		if err != nil {
			return nil, err
		}
		p, err := s.Runner.Plan(ctx, req)
		if err != nil {
			return nil, err
		}
		return &reply[Plan]{Body: planView(&p)}, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "abort-operation", Method: http.MethodPost, Path: "/v1/operations/{id}/abort", Tags: tags,
		Summary: "End an operation that isn't committed: its agencies open where they were", Description: "Wherever it runs. 409 if it is committed: the way back is an operation of its own.",
	}, func(ctx context.Context, in *operationAct) (*reply[Operation], error) {
		ctx, cancel := context.WithTimeout(ctx, startTimeout)
		defer cancel()
		reason, err := s.beforeOperation(ctx, in.ID, in.Body.Reason, "")
		if err != nil {
			return nil, err
		}
		op, err := s.Runner.Abort(ctx, routing.OperationID(in.ID), callerOf(ctx).person, reason)
		if err != nil {
			return nil, err
		}
		return &reply[Operation]{Body: operationView(op, s.running(op.ID))}, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "tell-operation", Method: http.MethodPost, Path: "/v1/operations/{id}/hooks/{hook}/tell", Tags: tags,
		Summary: "Say that an external step of an operation is done",
	}, func(ctx context.Context, in *tellHook) (*reply[Operation], error) {
		ctx, cancel := context.WithTimeout(ctx, changeTimeout)
		defer cancel()
		reason, err := s.beforeOperation(ctx, in.ID, in.Body.Reason, "hook "+in.Hook+" is said to be done")
		if err != nil {
			return nil, err
		}
		if err := s.Runner.Tell(ctx, routing.OperationID(in.ID), in.Hook, callerOf(ctx).person, reason); err != nil {
			return nil, err
		}
		v, _, err := s.operation(ctx, in.ID)
		return &reply[Operation]{Body: v}, err
	})
	handle(s, api, huma.Operation{
		OperationID: "undo-hook", Method: http.MethodPost, Path: "/v1/operations/{id}/hooks/{hook}/undo", Tags: tags,
		Summary: "Undo a hook of an aborted operation again, or say that it was done by hand", Description: "Where the undo failed when the operation was aborted. It isn't tried if something has happened to an agency since. Say it to the node that has the alarm.",
	}, func(ctx context.Context, in *undoHook) (*reply[Operation], error) {
		ctx, cancel := context.WithTimeout(ctx, startTimeout)
		defer cancel()
		after := "hook " + in.Hook + " is undone"
		if in.Body.ByHand {
			after += " by hand"
		}
		reason, err := s.beforeOperation(ctx, in.ID, in.Body.Reason, after)
		if err != nil {
			return nil, err
		}
		if err := s.Runner.Undo(ctx, routing.OperationID(in.ID), in.Hook, callerOf(ctx).person, reason, in.Body.ByHand); err != nil {
			return nil, err
		}
		v, _, err := s.operation(ctx, in.ID)
		return &reply[Operation]{Body: v}, err
	})
}

// beforeOperation looks whether the caller may act on an operation, and records that.
func (s *Server) beforeOperation(ctx context.Context, id, why, after string) (reason string, err error) {
	if reason, err = checkReason(why); err != nil {
		return "", err
	}
	op, _, err := s.operation(ctx, id)
	if err != nil {
		return "", err
	}
	var ids []routing.AgencyID
	for _, a := range op.Agencies {
		ids = append(ids, routing.AgencyID(a))
	}
	if err := s.within(ctx, ids); err != nil {
		return "", err
	}
	return reason, s.record(ctx, audit.Entry{
		Subject: fmt.Sprintf("operation %s, %s of agency %s", id, op.Kind, op.Agency), Reason: reason, Before: "step " + op.Step, After: after, Operation: id,
	})
}

func planView(p *operation.Plan) Plan {
	v := Plan{
		Kind: string(p.Kind), Agency: string(p.Agency), Digest: p.Digest().String(), Text: p.Text(), Expected: p.Expected.Seconds(),
		Agencies: []string{}, Checks: []PlanCheck{}, Undo: p.Back,
	}
	for i := range p.Agencies {
		v.Agencies = append(v.Agencies, string(p.Agencies[i].ID))
	}
	for _, c := range p.Checks {
		v.Checks = append(v.Checks, PlanCheck{c.Name, c.OK, c.Informs, c.Text})
	}
	v.Refused = p.Refused()
	return v
}

// Plan returns what an operation would do.
func (c *Client) Plan(ctx context.Context, r PlanRequest) (Plan, error) {
	return post[Plan](ctx, c, "/v1/plans", r)
}

// Abort ends an operation that isn't committed.
func (c *Client) Abort(ctx context.Context, id, reason string) (Operation, error) {
	return post[Operation](ctx, c, "/v1/operations/"+url.PathEscape(id)+"/abort", map[string]string{"reason": reason})
}

// Tell says that an external step of an operation is done.
func (c *Client) Tell(ctx context.Context, id, hook, receipt string) (Operation, error) {
	return post[Operation](ctx, c, "/v1/operations/"+url.PathEscape(id)+"/hooks/"+url.PathEscape(hook)+"/tell", map[string]string{"reason": receipt})
}

// UndoHook undoes a hook of an aborted operation again, or says that it was done by hand.
func (c *Client) UndoHook(ctx context.Context, id, hook, reason string, byHand bool) (Operation, error) {
	return post[Operation](ctx, c, "/v1/operations/"+url.PathEscape(id)+"/hooks/"+url.PathEscape(hook)+"/undo", map[string]any{"reason": reason, "by_hand": byHand})
}

// planned is what a plan is asked for.
func (s *Server) planned(ctx context.Context, in *PlanRequest) (operation.Request, error) {
	req := operation.Request{
		Kind: operation.Kind(in.Kind), Agency: routing.AgencyID(in.Agency), Who: callerOf(ctx).person, Reason: "a plan",
		Without: in.Without, Emergency: in.Emergency, TargetDead: in.TargetDead,
	}
	state := s.Replica.State()
	if req.Kind != operation.Remap {
		if in.Proposal != "" {
			return req, problem(http.StatusBadRequest, "leave it out", "the plan of a %s is made of no proposal", in.Kind)
		}
		if err := s.within(ctx, []routing.AgencyID{req.Agency}); err != nil {
			return req, err
		}
		if _, ok := state.Agency(req.Agency); !ok {
			return req, noAgency(in.Agency)
		}
		return req, nil
	}
	if in.Proposal == "" {
		return req, problem(http.StatusBadRequest, "mailcutover mailbox import FILE.csv --remap proposes one", "the plan of a remap needs the proposal that has its mappings")
	}
	p, err := s.proposal(state, in.Proposal)
	if err == nil {
		err = s.within(ctx, concerns(&p))
	}
	if err != nil {
		return req, err
	}
	if p.Kind != string(operation.Remap) || in.Agency != "" && p.Agency != req.Agency {
		return req, problem(http.StatusBadRequest, "see mailcutover operation list", "proposal %s is of the kind %s for agency %s", p.ID, p.Kind, p.Agency)
	}
	with, err := remapOf(&p)
	req.Agency, req.Mappings = p.Agency, with.Next
	return req, err
}

// RollbackEmergency brings an agency back on one person's word.
func (c *Client) RollbackEmergency(ctx context.Context, id, epoch, reason string, targetDead bool) (Operation, error) {
	return c.Switch(ctx, operation.Rollback, id, NewSwitch{Reason: reason, ExpectedEpoch: epoch, Emergency: true, TargetDead: targetDead})
}
