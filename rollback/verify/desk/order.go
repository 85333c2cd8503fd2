package desk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"mailcutover/routing"
)

// Order is a comparison that people want.
type Order struct {
	Agencies []routing.AgencyID // compared together: content of one is found in another
	Mode     Mode               // Sample or Full
	Sample   int                // mailboxes of each agency; 0: as configured
	Who      string
	Reason   string
}

// order is a comparison that this node begins.
type order struct {
	Order
	run   string
	cause Cause
	began time.Time

	// due says whether it is due by itself still, by the copy of the table that it is claimed
	// from; nil: people want it.
	due func(*routing.State, *order) bool
}

// errOvertaken is why a comparison that was due isn't begun: it is not due any more.
var errOvertaken = errors.New("overtaken")

// Begin has mailboxes compared by this node, and returns the run's name: when it returns, the
// table says that they are. ErrRunning if one of the agencies is being compared, or this node
// compares others.
func (d *Desk) Begin(ctx context.Context, o Order) (string, error) {
	return d.begin(ctx, order{Order: o, cause: ByPerson})
}

func (d *Desk) begin(ctx context.Context, o order) (string, error) {
	if len(o.Agencies) == 0 {
		return "", fmt.Errorf("compare mailboxes: %w", ErrNoAgency)
	}
	set := d.o.Settings()
	if o.Mode == Sample && o.Sample == 0 {
		o.Sample = set.Sample
	}
	o.run, o.began = uuid.NewString()[:8], d.o.Now().UTC()
	slices.Sort(o.Agencies)
	o.Agencies = slices.Compact(o.Agencies)
	d.mu.Lock()
	busy := d.current != nil
	if !busy {
		d.current = &o
	}
	d.mu.Unlock()
	if busy {
		return "", fmt.Errorf("compare mailboxes: %w on this node", ErrRunning)
	}
	if err := d.claim(ctx, &o); err != nil {
		d.mu.Lock()
		d.current = nil
		d.mu.Unlock()
		return "", err
	}
	d.mu.Lock()
	d.orders = append(d.orders, o)
	d.mu.Unlock()
	d.Wake()
	return o.run, nil
}

// claim stores that this node compares the agencies.
func (d *Desk) claim(ctx context.Context, o *order) error {
	set := d.o.Settings()
	return d.store(ctx, "compare mailboxes", func(s *routing.State) ([]routing.Document, error) {
		if o.due != nil && !o.due(s, o) {
			return nil, errOvertaken
		}
		var docs []routing.Document
		for _, id := range o.Agencies {
			a, ok := s.Agency(id)
			if !ok || s.Mapping(id) == nil {
				return nil, fmt.Errorf("compare mailboxes of agency %s: %w", id, ErrNoAgency)
			}
			for _, p := range []routing.PlatformID{a.Source, a.Target} {
				if set.Mailboxes(p) == nil {
					return nil, fmt.Errorf("compare mailboxes of agency %s: platform %s: %w", id, p, ErrUnreadable)
				}
			}
			r, err := RecordOf(s, id)
			if err != nil {
				return nil, err
			}
			switch {
			case r.Running == nil, d.silent(r.Running):
			case r.Running.Run == o.run:
				continue // it was stored, and only the answer was lost
			default:
				return nil, fmt.Errorf("compare mailboxes of agency %s: %w: run %s on %s", id, ErrRunning, r.Running.Run, r.Running.Node)
			}
			r.Running = &Running{
				Run: o.run, Node: d.o.Node, Mode: o.Mode, Sample: o.Sample, Cause: o.cause, Who: o.Who, Reason: o.Reason, Began: o.began, Beat: o.began,
			}
			if len(o.Agencies) > 1 {
				r.Running.Together = o.Agencies
			}
			doc, err := r.document()
			if err != nil {
				return nil, err
			}
			docs = append(docs, doc)
		}
		return docs, nil
	})
}

// silent reports whether a comparison's node hasn't been heard of for long, or is this one
// that knows nothing of it.
func (d *Desk) silent(r *Running) bool {
	if r.Node == d.o.Node {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.current == nil || d.current.run != r.Run
	}
	return d.o.Now().Sub(r.Beat) > silence
}

// Stop ends the comparison of an agency that runs on this node; false: none does.
func (d *Desk) Stop(id routing.AgencyID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current == nil || d.cancel == nil || !slices.Contains(d.current.Agencies, id) {
		return false
	}
	d.cancel()
	return true
}

// Mark is what people say about a finding.
type Mark struct {
	Finding string
	State   State // Removed, Dismissed, or Found to open it again
	Who     string
	Reason  string
}

// Mark notes what people say about findings, all of them or none, and returns them as they
// stand then. What is said to be removed is looked at soon. ErrNoFinding if there is no such
// finding.
func (d *Desk) Mark(ctx context.Context, marks []Mark) ([]Tracked, error) {
	var out []Tracked
	err := d.store(ctx, "mark findings", func(s *routing.State) ([]routing.Document, error) {
		out = nil
		var docs []routing.Document
		left := slices.Clone(marks)
		for _, a := range s.Agencies() {
			all, err := Findings(s, a.ID)
			if err != nil {
				return nil, err
			}
			changed := false
			for i := range all {
				n := slices.IndexFunc(left, func(m Mark) bool { return m.Finding == all[i].ID })
				if n < 0 {
					continue
				}
				m := left[n]
				left = slices.Delete(left, n, n+1)
				all[i].State, all[i].Who, all[i].Reason, all[i].Time = m.State, m.Who, m.Reason, d.o.Now().UTC()
				out = append(out, all[i])
				changed = true
			}
			if !changed {
				continue
			}
			sortFindings(all)
			more, _, _, err := pages(s, a.ID, all)
			if err != nil {
				return nil, err
			}
			docs = append(docs, more...)
		}
		if len(left) > 0 {
			return nil, fmt.Errorf("mark finding %s: %w", left[0].Finding, ErrNoFinding)
		}
		return docs, nil
	})
	if err != nil {
		return nil, err
	}
	d.Wake()
	return out, nil
}
