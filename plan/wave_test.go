package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/routing"
)

// table is a copy of the table with agencies, as tests change it.
type tableOf struct {
	t        *testing.T
	agencies map[routing.AgencyID]routing.Agency
	docs     map[string]routing.Document
	rev      routing.Revision
}

func newTable(t *testing.T, ids ...string) *tableOf {
	t.Helper()
	o := &tableOf{t: t, agencies: map[routing.AgencyID]routing.Agency{}, docs: map[string]routing.Document{}, rev: 1}
	for _, id := range ids {
		a, err := routing.NewAgency(routing.AgencyID(id), "exchange", "ox")
		o.agencies[a.ID] = must(t, a, err)
	}
	return o
}

func (o *tableOf) state() *routing.State {
	o.t.Helper()
	u := routing.Update{Whole: true, Position: routing.Position{Incarnation: "i", Term: 1, Revision: o.rev}}
	for _, a := range o.agencies {
		a.Revision = o.rev
		u.Agencies = append(u.Agencies, a)
	}
	for _, d := range o.docs {
		u.Documents = append(u.Documents, d)
	}
	s, err := routing.NewState(routing.Position{}).Apply(u)
	return must(o.t, s, err)
}

func (o *tableOf) set(docs ...routing.Document) {
	o.rev++
	for _, d := range docs {
		if have := o.docs[d.Key]; have.Revision != d.Revision {
			o.t.Fatalf("%s is at revision %d, stored from %d", d.Key, have.Revision, d.Revision)
		}
		if d.Revision = o.rev; d.Removed {
			delete(o.docs, d.Key)
		} else {
			o.docs[d.Key] = d
		}
	}
}

func (o *tableOf) store(w *Wave) {
	o.t.Helper()
	d, err := w.Document()
	o.set(must(o.t, d, err))
}

func (o *tableOf) wave(name Name) Wave {
	o.t.Helper()
	w, err := Find(o.state(), name)
	return must(o.t, w, err)
}

var always = Calendar{Zone: "Europe/Berlin", Windows: []Window{{Days: slices.Clone(weekdays[:]), From: 0, To: 24 * 60}}}

func wave(t *testing.T, o *tableOf, name Name, d Definition) Wave {
	t.Helper()
	if d.Owner == "" {
		d.Owner = "team"
	}
	if d.Zone == "" {
		d.Calendar = always
	}
	if err := d.Check(); err != nil {
		t.Fatal(err)
	}
	b, err := Bind(o.state(), name, d)
	w := New(must(t, b, err), "p-"+string(name), "anna", "because", base)
	if have, ok := o.docs[wavePrefix+string(name)]; ok {
		w.Revision = have.Revision
	}
	o.store(&w)
	return o.wave(name)
}

var base = time.Date(2026, 6, 1, 10, 0, 0, 0, time.UTC)

func word(reason string, at time.Time) Word { return Word{Person: "olga", Reason: reason, Time: at} }

func (o *tableOf) started(t *testing.T, name Name, d Definition) Wave {
	t.Helper()
	w, err := wave(t, o, name, d).Start(word("go", base), []string{"ben"})
	must(t, w, err)
	o.store(&w)
	return o.wave(name)
}

func (o *tableOf) plan(now time.Time) *Plan {
	s := o.state()
	waves, unreadable := Waves(s)
	if len(unreadable) > 0 {
		o.t.Fatal(unreadable)
	}
	good := Fact{OK: true, Text: "well"}
	return &Plan{
		Now: now, Waves: waves, Settings: Settings{AtOnce: 10}, Forecast: NewForecast(nil, time.Minute),
		Facts: &Facts{
			State: s, Approved: func(*Wave) error { return nil }, Lists: func(routing.AgencyID) Fact { return good },
			Rehearsed: func(routing.AgencyID) (Rehearsal, bool) { return Rehearsal{}, false },
			Compared:  func(routing.AgencyID) Comparison { return Comparison{} }, Mailboxes: func(routing.AgencyID) int { return 100 },
		},
	}
}

func TestDefinitionsAreChecked(t *testing.T) {
	good := func() Definition {
		return Definition{Agencies: []routing.AgencyID{"a", "b"}, Owner: "team", Calendar: always, Checks: []Item{{ID: "people", Text: "the desk is staffed"}}}
	}
	d := good()
	if err := d.Check(); err != nil {
		t.Fatal(err)
	}
	many := make([]routing.AgencyID, MaxAgencies+1)
	for i := range many {
		many[i] = routing.AgencyID(fmt.Sprintf("a%d", i))
	}
	for want, spoil := range map[string]func(d *Definition){
		"0 agencies":     func(d *Definition) { d.Agencies = nil },
		"61 agencies":    func(d *Definition) { d.Agencies = many },
		"named twice":    func(d *Definition) { d.Agencies = []routing.AgencyID{"a", "a"} },
		"agency \"A\"":   func(d *Definition) { d.Agencies = []routing.AgencyID{"A"} },
		"owner":          func(d *Definition) { d.Owner = " " },
		"after":          func(d *Definition) { d.After = []Name{"Not!"} },
		"no window":      func(d *Definition) { d.Windows = nil },
		"not_after":      func(d *Definition) { d.NotBefore, d.NotAfter = Day{2026, 2, 2}, Day{2026, 2, 1} },
		"at_once -1":     func(d *Definition) { d.AtOnce = -1 },
		"at_once 21":     func(d *Definition) { d.AtOnce = 21 },
		"bake":           func(d *Definition) { d.Bake = -1 },
		"rest":           func(d *Definition) { d.Rest = Span(MaxLife + 1) },
		"check \"stop\"": func(d *Definition) { d.Checks[0].ID = "stop" },
		"check \"backup": func(d *Definition) { d.Checks[0].ID = "backup" },
		"is there twice": func(d *Definition) { d.Checks = append(d.Checks, d.Checks[0]) },
		"want a text":    func(d *Definition) { d.Checks[0].Text = "" },
	} {
		d := good()
		spoil(&d)
		if err := d.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}

// The approval is bound to everything that it covers.
func TestWhatIsBound(t *testing.T) {
	o := newTable(t, "a", "b")
	d := Definition{Agencies: []routing.AgencyID{"a", "b"}, Owner: "team", Calendar: always}
	bound, err := Bind(o.state(), "one", d)
	must(t, bound, err)
	seen := map[routing.Digest]string{bound.Digest(): "as it was"}
	for name, change := range map[string]func(b *Bound){
		"name":     func(b *Bound) { b.Wave = "two" },
		"order":    func(b *Bound) { slices.Reverse(b.Definition.Agencies) },
		"owner":    func(b *Bound) { b.Definition.Owner = "others" },
		"pilot":    func(b *Bound) { b.Definition.Pilot = true },
		"after":    func(b *Bound) { b.Definition.After = []Name{"x"} },
		"zone":     func(b *Bound) { b.Definition.Zone = "Europe/Paris" },
		"window":   func(b *Bound) { b.Definition.Windows[0].To = 60 },
		"holidays": func(b *Bound) { b.Definition.State = "BE" },
		"never":    func(b *Bound) { b.Definition.Never = []Day{{2026, 1, 1}} },
		"last day": func(b *Bound) { b.Definition.NotAfter = Day{2026, 1, 1} },
		"at once":  func(b *Bound) { b.Definition.AtOnce = 3 },
		"bake":     func(b *Bound) { b.Definition.Bake = 1 },
		"rest":     func(b *Bound) { b.Definition.Rest = 1 },
		"check":    func(b *Bound) { b.Definition.Checks = []Item{{ID: "x"}} },
		"epoch":    func(b *Bound) { b.Covers[0].Epoch = b.Covers[0].Epoch.Next() },
		"target":   func(b *Bound) { b.Covers[0].Target = "cloud" },
	} {
		var b Bound
		text, err := json.Marshal(bound)
		if err := json.Unmarshal(must(t, text, err), &b); err != nil {
			t.Fatal(err)
		}
		if b.Digest() != bound.Digest() {
			t.Fatal("a copy has another digest")
		}
		change(&b)
		if was := seen[b.Digest()]; was != "" {
			t.Errorf("%s: the digest is that of %q", name, was)
		}
		seen[b.Digest()] = name
	}
	a := o.agencies["b"]
	a.Phase = routing.PhaseTarget
	o.agencies["b"] = a
	if _, err := Bind(o.state(), "one", d); err == nil {
		t.Error("an agency that was moved is bound")
	}
}

// A wave is read back from the table as it was stored, and what a newer program wrote is refused.
func TestDocuments(t *testing.T) {
	o := newTable(t, "a", "b")
	w := o.started(t, "one", Definition{Agencies: []routing.AgencyID{"a", "b"}, NotAfter: Day{2026, 12, 1}, Bake: Span(90 * time.Minute), Checks: []Item{{"people", "there", Span(time.Hour)}}})
	w, err := w.Answer(Answer{Item: Backup, OK: true, Person: "anna", Time: base})
	must(t, w, err)
	o.store(&w)
	again := o.wave("one")
	again.Revision = w.Revision
	if !reflect.DeepEqual(w, again) {
		t.Errorf("read back:\n%+v\nstored:\n%+v", again, w)
	}
	d := o.docs["wave/one"]
	d.Text = strings.Replace(d.Text, `{"name"`, `{"unless":"friday","name"`, 1)
	o.set(d)
	if _, err := Find(o.state(), "one"); !errors.Is(err, ErrUnreadable) {
		t.Errorf("with a field that isn't known: %v", err)
	}
	if all, bad := Waves(o.state()); len(all) != 0 || len(bad) != 1 {
		t.Errorf("%v, %v", all, bad)
	}
	if _, err := Find(o.state(), "two"); !errors.Is(err, ErrNoWave) {
		t.Errorf("a wave that isn't there: %v", err)
	}
}

// The largest wave there may be fits into its document, with all that is noted of it.
func TestTheLargestWaveFits(t *testing.T) {
	var ids []string
	for i := range MaxAgencies {
		ids = append(ids, fmt.Sprintf("agency-with-a-rather-long-name-%02d", i))
	}
	o := newTable(t, ids...)
	d := Definition{}
	for _, id := range ids {
		d.Agencies = append(d.Agencies, routing.AgencyID(id))
	}
	w := o.started(t, "one", d)
	var err error
	for _, id := range d.Agencies {
		w, err = w.Claim(id, "mx1.mail.example.org", "instance-0123456789", 5000, base)
		must(t, w, err)
		w, err = w.Abort(w.Run(id).Operation, strings.Repeat("x", 5000), routing.Epoch{Term: 1, Number: 3}, base)
		must(t, w, err)
		w.Standing = Running
	}
	doc, err := w.Document()
	if must(t, doc, err); len(doc.Text) > maxDocument {
		t.Errorf("%d bytes", len(doc.Text))
	}
}

// Every act in every standing: what isn't allowed is an ErrState and changes nothing.
func TestStandings(t *testing.T) {
	acts := map[string]struct {
		in []Standing
		do func(Wave) (Wave, error)
		to Standing
	}{
		"start":  {[]Standing{Proposed}, func(w Wave) (Wave, error) { return w.Start(word("x", base), nil) }, Running},
		"pause":  {[]Standing{Running}, func(w Wave) (Wave, error) { return w.Pause(word("x", base)) }, Paused},
		"resume": {[]Standing{Paused}, func(w Wave) (Wave, error) { return w.Resume(word("x", base), nil) }, Running},
		"end":    {[]Standing{Proposed, Running, Paused}, func(w Wave) (Wave, error) { return w.End(word("x", base)) }, Ended},
		"claim":  {[]Standing{Running}, func(w Wave) (Wave, error) { return w.Claim("a", "n", "i", 1, base) }, Running},
		"skip":   {[]Standing{Running, Paused}, func(w Wave) (Wave, error) { return w.Skip(word("x", base), "a") }, ""},
		"answer": {[]Standing{Proposed, Running, Paused}, func(w Wave) (Wave, error) { return w.Answer(Answer{Item: Backup, OK: true}) }, ""},
	}
	for _, standing := range Standings() {
		for name, act := range acts {
			o := newTable(t, "a", "b")
			w := wave(t, o, "one", Definition{Agencies: []routing.AgencyID{"a", "b"}})
			w.Standing = standing
			next, err := act.do(w)
			if allowed := slices.Contains(act.in, standing); allowed != (err == nil) || err != nil && !errors.Is(err, ErrState) {
				t.Errorf("%s in %s: %v", name, standing, err)
			}
			if err == nil && act.to != "" && next.Standing != act.to {
				t.Errorf("%s in %s leads to %s", name, standing, next.Standing)
			}
			if w.Standing != standing || w.Runs[0].Place != Waiting || len(w.Answers) != 0 {
				t.Errorf("%s in %s has changed what it was called on", name, standing)
			}
		}
	}
}

// TestRetries: an agency is tried again as often as was approved, whoever asks, and what was refused
// before it began doesn't count.
func TestRetries(t *testing.T) {
	for _, most := range []int{0, 1, MaxRetries} {
		o := newTable(t, "a", "b")
		w := o.started(t, "one", Definition{Agencies: []routing.AgencyID{"a", "b"}, Retries: most})
		try := func() {
			t.Helper()
			w, _ = w.Claim("a", "mx1", "i1", 100, base)
			w, _ = w.Release(w.Run("a").Operation, "a probe failed", base)
			w, _ = w.Claim("a", "mx1", "i1", 100, base)
			w, _ = w.Begun(w.Run("a").Operation, base)
			var err error
			w, err = w.Abort(w.Run("a").Operation, "not drained", routing.Epoch{Term: 1, Number: 3}, base)
			must(t, w, err)
		}
		try()
		for n := range most {
			var err error
			if w, err = w.Resume(word("x", base), []routing.AgencyID{"a"}); err != nil || w.Run("a").Retries != n+1 {
				t.Fatalf("try %d of %d: %v, %+v", n+1, most, err, w.Run("a"))
			}
			try()
		}
		if next, err := w.Resume(word("x", base), []routing.AgencyID{"a"}); !errors.Is(err, ErrRetries) || next.Standing == Running {
			t.Errorf("one more than %d: %v", most, err)
		}
		if _, err := w.Resume(word("x", base), nil); err != nil {
			t.Errorf("the wave can't go on without it: %v", err)
		}
		other := w.Bound()
		other.Definition.Retries++
		if approved := w.Bound(); approved.Digest() == other.Digest() {
			t.Error("the number isn't what is approved")
		}
	}
	if err := (&Definition{Retries: MaxRetries + 1}).Check(); !strings.Contains(err.Error(), "retries 6: want 0 to 5") {
		t.Error(err)
	}
}

func TestAttempts(t *testing.T) {
	o := newTable(t, "a", "b")
	w := o.started(t, "one", Definition{Agencies: []routing.AgencyID{"a", "b"}, Retries: 1})
	w, err := w.Claim("a", "mx1", "i1", 100, base)
	must(t, w, err)
	first := w.Run("a").Operation
	if first != w.OperationID("a", 1) || first == w.OperationID("a", 2) || first == w.OperationID("b", 1) {
		t.Errorf("operation %s", first)
	}
	if _, err := w.Claim("a", "mx2", "i2", 100, base); !errors.Is(err, ErrAgency) {
		t.Errorf("claimed twice: %v", err)
	}
	w, err = w.Release(first, "a probe failed", base)
	must(t, w, err)
	if r := w.Run("a"); r.Place != Waiting || !r.NotBefore.Equal(base.Add(time.Minute)) {
		t.Errorf("after a refusal: %+v", r)
	}
	w, err = w.Claim("a", "mx1", "i1", 100, base)
	must(t, w, err)
	second := w.Run("a").Operation
	if second == first {
		t.Error("two attempts have one operation")
	}
	for _, late := range []func() (Wave, error){
		func() (Wave, error) { return w.Begun(first, base) }, func() (Wave, error) { return w.Finish(first, 0, "", base) }, func() (Wave, error) { return w.Release(first, "x", base) },
	} {
		if _, err := late(); !errors.Is(err, ErrAgency) {
			t.Errorf("a late word of the first attempt counts: %v", err)
		}
	}
	w, err = w.Begun(second, base)
	must(t, w, err)
	after := routing.Epoch{Term: 1, Number: 3}
	w, err = w.Abort(second, "not drained", after, base)
	must(t, w, err)
	if w.Standing != Paused || !w.Said.Itself || w.Run("a").Place != Aborted || w.Run("a").Expected() != after {
		t.Errorf("after an abort: %+v", w)
	}
	if b := w.Bound(); b.Covers[0].Epoch != (routing.Epoch{Term: 1, Number: 1}) {
		t.Error("an abort changes what was approved")
	}
	if _, err := w.Resume(word("x", base), []routing.AgencyID{"b"}); !errors.Is(err, ErrAgency) {
		t.Errorf("tried again though it wasn't aborted: %v", err)
	}
	on, err := w.Resume(word("x", base), nil)
	must(t, on, err)
	if on.next().Agency != "b" {
		t.Error("an aborted agency is tried again without people's word")
	}
	again, err := w.Resume(word("x", base), []routing.AgencyID{"a"})
	must(t, again, err)
	if again.next().Agency != "a" {
		t.Error("an aborted agency is not tried again")
	}
	again, err = again.Claim("a", "mx1", "i1", 100, base)
	must(t, again, err)
	again, err = again.Finish(again.Run("a").Operation, time.Second, "", base)
	must(t, again, err)
	again, err = again.Skip(word("later", base), "b")
	must(t, again, err)
	if again.Standing != Done {
		t.Errorf("all agencies are over, and the wave is %s", again.Standing)
	}
	if back, same := again.Return([]routing.AgencyID{"a"}, base); same || back.Run("a").Place != Back {
		t.Errorf("rolled back: %+v", back.Run("a"))
	}
	if pauses := []time.Duration{}; true {
		r := w
		for range 8 {
			r.Standing = Running
			r.Runs = slices.Clone(r.Runs)
			r.Runs[1].Place = Starting
			r.Runs[1].Operation = "op"
			r, err = r.Release("op", "no", base)
			must(t, r, err)
			pauses = append(pauses, r.Runs[1].NotBefore.Sub(base))
		}
		if pauses[0] != time.Minute || pauses[1] != 2*time.Minute || pauses[7] != longestPause {
			t.Errorf("pauses %v", pauses)
		}
	}
}
