package desk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mailcutover/routing"
)

// look begins what is due, and raises the alarms that are.
func (d *Desk) look(ctx context.Context) {
	d.start(ctx)
	s := d.o.Replica.State()
	set := d.o.Settings()
	alarms := make(map[string]string)
	for _, a := range s.Agencies() {
		r, err := RecordOf(s, a.ID)
		if err != nil {
			alarms["verify-unreadable/"+string(a.ID)] = err.Error()
			continue
		}
		all, err := Findings(s, a.ID)
		if err != nil {
			alarms["verify-unreadable/"+string(a.ID)] = err.Error()
			continue
		}
		d.alarms(&r, &a, all, set, alarms)
		if r.Lock {
			d.lock(ctx, &r, &a, all)
		} else {
			delete(d.unlocked, a.ID)
		}
		if text := d.unlocked[a.ID].why; text != "" {
			alarms["verify-lock/"+string(a.ID)] = text
		}
		if o, ok := d.due(s, &a, &r, all, set); ok {
			o.due = func(s *routing.State, o *order) bool { return d.isDue(s, o, set) }
			d.beginDue(ctx, o)
		}
	}
	d.raised.Set(alarms)
}

// alarms says what people have to see of an agency.
func (d *Desk) alarms(r *Record, a *routing.Agency, all []Tracked, set Settings, to map[string]string) {
	if n := Count(all); n.Alarms() > 0 && set.React != ReactReport {
		to["crossed-mailboxes/"+string(a.ID)] = fmt.Sprintf(
			"Agency %s: %d findings say that mailboxes hold others' content, or that mail programs would show it: mailcutover verify findings --agency %[1]s. The likely owners are named there.", a.ID, n.Alarms())
	}
	if t := r.Trouble; t != nil && r.Running == nil && t.Tries >= 2 && set.React != ReactReport {
		to["verify-failed/"+string(a.ID)] = fmt.Sprintf("Agency %s: mailboxes could not be compared %d times in a row, last by node %s: %s", a.ID, t.Tries, t.Node, t.Error)
	}
}

// lock locks an agency for what was found, if this is the node that found it or that one is
// silent. It isn't wanted any more where people have locked it themselves, or rolled it back, or
// seen to the findings: a lock that came later would close what they have opened since.
func (d *Desk) lock(ctx context.Context, r *Record, a *routing.Agency, all []Tracked) {
	if d.o.Lock == nil || d.o.Now().Before(d.unlocked[r.Agency].next) {
		return
	}
	if r.Last != nil && r.Last.Node != d.o.Node && d.o.Now().Sub(r.Last.Ended) < silence {
		return
	}
	n := Count(all)
	within, cancel := context.WithTimeout(ctx, changePatience)
	defer cancel()
	wanted, what := a.Platform() == a.Target && !a.Locked && n.Crossed > 0, "no lock for crossed mailboxes is wanted any more"
	var err error
	if wanted {
		err, what = d.o.Lock(within, r.Agency, fmt.Sprintf("comparing mailboxes found %d crossed ones", n.Crossed)), "agency is locked for crossed mailboxes"
	}
	if err == nil || errors.Is(err, routing.ErrLocked) {
		err = d.store(within, what, func(s *routing.State) ([]routing.Document, error) {
			r, err := RecordOf(s, r.Agency)
			if err != nil || !r.Lock {
				return nil, err
			}
			r.Lock = false
			doc, err := r.document()
			return []routing.Document{doc}, err
		})
	}
	delete(d.unlocked, r.Agency)
	if err != nil && wanted && ctx.Err() == nil {
		d.o.Logger.Error("agency is not locked for crossed mailboxes", "agency", r.Agency, "error", err)
		d.unlocked[r.Agency] = unlocked{
			why:  fmt.Sprintf("Agency %s has crossed mailboxes and could not be locked for them: mailcutover agency lock %[1]s --reason ... %v", r.Agency, err),
			next: d.o.Now().Add(retryPause),
		}
	}
}

// unlocked is an agency that could not be locked.
type unlocked struct {
	why  string // for an alarm
	next time.Time
}

// may reports whether an agency's comparison that could not be begun may be tried again.
func (d *Desk) may(id routing.AgencyID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.o.Now().Before(d.retry[id])
}

// later puts the next try off.
func (d *Desk) later(id routing.AgencyID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.retry[id] = d.o.Now().Add(retryPause)
}

// retryPause is the time between two tries to lock an agency, or to begin its comparison.
const retryPause = 15 * time.Second

// due says which comparison of an agency is due by itself.
func (d *Desk) due(s *routing.State, a *routing.Agency, r *Record, all []Tracked, set Settings) (o order, ok bool) {
	o = order{Order: Order{Agencies: []routing.AgencyID{a.ID}, Mode: Sample, Who: "mailcutover"}}
	if r.Running != nil && !d.silent(r.Running) || !d.may(a.ID) || set.Mailboxes(a.Source) == nil || set.Mailboxes(a.Target) == nil || s.Mapping(a.ID) == nil {
		return o, false
	}
	now := d.o.Now()
	if t := r.Trouble; t != nil && (t.Tries >= triesMost || now.Sub(t.Time) < patience) {
		return o, false
	}
	if was := r.Running; was != nil { // it was interrupted
		o.Mode, o.Sample, o.cause, o.Who, o.Reason = was.Mode, was.Sample, was.Cause, was.Who, was.Reason
		return o, true
	}
	open := a.Phase == routing.PhaseTarget && a.Published
	operation := d.o.Cutover(s, a.ID)
	switch {
	case slices.ContainsFunc(all, func(t Tracked) bool { return t.State == Removed }):
		o.Mode, o.cause, o.Reason = Again, Looking, "findings were said to be removed"
	case set.AfterCutover && open && !a.Finalised && operation != "" && (r.Last == nil || r.Last.Operation != operation):
		o.cause, o.Reason = AfterMove, "cutover "+string(operation)
	case r.Widen:
		o.Mode, o.cause, o.Reason = Full, Widened, "a sample found crossed mailboxes"
	case set.Every > 0 && open && !a.Finalised && (r.Last == nil || now.Sub(r.Last.Ended) >= set.Every):
		o.cause, o.Reason = BySchedule, "the last comparison is old"
	default:
		return o, false
	}
	return o, true
}

// isDue reports whether a copy of the table has a comparison as due that an older one had so: this
// node, or another, may have ended it since.
func (d *Desk) isDue(s *routing.State, o *order, set Settings) bool {
	id := o.Agencies[0]
	a, ok := s.Agency(id)
	if !ok {
		return false
	}
	r, err := RecordOf(s, id)
	if err != nil {
		return false
	}
	if r.Running != nil && r.Running.Run == o.run {
		return true // it was claimed, and only the answer was lost
	}
	all, err := Findings(s, id)
	if err != nil {
		return false
	}
	now, ok := d.due(s, &a, &r, all, set)
	return ok && now.Mode == o.Mode && now.cause == o.cause
}

// beginDue begins a comparison, if this node has none.
func (d *Desk) beginDue(ctx context.Context, o order) {
	d.mu.Lock()
	busy := d.current != nil
	d.mu.Unlock()
	if busy {
		return
	}
	if _, err := d.begin(ctx, o); err != nil && ctx.Err() == nil {
		if errors.Is(err, errOvertaken) {
			return // the next look sees what was done
		}
		d.later(o.Agencies[0])
		if !errors.Is(err, ErrRunning) { // another node was faster
			d.o.Logger.Warn("mailboxes are not compared", "agency", o.Agencies[0], "error", err)
		}
		return
	}
	d.start(ctx)
}

// start begins the work of what was ordered.
func (d *Desk) start(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.orders) == 0 || ctx.Err() != nil {
		return
	}
	o := d.orders[0]
	d.orders = d.orders[1:]
	own, cancel := context.WithCancel(ctx)
	d.cancel = cancel
	c := &comparing{d: d, o: &o, done: make(map[routing.AgencyID]*Outcome), seen: make(map[routing.MailboxID]bool)}
	d.working = c
	d.work.Go(func() {
		defer cancel()
		c.compare(own, ctx)
		d.mu.Lock()
		d.current, d.cancel, d.working = nil, nil, nil
		d.mu.Unlock()
		d.Wake()
	})
}
