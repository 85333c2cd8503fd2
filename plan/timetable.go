package plan

import (
	"fmt"
	"slices"
	"time"

	"mailcutover/routing"
)

// Row is an agency in the timetable.
type Row struct {
	Wave      Name
	Agency    routing.AgencyID
	Place     Place
	Mailboxes int       // -1: not known
	Start     time.Time // when it was started, or is likely to be; zero: nobody can say
	End       time.Time // when it ended, or is likely to have ended
	Worst     time.Time // when it has ended at worst
	Estimate  Estimate
	Checks    []Check
	Why       string // there is no Start, or it was refused last
}

// Timetable is how all waves are likely to go, if nothing refuses and nobody pauses. It is
// likely only: what comes before may take longer, and what refuses doesn't go by itself.
type Timetable struct {
	Rows  []Row // by start; those without one at the end
	Next  time.Time
	First *Row // the next one to start; nil: none
}

// seats are places that agencies take up one after the other.
type seats struct {
	most int
	free []time.Time // when each that is taken is free again
}

// from returns when a place is free, at the earliest at a moment.
func (s *seats) from(at time.Time) time.Time {
	var busy []time.Time
	for _, t := range s.free {
		if t.After(at) {
			busy = append(busy, t)
		}
	}
	if len(busy) < s.most {
		return at
	}
	slices.SortFunc(busy, time.Time.Compare)
	return busy[len(busy)-s.most]
}

// course is how a wave goes on in the simulation.
type course struct {
	wave  *Wave
	left  []int // indexes of its runs that wait
	seats seats
	over  time.Time // when it has rested, once nothing is left
	never string    // it goes no further
	from  time.Time // not before
}

// Timetable simulates all waves that aren't over, from now on.
func (p *Plan) Timetable() Timetable {
	var t Timetable
	all := seats{most: max(1, p.Settings.AtOnce)}
	courses := make(map[Name]*course)
	for i := range p.Waves {
		w := &p.Waves[i]
		c := &course{wave: w, seats: seats{most: w.Definition.Seats()}, from: p.Now}
		courses[w.Name] = c
		var last time.Time
		for n := range w.Runs {
			r := &w.Runs[n]
			row := Row{Wave: w.Name, Agency: r.Agency, Place: r.Place, Mailboxes: p.Facts.Mailboxes(r.Agency), Start: r.Started, End: r.Ended, Why: r.Why}
			bake := time.Duration(w.Definition.Bake)
			switch {
			case r.Place == Waiting && !w.Standing.Over():
				c.left = append(c.left, n)
				continue
			case r.Place.Busy():
				row.Estimate = p.estimate(r.Agency)
				row.End, row.Worst = later(p.Now, r.Started.Add(row.Estimate.Expected)), later(p.Now, r.Started.Add(row.Estimate.Worst))
				c.take(&all, row.End.Add(bake))
			case r.Place == Moved || r.Place == Aborted || r.Place == Back:
				c.take(&all, r.Ended.Add(bake))
			}
			last = later(last, row.End)
			if !w.Standing.Over() || r.Place.Busy() {
				t.Rows = append(t.Rows, row)
			}
		}
		if until, ok := w.rested(); ok {
			c.over = until
		} else if w.Standing == Ended {
			c.never = fmt.Sprintf("wave %s was ended", w.Name)
		} else if len(c.left) == 0 {
			c.over = later(p.Now, last).Add(time.Duration(w.Definition.Rest))
		}
	}
	for p.step(&t, courses, &all) {
	}
	for i := range p.Waves {
		c := courses[p.Waves[i].Name]
		for _, n := range c.left {
			r := &c.wave.Runs[n]
			why := c.never
			if why == "" {
				why = "waves before it don't come to their end"
			}
			t.Rows = append(t.Rows, Row{Wave: c.wave.Name, Agency: r.Agency, Place: r.Place, Mailboxes: p.Facts.Mailboxes(r.Agency), Estimate: p.estimate(r.Agency), Why: why, Checks: p.checks(c.wave, r)})
		}
	}
	slices.SortStableFunc(t.Rows, func(a, b Row) int {
		if a.Start.IsZero() != b.Start.IsZero() {
			if a.Start.IsZero() {
				return 1
			}
			return -1
		}
		return a.Start.Compare(b.Start)
	})
	for i := range t.Rows {
		if r := &t.Rows[i]; r.Place == Waiting && !r.Start.IsZero() {
			t.First, t.Next = r, r.Start
			break
		}
	}
	return t
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (c *course) take(all *seats, until time.Time) {
	c.seats.free, all.free = append(c.seats.free, until), append(all.free, until)
}

func (p *Plan) checks(w *Wave, r *Run) []Check {
	if p.Brief {
		return nil
	}
	return GoNoGo(w, r.Agency, p.Settings, p.Facts, p.Now)
}

// step places the agency that can start first; false: none can.
func (p *Plan) step(t *Timetable, courses map[Name]*course, all *seats) bool {
	var best *course
	var slot Slot
	for i := range p.Waves {
		c := courses[p.Waves[i].Name]
		if len(c.left) == 0 || c.never != "" {
			continue
		}
		from, ok := p.ready(c, courses)
		if !ok {
			continue
		}
		r := &c.wave.Runs[c.left[0]]
		// Until neither the places nor the windows move it any more.
		var one Slot
		var err error
		for at := later(from, r.NotBefore); ; {
			at = all.from(c.seats.from(at))
			if one, err = c.wave.when(at, p.estimate(r.Agency).Worst); err != nil {
				break
			}
			if moved := all.from(c.seats.from(one.Begin)); !moved.After(one.Begin) {
				break
			} else {
				at = moved
			}
		}
		if err != nil {
			c.never = err.Error()
			continue
		}
		if best == nil || one.Begin.Before(slot.Begin) {
			best, slot = c, one
		}
	}
	if best == nil {
		return false
	}
	w := best.wave
	r := &w.Runs[best.left[0]]
	best.left = best.left[1:]
	e := p.estimate(r.Agency)
	row := Row{
		Wave: w.Name, Agency: r.Agency, Place: r.Place, Mailboxes: p.Facts.Mailboxes(r.Agency), Estimate: e, Why: r.Why,
		Start: slot.Begin, End: slot.Begin.Add(e.Expected), Worst: slot.Begin.Add(e.Worst), Checks: p.checks(w, r),
	}
	best.take(all, row.End.Add(time.Duration(w.Definition.Bake)))
	best.from = slot.Begin
	if len(best.left) == 0 {
		end := row.End
		for _, o := range t.Rows {
			if o.Wave == w.Name {
				end = later(end, o.End)
			}
		}
		best.over = end.Add(time.Duration(w.Definition.Rest))
	}
	t.Rows = append(t.Rows, row)
	return true
}

// ready returns from when on a course may go on, by the waves before it; false: those are not
// placed yet.
func (p *Plan) ready(c *course, courses map[Name]*course) (time.Time, bool) {
	before, missing := p.predecessors(c.wave)
	if len(missing) > 0 {
		c.never = fmt.Sprintf("it comes after wave %s, which isn't there", missing[0])
		return time.Time{}, false
	}
	from := c.from
	for _, o := range before {
		b := courses[o.Name]
		if b.never != "" {
			c.never = fmt.Sprintf("wave %s comes before: %s", o.Name, b.never)
			return time.Time{}, false
		}
		if len(b.left) > 0 {
			return time.Time{}, false
		}
		from = later(from, b.over)
	}
	return from, true
}
