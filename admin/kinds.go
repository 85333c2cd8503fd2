package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"mailcutover/approval"
	"mailcutover/audit"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
)

// kind is something that is proposed, approved and then done.
type kind struct {
	name   string
	about  string
	right  right    // of who proposes and starts it
	starts right    // of who starts it, if that is another; empty: right
	needs  []string // fields of a NewProposal; those in brackets may be left out

	// content returns what an approval is bound to, and the text that says it.
	content func(s *Server, ctx context.Context, state *routing.State, in *NewProposal) (approval.Content, []string, error)
	// now returns the content as it is now.
	now func(s *Server, ctx context.Context, state *routing.State, p *approval.Proposal) (approval.Content, error)
	// use does it. refusal says whether an error means that nothing was changed.
	use     func(s *Server, ctx context.Context, p *approval.Proposal) (*Started, error)
	refusal func(error) bool
	// typed are the words of which who approves has to type one, so that it isn't done in
	// passing; then, too, it is looked again whether what is approved is as it was. nil: none.
	typed func(p *approval.Proposal) []string
}

// starter is the right of who starts it.
func (k *kind) starter() right { return cmp.Or(k.starts, k.right) }

// kinds lists them all.
func kinds() []*kind {
	return []*kind{
		switchKind(operation.Cutover, "move an agency to its target platform"),
		switchKind(operation.Rollback, "bring an agency, and its pilot groups on the target, back to its source platform"),
		remapKind(),
		listKind(),
		waveKind(),
		addAgencyKind(),
		completeDomainKind(),
		retireKind(),
		releaseKind(),
		{
			name: "publish", right: mayOperate, needs: []string{"operation", "replica"},
			about:   "open a committed operation without the word of a replica of the table's server that is proven dead",
			content: aboutOperation, now: sameOperation, use: usePublish, refusal: operationRefused,
		},
		{
			name: "without-hook", right: mayOperate, needs: []string{"operation", "hook"},
			about:   "let an operation go on without a hook that doesn't succeed",
			content: aboutOperation, now: sameOperation, use: useWithout, refusal: operationRefused,
		},
		agencyKind("unlock", "end a lock: mail and logins go to the agency's platform again", "mailcutover agency lock", routing.Agency.Unlock, Control.Unlock),
		finaliseKind(),
		dropKind(),
		nodeKind("evict", "take a node that is gone out of the table: no operation waits for it, and it gets no lease", useEvict),
		nodeKind("attest", "take two people's word that a node's process is powered off or cut off from the platforms: operations go on without it", useAttest),
		reconcileKind(),
		rejoinKind(),
		namesKind(),
	}
}

func kindOf(name string) (*kind, error) {
	var known []string
	for _, k := range kinds() {
		if k.name == name {
			return k, nil
		}
		known = append(known, k.name)
	}
	return nil, problem(http.StatusBadRequest, "there are "+strings.Join(known, ", "), "nothing of the kind %q can be proposed", name)
}

// check refuses a proposal that lacks what its kind needs, or has what another needs.
func (k *kind) check(in *NewProposal) error {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"agency", in.Agency != ""}, {"expected_epoch", in.ExpectedEpoch != ""}, {"node", in.Node != ""}, {"operation", in.Operation != ""},
		{"replica", in.Replica != ""}, {"hook", in.Hook != ""}, {"without", len(in.Without) > 0}, {"spool", in.Spool != nil},
		{"add", in.Add != nil}, {"domain", in.Domain != ""}, {"release", in.Release != nil},
	} {
		needed, allowed := slices.Contains(k.needs, f.name), slices.Contains(k.needs, "["+f.name+"]")
		switch {
		case needed && !f.set && f.name != "expected_epoch": // which has an answer of its own
			return problem(http.StatusBadRequest, "", "a proposal of the kind %s names its %s", k.name, f.name)
		case f.set && !needed && !allowed:
			return problem(http.StatusBadRequest, "", "a proposal of the kind %s has no %s", k.name, f.name)
		}
	}
	return nil
}

// epochsNow returns the epochs of these agencies' records; those that are gone have none.
func epochsNow(state *routing.State, of map[routing.AgencyID]routing.Epoch) map[routing.AgencyID]routing.Epoch {
	now := make(map[routing.AgencyID]routing.Epoch, len(of))
	for id := range of {
		if a, ok := state.Agency(id); ok {
			now[id] = a.Epoch
		}
	}
	return now
}

// switchKind is a cutover or a rollback.
func switchKind(k operation.Kind, about string) *kind {
	return &kind{
		name: string(k), about: about, right: mayOperate, needs: []string{"agency", "expected_epoch", "[without]"},
		content: func(s *Server, ctx context.Context, state *routing.State, in *NewProposal) (c approval.Content, text []string, err error) {
			a, err := s.expected(state, in.Agency, in.ExpectedEpoch)
			if err != nil {
				return c, nil, err
			}
			plan, err := s.Runner.Plan(ctx, operation.Request{Kind: k, Agency: a.ID, Who: callerOf(ctx).person, Reason: in.Reason, Expected: a.Epoch, Without: in.Without})
			if err != nil {
				return c, nil, err
			}
			if plan.Refused() && !in.DryRun {
				return c, nil, refusedPlan(&plan)
			}
			c = approval.Content{Kind: string(k), Agency: a.ID, Epochs: map[routing.AgencyID]routing.Epoch{}, Plan: plan.Digest(), List: a.Mapping}
			for _, one := range plan.Agencies {
				c.Epochs[one.ID] = one.Epoch
			}
			if c.Parameters, err = json.Marshal(switchParameters{Without: slices.Sorted(slices.Values(in.Without))}); err != nil {
				return c, nil, fmt.Errorf("propose %s of agency %s: %w", k, a.ID, err)
			}
			return c, strings.Split(strings.TrimSuffix(plan.Text(), "\n"), "\n"), nil
		},
		now: func(_ *Server, _ context.Context, state *routing.State, p *approval.Proposal) (approval.Content, error) {
			c := p.Content // the runner looks at the plan
			c.Epochs = epochsNow(state, p.Epochs)
			if a, ok := state.Agency(p.Agency); ok {
				c.List = a.Mapping
			}
			return c, nil
		},
		use: func(s *Server, ctx context.Context, p *approval.Proposal) (*Started, error) {
			var with switchParameters
			if err := json.Unmarshal(p.Parameters, &with); err != nil {
				return nil, fmt.Errorf("proposal %s: %w: %w", p.ID, approval.ErrUnreadable, err)
			}
			return s.beginOf(ctx, p, operation.Request{Kind: k, Plan: p.Plan, Without: with.Without})
		},
		refusal: unlessLate,
	}
}

// beginOf begins the operation of a proposal; without an agency in o, of the proposal's, on the epoch
// that was approved.
func (s *Server) beginOf(ctx context.Context, p *approval.Proposal, o operation.Request) (*Started, error) {
	o.Reason = p.Reason
	if o.Agency == "" {
		o.Agency, o.Expected = p.Agency, p.Epochs[p.Agency]
	}
	op, running, err := s.begin(ctx, o, p.ID)
	if err != nil {
		return nil, err
	}
	v := operationView(op, running)
	return &Started{Operation: &v}, nil
}

// unlessLate is the refusal of kinds whose use returns an error only if nothing was changed, unless the
// call's time was over before it knew.
func unlessLate(err error) bool { return !errors.Is(err, context.DeadlineExceeded) }

// refusedPlan is the answer to a proposal that could not be started as things are.
func refusedPlan(plan *operation.Plan) error {
	p := problem(http.StatusConflict, "see to that first; mailcutover operation plan shows the whole plan", "%s of agency %s: a check refuses it", plan.Kind, plan.Agency)
	for _, c := range plan.Checks {
		if !c.OK && !c.Informs {
			p.Errors = append(p.Errors, Detail{Where: c.Name, Message: c.Text})
		}
	}
	return p
}

// switchParameters are what a cutover or a rollback is proposed with.
type switchParameters struct {
	Without []string `json:"without"`
}

// begin records the start of an operation, and starts it under the caller's name. It
// returns once the agencies are closed for it, or with the reason why they are not.
func (s *Server) begin(ctx context.Context, req operation.Request, proposal string) (operation.Operation, bool, error) {
	req.Who = callerOf(ctx).person
	a, _ := s.Replica.State().Agency(req.Agency)
	e := audit.Entry{
		What: string(req.Kind), Subject: "agency " + string(req.Agency), Reason: req.Reason, Before: agencyText(&a), Epoch: req.Expected.String(),
		Digests: []string{a.Mapping.String()}, Proposal: proposal, Emergency: req.Emergency,
	}
	if !req.Plan.IsZero() {
		e.Digests = append(e.Digests, req.Plan.String())
	}
	for _, id := range slices.Sorted(maps.Keys(req.Mappings)) {
		e.Digests = append(e.Digests, req.Mappings[id].String())
	}
	switch req.Kind {
	case operation.Cutover:
		e.After = "platform=" + string(a.Target) + ", if it succeeds"
	case operation.Rollback:
		e.After = "platform=" + string(a.Source) + ", if it succeeds"
	case operation.Remap:
		ids := slices.Sorted(maps.Keys(req.Mappings))
		e.Subject = "agency " + strings.Join(texts(ids), ", ")
		e.After = fmt.Sprintf("%d other mappings, if it succeeds", len(ids))
	}
	if req.TargetDead {
		e.After += "; the target is said to be dead"
	}
	if err := s.record(ctx, e); err != nil {
		return operation.Operation{}, false, err
	}
	return s.operations.start(ctx, req)
}

// operationParameters are what a proposal about an operation is for.
type operationParameters struct {
	Operation routing.OperationID `json:"operation"`
	Replica   string              `json:"replica,omitempty"`
	Hook      string              `json:"hook,omitempty"`
}

func aboutOperation(s *Server, _ context.Context, state *routing.State, in *NewProposal) (c approval.Content, text []string, err error) {
	op, ok := state.Operation(routing.OperationID(in.Operation))
	if !ok {
		return c, nil, notFound("see mailcutover operation list", "no operation %q that has not ended", in.Operation)
	}
	c = approval.Content{Kind: in.Kind, Agency: op.Agency, Epochs: map[routing.AgencyID]routing.Epoch{}}
	for _, id := range op.Agencies {
		if a, ok := state.Agency(id); ok {
			c.Epochs[id] = a.Epoch
		}
	}
	if c.Parameters, err = json.Marshal(operationParameters{Operation: op.ID, Replica: in.Replica, Hook: in.Hook}); err != nil {
		return c, nil, fmt.Errorf("propose %s: %w", in.Kind, err)
	}
	what := fmt.Sprintf("open it without the word of the server %s, which is said to be dead: if it isn't, it may go on with what it has", in.Replica)
	if in.Hook != "" {
		what = fmt.Sprintf("go on without the hook %s: what it should have done on the platform is not done", in.Hook)
	}
	return c, []string{
		fmt.Sprintf("%s of agency %s, operation %s, started by %s: %s", op.Kind, op.Agency, op.ID, op.Who, op.Reason),
		"step " + op.Step + " on node " + string(op.Runner), what,
	}, nil
}

func sameOperation(_ *Server, _ context.Context, state *routing.State, p *approval.Proposal) (approval.Content, error) {
	c := p.Content
	c.Epochs = epochsNow(state, p.Epochs)
	return c, nil
}

// with returns what a proposal names besides its agency or node; of one that another
// version has made, nothing.
func with(p *approval.Proposal) (about, replica, hook string, without []string) {
	switch p.Kind {
	case "publish", "without-hook":
		if o, err := parametersOf(p); err == nil {
			about, replica, hook = string(o.Operation), o.Replica, o.Hook
		}
	case string(operation.Cutover), string(operation.Rollback):
		var o switchParameters
		if err := json.Unmarshal(p.Parameters, &o); err == nil {
			without = o.Without
		}
	}
	return about, replica, hook, without
}

func parametersOf(p *approval.Proposal) (o operationParameters, err error) {
	if err = json.Unmarshal(p.Parameters, &o); err != nil {
		err = fmt.Errorf("proposal %s: %w: %w", p.ID, approval.ErrUnreadable, err)
	}
	return o, err
}

func usePublish(s *Server, ctx context.Context, p *approval.Proposal) (*Started, error) {
	o, err := parametersOf(p)
	if err != nil {
		return nil, err
	}
	if err := s.record(ctx, audit.Entry{What: p.Kind, Subject: "operation " + string(o.Operation), Reason: p.Reason, After: "without replica " + o.Replica, Operation: string(o.Operation), Proposal: p.ID}); err != nil {
		return nil, err
	}
	op, err := s.Runner.Publish(ctx, o.Operation, callerOf(ctx).person, o.Replica)
	if err != nil {
		return nil, err
	}
	v := operationView(op, false)
	return &Started{Operation: &v, Done: fmt.Sprintf("operation %s is %s, without replica %s", op.ID, op.Step, o.Replica)}, nil
}

func useWithout(s *Server, ctx context.Context, p *approval.Proposal) (*Started, error) {
	o, err := parametersOf(p)
	if err != nil {
		return nil, err
	}
	if err := s.record(ctx, audit.Entry{What: p.Kind, Subject: "operation " + string(o.Operation), Reason: p.Reason, After: "without hook " + o.Hook, Operation: string(o.Operation), Proposal: p.ID}); err != nil {
		return nil, err
	}
	if err := s.Runner.Without(ctx, o.Operation, o.Hook, callerOf(ctx).person, p.Reason); err != nil {
		return nil, err
	}
	return &Started{Done: fmt.Sprintf("operation %s goes on without the hook %s", o.Operation, o.Hook)}, nil
}

// operationRefused reports whether the runner changed nothing.
func operationRefused(err error) bool {
	for _, known := range []error{operation.ErrNoOperation, operation.ErrNotCommitted, operation.ErrTakenOver, operation.ErrHook, audit.ErrUnwritten, routing.ErrBadID} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}
