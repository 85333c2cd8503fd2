package operation

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Plan is what an operation would do, and what could refuse it: the dry run. [Runner.Run]
// does nothing that isn't in it.
type Plan struct {
	Kind   Kind             `json:"kind"`
	Agency routing.AgencyID `json:"agency"`
	Who    string           `json:"who"`
	Reason string           `json:"reason"`

	Emergency  bool     `json:"emergency,omitempty"`
	TargetDead bool     `json:"target_dead,omitempty"`
	TakesBack  bool     `json:"takes_back,omitempty"` // the agency is rolled back by itself if its canary fails
	Without    []string `json:"without,omitempty"`

	Made     time.Time        `json:"made"`
	Position routing.Position `json:"position"`

	Agencies []PlanAgency   `json:"agencies"`
	Steps    []PlanStep     `json:"steps"`
	Nodes    []PlanNode     `json:"nodes"`
	Hooks    []PlanHook     `json:"hooks,omitempty"`
	Platform []PlanPlatform `json:"platforms"`
	Checks   []Check        `json:"checks"`

	// Deadline is after how long without a drain it is aborted; 0: never. Expected is how
	// long the agencies are likely to be closed, without external steps.
	Deadline time.Duration `json:"deadline_ns"`
	Expected time.Duration `json:"expected_ns"`

	Returns    []string `json:"returns,omitempty"` // what becomes of mail on the losing side
	OutOfScope []string `json:"out_of_scope"`
	Back       string   `json:"back"` // how to go back

	asked    time.Duration // deadline of the request; 0: none
	canaries []string      // what is tried afterwards, of each agency; empty: nothing
}

// PlanAgency is an agency that changes.
type PlanAgency struct {
	ID        routing.AgencyID   `json:"id"`
	Epoch     routing.Epoch      `json:"epoch"`
	Phase     routing.Phase      `json:"phase"`
	Losing    routing.PlatformID `json:"losing"`
	Winning   routing.PlatformID `json:"winning"`
	Mapping   routing.Digest     `json:"mapping"`   // in force
	Next      routing.Digest     `json:"next"`      // in force afterwards
	Mailboxes int                `json:"mailboxes"` // -1: not known
	Held      int                `json:"held"`      // messages, on all nodes, as they last said
	Waiting   int                `json:"waiting"`   // likewise
	InDoubt   int                `json:"in_doubt"`  // likewise
	Sessions  int                `json:"sessions"`  // login sessions on all nodes but those in Missing; -1: not known
	Missing   []string           `json:"missing_nodes,omitempty"`
	Locked    bool               `json:"locked"`         // stays so
	PutOff    bool               `json:"put_off"`        // mail that comes while it is closed is put off, not held
	Ends      string             `json:"ends,omitempty"` // operation that is ended by it
}

// PlanStep is one step, in order.
type PlanStep struct {
	Step Step   `json:"step"`
	Hook string `json:"hook,omitempty"`
	Text string `json:"text"`
}

// PlanNode is a member that has to drain, or to be fenced.
type PlanNode struct {
	Node     routing.NodeID     `json:"node"`
	Instance routing.InstanceID `json:"instance"`
	Build    string             `json:"build,omitempty"`
	Protocol int                `json:"protocol"`
	Lease    string             `json:"lease"` // in words: valid, over, given up, none
	Applied  routing.Revision   `json:"applied"`
	Fence    string             `json:"fence,omitempty"`     // kind of the fence that it would need now
	Fenced   time.Duration      `json:"fenced_ns,omitempty"` // after which it would stand; 0: at once
	Text     string             `json:"text,omitempty"`
}

// PlanHook is a hook that would be called.
type PlanHook struct {
	Name     string         `json:"name"`
	Point    Point          `json:"point"`
	Digest   routing.Digest `json:"digest"`
	Does     string         `json:"does"`
	External bool           `json:"external,omitempty"`
	Undoes   bool           `json:"undoes"`
	Without  bool           `json:"without,omitempty"`
	Expected time.Duration  `json:"expected_ns"`
	Patience time.Duration  `json:"patience_ns"`
}

// PlanPlatform is what is promised about a platform.
type PlanPlatform struct {
	ID    routing.PlatformID `json:"id"`
	Limit time.Duration      `json:"limit_ns"` // after which it ends any connection; 0: not configured
	Text  string             `json:"text,omitempty"`

	// Logins says that it takes logins through the nodes, LoginLimit after how long it ends
	// any of them; 0: not configured.
	Logins     bool          `json:"logins,omitempty"`
	LoginLimit time.Duration `json:"login_limit_ns,omitempty"`
}

// Plan makes the plan of a request and all its checks, and changes nothing but what
// probing a platform leaves there. Checks that fail are in the plan; an error says that
// no plan could be made. Request.Plan is not looked at.
func (r *Runner) Plan(ctx context.Context, req Request) (Plan, error) {
	p, _, err := r.plan(ctx, req)
	return p, err
}

func (r *Runner) plan(ctx context.Context, req Request) (Plan, prepared, error) {
	state := r.Replica.State()
	d, errs := r.draft(ctx, req, state)
	if d.op.ID == "" {
		return Plan{}, d, errors.Join(errs...)
	}
	op := &d.op
	p := Plan{
		Kind: op.Kind, Agency: op.Agency, Who: op.Who, Reason: op.Reason, Emergency: op.Emergency, TargetDead: op.TargetDead, TakesBack: op.TakesBack,
		Without: slices.Sorted(slices.Values(req.Without)), Made: time.Now().UTC().Truncate(time.Second), Position: state.Position(), asked: req.Deadline,
		OutOfScope: outOfScope(), Back: back(op),
	}
	nodes, err := r.settledNodes(ctx, op.Base)
	if err != nil {
		return p, d, fmt.Errorf("%s of agency %s: look at the nodes: %w", op.Kind, op.Agency, err)
	}
	p.Nodes, d.deadline = r.foreseen(&nodes, op)
	if req.Deadline > 0 {
		d.deadline = req.Deadline
	}
	if !op.Emergency {
		p.Deadline = d.deadline
	}
	for _, id := range op.Agencies {
		p.Agencies = append(p.Agencies, r.planAgency(ctx, state, &nodes, op, id))
	}
	p.Platform = r.planPlatforms(p.Agencies)
	for i, h := range d.hooks {
		p.Hooks = append(p.Hooks, PlanHook{
			Name: h.Name(), Point: h.Point(), Digest: h.Digest(), Does: h.Describe(), External: h.External(), Undoes: h.Undoes(),
			Without: op.Hooks[i].Status == HookSkipped, Expected: h.Expected(), Patience: h.Patience(),
		})
	}
	p.Returns = r.returns(ctx, &p)
	p.canaries = r.canaries(&p)
	p.Steps = p.steps()
	if r.Returns != nil && p.Kind == Cutover {
		p.Steps = slices.Insert(p.Steps, 0, PlanStep{Step: StepWatermarks, Text: "where mailboxes can be read, note the state of all folders on both platforms, while everything is open"})
	}
	p.Expected = p.expected(&nodes)
	p.Checks = r.checks(ctx, &p, &d, errs, state, &nodes)
	return p, d, nil
}

// settledNodes reads the members, and gives those that answer a moment to apply what has
// just been changed.
func (r *Runner) settledNodes(ctx context.Context, base routing.Revision) (table.Nodes, error) {
	for began := time.Now(); ; {
		n, err := r.nodes(ctx)
		if err != nil || time.Since(began) > beginPatience {
			return n, err
		}
		behind := slices.ContainsFunc(n.Members, func(m routing.Member) bool {
			l := n.Leases[m.Node]
			return !m.Evicted && n.Time.Before(l.ShortEnd) && !knows(&n, &l, base)
		})
		if !behind {
			return n, nil
		}
		select {
		case <-time.After(slowPace):
		case <-ctx.Done():
			return n, ctx.Err()
		}
	}
}

func (r *Runner) planAgency(ctx context.Context, s *routing.State, n *table.Nodes, op *Operation, id routing.AgencyID) PlanAgency {
	a, _ := s.Agency(id)
	v := PlanAgency{ID: id, Epoch: a.Epoch, Phase: a.Phase, Mapping: a.Mapping, Next: a.Mapping, Mailboxes: -1, Sessions: -1, Locked: a.Locked}
	v.Losing, v.Winning = sides(op.Kind, a)
	if op.Kind == Remap {
		v.Next = op.Mappings[id]
	}
	v.PutOff = r.Puts != nil && r.Puts(id)
	if op.Emergency && a.Operation != "" {
		v.Ends = string(a.Operation)
	}
	if m := s.Mapping(id); m != nil {
		v.Mailboxes = m.Len()
	}
	for _, l := range n.Leases {
		for _, c := range l.Counts {
			if c.Agency == id {
				v.Held, v.Waiting = v.Held+c.Held, v.Waiting+c.Waiting
			}
		}
		for _, d := range l.Doubts {
			if d.Agency == id {
				v.InDoubt += d.Messages
			}
		}
	}
	if r.Sessions != nil {
		v.Sessions, v.Missing = r.Sessions(ctx, id)
	}
	return v
}

func (r *Runner) planPlatforms(agencies []PlanAgency) []PlanPlatform {
	seen := make(map[routing.PlatformID]bool)
	var all []PlanPlatform
	for i := range agencies {
		for _, id := range []routing.PlatformID{agencies[i].Losing, agencies[i].Winning} {
			if seen[id] || id == "" {
				continue
			}
			seen[id] = true
			limit, configured := r.limit(id)
			v := PlanPlatform{ID: id}
			v.LoginLimit, v.Logins = r.logins(id)
			if configured {
				v.Limit = limit
			} else {
				v.Text = fmt.Sprintf("no connection limit configured: that it takes nothing more of a node which doesn't answer can't be promised; a fence waits %s", limit)
			}
			all = append(all, v)
		}
	}
	return all
}

// foreseen says how each member stands now, and which deadline that asks for.
func (r *Runner) foreseen(n *table.Nodes, op *Operation) ([]PlanNode, time.Duration) {
	u := &run{Runner: r, op: *op}
	s := newStands(r.Leases)
	now := time.Now()
	s.look(now, n)
	deadline := DefaultDeadline
	var all []PlanNode
	for i := range n.Members {
		m := &n.Members[i]
		if m.Evicted {
			continue
		}
		l := n.Leases[m.Node]
		v := PlanNode{Node: m.Node, Instance: m.Instance, Build: m.Build, Protocol: m.Protocol, Applied: l.Applied}
		valid := l.Instance == m.Instance && l.Server == n.Server && n.Time.Before(l.ShortEnd) && m.Attested != m.Instance
		switch {
		case valid:
			v.Lease = "valid"
		case l.Instance != m.Instance:
			v.Lease = "none"
		case l.ShortEnd.IsZero() && l.LongEnd.IsZero():
			v.Lease = "given up"
		case l.Server != n.Server:
			v.Lease = "of another server"
		default:
			v.Lease = "over"
		}
		if !valid {
			f, left, ok := s.fence(now, n, m, u.wish())
			switch {
			case !ok:
				v.Text = noFence(m)
			default:
				v.Fence, v.Fenced = string(f.Kind), left.Round(time.Second)
				v.Text = "goes on without it: " + fenceText(f.Kind, u.wish().limit)
				deadline = max(deadline, left+fenceSlack)
			}
		}
		all = append(all, v)
	}
	return all, deadline.Round(time.Second)
}

// fenceSlack is what a deadline leaves after the longest fence.
const fenceSlack = 15 * time.Second

// steps lists what is done, in order.
func (p *Plan) steps() []PlanStep {
	ids := make([]string, len(p.Agencies))
	for i := range p.Agencies {
		ids[i] = string(p.Agencies[i].ID)
	}
	steps := []PlanStep{{Step: StepBegin, Text: fmt.Sprintf("close %s for mail and logins", strings.Join(ids, ", "))}}
	for i := range p.Agencies {
		if end := p.Agencies[i].Ends; end != "" {
			steps[0].Text += fmt.Sprintf("; it ends operation %s of %s", end, p.Agencies[i].ID)
		}
	}
	drain := PlanStep{Step: StepDrain, Text: fmt.Sprintf("wait until nothing old is under way on %d nodes; after %s it is aborted", len(p.Nodes), p.Deadline)}
	switch {
	case p.TargetDead:
		drain.Text = fmt.Sprintf("wait until %d nodes have closed; what is under way at the dead side is listed after %s, not awaited", len(p.Nodes), deadGrace)
	case p.Emergency:
		drain.Text = fmt.Sprintf("wait until nothing old is under way on %d nodes, without a deadline", len(p.Nodes))
	}
	steps = append(steps, drain)
	for i := range p.Hooks {
		h := &p.Hooks[i]
		s := PlanStep{Step: StepHooks, Hook: h.Name, Text: h.Does}
		switch {
		case h.Without:
			s.Text = "left out: " + h.Does
		case h.External:
			s.Text = "wait until somebody says that it is done: " + h.Does
		}
		steps = append(steps, s)
	}
	commit := "the table names the other platform"
	if p.Kind == Remap {
		commit = "the table names the new mapping"
	}
	steps = append(steps,
		PlanStep{Step: StepCommit, Text: commit + "; from here on it can't be aborted"},
		PlanStep{Step: StepPublish, Text: "confirm that this is on disk and on all replicas, and open"},
		PlanStep{Step: StepSpread, Text: fmt.Sprintf("wait until each node with a lease has seen it, at most %s; %s", spreadPatience, p.afterwards())},
	)
	for i := range p.Agencies {
		if text := p.canaries[i]; text != "" {
			steps = append(steps, PlanStep{Step: StepCanary, Text: fmt.Sprintf("try %s: %s; where that fails there is an alarm", p.Agencies[i].ID, text)})
		}
	}
	return steps
}

// afterwards says what becomes of the mail that came while the agencies were closed.
func (p *Plan) afterwards() string {
	var put []string
	for i := range p.Agencies {
		if p.Agencies[i].PutOff {
			put = append(put, string(p.Agencies[i].ID))
		}
	}
	switch len(put) {
	case 0:
		return "held mail is delivered"
	case len(p.Agencies):
		return "mail that was put off comes when its senders try again"
	}
	return fmt.Sprintf("held mail is delivered; mail of %s was put off and comes when its senders try again", strings.Join(put, ", "))
}

// expected estimates how long the agencies are closed.
func (p *Plan) expected(n *table.Nodes) time.Duration {
	const plain = time.Second
	wait := time.Duration(0)
	for i := range p.Nodes {
		wait = max(wait, p.Nodes[i].Fenced)
	}
	if !p.TargetDead {
		for _, l := range n.Leases {
			for _, d := range l.Doubts {
				if slices.ContainsFunc(p.Agencies, func(a PlanAgency) bool { return a.ID == d.Agency }) {
					wait = max(wait, d.Until.Sub(n.Time))
				}
			}
		}
	}
	if p.Deadline > 0 {
		wait = min(wait, p.Deadline)
	}
	total := plain + wait
	for i := range p.Hooks {
		if h := &p.Hooks[i]; !h.External && !h.Without {
			total += h.Expected
		}
	}
	return total.Round(time.Second)
}

// Digest returns the digest of what an approval binds to: what is done, to which agencies
// at which epochs, which mappings, hooks and options. How the nodes stand is no part of
// it, since that changes from moment to moment.
func (p *Plan) Digest() routing.Digest {
	type agency struct {
		ID              routing.AgencyID
		Epoch           routing.Epoch
		Losing, Winning routing.PlatformID
		Mapping, Next   routing.Digest
	}
	type hook struct {
		Name    string
		Point   Point
		Digest  routing.Digest
		Without bool
	}
	content := struct {
		Format                int
		Incarnation           routing.Incarnation
		Kind                  Kind
		Agency                routing.AgencyID
		Emergency, TargetDead bool
		TakesBack             bool `json:",omitempty"`
		Deadline              time.Duration
		Agencies              []agency
		Hooks                 []hook
	}{Format: 1, Incarnation: p.Position.Incarnation, Kind: p.Kind, Agency: p.Agency, Emergency: p.Emergency, TargetDead: p.TargetDead, TakesBack: p.TakesBack, Deadline: p.asked}
	for i := range p.Agencies {
		a := &p.Agencies[i]
		content.Agencies = append(content.Agencies, agency{a.ID, a.Epoch, a.Losing, a.Winning, a.Mapping, a.Next})
	}
	for i := range p.Hooks {
		h := &p.Hooks[i]
		content.Hooks = append(content.Hooks, hook{h.Name, h.Point, h.Digest, h.Without})
	}
	b, err := json.Marshal(content)
	if err != nil {
		// The types have no value that JSON lacks, and none of their methods fails.
		panic("digest of a plan: " + err.Error())
	}
	return sha256.Sum256(b)
}

// back says how to undo the operation.
func back(op *Operation) string {
	switch op.Kind {
	case Cutover:
		return fmt.Sprintf("before commit: mailcutover operation abort; after it: mailcutover agency rollback %s", op.Agency)
	case Rollback:
		return fmt.Sprintf("before commit: mailcutover operation abort; after it: mailcutover agency cutover %s", op.Agency)
	default:
		return "before commit: mailcutover operation abort; after it: a remap to the mappings that are in force now"
	}
}

// outOfScope is what no operation touches (docs/architecture/not.md).
func outOfScope() []string {
	return []string{
		"MAPI, Exchange Web Services, ActiveSync, Outlook on the web and App Suite: close and open them on the platforms",
		"calendars, contacts and tasks",
		"rules and out-of-office texts on the server, delegations, public folders",
		"the first copy of the mailboxes, and mail that the platform delivers to itself",
	}
}

// Totals returns sums over the agencies, for those who show a plan.
func (p *Plan) Totals() (mailboxes, held, waiting int) {
	for i := range p.Agencies {
		mailboxes += max(0, p.Agencies[i].Mailboxes)
		held += p.Agencies[i].Held
		waiting += p.Agencies[i].Waiting
	}
	return mailboxes, held, waiting
}
