package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// State is a German state, by its ISO 3166-2 code without "DE-"; Nationwide stands for the
// holidays that all states have, and the empty one for none at all.
type State string

// Nationwide are the public holidays of all states.
const Nationwide State = "national"

// states are those that there are.
var states = []State{"BB", "BE", "BW", "BY", "HB", "HE", "HH", "MV", "NI", "NW", "RP", "SH", "SL", "SN", "ST", "TH"}

// ParseState returns s as a state.
func ParseState(s string) (State, error) {
	st := State(s)
	if s == "" || st == Nationwide || slices.Contains(states, st) {
		return st, nil
	}
	var known []string
	for _, one := range states {
		known = append(known, string(one))
	}
	return "", fmt.Errorf("state %q: want %s, or %s", s, strings.Join(known, ", "), Nationwide)
}

// Holiday is a public holiday.
type Holiday struct {
	Day  Day
	Name string
}

// Easter returns Easter Sunday of a year of the Gregorian calendar (the anonymous
// algorithm of Meeus, Jones and Butcher).
func Easter(year int) Day {
	a, b, c := year%19, year/100, year%100
	d, e := b/4, b%4
	g := (8*b + 13) / 25
	h := (19*a + b - d - g + 15) % 30
	i, k := c/4, c%4
	l := (32 + 2*e + 2*i - h - k) % 7
	m := (a + 11*h + 19*l) / 433
	month := (h + l - 7*m + 90) / 25
	return Day{year, time.Month(month), (h + l - 7*m + 33*month + 19) % 32}
}

// rule is one holiday: on a date, or so many days after Easter.
type rule struct {
	name   string
	month  time.Month
	day    int
	easter int     // counts if month is 0
	since  int     // the first year; 0: long ago
	in     []State // none: all
}

// rules are the public holidays of whole states in force since 2019. What only some towns
// have (Corpus Christi in Saxony and Thuringia, Assumption in Bavaria, Augsburg's peace), and
// what was given for one year, is not here: such days are named in a wave's own dates.
var rules = []rule{
	{name: "New Year", month: time.January, day: 1},
	{name: "Epiphany", month: time.January, day: 6, in: []State{"BW", "BY", "ST"}},
	{name: "Women's Day", month: time.March, day: 8, since: 2019, in: []State{"BE"}},
	{name: "Women's Day", month: time.March, day: 8, since: 2023, in: []State{"MV"}},
	{name: "Good Friday", easter: -2},
	{name: "Easter Sunday", easter: 0, in: []State{"BB"}},
	{name: "Easter Monday", easter: 1},
	{name: "Labour Day", month: time.May, day: 1},
	{name: "Ascension", easter: 39},
	{name: "Whit Sunday", easter: 49, in: []State{"BB"}},
	{name: "Whit Monday", easter: 50},
	{name: "Corpus Christi", easter: 60, in: []State{"BW", "BY", "HE", "NW", "RP", "SL"}},
	{name: "Assumption", month: time.August, day: 15, in: []State{"SL"}},
	{name: "Children's Day", month: time.September, day: 20, since: 2019, in: []State{"TH"}},
	{name: "German Unity", month: time.October, day: 3},
	{name: "Reformation Day", month: time.October, day: 31, in: []State{"BB", "MV", "SN", "ST", "TH"}},
	{name: "Reformation Day", month: time.October, day: 31, since: 2018, in: []State{"HB", "HH", "NI", "SH"}},
	{name: "All Saints", month: time.November, day: 1, in: []State{"BW", "BY", "NW", "RP", "SL"}},
	{name: "Christmas Day", month: time.December, day: 25},
	{name: "Second Christmas Day", month: time.December, day: 26},
}

// Holidays returns a state's public holidays of a year, in their order.
func Holidays(state State, year int) (all []Holiday) {
	if state == "" {
		return nil
	}
	for _, r := range rules {
		if r.since > year || len(r.in) > 0 && !slices.Contains(r.in, state) {
			continue
		}
		d := Day{year, r.month, r.day}
		if r.month == 0 {
			d = Easter(year).Add(r.easter)
		}
		all = append(all, Holiday{d, r.name})
	}
	if state == "SN" {
		// Repentance Day: the Wednesday before 23 November.
		d := Day{year, time.November, 22}
		for d.Weekday() != time.Wednesday {
			d = d.Add(-1)
		}
		all = append(all, Holiday{d, "Repentance Day"})
	}
	slices.SortStableFunc(all, func(a, b Holiday) int { return a.Day.Compare(b.Day) })
	return all
}

// holiday returns the name of a state's holiday on a date; empty: there is none.
func holiday(state State, d Day) string {
	for _, h := range Holidays(state, d.Year) {
		if h.Day == d {
			return h.Name
		}
	}
	return ""
}
