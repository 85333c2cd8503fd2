package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mailcutover/routing"
)

func TestForecast(t *testing.T) {
	m := func(mailboxes int, took time.Duration) Measure {
		return Measure{Took: took, Mailboxes: mailboxes, Time: base}
	}
	for name, c := range map[string]struct {
		measured        []Measure
		of              int
		expected, worst time.Duration
		rests           string
	}{
		"nothing measured":    {nil, 100, time.Minute, 2*time.Minute + margin, "no cutover was measured"},
		"size not known":      {[]Measure{m(100, time.Second)}, -1, time.Minute, 2*time.Minute + margin, "isn't known"},
		"measures of nothing": {[]Measure{m(0, time.Hour), m(-1, time.Hour), m(10, 0)}, 100, time.Minute, 2*time.Minute + margin, "no cutover was measured"},
		"one, half the size":  {[]Measure{m(50, 10*time.Second)}, 100, 20 * time.Second, 40*time.Second + margin, "1 measured"},
		"one, twice the size": {[]Measure{m(200, 10*time.Second)}, 100, 10 * time.Second, 20*time.Second + margin, "1 measured"},
		"a straight line":     {[]Measure{m(100, 10*time.Second), m(200, 15*time.Second), m(300, 20*time.Second)}, 400, 25 * time.Second, 25*time.Second + 25*time.Second/4 + margin, "3 measured cutovers: 5s, and 50s more for 1,000 mailboxes"},
		"all of one size":     {[]Measure{m(100, 10*time.Second), m(100, 20*time.Second), m(100, 30*time.Second)}, 100, 20 * time.Second, 20*time.Second + 10*time.Second + 5*time.Second + margin, "up to 10s longer"},
		"larger was quicker":  {[]Measure{m(100, 30*time.Second), m(200, 20*time.Second), m(300, 10*time.Second)}, 300, 20 * time.Second, 20*time.Second + 10*time.Second + 5*time.Second + margin, "0s more"},
		"far beyond them":     {[]Measure{m(100, 10*time.Second), m(200, 15*time.Second), m(300, 20*time.Second)}, 1000, 55 * time.Second, 2*55*time.Second + 55*time.Second/4 + margin, "none had more than 300"},
	} {
		e := NewForecast(c.measured, time.Minute).Of(c.of)
		if e.Expected.Round(time.Millisecond) != c.expected || e.Worst.Round(time.Millisecond) != c.worst.Round(time.Millisecond) || !strings.Contains(e.Rests, c.rests) {
			t.Errorf("%s: %s, at worst %s, resting on %q; want %s, %s, %q", name, e.Expected, e.Worst, e.Rests, c.expected, c.worst, c.rests)
		}
	}
	var many []Measure
	for i := range 100 { // the older ones took longer
		took := 10 * time.Second
		if i >= mostMeasured {
			took = time.Hour
		}
		many = append(many, Measure{took, 100 + i, base.Add(-time.Duration(i) * time.Hour)})
	}
	if e := NewForecast(many, time.Minute).Of(100); e.Expected != 10*time.Second {
		t.Errorf("what is long ago counts: %s", e.Expected)
	}
}

// A timetable of three waves over nights and a holiday, as people read it.
func TestTimetable(t *testing.T) {
	o := newTable(t, "pilot-a", "a", "b", "c", "d", "x", "y")
	nights := Calendar{Zone: "Europe/Berlin", State: "BE", Windows: []Window{{Days: []On{"mon", "tue", "wed", "thu"}, From: 20 * 60, To: 23 * 60}}}
	// Whit Monday is 25 May 2026; started on the Sunday before.
	base := time.Date(2026, 5, 24, 10, 0, 0, 0, time.UTC)
	for _, w := range []struct {
		name Name
		d    Definition
	}{
		{"pilot", Definition{Agencies: []routing.AgencyID{"pilot-a"}, Pilot: true, Rest: Span(24 * time.Hour), Calendar: nights}},
		{"one", Definition{Agencies: []routing.AgencyID{"a", "b", "c", "d"}, Bake: Span(time.Hour), Calendar: nights}},
		{"two", Definition{Agencies: []routing.AgencyID{"x", "y"}, After: []Name{"one"}, AtOnce: 2, Calendar: nights}},
	} {
		w := o.started(t, w.name, w.d)
		w.Started.Time, w.Made = base, base
		o.store(&w)
	}
	p := o.plan(base)
	p.Forecast = NewForecast(nil, 10*time.Minute) // at worst 20m30s
	got := ""
	table := p.Timetable()
	for _, r := range table.Rows {
		got += fmt.Sprintf("%s %s %s\n", r.Start.Format("Mon 02 15:04"), r.Wave, r.Agency)
	}
	// The pilot on the evening after Whit Monday; it rests until Wednesday 20:10, a bakes until 21:20, b until
	// 22:30: c's place is free at 22:30 and 20m30s fit in before 23:00. d comes on Thursday, and then, at once, x and y.
	want := `Tue 26 20:00 pilot pilot-a
Wed 27 20:10 one a
Wed 27 21:20 one b
Wed 27 22:30 one c
Thu 28 20:00 one d
Thu 28 20:10 two x
Thu 28 20:10 two y
`
	if got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	if table.First == nil || table.First.Agency != "pilot-a" || !table.Next.Equal(time.Date(2026, 5, 26, 18, 0, 0, 0, time.UTC)) {
		t.Errorf("next is %s", table.Next)
	}
	// With one at once over all waves, x and y come one after the other.
	p.Settings.AtOnce = 1
	rows := p.Timetable().Rows
	if last := rows[len(rows)-1]; last.Agency != "y" || last.Start.Format("Mon 02 15:04") != "Thu 28 21:20" {
		t.Errorf("the last one is %s at %s", last.Agency, last.Start)
	}
	// What can't come is said, also of what follows.
	p.Wave("one").Definition.NotAfter = Day{2026, 5, 27}
	rows = p.Timetable().Rows
	for _, r := range rows {
		switch r.Agency {
		case "d":
			if !r.Start.IsZero() || !strings.Contains(r.Why, "it starts nothing after") {
				t.Errorf("d: %+v", r)
			}
		case "x", "y":
			if !r.Start.IsZero() || !strings.Contains(r.Why, "wave one comes before: it starts nothing") {
				t.Errorf("%s: %s %q", r.Agency, r.Start, r.Why)
			}
		default:
			if r.Start.IsZero() {
				t.Errorf("%s: %q", r.Agency, r.Why)
			}
		}
	}
	// A circle of waves has no end, and the simulation has one.
	p.Wave("one").Definition.After = []Name{"two"}
	for _, r := range p.Timetable().Rows {
		if (r.Wave != "pilot") != r.Start.IsZero() {
			t.Errorf("%s %s: %s", r.Wave, r.Agency, r.Start)
		}
	}
}

// What the timetable says comes true, if cutovers take as long as is forecast: the same rules
// decide step by step.
func TestTheTimetableComesTrue(t *testing.T) {
	o := newTable(t, "a", "b", "c", "d", "e", "f")
	nights := Calendar{Zone: "Europe/Berlin", Windows: []Window{{Days: []On{"mon", "wed", "sat"}, From: 21 * 60, To: 2 * 60}}}
	o.started(t, "pilot", Definition{Agencies: []routing.AgencyID{"a"}, Pilot: true, Rest: Span(10 * time.Hour), Calendar: nights})
	o.started(t, "one", Definition{Agencies: []routing.AgencyID{"b", "c", "d"}, AtOnce: 2, Bake: Span(2 * time.Hour), Calendar: nights})
	o.started(t, "two", Definition{Agencies: []routing.AgencyID{"e", "f"}, After: []Name{"one"}, Calendar: nights})
	const takes = 30 * time.Minute
	look := func(now time.Time) *Plan {
		p := o.plan(now)
		p.Settings.AtOnce = 2
		p.Forecast = NewForecast(nil, takes)
		return p
	}
	foretold := make(map[routing.AgencyID]time.Time)
	for _, r := range look(base).Timetable().Rows {
		foretold[r.Agency] = r.Start
	}
	started := make(map[routing.AgencyID]time.Time)
	for now := base; now.Before(base.Add(11 * 24 * time.Hour)); now = now.Add(30 * time.Minute) {
		for _, name := range []Name{"pilot", "one", "two"} {
			for i := range o.wave(name).Runs {
				w := o.wave(name)
				if r := w.Runs[i]; r.Place == Starting && !now.Before(r.Started.Add(takes)) {
					next, err := w.Finish(r.Operation, 0, "", now)
					must(t, next, err)
					o.store(&next)
					a := o.agencies[r.Agency]
					a.Phase = routing.PhaseTarget
					o.agencies[r.Agency] = a
				}
			}
		}
		for _, name := range []Name{"pilot", "one", "one", "two"} {
			p := look(now)
			id, obstacles := p.Obstacles(p.Wave(name), true)
			if id == "" || len(obstacles) > 0 {
				continue
			}
			next, err := p.Wave(name).Claim(id, "n", "i", 100, now)
			must(t, next, err)
			o.store(&next)
			started[id] = now
		}
	}
	if len(foretold) != 6 || len(started) != 6 {
		t.Fatalf("%d foretold, %d started", len(foretold), len(started))
	}
	for id, at := range foretold {
		if !started[id].Equal(at) {
			t.Errorf("%s was foretold for %s, and started %s", id, at, started[id])
		}
	}
}
