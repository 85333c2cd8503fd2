package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // the names of places also where the system has none
)

// On is a kind of day on which a window begins: a day of the week, or a holiday.
type On string

// OnHoliday is a public holiday, or one of the dates that a calendar names.
const OnHoliday On = "holiday"

// weekdays are the other kinds, by time.Weekday.
var weekdays = [...]On{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// Window is a span of time that begins on certain days: from a time of day to another, on
// the next day if that isn't later. On a holiday only windows begin that name holidays,
// whatever day of the week it is.
type Window struct {
	Days []On  `json:"days"`
	From Clock `json:"from"`
	To   Clock `json:"to"`
}

// String returns the window as one writes it.
func (w *Window) String() string {
	days := make([]string, len(w.Days))
	for i, d := range w.Days {
		days[i] = string(d)
	}
	return strings.Join(days, ",") + " " + w.From.String() + "-" + w.To.String()
}

// Calendar says when operations may be started and have to have ended.
type Calendar struct {
	Zone    string   `json:"zone"` // where the clocks are, as in the IANA's list: Europe/Berlin
	Windows []Window `json:"windows"`

	State    State `json:"state,omitempty"`    // whose public holidays count
	Holidays []Day `json:"holidays,omitempty"` // further ones
	Never    []Day `json:"never,omitempty"`    // no window begins on these
}

// Bounds of a calendar.
const (
	maxWindows = 20
	maxDates   = 200
)

// Schedule is a calendar that was checked, with its place.
type Schedule struct {
	calendar Calendar
	place    *time.Location
}

// Schedule checks the calendar.
func (c *Calendar) Schedule() (*Schedule, error) {
	var errs []error
	if c.Zone == "" || c.Zone == "Local" {
		errs = append(errs, fmt.Errorf("zone %q: want a place such as Europe/Berlin", c.Zone))
	}
	place, err := time.LoadLocation(c.Zone)
	if err != nil {
		errs = append(errs, fmt.Errorf("zone %q: want a place of the IANA's list, such as Europe/Berlin", c.Zone))
	}
	if _, err := ParseState(string(c.State)); err != nil {
		errs = append(errs, err)
	}
	switch {
	case len(c.Windows) == 0:
		errs = append(errs, errors.New("no window: nothing could ever start"))
	case len(c.Windows) > maxWindows:
		errs = append(errs, fmt.Errorf("%d windows: want at most %d", len(c.Windows), maxWindows))
	}
	for i := range c.Windows {
		w := &c.Windows[i]
		if len(w.Days) == 0 {
			errs = append(errs, fmt.Errorf("window %s: it has no days", w))
		}
		for _, d := range w.Days {
			if d != OnHoliday && !slices.Contains(weekdays[:], d) {
				errs = append(errs, fmt.Errorf("window %s: day %q: want mon, tue, wed, thu, fri, sat, sun or holiday", w, d))
			}
		}
		if w.From < 0 || w.From >= 24*60 || w.To < 0 || w.To > 24*60 {
			errs = append(errs, fmt.Errorf("window %s: want it to begin between 00:00 and 23:59, and to end by 24:00", w))
		}
	}
	if len(c.Holidays) > maxDates || len(c.Never) > maxDates {
		errs = append(errs, fmt.Errorf("%d holidays and %d dates on which nothing begins: want at most %d of each", len(c.Holidays), len(c.Never), maxDates))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Schedule{calendar: *c, place: place}, nil
}

// Place returns where the clocks are.
func (s *Schedule) Place() *time.Location { return s.place }

// Holiday returns the name of the holiday on a date; empty: it is none.
func (s *Schedule) Holiday(d Day) string {
	if slices.Contains(s.calendar.Holidays, d) {
		return "a date named in the wave"
	}
	return holiday(s.calendar.State, d)
}

// Slot is a span of time in which windows are open: from Begin to just before End.
type Slot struct{ Begin, End time.Time }

// begins reports whether a window begins on a date.
func (s *Schedule) begins(w *Window, d Day) bool {
	switch {
	case slices.Contains(s.calendar.Never, d):
		return false
	case s.Holiday(d) != "":
		return slices.Contains(w.Days, OnHoliday)
	default:
		return slices.Contains(w.Days, weekdays[d.Weekday()])
	}
}

// slot returns a window as it is on a date. It never has a moment at which the clocks on the
// wall show a time outside the window: where they are put back, and a time of the window
// comes twice, it begins with the second one and ends with the first one; unless nothing
// would be left, then with the first pass of both. Where the clocks are put forward over its
// begin or its end, that is the moment of it.
func (s *Schedule) slot(w *Window, d Day) (slot Slot, ok bool) {
	last := d
	if w.To <= w.From {
		last = d.Add(1)
	}
	begins, gap := moments(d, w.From, s.place)
	if len(begins) == 0 {
		begins = []time.Time{gap}
	}
	ends, gap := moments(last, w.To, s.place)
	if len(ends) == 0 {
		ends = []time.Time{gap}
	}
	slot = Slot{begins[len(begins)-1], ends[0]}
	if !slot.Begin.Before(slot.End) {
		slot.Begin = begins[0]
	}
	return slot, slot.Begin.Before(slot.End)
}

// slots returns the spans that end after a moment, of windows that begin on the next days
// dates, joined where they touch.
func (s *Schedule) slots(after time.Time, days int) (all []Slot) {
	first := DayOf(after.In(s.place)).Add(-2) // a window that began the day before may be open
	for n := range days + 2 {
		d := first.Add(n)
		for i := range s.calendar.Windows {
			w := &s.calendar.Windows[i]
			if !s.begins(w, d) {
				continue
			}
			if one, ok := s.slot(w, d); ok && one.End.After(after) {
				all = append(all, one)
			}
		}
	}
	slices.SortFunc(all, func(a, b Slot) int { return a.Begin.Compare(b.Begin) })
	var joined []Slot
	for _, one := range all {
		if n := len(joined); n > 0 && !one.Begin.After(joined[n-1].End) {
			if one.End.After(joined[n-1].End) {
				joined[n-1].End = one.End
			}
			continue
		}
		joined = append(joined, one)
	}
	return joined
}

// horizon is how many days are looked ahead.
const horizon = 400

// Open returns the span of windows in which a moment is; false: in none. What is open for
// longer than a week is shown as if it ended then.
func (s *Schedule) Open(at time.Time) (Slot, bool) {
	for _, one := range s.slots(at, 10) {
		if !one.Begin.After(at) && at.Before(one.End) {
			return one, true
		}
	}
	return Slot{}, false
}

// Next returns the first span of windows, from a moment on, that has so much time left; its
// Begin is not before the moment. false: there is none in the next year.
func (s *Schedule) Next(from time.Time, needs time.Duration) (Slot, bool) {
	for _, days := range []int{10, horizon} {
		for _, one := range s.slots(from, days) {
			if one.Begin.Before(from) {
				one.Begin = from
			}
			if one.End.Sub(one.Begin) >= needs {
				return one, true
			}
		}
	}
	return Slot{}, false
}
