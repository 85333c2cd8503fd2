package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/rollback/control"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// act is something that people do at a node, beside operations.
type act struct {
	what string
	do   func(ctx context.Context, r *Run, l *life, c *control.Control, a control.Act, ag *agency) error
}

var acts = []act{
	{"lock", func(ctx context.Context, r *Run, _ *life, c *control.Control, a control.Act, ag *agency) error {
		r.mu.Lock()
		opened := r.oracle.opened[ag.id]
		r.mu.Unlock()
		res, err := c.Lock(ctx, a, []routing.AgencyID{ag.id}, false)
		closed := func(n control.Receipt) bool { return n.Standing == control.Closed }
		if err == nil && res.Complete && !slices.ContainsFunc(res.Nodes, func(n control.Receipt) bool { return !closed(n) }) {
			r.mu.Lock()
			r.oracle.locked(ag.id, opened)
			r.mu.Unlock()
		}
		return err
	}},
	{"unlock", func(ctx context.Context, r *Run, _ *life, c *control.Control, a control.Act, ag *agency) error {
		r.mu.Lock()
		r.oracle.opening(ag.id)
		r.mu.Unlock()
		_, err := c.Unlock(ctx, a, []routing.AgencyID{ag.id})
		return err
	}},
	{"lock on a node", func(_ context.Context, r *Run, l *life, _ *control.Control, _ control.Act, ag *agency) error {
		_, err := l.keeper.LockLocal(ag.id, "anna", "sim")
		r.mu.Lock()
		defer r.mu.Unlock()
		if err == nil && !l.host.dead {
			r.oracle.lockedHere(l.m.name, ag.id)
		}
		return err
	}},
	{"settle", func(ctx context.Context, _ *Run, _ *life, c *control.Control, a control.Act, ag *agency) error {
		_, err := c.Settle(ctx, a, []routing.AgencyID{ag.id})
		return err
	}},
	{"arm", func(ctx context.Context, _ *Run, _ *life, c *control.Control, a control.Act, ag *agency) error {
		_, err := c.Arm(ctx, a, []routing.AgencyID{ag.id})
		return err
	}},
}

// perform makes somebody do something at a node. mu is held.
func (r *Run) perform(m *machine, what string, ag *agency) {
	l := m.life
	if l == nil || l.control == nil {
		return
	}
	i := slices.IndexFunc(acts, func(a act) bool { return a.what == what })
	r.acts++
	id := control.Act{ID: fmt.Sprintf("act-%d", r.acts), Who: "bert", Reason: "sim"}
	r.ops++
	r.note("somebody at %s: %s %s", m.name, what, ag.id)
	m.ends.Go(func() {
		ctx, cancel := context.WithTimeout(l.ctx, 10*time.Second)
		defer cancel()
		err := acts[i].do(ctx, r, l, l.control, id, ag)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ops--
		r.note("%s %s at %s: %v", what, ag.id, m.name, err)
		if err == nil {
			r.done[what]++
		}
	})
}

// look after the table, as people do when alarms call them: reconcile what the table lost,
// unlock what is locked, end a rejoin that nobody else can end. mu is held.
func (r *Run) attend() {
	var at *machine
	for _, m := range r.machines {
		if m.life != nil && m.life.control != nil && m.host.paused == nil {
			at = m
		}
	}
	r.after(2*time.Second, "", r.attend)
	if r.emptied { // whatever waits for it
		r.bootstrap()
		return
	}
	nameless := r.nameless()
	waits := r.ops > 0 && (nameless == nil || r.clocksRun) && !r.endless() // for nothing that people have to do
	if at == nil || waits || r.attending {
		return
	}
	r.revive()
	l := at.life
	if l == nil {
		return // it was one that had to begin anew
	}
	r.attending = true
	r.acts++
	id := control.Act{ID: fmt.Sprintf("attend-%d", r.acts), Who: "anna and bert", Reason: "sim"}
	r.ops++
	at.ends.Go(func() {
		ctx, cancel := context.WithTimeout(l.ctx, 10*time.Second)
		defer cancel()
		what, err := r.order(ctx, l, id, nameless)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ops--
		r.attending = false
		if what != "" {
			r.done["people: "+what]++
			r.note("people at %s: %s: %v", at.name, what, err)
		}
	})
}

// endless reports whether a rejoin waits for people. mu is held.
func (r *Run) endless() bool {
	return slices.ContainsFunc(r.machines, func(m *machine) bool {
		return m.life != nil && m.life.keeper != nil && strings.Contains(m.life.keeper.Status().Why, table.OnAnotherDisk)
	})
}

// revive starts nodes anew that say that they were evicted, as their alarm asks. mu is held.
func (r *Run) revive() {
	for _, m := range r.machines {
		if m.life != nil && m.life.keeper != nil && errors.Is(m.life.keeper.Status().Err, table.ErrEvicted) {
			m.kill(memdisk.LoseNothing)
			m.start()
		}
	}
}

// nameless is a machine whose process can't have its name, since it doesn't know the
// instance that had it; nil: there is none. That no such process runs people see. mu is held.
func (r *Run) nameless() *machine {
	for _, m := range r.machines {
		if m.life != nil && m.life.keeper != nil && errors.Is(m.life.keeper.Status().Err, table.ErrInstance) {
			return m
		}
	}
	return nil
}

func (r *Run) order(ctx context.Context, l *life, id control.Act, nameless *machine) (string, error) {
	state := l.replica.State()
	if nameless != nil && !r.clocksRun {
		if m, ok := state.Member(nameless.id); ok && !m.Evicted && m.Attested != m.Instance {
			return "attest that an instance is gone", l.control.Attest(ctx, id, m.Node, m.Instance)
		}
	}
	if lost := state.Regressed(); len(lost) > 0 {
		_, err := l.control.Reconcile(ctx, id, lost)
		return "reconcile", err
	}
	n, err := l.table.Nodes(ctx)
	if err != nil {
		return "", err
	}
	if n.Rejoining != "" {
		if time.Since(r.healedAt) > table.RejoinGrace+leases.Settled+10*time.Second {
			err := l.control.EndRejoin(ctx, id)
			if err == nil && strings.Contains(n.Rejoining, table.OnAnotherDisk) {
				r.mu.Lock()
				r.oracle.believe(l.replica.State())
				r.mu.Unlock()
			}
			return "end the rejoin", err
		}
		return "", nil
	}
	if state.NamesLost() {
		r.mu.Lock()
		var lost []*newcomer
		of := r.agencies[0]
		for _, ag := range r.agencies {
			if m := ag.missing(state); len(m) > 0 {
				lost, of = m, ag
			}
		}
		r.mu.Unlock()
		if len(lost) > 0 {
			return "enter a name again that the table lost", r.enter(ctx, l, of, lost[0])
		}
		return "say that all names are there", l.control.NamesComplete(ctx, id)
	}
	for _, a := range state.Agencies() {
		if a.Locked {
			r.mu.Lock()
			r.oracle.opening(a.ID)
			r.mu.Unlock()
			_, err := l.control.Unlock(ctx, id, []routing.AgencyID{a.ID})
			return "unlock", err
		}
		_, known := state.Operation(a.Operation)
		if a.Operation != "" && !known && time.Since(r.healedAt) > 30*time.Second {
			// An operation that nobody knows any more: only this ends it.
			op, err := l.runner.Run(ctx, operation.Request{Kind: operation.Rollback, Agency: a.ID, Who: "anna", Reason: "sim", Emergency: true})
			if err == nil && op.Step == operation.StepDone {
				r.mu.Lock()
				r.oracle.success(a.ID, string(a.Source), op)
				r.mu.Unlock()
			}
			return "emergency rollback of what nobody knows", err
		}
		if open := a.Unconfirmed.All(); len(open) > 0 {
			_, err := l.control.ConfirmEmergency(ctx, id, open[0])
			return "confirm an emergency", err
		}
	}
	return "", nil
}

// operate switches an agency to its other side, from a node. mu is held.
func (r *Run) operate(ag *agency, emergency bool) {
	var up []*machine
	for _, m := range r.machines {
		if m.life != nil && m.life.runner != nil {
			up = append(up, m)
		}
	}
	if len(up) == 0 {
		return
	}
	m := up[r.rng.IntN(len(up))]
	abort := r.chance(0.1)
	patience := r.evenly(0, 2*time.Second)
	if !abort {
		patience = 0
	}
	r.operateAt(m, ag, emergency, patience)
}

// switching is an operation that somebody has begun.
type switching struct {
	op    operation.Operation
	err   error
	ended bool
}

func (s *switching) done() bool { return s.ended && s.err == nil && s.op.Step == operation.StepDone }

// operateAt switches an agency at a node that runs. Who began it waits for so long before
// it is aborted; 0: until it ends. mu is held.
func (r *Run) operateAt(m *machine, ag *agency, emergency bool, patience time.Duration) *switching {
	l := m.life
	s := new(switching)
	r.ops++
	m.ends.Go(func() {
		ctx := l.ctx
		if patience > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, patience)
			defer cancel()
		}
		rec, _ := l.replica.State().Agency(ag.id)
		req := operation.Request{Kind: operation.Cutover, Agency: ag.id, Who: "anna", Reason: "sim", Deadline: 40 * time.Second}
		winner := ag.target
		if rec.Phase.OnTarget() {
			req.Kind, winner, req.Emergency = operation.Rollback, ag.source, emergency
		}
		r.mu.Lock()
		r.note("%s of %s is begun on %s, emergency %t", req.Kind, ag.id, m.name, req.Emergency)
		r.mu.Unlock()
		op, err := l.runner.Run(ctx, req)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ops--
		s.op, s.err, s.ended = op, err, true
		r.note("%s of %s on %s ends: %s, %v", req.Kind, ag.id, m.name, op.Step, err)
		if l.host.dead {
			return // nobody hears of it
		}
		switch {
		case s.done():
			r.done[string(req.Kind)+" done"]++
			r.oracle.success(ag.id, winner, op)
		case op.Step == operation.StepAborted:
			r.done[string(req.Kind)+" aborted"]++
		case errors.Is(err, routing.ErrNotArmed):
			r.done["refused: not armed"]++
		default:
			r.done[string(req.Kind)+" refused, or left"]++
		}
	})
	return s
}
