package page

import (
	"fmt"
	"slices"

	"mailcutover/admin"
)

// agency is one agency: where it stands, what can be done, and what was done.
var agency = view{name: "agency", data: agencyData, parts: []string{"standing", "running", "returns", "mailboxes", "lists", "past"}}

type agencyView struct {
	admin.Agency
	State      state
	Held       admin.AgencySpool // on this node
	Operations []admin.Operation // the newest first
	Running    []admin.Operation
	Proposals  []admin.Proposal // open ones
	Lists      []admin.BatchList
	Drift      []admin.Drift
	NoDrift    string         // why the drift isn't known
	Blocks     bool           // the drift does
	Returns    []admin.Recall // what brings mail over, the newest first
	Compared   *admin.Verification
	Findings   []admin.Finding // open ones, the worst first
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
	out.Lists = gather(&out.Missing, lists, err).Lists
	out.Missing = append(out.Missing, lists.Unreadable...)
	if d, err := api.Drift(ctx, id); err == nil {
		out.Drift, out.Blocks = d.Drift, d.Blocks
	} else {
		out.NoDrift = err.Error()
	}
	out.Returns = returnsOf(v, &out.Missing, func(r *admin.Recall) bool { return r.Agency == id })
	out.compared(v, id)
	sessions, err := api.Sessions(ctx, admin.SessionFilter{Agency: id}, false, "", 1)
	sessions = gather(&out.Missing, sessions, err)
	out.Sessions = sessions.Total
	for _, m := range sessions.Missing {
		out.Missing = append(out.Missing, fmt.Sprintf("sessions of node %s are not counted: %s", m.Node, m.Error))
	}
	out.Acts = actsFor(v, &a)
	out.Progress = v.page.progressLink(id)
	return a.ID, &out, nil
}

// shownReturns is how many runs that bring mail over are shown.
const shownReturns = 3

// returnsOf returns the newest of those runs that are wanted; of one that is under way all nodes are
// asked how far they are.
func returnsOf(v *visit, missing *[]string, want func(*admin.Recall) bool) (runs []admin.Recall) {
	all, err := v.api.Recalls(v.ctx(), "")
	for _, r := range slices.Backward(gather(missing, all, err).Recalls) {
		if len(runs) == shownReturns {
			break
		}
		if !want(&r) {
			continue
		}
		if r.State == "running" {
			now, err := v.page.recalls.of(v.ctx(), r.ID, func() (admin.Recall, error) { return v.api.Recall(v.ctx(), r.ID, false) })
			if err == nil {
				r = now
			}
		}
		runs = append(runs, r)
	}
	return runs
}

// shownFindings is how many findings are shown of an agency.
const shownFindings = 20

// compared adds what comparing the mailboxes of both platforms found.
func (out *agencyView) compared(v *visit, id string) {
	all, err := v.api.Verifications(v.ctx(), id)
	if a := gather(&out.Missing, all, err).Agencies; len(a) == 1 {
		out.Compared = &a[0]
	}
	found, err := v.api.Findings(v.ctx(), id, "found", "")
	out.Findings = gather(&out.Missing, found, err).Findings
	out.Findings = out.Findings[:min(len(out.Findings), shownFindings)]
}
