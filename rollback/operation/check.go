package operation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Check is one check of a plan and its result.
type Check struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Informs bool   `json:"informs,omitempty"` // it refuses nothing
	Text    string `json:"text"`

	err error // for errors.Is; nil if OK
}

// Failed returns the check of this name that didn't pass. err is kept for errors.Is.
func Failed(name string, err error) Check { return Check{Name: name, Text: err.Error(), err: err} }

// Passed returns a check that passed.
func Passed(name, text string) Check { return Check{Name: name, OK: true, Text: text} }

// Checker makes checks that this package knows nothing of: space, credentials, an approved
// list, a source mailbox that takes mail. Check must end with ctx, and not change p.
type Checker interface {
	Check(ctx context.Context, p *Plan) []Check
}

// refusal returns what refuses the operation; nil: nothing does.
func (p *Plan) refusal() error {
	var errs []error
	for i := range p.Checks {
		if c := &p.Checks[i]; !c.OK && !c.Informs {
			errs = append(errs, fmt.Errorf("%w: %s: %w", ErrPrecheck, c.Name, c.cause()))
		}
	}
	return errors.Join(errs...)
}

// Refused reports whether [Runner.Run] would refuse.
func (p *Plan) Refused() bool { return p.refusal() != nil }

func (c *Check) cause() error {
	if c.err != nil {
		return c.err
	}
	return errors.New(c.Text)
}

// checks makes all checks. errs is what the draft found.
func (r *Runner) checks(ctx context.Context, p *Plan, d *prepared, errs []error, s *routing.State, n *table.Nodes) []Check {
	var all []Check
	add := func(name string, err error, good string) {
		if err != nil {
			all = append(all, Failed(name, err))
		} else {
			all = append(all, Passed(name, good))
		}
	}
	records := "phase, arming, freezes, emergencies and other operations let it begin"
	if p.Kind == Remap {
		records += "; the mappings are complete, and no name has two owners"
	}
	add("records", errors.Join(errs...), records)
	if p.Emergency { // what the draft refuses is impossible, also in an emergency
		defer func() {
			for i := range all {
				all[i].Informs = all[i].Name != "records"
			}
		}()
	}
	add("journal", r.admit(), "this node has settled and written down what came before")
	add("rejoin", rejoined(n), "the table is served by the server that the nodes know")
	add("nodes", membersAnswer(p), fmt.Sprintf("%d answer, or are fenced", len(p.Nodes)))
	if c := loginsFenced(p); c != nil {
		all = append(all, *c)
	}
	add("protocol", sameProtocol(p), fmt.Sprintf("all speak version %d", table.Protocol))
	if c := sameBuild(p); c != nil {
		all = append(all, *c)
	}
	add("records on the nodes", applied(p, n, d.op.Base), fmt.Sprintf("all have applied revision %d, so that they have the same records and mappings", d.op.Base))
	add("marks", marks(n), "no node has seen more than the table has")
	if p.TargetDead {
		add("in doubt", nil, "listed, not awaited")
	} else {
		add("in doubt", doubtful(n, &d.op, time.Now().Add(d.deadline)), "nothing is in doubt for longer than the deadline")
	}
	if len(d.hooks) > 0 {
		add("hooks", callable(ctx, d), "what they call is there, as seen from this node")
	}
	confirm, cancel := context.WithTimeout(ctx, confirmPatience)
	err := r.Table.Confirm(confirm)
	if errors.Is(err, table.ErrRegressed) { // which is told once of a change from before a failover
		err = r.Table.Confirm(confirm)
	}
	add("confirm", err, "what is written is on disk and on all replicas that are configured")
	cancel()
	all = append(all, r.probes(ctx, p)...)
	all = append(all, p.withoutCanary()...)
	all = append(all, wayBack(p, s))
	for _, c := range r.Checks {
		all = append(all, c.Check(ctx, p)...)
	}
	return all
}

// callable asks the hooks that will be called whether they could be, on this node.
func callable(ctx context.Context, d *prepared) error {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	var bad []string
	for i, h := range d.hooks {
		if c, ok := h.(Callable); ok && d.op.Hooks[i].Status != HookSkipped {
			if err := c.Callable(ctx); err != nil {
				bad = append(bad, err.Error())
			}
		}
	}
	return joined(bad)
}

func rejoined(n *table.Nodes) error {
	if n.Rejoining != "" {
		return fmt.Errorf("%w: %s", table.ErrRejoining, n.Rejoining)
	}
	return nil
}

func membersAnswer(p *Plan) error {
	if len(p.Nodes) == 0 {
		return fmt.Errorf("%w: the table knows of none", ErrMembers)
	}
	var bad []string
	for i := range p.Nodes {
		if v := &p.Nodes[i]; v.Lease != "valid" && v.Fence == "" {
			bad = append(bad, fmt.Sprintf("%s: lease %s: %s", v.Node, v.Lease, v.Text))
		}
	}
	return joined(bad)
}

func sameProtocol(p *Plan) error {
	var bad []string
	for i := range p.Nodes {
		if v := &p.Nodes[i]; v.Protocol != table.Protocol {
			bad = append(bad, fmt.Sprintf("%s speaks version %d, this node %d", v.Node, v.Protocol, table.Protocol))
		}
	}
	return joined(bad)
}

// sameBuild tells of nodes of different builds; nil: all are alike.
func sameBuild(p *Plan) *Check {
	for i := range p.Nodes {
		if p.Nodes[i].Build != p.Nodes[0].Build {
			return &Check{Name: "build", Informs: true, Text: fmt.Sprintf("%s runs %q, %s runs %q", p.Nodes[0].Node, p.Nodes[0].Build, p.Nodes[i].Node, p.Nodes[i].Build)}
		}
	}
	return nil
}

func applied(p *Plan, n *table.Nodes, base routing.Revision) error {
	var bad []string
	for i := range p.Nodes {
		v := &p.Nodes[i]
		if l := n.Leases[v.Node]; v.Lease == "valid" && !knows(n, &l, base) {
			bad = append(bad, fmt.Sprintf("%s is at revision %d of term %d", v.Node, l.Applied, l.Term))
		}
	}
	return joined(bad)
}

func marks(n *table.Nodes) error {
	var bad []string
	for i := range n.Members {
		if m := &n.Members[i]; !m.Evicted && n.Leases[m.Node].Behind {
			bad = append(bad, fmt.Sprintf("%s saw changes that the table lost", m.Node))
		}
	}
	return joined(bad)
}

func joined(bad []string) error {
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrMembers, strings.Join(bad, "; "))
}

// wayBack says whether there is one.
func wayBack(p *Plan, s *routing.State) Check {
	for i := range p.Agencies {
		a, _ := s.Agency(p.Agencies[i].ID)
		if a.Finalised && p.Kind == Cutover {
			return Check{Name: "way back", Informs: true, Text: fmt.Sprintf("the way back of %s is finalised: there is none", a.ID)}
		}
		if a.Locked {
			return Check{Name: "way back", OK: true, Informs: true, Text: fmt.Sprintf("there is one; %s is locked, and stays so", a.ID)}
		}
	}
	return Passed("way back", "the records allow it")
}
