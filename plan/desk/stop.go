package desk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"mailcutover/plan"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

const (
	watchPause = 10 * time.Second // between two looks at what stops the plan and isn't in the table
	rateSpan   = 5 * time.Minute  // over which refusals of platforms are counted
	rateLeast  = 50               // recipients in it, below which their share says nothing
	remembered = time.Hour        // for how long a canary that failed outside of an operation counts
	lookedBack = 7 * 24 * time.Hour
)

// ErrNotYet is why the plan can't be stopped while the node is just starting.
var ErrNotYet = errors.New("the node has just started")

// Stop stops the plan for a finding: no wave starts another agency, and no cutover of an agency of a
// wave begins, until a releaser lifts that. Rollbacks go on. What a releaser has seen and
// lifted, by the finding's keys, doesn't stop it again; then, and if it is stopped for it
// already, nothing happens.
func (d *Desk) Stop(ctx context.Context, f plan.Finding) error {
	return d.stop(ctx, []plan.Finding{f}, 1)
}

// stop stops the plan if so many of the findings are new to releasers, by the newest copy of
// the table.
func (d *Desk) stop(ctx context.Context, all []plan.Finding, threshold int) error {
	acts := d.o.Acts()
	if acts == nil {
		return fmt.Errorf("stop the plan: %w", ErrNotYet)
	}
	ctx, cancel := context.WithTimeout(ctx, changePatience)
	defer cancel()
	var tripped *plan.Finding
	err := acts.ChangePlan(ctx, "node "+string(d.o.Node), func(s *routing.State) (c table.Change, err error) {
		tripped = nil
		f, enough := d.sum(s, all, threshold)
		if !enough {
			return c, nil
		}
		stop, err := plan.StopOf(s)
		if err != nil {
			return c, nil // it is stopped
		}
		fresh, is := new(plan.Lifted).New(f, stop)
		if !is {
			return c, nil
		}
		// Also while the table rejoins: it only closes.
		c = table.Change{What: "stop the plan", Reason: clipped(fresh.Text), Guard: table.Guard{Rejoining: true}}
		c.Documents, err = plan.Trip(s, fresh, "")
		if len(c.Documents) > 0 {
			tripped = &fresh
		}
		return c, err
	})
	if err != nil {
		return fmt.Errorf("stop the plan: %w", err)
	}
	if tripped != nil {
		d.o.Logger.Error("the plan is stopped", "agency", tripped.Agency, "reason", tripped.Text)
		d.Look()
	}
	return nil
}

// sum makes one finding of those that releasers haven't seen; false: they are fewer than the
// threshold, or that is 0.
func (d *Desk) sum(s *routing.State, all []plan.Finding, threshold int) (plan.Finding, bool) {
	if threshold <= 0 {
		return plan.Finding{}, false
	}
	lifted, err := plan.LiftedOf(s)
	if err != nil {
		lifted = plan.Lifted{} // better stopped twice
	}
	var fresh []plan.Finding
	for _, f := range all {
		if one, ok := lifted.New(f, nil); ok {
			fresh = append(fresh, one)
		}
	}
	if len(fresh) < threshold {
		return plan.Finding{}, false
	}
	sum := plan.Finding{Cause: fresh[0].Cause, Agency: fresh[0].Agency, Text: fresh[0].Text, Time: d.now(), Node: string(d.o.Node)}
	for _, f := range fresh {
		sum.Keys = append(sum.Keys, f.Keys...)
		if f.Agency != sum.Agency {
			sum.Agency = ""
		}
	}
	if n := len(fresh); n > 1 {
		sum.Text = fmt.Sprintf("%d findings, the first: %s", n, fresh[0].Text)
	}
	return sum, true
}

// CanaryFailed notes that an agency's canary failed outside of an operation, and stops the plan if
// that makes as many as the settings say, together with those that failed after switches.
func (d *Desk) CanaryFailed(ctx context.Context, id routing.AgencyID, reason string) {
	now := d.now()
	d.mu.Lock()
	d.canaries = append(d.canaries, plan.Finding{Agency: id, Text: fmt.Sprintf("agency %s: %s", id, reason), Keys: []string{string(id) + "/" + now.UTC().Format(time.RFC3339Nano)}, Time: now})
	d.mu.Unlock()
	acts := d.o.Acts()
	if acts == nil {
		return // the next look counts it
	}
	p, _ := d.plan(d.o.Replica.State())
	d.trip(ctx, p, d.failedCanaries(p), p.Settings.Stop.Canaries)
}

// counts reports whether a wave counts for what stops the plan.
func counts(w *plan.Wave, now time.Time) bool {
	return w.Standing == plan.Running || w.Standing == plan.Paused || w.Standing.Over() && now.Sub(w.Over) < lookedBack
}

// wire is what stops the plan as soon as so many of its findings are new to releasers; 0: never.
type wire struct {
	findings  []plan.Finding
	threshold int
}

// wires are those that a copy of the table, and what the node knows of it, decide.
func (d *Desk) wires(p *plan.Plan) []wire {
	set := &p.Settings.Stop
	var crossed []plan.Finding
	for _, id := range moved(p) {
		for _, one := range d.o.Knows.Crossed(p.Facts.State, id) {
			crossed = append(crossed, plan.Finding{Cause: plan.ByVerify, Agency: id, Text: fmt.Sprintf("agency %s: a mailbox holds others' content: finding %s", id, one), Keys: []string{one}})
		}
	}
	return []wire{{d.failedCanaries(p), set.Canaries}, {aborts(p), set.Aborts}, {crossed, set.Findings}}
}

// due reports whether a plan should be stopped by this copy of the table, whether or not the stop
// is stored yet: the end of an agency and the look that finds its failed canary are two copies,
// and a start may be computed from the first of them that has it.
func (d *Desk) due(p *plan.Plan) bool {
	for _, w := range d.wires(p) {
		if _, enough := d.sum(p.Facts.State, w.findings, w.threshold); enough {
			return true
		}
	}
	return false
}

// moved are the agencies that waves which count have moved, or are moving.
func moved(p *plan.Plan) (ids []routing.AgencyID) {
	for i := range p.Waves {
		w := &p.Waves[i]
		for j := range w.Runs {
			if counts(w, p.Now) && (w.Runs[j].Place == plan.Moved || w.Runs[j].Place == plan.UnderWay) {
				ids = append(ids, w.Runs[j].Agency)
			}
		}
	}
	return ids
}

// watch looks for what stops the plan.
func (d *Desk) watch(ctx context.Context, p *plan.Plan) {
	live, runs := false, false
	for i := range p.Waves {
		live = live || !p.Waves[i].Standing.Over()
		runs = runs || p.Waves[i].Standing == plan.Running
	}
	rarely := p.Now.Sub(d.looked) >= watchPause
	if rarely {
		d.looked = p.Now
		d.measure(ctx)
		refused, all := d.o.Knows.Answers()
		d.rates.add(p.Now, refused, all)
	}
	if !live {
		return // nothing follows that could be kept from starting
	}
	set := &p.Settings.Stop
	for _, w := range d.wires(p) {
		d.trip(ctx, p, w.findings, w.threshold)
	}
	if !rarely {
		return
	}
	if ids := moved(p); set.Drift > 0 && len(ids) > 0 {
		var drifted []plan.Finding
		for _, one := range d.o.Knows.Drifted(ids) {
			for _, row := range one.Rows {
				drifted = append(drifted, plan.Finding{Cause: plan.ByDrift, Agency: one.Agency, Text: fmt.Sprintf("agency %s: %s", one.Agency, row), Keys: []string{string(one.Agency) + "/" + row}})
			}
		}
		d.trip(ctx, p, drifted, set.Drift)
	}
	if runs && set.ErrorRate > 0 {
		lifted, _ := plan.LiftedOf(p.Facts.State) // one that can't be read: counted from the beginning
		if f, ok := d.rates.over(set.ErrorRate, string(d.o.Node), lifted.Time); ok {
			d.trip(ctx, p, []plan.Finding{f}, 1)
		}
	}
}

// trip stops the plan if so many of the findings are new to releasers; 0: never.
func (d *Desk) trip(ctx context.Context, p *plan.Plan, all []plan.Finding, threshold int) {
	f, enough := d.sum(p.Facts.State, all, threshold)
	if !enough {
		return
	}
	if err := d.stop(ctx, all, threshold); err != nil && ctx.Err() == nil {
		d.o.Logger.Error("the plan can't be stopped, though it should be", "reason", f.Text, "error", err)
		d.o.Alarms.Raise(stopFailedAlarm, "The plan should be stopped, and that can't be stored: "+f.Text+". Pause the waves: mailcutover wave pause.")
		return
	}
	d.o.Alarms.Clear(stopFailedAlarm)
}

const stopFailedAlarm = "plan-stop-failed"

// failedCanaries are those that failed after switches of waves, and outside of them of late.
func (d *Desk) failedCanaries(p *plan.Plan) (all []plan.Finding) {
	for i := range p.Waves {
		w := &p.Waves[i]
		for j := range w.Runs {
			if r := &w.Runs[j]; r.Canary != "" && r.Place == plan.Moved && counts(w, p.Now) {
				all = append(all, plan.Finding{Cause: plan.ByCanary, Agency: r.Agency, Text: fmt.Sprintf("agency %s: the canary after its switch failed: %s", r.Agency, r.Canary), Keys: []string{string(r.Operation)}})
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var late []plan.Finding
	for _, f := range d.canaries {
		if p.Now.Sub(f.Time) < remembered {
			f.Cause = plan.ByCanary
			late = append(late, f)
		}
	}
	d.canaries = late[max(0, len(late)-100):]
	for _, f := range d.canaries {
		for i := range p.Waves {
			if p.Waves[i].Run(f.Agency) != nil && counts(&p.Waves[i], p.Now) {
				all = append(all, f)
				break
			}
		}
	}
	return all
}

// aborts are the operations of waves that were aborted.
func aborts(p *plan.Plan) (all []plan.Finding) {
	for i := range p.Waves {
		w := &p.Waves[i]
		for j := range w.Runs {
			if r := &w.Runs[j]; r.Place == plan.Aborted && counts(w, p.Now) {
				all = append(all, plan.Finding{Cause: plan.ByAborts, Agency: r.Agency, Text: fmt.Sprintf("agency %s: its cutover was aborted: %s", r.Agency, r.Why), Keys: []string{string(r.Operation)}})
			}
		}
	}
	return all
}

// rates are samples of what platforms answered.
type rates struct{ samples []sample }

type sample struct {
	at           time.Time
	refused, all uint64
}

func (r *rates) add(at time.Time, refused, all uint64) {
	r.samples = append(r.samples, sample{at, refused, all})
	for len(r.samples) > 2 && at.Sub(r.samples[1].at) >= rateSpan {
		r.samples = r.samples[1:]
	}
}

// over returns the finding that platforms refuse at least so many percent of the recipients, counted from a
// moment on at the earliest.
func (r *rates) over(percent int, node string, since time.Time) (f plan.Finding, ok bool) {
	for len(r.samples) > 0 && !r.samples[0].at.After(since) {
		r.samples = r.samples[1:]
	}
	if len(r.samples) < 2 {
		return f, false
	}
	first, last := r.samples[0], r.samples[len(r.samples)-1]
	refused, all := last.refused-first.refused, last.all-first.all
	if all < rateLeast || refused*100 < uint64(percent)*all {
		return f, false
	}
	return plan.Finding{
		Cause: plan.ByErrors, Keys: []string{node + "/" + first.at.UTC().Format(time.RFC3339Nano)},
		Text: fmt.Sprintf("node %s: platforms refused %d of %d recipients for the moment within %s", node, refused, all, plan.Span(last.at.Sub(first.at).Round(time.Second))),
	}, true
}

// show raises and clears the alarms about waves.
func (d *Desk) show(p *plan.Plan, unreadable []error) {
	now := make(map[string]string)
	for _, err := range unreadable {
		now["wave-unreadable"] = strings.TrimSpace(now["wave-unreadable"] + " The table has a wave that this program can't read, and that it leaves alone: " + err.Error() + ".")
	}
	if err := plan.Refuses(p.Facts.State); err != nil {
		now["plan-stop"] = "No wave starts another agency: " + err.Error() + ". Look at it, then a releaser lifts it: mailcutover wave lift --reason ..."
	}
	for i := range p.Waves {
		w := &p.Waves[i]
		switch {
		case w.Standing == plan.Paused && w.Said.Itself:
			now["wave-paused/"+string(w.Name)] = fmt.Sprintf("Wave %s paused by itself: %s. mailcutover wave show %[1]s; then mailcutover wave resume %[1]s --reason ...", w.Name, w.Said.Reason)
		case w.Standing == plan.Running:
			id, obstacles := p.Obstacles(w, false)
			var people []string
			for _, o := range obstacles {
				if o.Name == plan.OfPause || o.Until.IsZero() && o.Name != plan.OfOrder && o.Name != plan.CheckStop {
					people = append(people, o.Name+": "+o.Text)
				}
			}
			if len(people) > 0 {
				now["wave-refused/"+string(w.Name)] = fmt.Sprintf("Wave %s doesn't start agency %s, though it could be its time: %s. mailcutover wave plan says all of it.", w.Name, id, strings.Join(people, "; "))
			}
		}
	}
	d.raised.Set(now)
}
