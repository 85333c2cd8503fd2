package plan

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Day is a date, without a place. The zero Day is none.
type Day struct {
	Year  int
	Month time.Month
	Day   int
}

const dayForm = "2006-01-02"

// ParseDay parses YYYY-MM-DD.
func ParseDay(s string) (Day, error) {
	t, err := time.Parse(dayForm, s)
	if err != nil {
		return Day{}, fmt.Errorf("date %q: want YYYY-MM-DD", s)
	}
	return DayOf(t), nil
}

// DayOf returns the date of a moment, in the moment's own place.
func DayOf(t time.Time) Day {
	y, m, d := t.Date()
	return Day{y, m, d}
}

// IsZero reports whether it is no date.
func (d Day) IsZero() bool { return d == Day{} }

// midnight is the date's beginning in UTC, to count with.
func (d Day) midnight() time.Time { return time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, time.UTC) }

// Add returns the date n days later.
func (d Day) Add(n int) Day { return DayOf(d.midnight().AddDate(0, 0, n)) }

// Weekday returns the day of the week.
func (d Day) Weekday() time.Weekday { return d.midnight().Weekday() }

// Compare returns -1, 0 or 1 as d is before, the same as, or after o.
func (d Day) Compare(o Day) int {
	return cmp.Or(cmp.Compare(d.Year, o.Year), cmp.Compare(d.Month, o.Month), cmp.Compare(d.Day, o.Day))
}

// String returns YYYY-MM-DD; of the zero Day nothing.
func (d Day) String() string {
	if d.IsZero() {
		return ""
	}
	return d.midnight().Format(dayForm)
}

// MarshalText implements encoding.TextMarshaler.
func (d Day) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; an empty text is the zero Day.
func (d *Day) UnmarshalText(b []byte) (err error) {
	*d = Day{}
	if len(b) > 0 {
		*d, err = ParseDay(string(b))
	}
	return err
}

// Clock is a time of day, in minutes after midnight by the clock on the wall: 0 to 1440.
type Clock int

// ParseClock parses HH:MM, up to 24:00.
func ParseClock(s string) (Clock, error) {
	h, m, ok := strings.Cut(s, ":")
	hour, err1 := strconv.Atoi(h)
	minute, err2 := strconv.Atoi(m)
	if !ok || len(h) != 2 || len(m) != 2 || err1 != nil || err2 != nil || hour < 0 || hour > 24 || minute < 0 || minute > 59 || hour == 24 && minute > 0 {
		return 0, fmt.Errorf("time of day %q: want HH:MM, 00:00 to 24:00", s)
	}
	return Clock(60*hour + minute), nil
}

// String returns HH:MM.
func (c Clock) String() string { return fmt.Sprintf("%02d:%02d", int(c)/60, int(c)%60) }

// MarshalText implements encoding.TextMarshaler.
func (c Clock) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Clock) UnmarshalText(b []byte) (err error) {
	*c, err = ParseClock(string(b))
	return err
}

// moments returns the moments at which the clocks of a place show a time on a date: one as
// a rule; two where the clocks are put back, in order; where they are put forward over it,
// none, and then gap is the moment at which that happens.
func moments(d Day, c Clock, at *time.Location) (all []time.Time, gap time.Time) {
	wall := d.midnight().Add(time.Duration(c) * time.Minute)
	offset := func(t time.Time) time.Duration {
		_, s := t.In(at).Zone()
		return time.Duration(s) * time.Second
	}
	// No place has changed its clocks twice within two days.
	before, after := offset(wall.Add(-24*time.Hour)), offset(wall.Add(24*time.Hour))
	for _, o := range []time.Duration{max(before, after), min(before, after)} { // the earlier moment first
		t := wall.Add(-o)
		if offset(t) == o && (len(all) == 0 || !all[0].Equal(t)) {
			all = append(all, t.In(at))
		}
	}
	if len(all) == 0 {
		gap, _ = wall.Add(-min(before, after)).In(at).ZoneBounds()
	}
	return all, gap
}

// Span is a length of time that is written as 1h30m.
type Span time.Duration

// String returns it as 1h30m.
func (s Span) String() string {
	t := time.Duration(s).String()
	if strings.HasSuffix(t, "m0s") {
		t = strings.TrimSuffix(t, "0s")
	}
	if strings.HasSuffix(t, "h0m") {
		t = strings.TrimSuffix(t, "0m")
	}
	return t
}

// MarshalText implements encoding.TextMarshaler.
func (s Span) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Span) UnmarshalText(b []byte) error {
	d, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("length of time %q: want one such as 30m or 1h30m", b)
	}
	*s = Span(d)
	return nil
}
