package desk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/plan"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

const (
	changePatience = 15 * time.Second // for one change of the table
	planPatience   = time.Minute      // for the plan of an operation, with its probes
)

// as is in whose name the audit log and the table have what a wave does by itself.
func as(w plan.Name) string { return "wave " + string(w) }

// look looks at all waves once.
func (d *Desk) look(ctx context.Context) {
	s := d.o.Replica.State()
	if s.Position().Incarnation == "" {
		return // the table was never reached
	}
	p, unreadable := d.plan(s)
	d.count(p)
	d.show(p, unreadable)
	acts := d.o.Acts()
	if acts == nil || len(p.Waves) == 0 {
		return
	}
	// Before anything starts: what the last agency left behind is in the same documents that
	// say that it is done.
	d.watch(ctx, p)
	for i := range p.Waves {
		w := &p.Waves[i]
		err := d.tend(ctx, acts, s, w)
		if err == nil && w.Standing == plan.Running {
			err = d.start(ctx, acts, w.Name)
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, errMoved) {
			d.o.Logger.Warn("wave is not looked after", "wave", w.Name, "error", err)
		}
	}
}

// errMoved is why a change isn't made: something else happened first.
var errMoved = errors.New("overtaken")

// change stores what compute makes of a wave, with the document that every decision changes.
func (d *Desk) change(ctx context.Context, acts Acts, name plan.Name, what, reason string, compute func(*routing.State, plan.Wave) (plan.Wave, []routing.Agency, error)) error {
	ctx, cancel := context.WithTimeout(ctx, changePatience)
	defer cancel()
	return acts.ChangePlan(ctx, as(name), func(s *routing.State) (table.Change, error) {
		w, err := plan.Find(s, name)
		if err != nil {
			return table.Change{}, err
		}
		next, agencies, err := compute(s, w)
		if err != nil {
			return table.Change{}, err
		}
		docs, err := documents(s, &next, nil)
		return table.Change{Documents: docs, Agencies: agencies, What: what, Reason: reason}, err
	})
}

// start claims a wave's next agency, if nothing keeps it, and cuts it over.
func (d *Desk) start(ctx context.Context, acts Acts, name plan.Name) error {
	s := d.o.Replica.State()
	p, _ := d.plan(s)
	w := p.Wave(name)
	if w == nil {
		return nil
	}
	if r := passed(s, w); r != nil {
		return d.change(ctx, acts, name, "agency "+string(r.Agency)+" of wave "+string(name)+" is there already", "it was cut over without the wave", func(s *routing.State, w plan.Wave) (plan.Wave, []routing.Agency, error) {
			if passed(s, &w) == nil {
				return w, nil, errMoved
			}
			return w.Pass(passed(s, &w).Agency, d.now()), nil, nil
		})
	}
	id, obstacles := p.Obstacles(w, false)
	if id == "" || len(obstacles) > 0 || d.due(p) {
		return nil
	}
	var run plan.Run
	err := d.change(ctx, acts, name, fmt.Sprintf("wave %s starts agency %s", name, id), clipped(w.Reason), func(s *routing.State, _ plan.Wave) (plan.Wave, []routing.Agency, error) {
		p, _ := d.plan(s)
		w := p.Wave(name)
		if w == nil {
			return plan.Wave{}, nil, errMoved
		}
		if again, obstacles := p.Obstacles(w, false); again != id || len(obstacles) > 0 || d.due(p) {
			return *w, nil, errMoved
		}
		next, err := w.Claim(id, d.o.Node, d.o.Instance, mailboxes(s, id), d.now())
		if err != nil {
			return next, nil, err
		}
		run = *next.Run(id)
		a, _ := s.Agency(id)
		if a.Tightness == routing.Armed {
			return next, nil, nil
		}
		return next, []routing.Agency{a.Arm()}, nil
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.carried[run.Operation] = true
	d.mu.Unlock()
	d.working.Go(func() {
		defer func() {
			d.mu.Lock()
			delete(d.carried, run.Operation)
			d.mu.Unlock()
		}()
		d.carry(ctx, acts, w, &run)
	})
	return nil
}

// passed returns an agency that waits and is on its target platform already; nil: none.
func passed(s *routing.State, w *plan.Wave) *plan.Run {
	for i := range w.Runs {
		if a, ok := s.Agency(w.Runs[i].Agency); ok && w.Runs[i].Place == plan.Waiting && a.Phase == routing.PhaseTarget && a.Published {
			return &w.Runs[i]
		}
	}
	return nil
}

// carry cuts a claimed agency over.
func (d *Desk) carry(ctx context.Context, acts Acts, w *plan.Wave, run *plan.Run) {
	log := d.o.Logger.With("wave", w.Name, "agency", run.Agency, "operation", run.Operation)
	log.Info("wave starts an agency", "epoch", run.Expected(), "attempt", run.Attempt)
	op, err := d.cutover(ctx, acts, w, run)
	switch {
	case ctx.Err() != nil && !op.Step.Ended():
		return // it goes on without us, or another node gives it back
	case err == nil && op.Step == operation.StepDone:
		log.Info("wave moved an agency", "closed", op.ClosedFor().String())
		return
	case op.Step == operation.StepAborted:
		log.Warn("wave's operation was aborted", "error", err)
		return // the wave says so
	}
	log.Warn("wave's operation was refused", "step", op.Step, "error", err)
	for err != nil && d.giveBack(ctx, acts, w.Name, run.Operation, err.Error()) != nil && ctx.Err() == nil {
		select { // the table is away: nobody else gives it back as long as this node lives
		case <-time.After(d.o.Pause):
		case <-ctx.Done():
		}
	}
}

// cutover makes the plan of the operation, and carries out just that.
func (d *Desk) cutover(ctx context.Context, acts Acts, w *plan.Wave, run *plan.Run) (operation.Operation, error) {
	req := operation.Request{
		ID: run.Operation, Kind: operation.Cutover, Agency: run.Agency, Wave: string(w.Name), Expected: run.Expected(), Who: as(w.Name),
		Reason: clipped(fmt.Sprintf("wave %s, proposed by %s, approved by %s, started by %s: %s", w.Name, w.Proposer, nobody(w.Approvers), w.Started.Person, w.Reason)),
	}
	planning, cancel := context.WithTimeout(ctx, planPatience)
	made, err := d.o.Runner.Plan(planning, req)
	cancel()
	if err != nil {
		return operation.Operation{}, err
	}
	if made.Refused() {
		var bad []string
		for _, c := range made.Checks {
			if !c.OK && !c.Informs {
				bad = append(bad, c.Name+": "+c.Text)
			}
		}
		return operation.Operation{}, errors.New(strings.Join(bad, "; "))
	}
	req.Plan = made.Digest()
	return acts.Cutover(ctx, req, w.Proposal)
}

func nobody(approvers []string) string {
	if len(approvers) == 0 {
		return "nobody, as none is needed"
	}
	return strings.Join(approvers, ", ")
}

// clipped bounds a reason as the API does.
func clipped(s string) string {
	const most = 900
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// giveBack gives an attempt back that did not begin. nil, too, if it isn't claimed any more.
func (d *Desk) giveBack(ctx context.Context, acts Acts, name plan.Name, op routing.OperationID, why string) error {
	err := d.change(ctx, acts, name, fmt.Sprintf("wave %s gives operation %s back", name, op), clipped(why), func(s *routing.State, w plan.Wave) (plan.Wave, []routing.Agency, error) {
		r := w.Of(op)
		if _, runs := s.Operation(op); runs || r == nil || r.Place != plan.Starting {
			return w, nil, errMoved
		}
		next, err := w.Release(op, why, d.now())
		return next, nil, err
	})
	if errors.Is(err, errMoved) {
		return nil
	}
	return err
}

// tend sees to what others left: attempts whose node is gone, operations that ended without
// the wave's knowledge, and agencies that were rolled back.
func (d *Desk) tend(ctx context.Context, acts Acts, s *routing.State, w *plan.Wave) error {
	if back := w.Returned(s); len(back) > 0 {
		return d.change(ctx, acts, w.Name, "wave "+string(w.Name)+" pauses", "an agency that it had moved is rolled back", func(s *routing.State, w plan.Wave) (plan.Wave, []routing.Agency, error) {
			next, same := w.Return(w.Returned(s), d.now())
			if same {
				return w, nil, errMoved
			}
			return next, nil, nil
		})
	}
	for i := range w.Runs {
		r := &w.Runs[i]
		if !r.Place.Busy() || d.carries(r.Operation) {
			continue
		}
		if _, runs := s.Operation(r.Operation); runs {
			continue
		}
		if err := d.settle(ctx, acts, w.Name, r); err != nil {
			return err
		}
	}
	return nil
}

func (d *Desk) carries(op routing.OperationID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.carried[op]
}

// settle sees to an attempt whose operation isn't under way.
func (d *Desk) settle(ctx context.Context, acts Acts, name plan.Name, r *plan.Run) error {
	read, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	if r.Place == plan.Starting && (r.Node != d.o.Node || r.Instance != d.o.Instance) {
		nodes, err := d.o.Table.Nodes(read)
		if err != nil {
			return err
		}
		if l, ok := nodes.Leases[r.Node]; ok && l.Instance == r.Instance && nodes.Time.Before(l.ShortEnd) {
			return nil // it is at it
		}
	}
	ops, err := d.o.Table.Operations(read)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(ops, func(o routing.Operation) bool { return o.ID == r.Operation })
	if i >= 0 && !ops[i].Ended {
		return nil // this node's copy has not followed yet
	}
	if i < 0 && r.Place == plan.Starting {
		return d.giveBack(ctx, acts, name, r.Operation, fmt.Sprintf("node %s went, or gave it up, before it began", r.Node))
	}
	err = d.change(ctx, acts, name, fmt.Sprintf("wave %s notes how operation %s ended", name, r.Operation), "its end was not noted with it", func(s *routing.State, w plan.Wave) (plan.Wave, []routing.Agency, error) {
		now := w.Of(r.Operation)
		if now == nil || !now.Place.Busy() {
			return w, nil, errMoved
		}
		if i >= 0 {
			op, err := operation.FromRecord(&ops[i])
			if err == nil {
				next, err := ended(w, &op, d.now())
				return next, nil, err
			}
		}
		if a, ok := s.Agency(now.Agency); ok && a.Phase.OnTarget() {
			next, err := w.Finish(r.Operation, 0, "", d.now())
			return next, nil, err
		}
		next, err := w.Abort(r.Operation, "the table doesn't know any more how it ended", routing.Epoch{}, d.now())
		return next, nil, err
	})
	return err
}
