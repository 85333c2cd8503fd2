package page

import (
	"slices"

	"mailcutover/admin"
)

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
var operationView = view{name: "operation", data: operationData, parts: []string{"progress", "nodes", "hooks", "replay", "returns"}}

type operationPage struct {
	admin.Operation
	Steps   []stepRow
	Held    []admin.AgencySpool // what is still to be replayed on this node
	Returns []admin.Recall      // what brings its mail over
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
	out.Returns = returnsOf(v, &out.Missing, func(r *admin.Recall) bool { return r.Operation == op.ID })
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
