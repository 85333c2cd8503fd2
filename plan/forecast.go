package plan

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Measure is how long a cutover took that ended well.
type Measure struct {
	Took      time.Duration // from its start until it was open on the other side, with all that it waited for
	Mailboxes int           // of its agency; below 1: not known
	Time      time.Time
}

// Forecast says how long cutovers are likely to take.
type Forecast struct {
	measured []Measure     // of which the mailboxes are known
	fallback time.Duration // where nothing was measured

	// A cutover is expected to take base and each of every mailbox.
	base, each time.Duration
	off        time.Duration // by how much the measured ones were longer than that, at most
}

// Estimate is what is forecast of one cutover.
type Estimate struct {
	Expected time.Duration
	Worst    time.Duration // what is counted with, where it has to be over by the end of a window
	Rests    string        // on what, in words
}

// margin is added to what is the worst, so that a window's end is not met to the second.
const margin = 30 * time.Second

// mostMeasured is how many of the last cutovers count.
const mostMeasured = 50

// NewForecast makes a forecast of measured cutovers; fallback is what the settings alone say of
// one. From three cutovers of different sizes on it is a straight line through them (least
// squares); before, the longest one, by the number of mailboxes where that is larger.
func NewForecast(measured []Measure, fallback time.Duration) *Forecast {
	f := &Forecast{fallback: fallback}
	for _, m := range measured {
		if m.Mailboxes > 0 && m.Took > 0 {
			f.measured = append(f.measured, m)
		}
	}
	slices.SortFunc(f.measured, func(a, b Measure) int { return b.Time.Compare(a.Time) })
	f.measured = f.measured[:min(len(f.measured), mostMeasured)]
	n := float64(len(f.measured))
	if n < 3 {
		return f
	}
	var x, y, xx, xy float64
	for _, m := range f.measured {
		a, b := float64(m.Mailboxes), m.Took.Seconds()
		x, y, xx, xy = x+a, y+b, xx+a*a, xy+a*b
	}
	slope := 0.0
	if spread := n*xx - x*x; spread > 0 {
		slope = max(0, (n*xy-x*y)/spread)
	}
	base := max(0, (y-slope*x)/n)
	f.base, f.each = seconds(base), seconds(slope)
	for _, m := range f.measured {
		f.off = max(f.off, m.Took-f.line(m.Mailboxes))
	}
	return f
}

func seconds(s float64) time.Duration { return time.Duration(math.Round(s * float64(time.Second))) }

func (f *Forecast) line(mailboxes int) time.Duration {
	return f.base + time.Duration(mailboxes)*f.each
}

// Of returns what is forecast of the cutover of so many mailboxes; below 1: not known.
func (f *Forecast) Of(mailboxes int) Estimate {
	n := len(f.measured)
	if n == 0 || mailboxes < 1 {
		rests := "the settings alone: no cutover was measured"
		if n > 0 {
			rests = "the settings alone: how many mailboxes it has isn't known"
		}
		return Estimate{Expected: f.fallback, Worst: 2*f.fallback + margin, Rests: rests}
	}
	if n < 3 {
		var e Estimate
		for _, m := range f.measured {
			longer := max(1, float64(mailboxes)/float64(m.Mailboxes))
			e.Expected = max(e.Expected, time.Duration(longer*float64(m.Took)))
		}
		e.Worst = 2*e.Expected + margin
		e.Rests = fmt.Sprintf("%d measured cutovers, the longest one by mailboxes", n)
		return e
	}
	e := Estimate{Expected: f.line(mailboxes), Rests: fmt.Sprintf("%d measured cutovers: %s, and %s more for 1,000 mailboxes; up to %s longer", n, rounded(f.base), rounded(1000*f.each), rounded(f.off))}
	e.Worst = e.Expected + f.off + e.Expected/4 + margin
	if largest := slices.MaxFunc(f.measured, func(a, b Measure) int { return a.Mailboxes - b.Mailboxes }).Mailboxes; mailboxes > 2*largest {
		e.Worst += e.Expected
		e.Rests += fmt.Sprintf("; none had more than %d mailboxes", largest)
	}
	return e
}

func rounded(d time.Duration) time.Duration {
	switch {
	case d > time.Minute:
		return d.Round(time.Second)
	case d > time.Second:
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}
