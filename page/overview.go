package page

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"time"

	"mailcutover/admin"
	"mailcutover/internal/alarm"
)

// overview is the first page: what needs a human first, then all agencies, operations and nodes.
var overview = view{name: "overview", data: overviewData, parts: []string{"needs", "agencies", "running", "nodes", "charts"}}

// need is something that a human has to see to.
type need struct {
	Urgent bool
	Text   string
	Since  time.Time
	Link   string
	Act    string // what the link does
}

type overviewView struct {
	Needs      []need
	Agencies   []agencyRow
	Phases     []phaseCount
	Waves      []admin.Wave      // that are not over
	Operations []admin.Operation // under way
	Nodes      []admin.Node
	Rejoining  string
	Spool      *admin.SpoolStatus
	Platforms  []admin.Platform
	Charts     charts
	Missing    []string // what could not be read, and why
}

// agencyRow is an agency in the list.
type agencyRow struct {
	admin.Agency
	Held    int // on this node and, as they last said, on all others
	Waiting int
	State   state
	Wave    string // the last one that has it; empty: none
}

// phaseCount is how many agencies are in a state.
type phaseCount struct {
	State state
	N     int
}

// gather keeps what could not be read, so that the rest is shown all the same.
func gather[T any](missing *[]string, out T, err error) T {
	if err != nil {
		*missing = append(*missing, err.Error())
	}
	return out
}

func overviewData(v *visit) (string, any, error) {
	var o overviewView
	ctx, api := v.ctx(), v.api
	all, err := api.Agencies(ctx)
	if err != nil {
		return "", nil, err // nothing here is worth showing without them
	}
	alarms, err := api.Alarms(ctx)
	alarms = gather(&o.Missing, alarms, err)
	nodes, err := api.Nodes(ctx)
	nodes = gather(&o.Missing, nodes, err)
	o.Nodes, o.Rejoining = nodes.Nodes, nodes.Rejoining
	ops, err := api.Operations(ctx, "")
	ops = gather(&o.Missing, ops, err)
	open, err := api.Proposals(ctx, true)
	open = gather(&o.Missing, open, err)
	emergencies, err := api.Emergencies(ctx)
	emergencies = gather(&o.Missing, emergencies, err)
	if s, err := api.Spool(ctx); err == nil {
		o.Spool = &s
	} else {
		o.Missing = append(o.Missing, err.Error())
	}
	platforms, err := api.Platforms(ctx)
	o.Platforms = gather(&o.Missing, platforms, err)

	held := heldByAgency(o.Spool)
	counts := map[state]int{}
	for _, a := range all {
		row := agencyRow{Agency: a, Held: held[a.ID].Held, Waiting: held[a.ID].Waiting, State: stateOf(&a)}
		counts[row.State]++
		o.Agencies = append(o.Agencies, row)
	}
	waves, err := api.Waves(ctx)
	waves = gather(&o.Missing, waves, err)
	o.byWave(waves.Waves)
	for _, s := range states {
		if counts[s] > 0 {
			o.Phases = append(o.Phases, phaseCount{s, counts[s]})
		}
	}
	for _, op := range ops.Operations {
		if !op.Ended {
			o.Operations = append(o.Operations, op)
		}
	}
	slices.Reverse(o.Operations)
	o.Needs = append(planNeeds(v, &waves), needs(v, alarms, o.Operations, open.Proposals, emergencies, nodes, o.Platforms)...)
	o.Charts = v.page.charts(v.lang, ops.Operations)
	return "Overview", &o, nil
}

// byWave puts the agencies into the order of the plan: those of no wave are the last.
func (o *overviewView) byWave(waves []admin.Wave) {
	place := make(map[string]int) // by agency
	for i, w := range waves {
		for j, a := range w.Agencies {
			place[a.Agency] = i*len(o.Agencies) + j - len(waves)*len(o.Agencies)
			for k := range o.Agencies {
				if o.Agencies[k].ID == a.Agency {
					o.Agencies[k].Wave = w.Name
				}
			}
		}
		if w.State == "running" || w.State == "paused" || w.State == "proposed" {
			o.Waves = append(o.Waves, w)
		}
	}
	slices.SortStableFunc(o.Agencies, func(a, b agencyRow) int { return place[a.ID] - place[b.ID] })
}

// planNeeds is what of the plan a human has to see to.
func planNeeds(v *visit, all *admin.Waves) (out []need) {
	if all.Stop != nil {
		var why []string
		for _, f := range all.Stop.Findings {
			why = append(why, f.Text)
		}
		out = append(out, need{Urgent: true, Text: v.lang.T("The plan is stopped: %s", strings.Join(why, "; ")), Since: all.Stop.Since, Link: "/plan", Act: v.lang.T("Plan")})
	}
	for _, w := range all.Waves {
		if w.State == "paused" && w.Said != nil && w.Said.Itself {
			out = append(out, need{Urgent: true, Text: v.lang.T("Wave %s has paused itself: %s", w.Name, w.Said.Reason), Since: w.Said.Time, Link: "/waves/" + url.PathEscape(w.Name), Act: v.lang.T("Wave")})
		}
	}
	return out
}

// heldByAgency returns what this node's spool has, by agency.
func heldByAgency(s *admin.SpoolStatus) map[string]admin.SpoolCount {
	out := make(map[string]admin.SpoolCount)
	if s != nil {
		for _, a := range s.Agencies {
			out[a.Agency] = a.SpoolCount
		}
	}
	return out
}

// needs returns what a human has to see to, the most urgent first, the oldest of a kind first.
func needs(v *visit, alarms []alarm.Alarm, ops []admin.Operation, open []admin.Proposal, emergencies []admin.Emergency, nodes admin.Nodes, platforms []admin.Platform) []need {
	var out []need
	for _, e := range emergencies {
		n := need{Urgent: true, Text: v.lang.T("%s did this alone: %s. A second person has to confirm it.", orUnknown(v.lang, e.Person), e.What), Link: "/emergencies/" + e.ID, Act: v.lang.T("Look and confirm")}
		if e.Time != nil {
			n.Since = *e.Time
		}
		out = append(out, n)
	}
	for _, a := range alarms {
		if strings.HasPrefix(a.Key, "emergency/") && len(emergencies) > 0 {
			continue // it stands above, with its way to confirm it
		}
		out = append(out, need{Urgent: true, Text: a.Text, Since: a.Since, Link: "/alarms#" + a.Key, Act: v.lang.T("Alarm")})
	}
	for _, op := range ops {
		if op.Error != "" {
			out = append(out, need{Urgent: true, Text: v.lang.T("Operation %s of agency %s: %s", v.lang.T(op.Kind), op.Agency, op.Error), Since: op.Started, Link: "/operations/" + op.ID, Act: v.lang.T("Operation")})
		}
	}
	for _, n := range nodes.Nodes {
		if n.State == "silent" {
			out = append(out, need{Urgent: true, Text: v.lang.T("Node %s is silent: its lease is over.", n.Node), Link: "#nodes"})
		}
	}
	for _, p := range platforms {
		if !p.Ready {
			out = append(out, need{Urgent: true, Text: v.lang.T("Platform %s can't be used: %s", p.ID, p.Error), Link: "#nodes"})
		}
	}
	for _, p := range open {
		switch {
		case p.State == "approved":
			out = append(out, need{Text: v.lang.T("Approved, and not yet started: %s", subjectOf(v.lang, &p)), Since: p.Created, Link: "/proposals/" + p.ID, Act: v.lang.T("Start")})
		case p.State == "open" && p.Person != v.id.Person:
			out = append(out, need{Text: v.lang.T("%s has proposed: %s", p.Person, subjectOf(v.lang, &p)), Since: p.Created, Link: "/proposals/" + p.ID, Act: v.lang.T("Read and approve")})
		}
	}
	slices.SortStableFunc(out, func(a, b need) int {
		if a.Urgent != b.Urgent {
			if a.Urgent {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Since.UnixNano(), b.Since.UnixNano())
	})
	return out
}

func orUnknown(l Language, s string) string {
	if s == "" {
		return l.T("Somebody")
	}
	return s
}

// subjectOf says in a few words what a proposal is about.
func subjectOf(l Language, p *admin.Proposal) string {
	text := l.T(p.Kind)
	for _, s := range []string{p.Agency, p.Node, p.Wave} {
		if s != "" {
			text += " " + s
		}
	}
	return text
}
