package plan

import (
	"fmt"
	"slices"
	"time"

	"mailcutover/routing"
)

// Plan is all waves at one moment, with what a node knows.
type Plan struct {
	Now      time.Time
	Waves    []Wave // of Waves
	Settings Settings
	Facts    *Facts
	Forecast *Forecast

	Brief bool // the timetable has no checklists: they are costly
}

// Obstacle is a reason for which an agency doesn't start now.
type Obstacle struct {
	Name  string
	Text  string
	Until time.Time // it goes by itself then, or may; zero: something has to happen
}

// Names of obstacles that are no checks.
const (
	OfWave   = "wave"   // it doesn't run
	OfOrder  = "order"  // others come before
	OfWindow = "window" // it isn't the time
	OfPause  = "pause"  // it was just refused
)

// estimate is what is forecast of an agency's cutover.
func (p *Plan) estimate(id routing.AgencyID) Estimate { return p.Forecast.Of(p.Facts.Mailboxes(id)) }

// Wave returns a wave by its name; nil: there is none.
func (p *Plan) Wave(n Name) *Wave {
	i := slices.IndexFunc(p.Waves, func(w Wave) bool { return w.Name == n })
	if i < 0 {
		return nil
	}
	return &p.Waves[i]
}

// next returns the first agency that waits; nil: none does.
func (w *Wave) next() *Run {
	for i := range w.Runs {
		if w.Runs[i].Place == Waiting {
			return &w.Runs[i]
		}
	}
	return nil
}

// predecessors returns the waves that have to be done, and to have rested, before w begins.
func (p *Plan) predecessors(w *Wave) (all []*Wave, missing []Name) {
	for _, n := range w.Definition.After {
		if o := p.Wave(n); o != nil && o.Name != w.Name {
			all = append(all, o)
		} else {
			missing = append(missing, n)
		}
	}
	if w.Definition.Pilot {
		return all, missing
	}
	for i := range p.Waves {
		if o := &p.Waves[i]; o.Definition.Pilot && !slices.Contains(all, o) {
			all = append(all, o)
		}
	}
	return all, missing
}

// rested returns until when a wave rests after its last agency. false: it isn't done.
func (w *Wave) rested() (time.Time, bool) {
	if w.Standing == Ended && !w.moved() {
		return w.Over, true // it was given up before it did anything
	}
	if w.Standing != Done {
		return time.Time{}, false
	}
	last := w.Over
	for i := range w.Runs {
		if r := &w.Runs[i]; r.Place == Moved && r.Ended.After(last) {
			last = r.Ended
		}
	}
	return last.Add(time.Duration(w.Definition.Rest)), true
}

// moved reports whether it has moved an agency.
func (w *Wave) moved() bool {
	return slices.ContainsFunc(w.Runs, func(r Run) bool { return r.Place == Moved || r.Place == Back })
}

// seats returns when the places are free again that agencies of a wave take up: the zero time
// of those that are under way.
func (w *Wave) seats(now time.Time) (taken []time.Time) {
	for i := range w.Runs {
		r := &w.Runs[i]
		free := r.Ended.Add(time.Duration(w.Definition.Bake))
		switch {
		case r.Place.Busy():
			taken = append(taken, time.Time{})
		case (r.Place == Moved || r.Place == Back || r.Place == Aborted) && free.After(now):
			taken = append(taken, free)
		}
	}
	slices.SortFunc(taken, time.Time.Compare)
	return taken
}

// free returns when the first of n places is free, of which some are taken; false: not before
// something that is under way ends.
func free(taken []time.Time, n int, now time.Time) (time.Time, bool) {
	if len(taken) < n {
		return now, true
	}
	var known []time.Time
	for _, t := range taken {
		if !t.IsZero() {
			known = append(known, t)
		}
	}
	// So many have to be free again for one place.
	over := len(taken) - n
	if over >= len(known) {
		return time.Time{}, false
	}
	slices.SortFunc(known, time.Time.Compare)
	return known[over], true
}

// Returned says which agencies that the wave has moved are being rolled back, or were, without
// the wave saying so yet.
func (w *Wave) Returned(s *routing.State) (all []routing.AgencyID) {
	for i := range w.Runs {
		if a, ok := s.Agency(w.Runs[i].Agency); w.Runs[i].Place == Moved && ok && (!a.Phase.OnTarget() || a.Phase == routing.PhaseToSource) {
			all = append(all, a.ID)
		}
	}
	return all
}

// order says what of waves and places keeps a wave's next agency back.
func (p *Plan) order(w *Wave) (all []Obstacle) {
	before, missing := p.predecessors(w)
	for _, n := range missing {
		all = append(all, Obstacle{Name: OfOrder, Text: fmt.Sprintf("it comes after wave %s, which isn't there", n)})
	}
	for _, o := range before {
		until, done := o.rested()
		switch {
		case !done:
			all = append(all, Obstacle{Name: OfOrder, Text: fmt.Sprintf("wave %s comes before, and is %s", o.Name, o.Standing)})
		case until.After(p.Now):
			all = append(all, Obstacle{Name: OfOrder, Text: fmt.Sprintf("wave %s, which comes before, rests", o.Name), Until: until})
		}
	}
	if taken := w.seats(p.Now); len(taken) >= w.Definition.Seats() {
		until, _ := free(taken, w.Definition.Seats(), p.Now)
		all = append(all, Obstacle{Name: OfOrder, Text: fmt.Sprintf("%d of the wave's agencies are under way or bake, of %d at once", len(taken), w.Definition.Seats()), Until: until})
	}
	var taken []time.Time
	for i := range p.Waves {
		taken = append(taken, p.Waves[i].seats(p.Now)...)
	}
	if most := max(1, p.Settings.AtOnce); len(taken) >= most {
		until, _ := free(taken, most, p.Now)
		all = append(all, Obstacle{Name: OfOrder, Text: fmt.Sprintf("%d agencies of all waves are under way or bake, of %d at once (plan.at_once)", len(taken), most), Until: until})
	}
	return all
}

// last returns the moment from which on a wave starts nothing any more.
func (w *Wave) last(place *time.Location) time.Time {
	end := w.Started.Time.Add(MaxLife)
	if w.Started.Time.IsZero() {
		end = w.Made.Add(MaxLife)
	}
	if d := w.Definition.NotAfter; !d.IsZero() {
		next := d.Add(1)
		if day := time.Date(next.Year, next.Month, next.Day, 0, 0, 0, 0, place); day.Before(end) {
			return day
		}
	}
	return end
}

// first returns the moment before which a wave starts nothing.
func (w *Wave) first(place *time.Location) time.Time {
	d := w.Definition.NotBefore
	if d.IsZero() {
		return time.Time{}
	}
	return time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, place)
}

// when returns the first span, from a moment on, in which the wave may start what needs so
// long at worst.
func (w *Wave) when(from time.Time, needs time.Duration) (Slot, error) {
	schedule, err := w.Definition.Schedule()
	if err != nil {
		return Slot{}, err
	}
	if first := w.first(schedule.Place()); first.After(from) {
		from = first
	}
	slot, ok := schedule.Next(from, needs)
	if !ok {
		return slot, fmt.Errorf("no window is long enough for the %s that it takes at worst", rounded(needs))
	}
	if last := w.last(schedule.Place()); !slot.Begin.Before(last) {
		return slot, fmt.Errorf("it starts nothing after %s", last.Format("2006-01-02 15:04 MST"))
	}
	return slot, nil
}

// Obstacles says all that keeps a wave's next agency from starting now, and which agency that
// is; none and an agency: it may start. An empty agency: none waits. The checklist is looked
// at last, and only if nothing else keeps it or whole is true.
func (p *Plan) Obstacles(w *Wave, whole bool) (id routing.AgencyID, all []Obstacle) {
	r := w.next()
	if r == nil {
		return "", nil
	}
	if back := w.Returned(p.Facts.State); len(back) > 0 {
		all = append(all, Obstacle{Name: OfWave, Text: fmt.Sprintf("agency %s, which the wave had moved, is rolled back", back[0])})
	}
	if w.Standing != Running {
		all = append(all, Obstacle{Name: OfWave, Text: fmt.Sprintf("the wave is %s", w.Standing)})
	}
	all = append(all, p.order(w)...)
	if r.NotBefore.After(p.Now) {
		all = append(all, Obstacle{Name: OfPause, Text: "it was refused: " + r.Why, Until: r.NotBefore})
	}
	slot, err := w.when(p.Now, p.estimate(r.Agency).Worst)
	switch {
	case err != nil:
		all = append(all, Obstacle{Name: OfWindow, Text: err.Error()})
	case slot.Begin.After(p.Now):
		all = append(all, Obstacle{Name: OfWindow, Text: fmt.Sprintf("the next window that is long enough begins %s", slot.Begin.Format("Mon 2006-01-02 15:04 MST")), Until: slot.Begin})
	}
	if len(all) > 0 && !whole {
		return r.Agency, all
	}
	for _, c := range Refused(GoNoGo(w, r.Agency, p.Settings, p.Facts, p.Now)) {
		all = append(all, Obstacle{Name: c.Name, Text: c.Text})
	}
	return r.Agency, all
}

// MayBegin returns why a wave's operation must not begin at this moment, although it was to
// be started; nil: it may.
func (w *Wave) MayBegin(s *routing.State, r *Run, now time.Time) error {
	if w.Standing != Running {
		return fmt.Errorf("wave %s: %w: it is %s", w.Name, ErrState, w.Standing)
	}
	if back := w.Returned(s); len(back) > 0 {
		return fmt.Errorf("wave %s: agency %s, which it had moved, is rolled back", w.Name, back[0])
	}
	if err := record(w, r.Agency, s); err != nil {
		return fmt.Errorf("wave %s: %w", w.Name, err)
	}
	if err := Refuses(s); err != nil {
		return err
	}
	schedule, err := w.Definition.Schedule()
	if err != nil {
		return fmt.Errorf("wave %s: %w", w.Name, err)
	}
	if _, open := schedule.Open(now); !open || now.Before(w.first(schedule.Place())) || !now.Before(w.last(schedule.Place())) {
		return fmt.Errorf("wave %s: its window is over", w.Name)
	}
	return nil
}
