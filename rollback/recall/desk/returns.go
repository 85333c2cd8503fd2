package desk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/operation"
	"mailcutover/rollback/watermark"
	"mailcutover/routing"
)

var _ operation.Returns = (*Desk)(nil)

const (
	// planPatience bounds what a plan asks the ledgers.
	planPatience = 5 * time.Second

	// usualRate is what a plan reckons with, in messages per second and node: half of what
	// two Dovecots on one machine with two cores take (docs/performance.md).
	usualRate = 100
)

// Plan implements operation.Returns.
func (d *Desk) Plan(ctx context.Context, p *operation.Plan) []string {
	var all []string
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	s := d.o.Replica.State()
	set := d.settings()
	for i := range p.Agencies {
		a := &p.Agencies[i]
		var blind []string
		for _, id := range []routing.PlatformID{a.Losing, a.Winning} {
			if set.Mailboxes(id) == nil {
				blind = append(blind, string(id))
			}
		}
		if blind != nil {
			say("%s: the mailboxes of %s can't be read (platforms.mailboxes isn't set): nothing of its mailboxes is brought from %s to %s", a.ID, strings.Join(blind, " and "), a.Losing, a.Winning)
		}
		k, _ := knownOf(s, a.ID)
		since := k.Since
		switch {
		case p.Kind == operation.Cutover && blind == nil:
			say("%s: before it begins, the state of %s on %s and %s is noted, while everything is open", a.ID, mailboxes(a.Mailboxes), a.Losing, a.Winning)
			say("%s: afterwards a sweep brings what reached %s meanwhile to %s, until a pass finds nothing", a.ID, a.Losing, a.Winning)
			continue
		case p.Kind == operation.Cutover:
			continue
		case blind != nil: // copies remain
		case k.Watermarks.IsZero():
			say("%s: a recall brings back what %s has and %s hasn't. There are no watermarks: all of %s is compared, which takes longer and ends the same", a.ID, a.Losing, a.Winning, mailboxes(a.Mailboxes))
		default:
			say("%s: a recall brings back what reached %s since the cutover of %s: received, sent, drafts, moved", a.ID, a.Losing, since.UTC().Format(time.RFC3339))
		}
		d.planFacts(ctx, a, since, len(d.nodes(s)), say)
		if d.o.Copies == nil {
			say("%s: no copies are retained: if %s is lost, what it had is lost with it", a.ID, a.Losing)
			continue
		}
		for _, text := range d.o.Copies.Plan(a.ID, since) {
			say("%s: %s", a.ID, text)
		}
	}
	for i := range p.Agencies {
		for _, text := range Open(s, p.Agencies[i].ID) {
			say("%s: %s; this switch ends what is under way", p.Agencies[i].ID, text)
		}
	}
	return all
}

// Foresee says, for people, what a run would do.
func (d *Desk) Foresee(ctx context.Context, r *Run) []string {
	s := d.o.Replica.State()
	a, _ := s.Agency(r.Agency)
	p := &operation.PlanAgency{ID: r.Agency, Losing: r.From, Winning: r.To, Mailboxes: -1}
	if m := s.Mapping(a.ID); m != nil {
		p.Mailboxes = m.Len()
	}
	var all []string
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	say("%s: mail of %s is brought from %s to %s, shared among %d nodes", r.Agency, mailboxes(p.Mailboxes), r.From, r.To, len(r.Nodes))
	if r.Watermarks.IsZero() {
		say("%s: without watermarks: everything is compared, which takes longer and ends the same", r.Agency)
	} else {
		say("%s: what is above the watermarks of %s is looked at", r.Agency, r.Since.UTC().Format(time.RFC3339))
	}
	d.planFacts(ctx, p, r.Since, len(r.Nodes), say)
	if d.o.Copies != nil && r.Kind == Recall {
		for _, text := range d.o.Copies.Plan(r.Agency, r.Since) {
			say("%s: %s", r.Agency, text)
		}
	}
	return all
}

// mailboxes says how many there are; below 0: this node doesn't know.
func mailboxes(n int) string {
	if n < 0 {
		return "an unknown number of mailboxes"
	}
	return fmt.Sprintf("%d mailboxes", n)
}

// planFacts says how much there is to be brought.
func (d *Desk) planFacts(ctx context.Context, a *operation.PlanAgency, since time.Time, nodes int, say func(string, ...any)) {
	ctx, cancel := context.WithTimeout(ctx, planPatience)
	defer cancel()
	f, err := d.facts(ctx, Query{Agency: a.ID, Platform: a.Losing, Since: since})
	if err != nil {
		say("%s: how much we delivered to %s isn't known now: %v", a.ID, a.Losing, err)
		return
	}
	n := f.count()
	took := time.Duration(n) * time.Second / usualRate / time.Duration(max(1, nodes))
	say("%s: by the ledgers %d messages were delivered to %s, which takes about %s; what users made there comes on top", a.ID, n, a.Losing, took.Round(time.Second))
	for _, text := range f.silent {
		say("%s: %s; what it delivered is not among them", a.ID, text)
	}
}

// Watermarks implements operation.Returns.
func (d *Desk) Watermarks(ctx context.Context, op *operation.Operation, progress func(string)) (routing.Digest, error) {
	s := d.o.Replica.State()
	if op.Kind != operation.Cutover {
		k, _ := knownOf(s, op.Agency)
		return k.Watermarks, nil
	}
	a, ok := s.Agency(op.Agency)
	m := s.Mapping(op.Agency)
	if !ok || m == nil {
		return routing.Digest{}, fmt.Errorf("agency %s has no mapping here", op.Agency)
	}
	set := d.settings()
	w := &watermark.Set{Agency: a.ID, Operation: op.ID, Taken: d.now().UTC()}
	for _, side := range []struct {
		platform routing.PlatformID
		at       mailstore.Side
	}{{a.Source, mailstore.Source}, {a.Target, mailstore.Target}} {
		store := set.Mailboxes(side.platform)
		if store == nil {
			continue
		}
		one, err := watermark.Take(ctx, side.platform, m.Rows(), set.Workers, watermark.At(store, side.at), func(done int) {
			progress(fmt.Sprintf("watermarks on %s: %d of %d mailboxes", side.platform, done, m.Len()))
		})
		if err != nil {
			return routing.Digest{}, err
		}
		if n := one.Failed(); n > 0 {
			d.o.Logger.Warn("recall: mailboxes without watermarks", "operation", op.ID, "agency", a.ID, "platform", side.platform, "mailboxes", n)
		}
		w.Sides = append(w.Sides, *one)
	}
	if len(w.Sides) == 0 {
		return routing.Digest{}, nil
	}
	return d.files.Put(w)
}

// Documents implements operation.Returns.
func (d *Desk) Documents(s *routing.State, op *operation.Operation) ([]routing.Document, error) {
	var docs []routing.Document
	var errs []error
	add := func(doc routing.Document, err error) {
		if err != nil {
			errs = append(errs, err)
			return
		}
		docs = append(docs, doc)
	}
	runs, _ := Runs(s)
	for _, id := range op.Agencies {
		a, ok := s.Agency(id)
		if !ok || slices.ContainsFunc(runs, func(r Run) bool { return r.Agency == id && r.Operation == op.ID }) {
			continue // asked again: it is there
		}
		k, was := knownOf(s, id)
		now := d.now().UTC()
		r := Run{
			Kind: Sweep, Agency: id, From: a.Source, To: a.Target, Operation: op.ID, Mapping: a.Mapping,
			Watermarks: op.Watermarks, Since: op.Started.UTC(), Who: op.Who, Reason: op.Reason, Begun: now,
		}
		if op.Kind == operation.Rollback {
			r.Kind, r.From, r.To, r.Watermarks, r.Since = Recall, a.Target, a.Source, k.Watermarks, k.Since
			r.Copies = op.TargetDead && d.o.Copies != nil
		} else {
			add(document(knownPrefix+string(id), was, cutover{Operation: op.ID, Watermarks: op.Watermarks, Since: op.Started.UTC()}))
		}
		for i := range runs {
			if old := &runs[i]; old.Agency == id && old.Ended == nil && old.Stands(s) != Done {
				old.Ended = &Word{Who: op.Who, Reason: fmt.Sprintf("%s %s", op.Kind, op.ID), Time: now}
				add(old.document())
			}
		}
		if d.readable(&r) != nil {
			continue // the plan said so
		}
		r.After = now.Add(d.limit(r.From))
		r.Nodes, r.ID = d.nodes(s), freeID(s, id, op.ID)
		add(r.document())
	}
	return docs, errors.Join(errs...)
}

// limit is for how long after a switch a platform may still get something.
func (d *Desk) limit(p routing.PlatformID) time.Duration {
	if set := d.settings(); set.Limit != nil {
		return set.Limit(p)
	}
	return operation.DefaultLimit
}

// Check implements operation.Checker: no cutover begins while mail of the way back is still
// being brought, since it would be brought to a side that the agency leaves.
func (d *Desk) Check(_ context.Context, p *operation.Plan) []operation.Check {
	const name = "recall"
	if p.Kind != operation.Cutover {
		return nil
	}
	s := d.o.Replica.State()
	runs, err := Runs(s)
	var all []operation.Check
	if err != nil {
		all = append(all, operation.Failed(name, err))
	}
	for i := range p.Agencies {
		for j := range runs {
			if r := &runs[j]; r.Agency == p.Agencies[i].ID && r.Kind == Recall && r.Stands(s) == Running {
				all = append(all, operation.Failed(name, fmt.Errorf("agency %s: %w: %s; end it (mailcutover recall end %[3]s --reason ...) or wait for it", r.Agency, ErrOpen, r.ID)))
			}
		}
	}
	if all == nil {
		all = append(all, operation.Passed(name, "no mail of the way back is under way"))
	}
	return all
}
