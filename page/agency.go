package page

import (
	"slices"

	"mailcutover/admin"
)

// agency is one agency: where it stands, what can be done, and what was done.
var agency = view{name: "agency", data: agencyData, parts: []string{"standing", "running", "lists", "past"}}

type agencyView struct {
	admin.Agency
	State      state
	Held       admin.AgencySpool // on this node
	Operations []admin.Operation // the newest first
	Running    []admin.Operation
	Proposals  []admin.Proposal // open ones
	Lists      []admin.BatchList
	NoLists    bool // no directory is configured
	Drift      []admin.Drift
	Blocks     bool // the drift does
	Sessions   int
	Acts       []actLink
	Progress   string // path of the page for the agency's staff; empty: there is none
	Missing    []string
}

func agencyData(v *visit) (string, any, error) {
	ctx, api, id := v.ctx(), v.api, v.r.PathValue("id")
	a, err := api.Agency(ctx, id)
	if err != nil {
		return "", nil, err
	}
	out := agencyView{Agency: a, State: stateOf(&a)}
	ops, err := api.Operations(ctx, id)
	out.Operations = gather(&out.Missing, ops, err).Operations
	slices.Reverse(out.Operations)
	for _, op := range out.Operations {
		if !op.Ended {
			out.Running = append(out.Running, op)
		}
	}
	open, err := api.Proposals(ctx, true)
	for _, p := range gather(&out.Missing, open, err).Proposals {
		if p.Agency == id {
			out.Proposals = append(out.Proposals, p)
		}
	}
	if s, err := api.Spool(ctx); err == nil {
		for _, one := range s.Agencies {
			if one.Agency == id {
				out.Held = one
			}
		}
	} else {
		out.Missing = append(out.Missing, err.Error())
	}
	lists, err := api.Lists(ctx, id)
	switch {
	case noDirectory(err):
		out.NoLists = true
	default:
		out.Lists = gather(&out.Missing, lists, err).Lists
		if d, err := api.Drift(ctx, id); err == nil {
			out.Drift, out.Blocks = d.Drift, d.Blocks
		}
	}
	if s, err := api.Sessions(ctx, admin.SessionFilter{Agency: id}, false, "", 1); err == nil {
		out.Sessions = s.Total
	}
	out.Acts = actsFor(v, &a)
	out.Progress = v.page.progressLink(id)
	return a.ID, &out, nil
}

// operations lists all of them.
var operations = view{name: "operations", data: operationsData, parts: []string{"list"}}

func operationsData(v *visit) (string, any, error) {
	ops, err := v.api.Operations(v.ctx(), "")
	if err != nil {
		return "", nil, err
	}
	slices.Reverse(ops.Operations)
	return "Operations", &ops, nil
}

// operationView is one operation, live.
var operationView = view{name: "operation", data: operationData, parts: []string{"progress", "nodes", "hooks", "replay"}}

type operationPage struct {
	admin.Operation
	Steps   []stepRow
	Held    []admin.AgencySpool // what is still to be replayed on this node
	Missing []string
}

// stepRow is a step of the way of an operation.
type stepRow struct {
	Name string
	Done bool
	Now  bool
}

// way is the steps in order; an operation that is aborted leaves it.
var way = []string{"begin", "drain", "hooks", "commit", "publish", "spread", "done"}

func stepsOf(op *admin.Operation) []stepRow {
	at := slices.Index(way, op.Step)
	var out []stepRow
	for i, name := range way {
		if name == "hooks" && len(op.Hooks) == 0 {
			continue
		}
		out = append(out, stepRow{Name: name, Done: at > i || op.Step == "done", Now: at == i && op.Step != "done"})
	}
	if at < 0 {
		out = append(out, stepRow{Name: op.Step, Now: true})
	}
	return out
}

func operationData(v *visit) (string, any, error) {
	op, err := v.api.Operation(v.ctx(), v.r.PathValue("id"))
	if err != nil {
		return "", nil, err
	}
	out := operationPage{Operation: op, Steps: stepsOf(&op)}
	if s, err := v.api.Spool(v.ctx()); err == nil {
		for _, one := range s.Agencies {
			if slices.Contains(op.Agencies, one.Agency) {
				out.Held = append(out.Held, one)
			}
		}
	} else {
		out.Missing = append(out.Missing, err.Error())
	}
	return op.Kind + " " + op.Agency, &out, nil
}

// proposals lists what was proposed.
var proposals = view{name: "proposals", data: proposalsData, parts: []string{"list"}}

func proposalsData(v *visit) (string, any, error) {
	all, err := v.api.Proposals(v.ctx(), !v.r.URL.Query().Has("all"))
	if err != nil {
		return "", nil, err
	}
	slices.Reverse(all.Proposals)
	return "Proposals", &all, nil
}

// proposal is one, to be read and approved.
var proposal = view{name: "proposal", data: proposalData, parts: []string{"standing"}}

type proposalPage struct {
	admin.Proposal
	Own bool // of who looks
	Key string
}

func proposalData(v *visit) (string, any, error) {
	p, err := v.api.Proposal(v.ctx(), v.r.PathValue("id"))
	if err != nil {
		return "", nil, err
	}
	out := proposalPage{Proposal: p, Own: p.Person == v.id.Person, Key: newKey()}
	return subjectOf(v.lang, &p), &out, nil
}
