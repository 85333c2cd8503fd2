package operation

import (
	"fmt"
	"strings"
	"time"

	"mailcutover/routing"
)

// Text returns the plan for people. The same plan gives the same text; when it was made is
// the only thing in it that differs between two plans at one state of things.
func (p *Plan) Text() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("plan: %s of agency %s", p.Kind, p.Agency)
	line("  digest    %s", p.Digest())
	line("  reason    %s", p.Reason)
	line("  made      %s, at revision %d", p.Made.Format(time.RFC3339), p.Position.Revision)
	line("  expected  closed for about %s", p.Expected)
	if p.Emergency {
		line("  EMERGENCY on one person's word; a second one has to confirm it afterwards")
	}
	if p.TakesBack {
		line("  IF ITS CANARY FAILS afterwards, the agency is rolled back by itself; a person has to confirm that as an emergency")
	}
	if p.TargetDead {
		line("  TARGET DEAD: what is under way there is listed, not awaited")
	}
	line("\nagencies")
	for i := range p.Agencies {
		p.Agencies[i].text(line)
	}
	line("\nsteps")
	for i, s := range p.Steps {
		name := string(s.Step)
		if s.Hook != "" {
			name = "hook " + s.Hook
		}
		line("  %2d. %s: %s", i+1, name, s.Text)
	}
	line("\nnodes")
	for i := range p.Nodes {
		v := &p.Nodes[i]
		line("  %s: lease %s, applied %d, protocol %d, build %q", v.Node, v.Lease, v.Applied, v.Protocol, v.Build)
		if v.Fence != "" {
			line("      fence: %s, after %s", v.Fence, v.Fenced)
		}
		if v.Text != "" {
			line("      %s", v.Text)
		}
	}
	line("\nplatforms")
	for _, v := range p.Platform {
		if v.Text != "" {
			line("  %s: %s", v.ID, v.Text)
		} else {
			line("  %s: ends any connection after %s", v.ID, v.Limit)
		}
		switch {
		case v.LoginLimit > 0:
			line("      ends any login after %s", v.LoginLimit)
		case v.Logins:
			line("      no connection limit for logins is configured")
		}
	}
	if len(p.Hooks) > 0 {
		line("\nhooks")
		for i := range p.Hooks {
			p.Hooks[i].text(line)
		}
	}
	line("\nchecks")
	for i := range p.Checks {
		c := &p.Checks[i]
		mark := "ok      "
		switch {
		case !c.OK && c.Informs:
			mark = "note    "
		case !c.OK:
			mark = "REFUSES "
		}
		line("  %s %s: %s", mark, c.Name, strings.ReplaceAll(c.Text, "\n", "; "))
	}
	if len(p.Returns) > 0 {
		line("\nmail on the losing side")
		for _, s := range p.Returns {
			line("  %s", s)
		}
	}
	line("\nnot touched")
	for _, s := range p.OutOfScope {
		line("  %s", s)
	}
	line("\nthe way back")
	line("  %s", p.Back)
	return b.String()
}

func (a *PlanAgency) text(line func(string, ...any)) {
	move := fmt.Sprintf("%s -> %s", a.Losing, a.Winning)
	if a.Losing == a.Winning {
		move = "stays on " + string(a.Losing)
	}
	line("  %s: %s, phase %s, epoch %s", a.ID, move, a.Phase, a.Epoch)
	if a.Next != a.Mapping {
		line("      mapping %s -> %s", mappingText(a.Mapping), mappingText(a.Next))
	} else {
		line("      mapping %s", mappingText(a.Mapping))
	}
	count := func(n int, what string) string {
		if n < 0 {
			return what + " not known"
		}
		return fmt.Sprintf("%d %s", n, what)
	}
	line("      %s, %s, %s, %s, %s", count(a.Mailboxes, "mailboxes"), count(a.Held, "messages held"), count(a.Waiting, "waiting"),
		count(a.InDoubt, "in doubt"), count(a.Sessions, "sessions"))
	if len(a.Missing) > 0 {
		line("      sessions on %s are not known", strings.Join(a.Missing, ", "))
	}
	if a.Locked {
		line("      locked: it stays closed until it is unlocked")
	}
	if a.Ends != "" {
		line("      operation %s is ended", a.Ends)
	}
}

func mappingText(d routing.Digest) string {
	if d.IsZero() {
		return "empty"
	}
	return d.String()
}

func (h *PlanHook) text(line func(string, ...any)) {
	what := fmt.Sprintf("expected %s", h.Expected)
	if h.Patience > 0 {
		what += fmt.Sprintf(", tried for %s", h.Patience)
	}
	switch {
	case h.Without:
		what = "left out"
	case h.External:
		what = fmt.Sprintf("external, alarm after %s", h.Expected)
	case !h.Undoes:
		what += ", has no undo"
	}
	line("  %s at %s: %s (%s)", h.Name, h.Point, h.Does, what)
	line("      digest %s", h.Digest)
}
