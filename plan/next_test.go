package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/routing"
)

// texts are obstacles in one line each.
func texts(all []Obstacle) string {
	var out []string
	for _, o := range all {
		out = append(out, o.Name+": "+o.Text)
	}
	return strings.Join(out, "\n")
}

func (o *tableOf) obstacles(name Name, now time.Time) (routing.AgencyID, string) {
	p := o.plan(now)
	id, all := p.Obstacles(p.Wave(name), true)
	return id, texts(all)
}

func (o *tableOf) want(name Name, now time.Time, id routing.AgencyID, obstacle string) {
	o.t.Helper()
	got, all := o.obstacles(name, now)
	if got != id || (obstacle == "") != (all == "") || !strings.Contains(all, obstacle) {
		o.t.Errorf("wave %s: next is %q, want %q; in its way is %q, want %q", name, got, id, all, obstacle)
	}
}

// move makes a wave have moved an agency.
func (o *tableOf) move(w *Wave, id routing.AgencyID, at time.Time) {
	o.t.Helper()
	next, err := w.Claim(id, "mx1", "i", 100, at)
	must(o.t, next, err)
	next, err = next.Finish(next.Run(id).Operation, time.Second, "", at)
	must(o.t, next, err)
	o.store(&next)
	*w = o.wave(w.Name)
	a := o.agencies[id]
	a.Phase = routing.PhaseTarget
	o.agencies[id] = a
}

func TestOrder(t *testing.T) {
	o := newTable(t, "a", "b", "c", "d", "e")
	w := o.started(t, "one", Definition{Agencies: []routing.AgencyID{"b", "a", "c"}, AtOnce: 2, Bake: Span(time.Hour)})
	o.want("one", base, "b", "")
	next, err := w.Claim("b", "mx1", "i", 100, base)
	must(t, next, err)
	o.store(&next)
	o.want("one", base, "a", "") // two at once
	w = o.wave("one")
	next, err = w.Claim("a", "mx1", "i", 100, base)
	must(t, next, err)
	o.store(&next)
	o.want("one", base, "c", "2 of the wave's agencies are under way or bake, of 2 at once")
	w = o.wave("one")
	next, err = w.Finish(w.Run("b").Operation, time.Second, "", base)
	must(t, next, err)
	o.store(&next)
	a := o.agencies["b"]
	a.Phase = routing.PhaseTarget
	o.agencies["b"] = a
	o.want("one", base.Add(59*time.Minute), "c", "2 of the wave's agencies are under way or bake")
	o.want("one", base.Add(time.Hour), "c", "")
	p := o.plan(base.Add(time.Hour))
	p.Settings.AtOnce = 1
	if _, all := p.Obstacles(p.Wave("one"), true); !strings.Contains(texts(all), "1 agencies of all waves are under way or bake, of 1 at once") {
		t.Errorf("one at once over all waves: %s", texts(all))
	}
	// Rolled back, before the wave says so itself.
	a.Phase = routing.PhaseToSource
	o.agencies["b"] = a
	o.want("one", base.Add(time.Hour), "c", "agency b, which the wave had moved, is rolled back")
}

func TestWavesAfterWaves(t *testing.T) {
	o := newTable(t, "a", "b", "c", "d", "e")
	pilot := o.started(t, "pilot", Definition{Agencies: []routing.AgencyID{"a"}, Pilot: true, Rest: Span(24 * time.Hour)})
	one := o.started(t, "one", Definition{Agencies: []routing.AgencyID{"b"}})
	o.started(t, "two", Definition{Agencies: []routing.AgencyID{"c"}, After: []Name{"one"}})
	o.started(t, "second-pilot", Definition{Agencies: []routing.AgencyID{"d"}, Pilot: true})
	o.want("second-pilot", base, "d", "") // pilots don't wait for each other
	o.want("one", base, "b", "wave pilot comes before, and is running")
	o.want("two", base, "c", "wave one comes before, and is running")
	o.move(&pilot, "a", base)
	if pilot.Standing != Done {
		t.Fatalf("pilot is %s", pilot.Standing)
	}
	second := o.wave("second-pilot")
	o.move(&second, "d", base)
	o.want("one", base.Add(23*time.Hour), "b", "wave pilot, which comes before, rests")
	o.want("one", base.Add(24*time.Hour), "b", "")
	o.move(&one, "b", base.Add(25*time.Hour))
	o.want("two", base.Add(25*time.Hour), "c", "")
	// A wave that was given up before it did anything is nobody's predecessor; one that moved something is.
	o.started(t, "gone", Definition{Agencies: []routing.AgencyID{"e"}, Pilot: true})
	o.want("two", base.Add(25*time.Hour), "c", "wave gone comes before")
	w, err := ptr(o.wave("gone")).End(word("not needed", base))
	must(t, w, err)
	o.store(&w)
	o.want("two", base.Add(25*time.Hour), "c", "")
	delete(o.docs, "wave/one")
	o.want("two", base.Add(25*time.Hour), "c", "it comes after wave one, which isn't there")
}

func ptr[T any](v T) *T { return &v }

// Each obstacle alone.
func TestObstacles(t *testing.T) {
	nights := Calendar{Zone: "Europe/Berlin", Windows: []Window{{Days: []On{"mon"}, From: 20 * 60, To: 22 * 60}}}
	evening := time.Date(2026, 6, 1, 18, 30, 0, 0, time.UTC) // Monday, 20:30 there
	for name, c := range map[string]struct {
		spoil func(o *tableOf, p *Plan, w *Wave)
		want  string
	}{
		"nothing":        {func(*tableOf, *Plan, *Wave) {}, ""},
		"paused":         {func(_ *tableOf, _ *Plan, w *Wave) { w.Standing = Paused }, "wave: the wave is paused"},
		"not started":    {func(_ *tableOf, _ *Plan, w *Wave) { w.Standing = Proposed }, "wave: the wave is proposed"},
		"before":         {func(_ *tableOf, p *Plan, _ *Wave) { p.Now = evening.Add(-time.Hour) }, "window: the next window that is long enough begins Mon 2026-06-01 20:00 CEST"},
		"too late":       {func(_ *tableOf, p *Plan, _ *Wave) { p.Now = evening.Add(88 * time.Minute) }, "begins Mon 2026-06-08"},
		"takes too long": {func(_ *tableOf, p *Plan, _ *Wave) { p.Forecast = NewForecast(nil, time.Hour) }, "no window is long enough for the 2h0m30s"},
		"not before":     {func(_ *tableOf, _ *Plan, w *Wave) { w.Definition.NotBefore = Day{2026, 6, 2} }, "begins Mon 2026-06-08"},
		"not after":      {func(_ *tableOf, _ *Plan, w *Wave) { w.Definition.NotAfter = Day{2026, 5, 31} }, "it starts nothing after 2026-06-01 00:00 CEST"},
		"too old":        {func(_ *tableOf, _ *Plan, w *Wave) { w.Started.Time = evening.Add(-MaxLife) }, "it starts nothing after"},
		"just refused": {func(_ *tableOf, _ *Plan, w *Wave) {
			w.Runs[0].NotBefore = evening.Add(time.Minute)
			w.Runs[0].Why = "busy"
		}, "pause: it was refused: busy"},
		"not approved": {func(_ *tableOf, p *Plan, _ *Wave) { p.Facts.Approved = func(*Wave) error { return errors.New("void") } }, "approval: void"},
		"lists": {func(_ *tableOf, p *Plan, _ *Wave) {
			p.Facts.Lists = func(routing.AgencyID) Fact { return Fact{Text: "2 rows"} }
		}, "lists: 2 rows"},
		"never rehearsed": {func(_ *tableOf, p *Plan, _ *Wave) { p.Settings.RehearsalAge = time.Hour }, "rehearsal: the agency's cutover was never rehearsed"},
		"rehearsed long ago": {func(_ *tableOf, p *Plan, _ *Wave) {
			p.Settings.RehearsalAge = time.Hour
			p.Facts.Rehearsed = func(routing.AgencyID) (Rehearsal, bool) {
				return Rehearsal{Time: evening.Add(-2 * time.Hour), OK: true}, true
			}
		}, "older than 1h"},
		"rehearsed badly": {func(_ *tableOf, p *Plan, _ *Wave) {
			p.Settings.RehearsalAge = time.Hour
			p.Facts.Rehearsed = func(routing.AgencyID) (Rehearsal, bool) { return Rehearsal{Time: evening, Text: "1 lost"}, true }
		}, "the last rehearsal failed: 1 lost"},
		"rehearsed well": {func(_ *tableOf, p *Plan, _ *Wave) {
			p.Settings.RehearsalAge = time.Hour
			p.Facts.Rehearsed = func(routing.AgencyID) (Rehearsal, bool) { return Rehearsal{Time: evening, OK: true}, true }
		}, ""},
		"no backup": {func(_ *tableOf, p *Plan, _ *Wave) { p.Settings.BackupAge = time.Hour }, "backup: the platforms' backup of this wave's mailboxes is confirmed: nobody has said so"},
		"an old backup": {func(_ *tableOf, p *Plan, w *Wave) {
			p.Settings.BackupAge = time.Hour
			w.Answers = []Answer{{Item: Backup, OK: true, Person: "anna", Time: evening.Add(-61 * time.Minute)}}
		}, "anna said so at 2026-06-01T17:29:00Z, which counted for 1h"},
		"no answer": {func(_ *tableOf, _ *Plan, w *Wave) { w.Definition.Checks = []Item{{ID: "desk", Text: "staffed"}} }, "desk: staffed: nobody has said so"},
		"answered no": {func(_ *tableOf, _ *Plan, w *Wave) {
			w.Definition.Checks = []Item{{ID: "desk", Text: "staffed"}}
			w.Answers = []Answer{{Item: "desk", Person: "anna", Time: evening, Note: "ill"}}
		}, "desk: staffed: anna says no: ill"},
		"answered yes": {func(_ *tableOf, _ *Plan, w *Wave) {
			w.Definition.Checks = []Item{{ID: "desk", Text: "staffed"}}
			w.Answers = []Answer{{Item: "desk", OK: true, Person: "anna", Time: evening.Add(-1000 * time.Hour)}}
		}, ""},
		"another epoch":  {func(o *tableOf, p *Plan, _ *Wave) { o.change(p, func(a *routing.Agency) { a.Epoch = a.Epoch.Next() }) }, "record: agency a is in epoch 1.2, approved was 1.1"},
		"another target": {func(o *tableOf, p *Plan, _ *Wave) { o.change(p, func(a *routing.Agency) { a.Target = "cloud" }) }, "record: agency a goes from exchange to cloud"},
		"locked":         {func(o *tableOf, p *Plan, _ *Wave) { o.change(p, func(a *routing.Agency) { a.Locked = true }) }, "record: agency a is locked"},
		"an emergency":   {func(o *tableOf, p *Plan, _ *Wave) { o.change(p, func(a *routing.Agency) { *a = a.Emergency("e") }) }, "emergency: "},
		"stopped": {func(o *tableOf, p *Plan, _ *Wave) {
			docs, err := Trip(o.state(), Finding{Cause: ByDrift, Text: "3 rows", Time: evening}, "")
			o.set(must(o.t, docs, err)...)
			p.Facts.State = o.state()
		}, "stop: the plan is stopped since 2026-06-01T18:30:00Z: 3 rows"},
		"a stop that can't be read": {func(o *tableOf, p *Plan, _ *Wave) {
			o.set(routing.Document{Key: stopKey, Text: "{}x"})
			p.Facts.State = o.state()
		}, "stop: the plan is stopped"},
	} {
		o := newTable(t, "a", "b")
		o.started(t, "one", Definition{Agencies: []routing.AgencyID{"a", "b"}, Calendar: nights})
		p := o.plan(evening)
		w := p.Wave("one")
		c.spoil(o, p, w)
		id, all := p.Obstacles(w, true)
		got := texts(all)
		if id != "a" || (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q: %q, want %q", name, id, got, c.want)
		}
		if _, some := p.Obstacles(w, false); (len(some) == 0) != (len(all) == 0) {
			t.Errorf("%s: the short answer is %q", name, texts(some))
		}
	}
}

func (o *tableOf) change(p *Plan, f func(*routing.Agency)) {
	a := o.agencies["a"]
	f(&a)
	o.agencies["a"] = a
	p.Facts.State = o.state()
}

// What the wave has moved has to be compared since, and nothing found.
func TestCompared(t *testing.T) {
	moved := base.Add(time.Hour)
	for name, c := range map[string]struct {
		is   Comparison
		want string
	}{
		"not yet":       {Comparison{Possible: true}, "not compared since it was moved"},
		"before":        {Comparison{Possible: true, Time: base}, "not compared since it was moved"},
		"since":         {Comparison{Possible: true, Time: moved.Add(time.Minute)}, ""},
		"found":         {Comparison{Possible: true, Time: moved.Add(time.Minute), Open: 2}, "2 findings that mailboxes hold others' content"},
		"found earlier": {Comparison{Open: 1}, "1 findings"},
		"impossible":    {Comparison{}, ""},
	} {
		o := newTable(t, "a", "b")
		w := o.started(t, "one", Definition{Agencies: []routing.AgencyID{"a", "b"}})
		o.move(&w, "a", moved)
		p := o.plan(moved.Add(2 * time.Minute))
		p.Settings.VerifyAge = time.Hour
		p.Facts.Compared = func(routing.AgencyID) Comparison { return c.is }
		_, all := p.Obstacles(p.Wave("one"), true)
		if got := texts(all); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if name == "since" {
			p.Now = moved.Add(2 * time.Hour)
			if _, all := p.Obstacles(p.Wave("one"), true); !strings.Contains(texts(all), "older than 1h") {
				t.Errorf("an old comparison: %q", texts(all))
			}
		}
	}
}

func TestMayBegin(t *testing.T) {
	o := newTable(t, "a", "b")
	o.started(t, "one", Definition{Agencies: []routing.AgencyID{"a", "b"}, Calendar: Calendar{Zone: "Europe/Berlin", Windows: []Window{{Days: []On{"mon"}, From: 12 * 60, To: 13 * 60}}}})
	w := o.wave("one") // base is 12:00 there
	if err := w.MayBegin(o.state(), w.Run("a"), base); err != nil {
		t.Error(err)
	}
	if err := w.MayBegin(o.state(), w.Run("a"), base.Add(time.Hour)); err == nil {
		t.Error("it begins when its window is over")
	}
	paused, err := w.Pause(word("x", base))
	must(t, paused, err)
	if err := paused.MayBegin(o.state(), paused.Run("a"), base); !errors.Is(err, ErrState) {
		t.Errorf("paused: %v", err)
	}
	docs, err := Trip(o.state(), Finding{Cause: ByPerson, Text: "no", Time: base}, "olga")
	o.set(must(t, docs, err)...)
	if err := w.MayBegin(o.state(), w.Run("a"), base); !errors.Is(err, ErrStopped) {
		t.Errorf("stopped: %v", err)
	}
}

func TestStopAndLift(t *testing.T) {
	o := newTable(t, "a")
	turn := func() string { return o.docs[turnKey].Text }
	trip := func(f Finding) int {
		t.Helper()
		l, err := LiftedOf(o.state())
		must(t, l, err)
		stop, err := StopOf(o.state())
		f.Time = base
		fresh, is := l.New(f, must(t, stop, err))
		if !is {
			return 0
		}
		docs, err := Trip(o.state(), fresh, "")
		o.set(must(t, docs, err)...)
		return len(docs)
	}
	if _, _, err := Lift(o.state(), "rita", "x", base); !errors.Is(err, ErrNotStopped) {
		t.Errorf("lifted what isn't stopped: %v", err)
	}
	first := turn()
	if trip(Finding{Cause: ByVerify, Text: "two", Keys: []string{"1", "2"}}) != 2 || turn() == first {
		t.Error("not stopped, or nobody who decides at the same time would see it")
	}
	if trip(Finding{Cause: ByVerify, Text: "one of them", Keys: []string{"2"}}) != 0 {
		t.Error("what is in the stop is added again")
	}
	trip(Finding{Cause: ByVerify, Text: "more", Keys: []string{"2", "3"}})
	trip(Finding{Cause: ByDrift, Text: "rows"})
	stop, err := StopOf(o.state())
	must(t, stop, err)
	if len(stop.Findings) != 3 || !slices.Equal(stop.Findings[1].Keys, []string{"3"}) || !strings.Contains(stop.Why(), "2 more findings") {
		t.Errorf("%+v", stop)
	}
	docs, seen, err := Lift(o.state(), "rita", "looked", base)
	if must(t, docs, err); len(seen.Findings) != 3 {
		t.Errorf("lifted %+v", seen)
	}
	o.set(docs...)
	if err := Refuses(o.state()); err != nil {
		t.Error(err)
	}
	for _, known := range []Finding{{Cause: ByVerify, Text: "x", Keys: []string{"1", "3"}}, {Cause: ByDrift, Text: "rows"}} {
		if trip(known) != 0 {
			t.Errorf("what was lifted stops again: %+v", known)
		}
	}
	if trip(Finding{Cause: ByCanary, Text: "x", Keys: []string{"1"}}) != 2 {
		t.Error("the same key of another cause doesn't stop")
	}
	for i := range 2 * maxFindings {
		trip(Finding{Cause: ByErrors, Text: fmt.Sprint(i)})
	}
	if stop, _ := StopOf(o.state()); len(stop.Findings) != maxFindings {
		t.Errorf("%d findings are kept", len(stop.Findings))
	}
	// One that can't be read stops all the same, and can be lifted.
	d := o.docs[stopKey]
	d.Text = `{"since":"2026-06-01T10:00:00Z","findings":[],"unless":"friday"}`
	o.set(d)
	if err := Refuses(o.state()); !errors.Is(err, ErrStopped) {
		t.Errorf("a stop of a newer program: %v", err)
	}
	docs, _, err = Lift(o.state(), "rita", "it is another program's", base)
	o.set(must(t, docs, err)...)
	if err := Refuses(o.state()); err != nil {
		t.Error(err)
	}
}
