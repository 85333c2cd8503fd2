package operation

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// logins says whether a platform takes logins through the nodes, and after how long it ends
// any of them; 0: that is not configured.
func (r *Runner) logins(id routing.PlatformID) (limit time.Duration, takes bool) {
	if r.Logins == nil {
		return 0, false
	}
	return r.Logins(id)
}

// unlimited are the losing platforms that take logins and that nothing is known to end.
func (u *run) unlimited() (all []string) {
	for _, id := range u.losing() {
		if limit, takes := u.logins(id); takes && limit == 0 {
			all = append(all, string(id))
		}
	}
	return all
}

// takesLogins reports whether a losing platform takes logins.
func (u *run) takesLogins() bool {
	return slices.ContainsFunc(u.losing(), func(id routing.PlatformID) bool { _, takes := u.logins(id); return takes })
}

// sessionsText says what has ended the login sessions of a member that is fenced by time
// alone, for the record of the operation; empty: there are none, or they ended with the node.
func (u *run) sessionsText(f table.Fence) string {
	gone := slices.ContainsFunc(u.op.Nodes, func(w Waits) bool { return w.Node == f.Node && w.State == MemberStopped })
	switch {
	case f.Kind == table.FenceAttested, gone, !u.takesLogins():
		return ""
	case u.op.closes():
		return "; its logins were ended by the hook that closes the losing side"
	case u.op.TargetDead:
		return "; its logins end with the platform"
	case len(u.unlimited()) == 0:
		return "; its logins ended by the platform's connection limit"
	default:
		return "; logins not fenced"
	}
}

// loginsFenced tells what ends the login sessions of nodes that it would go on without;
// nil: there are none.
func loginsFenced(p *Plan) *Check {
	silent := slices.ContainsFunc(p.Nodes, func(v PlanNode) bool {
		return v.Fence != "" && v.Fence != string(table.FenceAttested) && v.Lease != "given up"
	})
	var open []string // platforms whose logins nothing ends
	takes := false
	for i := range p.Platform {
		v := &p.Platform[i]
		if !v.Logins || !slices.ContainsFunc(p.Agencies, func(a PlanAgency) bool { return a.Losing == v.ID }) {
			continue
		}
		takes = true
		if v.LoginLimit == 0 {
			open = append(open, string(v.ID))
		}
	}
	if !silent || !takes {
		return nil
	}
	c := Check{Name: "logins of silent nodes", Informs: true}
	switch {
	case slices.ContainsFunc(p.Hooks, func(h PlanHook) bool { return h.Point == PointClose && !h.Without }):
		c.OK, c.Text = true, "the hook that closes the losing side ends them"
	case p.TargetDead:
		c.OK, c.Text = true, "they end with the platform"
	case len(open) == 0:
		c.OK, c.Text = true, "the platform's connection limit ends them, and is waited for"
	default:
		c.Text = fmt.Sprintf("logins not fenced: %s has neither a connection limit for logins nor a hook that closes it; what is promised holds for mail alone", strings.Join(open, ", "))
	}
	return &c
}
