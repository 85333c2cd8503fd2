package operation

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// prepared is an operation that can begin, as far as this node knows.
type prepared struct {
	op       Operation
	hooks    []Hook
	mapped   routing.Revision // at which the names of the mappings were checked
	deadline time.Duration
}

// prepare checks whether the operation can begin, and writes nothing. With an approved
// plan it makes all checks of [Runner.Plan].
func (r *Runner) prepare(ctx context.Context, req Request) (prepared, error) {
	var p prepared
	var plan Plan
	var err error
	if req.Plan.IsZero() {
		var errs []error
		if p, errs = r.draft(ctx, req, r.Replica.State()); len(errs) > 0 {
			return p, errors.Join(errs...)
		}
		if err := r.quickLook(ctx, req, &p); err != nil {
			return p, err
		}
		return p, nil
	}
	if plan, p, err = r.plan(ctx, req); err != nil {
		return p, err
	}
	// What refuses says more than the digest that it changed.
	if err := plan.refusal(); err != nil {
		return p, err
	}
	if got := plan.Digest(); got != req.Plan {
		return p, fmt.Errorf("%s agency %s: %w: it has the digest %s, approved was %s", req.Kind.verb(), req.Agency, ErrPlan, got, req.Plan)
	}
	return p, nil
}

// draft makes the operation of a request from what this node knows, or says everything
// that is against it.
func (r *Runner) draft(ctx context.Context, req Request, state *routing.State) (p prepared, errs []error) {
	fail := func(format string, args ...any) (prepared, []error) {
		return p, append(errs, fmt.Errorf(format, args...))
	}
	if strings.TrimSpace(req.Reason) == "" {
		return fail("%s of agency %s: a reason is required", req.Kind, req.Agency)
	}
	if req.Emergency && req.Kind != Rollback || req.TargetDead && !req.Emergency {
		return fail("%s of agency %s: only a rollback can be an emergency, and only then its target be dead", req.Kind, req.Agency)
	}
	if req.Kind == Remap {
		if len(req.Mappings) == 0 {
			return fail("%s: no mapping is given", req.Kind)
		}
		if req.Agency == "" {
			req.Agency = slices.Min(slices.Collect(maps.Keys(req.Mappings)))
		}
		if _, ok := req.Mappings[req.Agency]; !ok {
			return fail("%s of agency %s: no mapping of it is given", req.Kind, req.Agency)
		}
	} else if len(req.Mappings) > 0 || req.Kind != Cutover && req.Kind != Rollback {
		return fail("%s of agency %s: there is no such operation, or it has no mappings", req.Kind, req.Agency)
	}
	a, ok := state.Agency(req.Agency)
	if !ok {
		return fail("%s: no agency %q in the table", req.Kind, req.Agency)
	}
	p.op = Operation{
		ID: cmp.Or(req.ID, routing.OperationID(uuid.NewString())), Kind: req.Kind, Agency: req.Agency,
		Agencies: concerned(req, state), Nonce: newNonce(), Plan: req.Plan, Emergency: req.Emergency, TargetDead: req.TargetDead,
		TakesBack: req.Kind == Cutover && r.Canaries != nil && r.Canaries.TakesBack(req.Agency),
		Mappings:  maps.Clone(req.Mappings), List: req.List, Wave: req.Wave, Runner: r.Node, Instance: r.Instance,
		Who: req.Who, Reason: req.Reason, Started: time.Now(),
	}
	p.deadline = DefaultDeadline
	if err := r.isNew(req.ID, state); err != nil {
		errs = append(errs, err)
	}
	if req.Expected != (routing.Epoch{}) && a.Epoch != req.Expected {
		errs = append(errs, fmt.Errorf("begin %s: %w: it is %s, expected was %s", a.ID, ErrEpoch, a.Epoch, req.Expected))
	}
	for _, id := range p.op.Agencies {
		if err := r.admits(&p.op, id, state); err != nil {
			errs = append(errs, err)
		}
		rec, _ := state.Agency(id)
		if req.Made != 0 && rec.Revision > req.Made {
			errs = append(errs, fmt.Errorf("begin %s: %w: its record was changed in revision %d, the mappings were made of %d", id, ErrPlan, rec.Revision, req.Made))
		}
		p.op.Base = max(p.op.Base, rec.Revision)
	}
	p.hooks = r.hooksOf(req.Kind, a)
	for _, h := range p.hooks {
		s := HookState{Name: h.Name(), Point: h.Point(), Digest: h.Digest(), External: h.External(), Status: HookPlanned}
		switch {
		case slices.Contains(req.Without, h.Name()):
			s.Status, s.Who = HookSkipped, req.Who
		case req.TargetDead && h.Platform() == a.Target:
			s.Status, s.Who = HookSkipped, "the target is dead"
		}
		p.op.Hooks = append(p.op.Hooks, s)
	}
	for _, name := range req.Without {
		if p.op.hook(name) == nil {
			errs = append(errs, fmt.Errorf("%s of agency %s: %w %s: it has none of that name", req.Kind, a.ID, ErrHook, name))
		}
	}
	if req.Kind == Remap && len(errs) == 0 {
		p.mapped = state.Position().Mapped
		errs = r.checkMappings(ctx, state, req.Mappings)
	}
	return p, errs
}

// isNew returns ErrKnown if this node or the table knows an operation of this id. The
// table would refuse its begin all the same.
func (r *Runner) isNew(id routing.OperationID, state *routing.State) error {
	if id == "" {
		return nil
	}
	if _, err := uuid.Parse(string(id)); err != nil {
		return fmt.Errorf("operation %q: %w: %w", id, routing.ErrBadID, err)
	}
	_, open := state.Operation(id)
	r.mu.Lock()
	_, unwritten := r.unwritten[id]
	r.mu.Unlock()
	names, err := r.Folder.Names() // what another entry says doesn't matter, nor whether it can be read
	if err != nil {
		return fmt.Errorf("list the journal: %w", err)
	}
	if open || unwritten || slices.Contains(names, string(id)+journalSuffix) {
		return fmt.Errorf("operation %s: %w", id, ErrKnown)
	}
	return nil
}

// concerned returns the agencies that change together, the one of the request first.
func concerned(req Request, state *routing.State) []routing.AgencyID {
	ids := []routing.AgencyID{req.Agency}
	for _, a := range state.Agencies() {
		switch {
		case a.ID == req.Agency:
		case req.Kind == Remap:
			if _, ok := req.Mappings[a.ID]; ok {
				ids = append(ids, a.ID)
			}
		case req.Kind == Rollback && a.Parent == req.Agency && a.Phase.OnTarget():
			ids = append(ids, a.ID)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(req.Mappings)) {
		if !slices.Contains(ids, id) {
			ids = append(ids, id) // of no agency: admits says so
		}
	}
	return ids
}

// admits says what is against an operation on one of its agencies.
func (r *Runner) admits(op *Operation, id routing.AgencyID, state *routing.State) error {
	a, ok := state.Agency(id)
	if !ok {
		return fmt.Errorf("%s: no agency %q in the table", op.Kind, id)
	}
	if seen, ok := state.Seen(id); ok {
		return fmt.Errorf("%s of agency %s: a record with epoch %s was seen, the table's has %s: reconcile it first", op.Kind, id, seen.Epoch, a.Epoch)
	}
	if op.Emergency {
		next, err := (&run{Runner: r, op: *op}).beginEmergency(state, a)
		if err == nil && next.Operation == "" && a.Operation == "" {
			err = fmt.Errorf("%s of agency %s: %w", op.Kind, id, routing.ErrTransition)
		}
		if err == nil && next.Phase != routing.PhaseToSource && next.Operation != "" {
			err = fmt.Errorf("%s of agency %s: %w: it is in phase %s, want %s", op.Kind, id, routing.ErrTransition, a.Phase, routing.PhaseTarget)
		}
		return err
	}
	if err := state.Unconfirmed(); err != nil {
		return fmt.Errorf("%s of agency %s: %w", op.Kind, id, err)
	}
	if f, ok := state.Frozen(id); ok {
		return fmt.Errorf("%s of agency %s: %w since %s by %s: %s", op.Kind, id, ErrFrozen, f.Since.UTC().Format(time.RFC3339), f.Who, f.Reason)
	}
	want := routing.PhaseSource
	if op.Kind == Rollback {
		want = routing.PhaseTarget
	}
	if op.Kind.moves() && a.Phase != want {
		return fmt.Errorf("%s of agency %s: %w: it is in phase %s, want %s", op.Kind, id, routing.ErrTransition, a.Phase, want)
	}
	_, err := a.Begin(op.ID, op.Nonce, op.Kind.event())
	return err
}

// quickLook asks the members what a plan would show of them, where no plan was made. A
// table that doesn't answer is no reason to refuse: begin asks it until the deadline.
func (r *Runner) quickLook(ctx context.Context, req Request, p *prepared) error {
	n, err := r.nodes(ctx)
	if err != nil {
		r.Logger.Warn("members are not looked at before begin", "operation", p.op.ID, "agency", p.op.Agency, "error", err)
		return nil
	}
	_, p.deadline = r.foreseen(&n, &p.op)
	if p.op.Emergency {
		return nil
	}
	if req.Deadline > 0 {
		p.deadline = req.Deadline
	}
	return doubtful(&n, &p.op, p.op.Started.Add(p.deadline))
}

// doubtful returns ErrInDoubt if a message is in doubt for longer than that.
func doubtful(n *table.Nodes, op *Operation, deadline time.Time) error {
	for i := range n.Members {
		m := &n.Members[i]
		if m.Evicted {
			continue
		}
		for _, d := range n.Leases[m.Node].Doubts {
			if slices.Contains(op.Agencies, d.Agency) && d.Until.After(deadline) {
				return fmt.Errorf("%s of agency %s: %w: agency %s can't be drained on node %s before %s", op.Kind, op.Agency, ErrInDoubt, d.Agency, m.Node, d.Until.Format(time.RFC3339))
			}
		}
	}
	return nil
}

// checkMappings reports what keeps the mappings from being in force together, in this
// State: one that isn't there, a name that another agency has.
func (r *Runner) checkMappings(ctx context.Context, state *routing.State, mappings map[routing.AgencyID]routing.Digest) (errs []error) {
	var u routing.Update
	for _, id := range slices.Sorted(maps.Keys(mappings)) {
		m, err := r.Table.Mapping(ctx, id, mappings[id])
		if err != nil {
			errs = append(errs, fmt.Errorf("load mapping %s of agency %s: %w", mappings[id], id, err))
			continue
		}
		a, _ := state.Agency(id)
		a.Mapping = mappings[id]
		u.Agencies, u.Mappings = append(u.Agencies, a), append(u.Mappings, m)
	}
	if len(errs) > 0 {
		return errs
	}
	try, err := state.Apply(u)
	if err != nil {
		return []error{err}
	}
	for _, m := range u.Mappings {
		for _, err := range try.CheckMapping(m) {
			errs = append(errs, fmt.Errorf("mapping %s of agency %s: %w", m.Digest(), m.Agency(), err))
			if len(errs) > maxMappingErrors {
				return append(errs, fmt.Errorf("mapping %s of agency %s: %w: and more", m.Digest(), m.Agency(), routing.ErrBadMapping))
			}
		}
	}
	return errs
}

// maxMappingErrors is how many errors about mappings are named.
const maxMappingErrors = 20

func newNonce() routing.Nonce {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails, since Go 1.24
		if n := routing.Nonce(binary.BigEndian.Uint64(b[:])); n != 0 {
			return n
		}
	}
}
