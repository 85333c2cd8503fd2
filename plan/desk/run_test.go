package desk

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"mailcutover/approval"
	"mailcutover/plan"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Three nodes at one wave: each agency is moved once, in order, with its bake between.
func TestAWaveRuns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c", "d")
		nodes := []*node{w.node("mx1").begin(), w.node("mx2").begin(), w.node("mx3").begin()}
		w.propose("one", plan.Definition{Agencies: []routing.AgencyID{"b", "a", "c"}, Bake: plan.Span(10 * time.Minute)})
		time.Sleep(5 * time.Second)
		w.want("at first", w.places("one"), "running b=running a=waiting c=waiting")
		time.Sleep(9 * time.Minute)
		w.want("while it bakes", w.places("one"), "running b=done a=waiting c=waiting")
		time.Sleep(2 * time.Minute)
		w.want("then", w.places("one"), "running b=done a=done c=waiting")
		time.Sleep(15 * time.Minute)
		w.want("at the end", w.places("one"), "done b=done a=done c=done")
		w.want("order", w.order(), "b a c")
		if w.overlap != 1 {
			t.Errorf("%d at one time", w.overlap)
		}
		for _, id := range []routing.AgencyID{"a", "b", "c"} {
			if a, _ := w.State().Agency(id); a.Phase != routing.PhaseTarget || !a.Open() {
				t.Errorf("agency %s: %+v", id, a)
			}
		}
		if c := nodes[0].desk.Counts(); c.Waves[plan.Done] != 1 || c.Stopped || !c.Next.IsZero() {
			t.Errorf("%+v", c)
		}
		if all := strings.Join(w.audited, "\n"); strings.Count(all, "wave one: wave one starts agency") < 3 {
			t.Errorf("audited:\n%s", all)
		}
		// What was measured is what the next forecast rests on.
		nodes[0].desk.measure(t.Context())
		if e := nodes[0].desk.forecast().Of(100); !strings.Contains(e.Rests, "no cutover was measured") && e.Expected != 30*time.Second {
			t.Errorf("forecast %+v", e)
		}
		for _, n := range nodes {
			n.end()
		}
	})
}

func TestSeveralAtOnceOverAllWaves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c", "d", "e", "f")
		nodes := []*node{w.node("mx1"), w.node("mx2"), w.node("mx3")}
		for _, n := range nodes {
			n.settings.AtOnce = 3
			n.begin()
		}
		w.propose("one", plan.Definition{Agencies: []routing.AgencyID{"a", "b", "c"}, AtOnce: 2})
		w.propose("two", plan.Definition{Agencies: []routing.AgencyID{"d", "e", "f"}, AtOnce: 2})
		time.Sleep(10 * time.Minute)
		w.want("one", w.places("one"), "done a=done b=done c=done")
		w.want("two", w.places("two"), "done d=done e=done f=done")
		if w.overlap != 3 {
			t.Errorf("%d at one time, want 3", w.overlap)
		}
		for _, n := range nodes {
			n.end()
		}
	})
}

func TestWindowsOfARunningWave(t *testing.T) {
	bubble(t, func(t *testing.T) { // it begins at midnight UTC, 1 January 2000, a Saturday
		w := newWorld(t, "a", "b")
		w.pause = time.Minute
		n := w.node("mx1").begin()
		w.propose("one", plan.Definition{Agencies: []routing.AgencyID{"a", "b"}, Bake: plan.Span(30 * time.Minute), Calendar: plan.Calendar{
			Zone: "Europe/Berlin", Windows: []plan.Window{{Days: []plan.On{"sat", "sun"}, From: 20 * 60, To: 20*60 + 30}},
		}})
		time.Sleep(18*time.Hour + 59*time.Minute) // 19:59 there
		w.want("before", w.order(), "")
		time.Sleep(2 * time.Minute)
		w.want("in the window", w.order(), "a")
		time.Sleep(23 * time.Hour)
		w.want("its bake was over when the window was", w.order(), "a")
		time.Sleep(2 * time.Hour)
		w.want("the next day", w.order(), "a b")
		n.end()
	})
}

// A node that dies at any of the lines between claim and end: the agency is moved all the same,
// and once.
func TestANodeDiesInBetween(t *testing.T) {
	for _, when := range []string{"after the claim", "late begin", "under way"} {
		t.Run(when, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, "a", "b")
				one := w.node("mx1").begin()
				if when != "under way" {
					one.slow = make(chan struct{})
				}
				w.propose("one", plan.Definition{Agencies: []routing.AgencyID{"a", "b"}})
				time.Sleep(3 * time.Second)
				two := w.node("mx2").begin()
				switch when {
				case "after the claim":
					w.want("claimed", w.places("one"), "running a=starting b=waiting")
					one.die()
					close(one.slow)
				case "late begin":
					// It sleeps with its claim until long after its lease, and then goes on where it was.
					one.lease("mx1", one.instance, time.Now().Add(2*time.Second))
					time.Sleep(10 * time.Second)
					w.want("given back", w.places("one"), "running a=waiting b=waiting")
					close(one.slow)
					time.Sleep(2 * time.Second)
					w.want("the late begin is refused", w.order(), "")
					one.die()
				case "under way":
					w.want("claimed", w.places("one"), "running a=running b=waiting")
					one.die()
					time.Sleep(time.Minute)
					w.want("the runner of operations has to go on", w.places("one"), "running a=running b=waiting")
					// As another node's runner does, without the wave's document.
					if err := w.stored(func(s *routing.State) (c table.Change, err error) {
						a, _ := s.Agency("a")
						rec, _ := s.Operation(a.Operation)
						a, _ = a.Commit(a.Operation, a.Nonce)
						a, _ = a.Publish(a.Operation)
						rec.Ended, rec.Step = true, string(operation.StepDone)
						c.Agencies, c.Operations = []routing.Agency{a}, []routing.Operation{rec}
						return c, nil
					}); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(5 * time.Minute)
				w.want("in the end", w.places("one"), "done a=done b=done")
				w.want("order", w.order(), "a b")
				one.end()
				two.end()
			})
		})
	}
}

func TestPauseResumeSkipAndRetry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c", "d")
		n := w.node("mx1").begin()
		w.fail["b"] = "not drained by its deadline"
		w.propose("one", plan.Definition{Agencies: []routing.AgencyID{"a", "b", "c", "d"}, Retries: 1})
		time.Sleep(5 * time.Second)
		w.say("one", func(o plan.Wave) (plan.Wave, error) {
			return o.Pause(plan.Word{Person: "olga", Time: time.Now(), Reason: "wait"})
		})
		time.Sleep(10 * time.Minute)
		w.want("paused: what is under way goes on", w.places("one"), "paused a=done b=waiting c=waiting d=waiting")
		if n.alarmed("wave-paused") {
			t.Error("an alarm for what a person wanted")
		}
		resume := func(retry ...routing.AgencyID) {
			w.say("one", func(o plan.Wave) (plan.Wave, error) {
				return o.Resume(plan.Word{Person: "olga", Time: time.Now(), Reason: "on"}, retry)
			})
		}
		resume()
		time.Sleep(5 * time.Minute)
		w.want("aborted", w.places("one"), "paused a=done b=aborted c=waiting d=waiting")
		if !n.alarmed("wave-paused/one") {
			t.Error("no alarm says that the wave paused by itself")
		}
		w.say("one", func(o plan.Wave) (plan.Wave, error) {
			return o.Skip(plan.Word{Person: "olga", Time: time.Now(), Reason: "later"}, "c")
		})
		w.mu.Lock()
		delete(w.fail, "b")
		w.mu.Unlock()
		resume("b")
		time.Sleep(5 * time.Minute)
		w.want("tried again, and on", w.places("one"), "done a=done b=done c=skipped d=done")
		w.want("order", w.order(), "a b b d")
		if n.alarmed("wave-paused") {
			t.Error("the alarm stays")
		}
		n.end()
	})
}

// Something was done to an agency since the approval, or a check doesn't hold: it isn't started, and people
// are told; what was refused by the plan of the operation is tried again, later and later.
func TestWhatRefuses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		n := w.node("mx1").begin()
		n.mu.Lock()
		n.notListed["a"] = true
		n.mu.Unlock()
		w.propose("one", plan.Definition{Agencies: []routing.AgencyID{"a", "b"}})
		time.Sleep(time.Minute)
		w.want("a check refuses", w.places("one"), "running a=waiting b=waiting")
		if !n.alarmed("wave-refused/one") {
			t.Error("nobody is told")
		}
		before := w.changes
		time.Sleep(time.Minute)
		if w.changes != before {
			t.Errorf("%d changes of the table while nothing happens", w.changes-before)
		}
		n.mu.Lock()
		n.notListed["a"] = false
		n.mu.Unlock()
		w.mu.Lock()
		w.refuse["a"] = "a probe was refused"
		w.mu.Unlock()
		time.Sleep(10 * time.Second)
		if r := w.wave("one").Runs[0]; r.Place != plan.Waiting || r.Attempt != 1 || !strings.Contains(r.Why, "a probe was refused") {
			t.Errorf("%+v", r)
		}
		time.Sleep(10 * time.Minute)
		if r := w.wave("one").Runs[0]; r.Attempt < 3 || r.Attempt > 5 {
			t.Errorf("%d attempts within ten minutes", r.Attempt)
		}
		w.mu.Lock()
		delete(w.refuse, "a")
		w.mu.Unlock()
		time.Sleep(20 * time.Minute)
		w.want("as soon as nothing refuses", w.places("one"), "done a=done b=done")
		n.end()
	})
}

func TestApprovalIsLookedAt(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	w := newWorld(t, "a", "b")
	w.propose("one", plan.Definition{Agencies: []routing.AgencyID{"a"}})
	one := w.wave("one")
	if err := approved(w.State(), &one, 1, now); err != nil {
		t.Error(err)
	}
	if err := approved(w.State(), &one, 2, now); !errors.Is(err, approval.ErrNotApproved) {
		t.Errorf("two approvals are wanted by now: %v", err)
	}
	other := one
	other.Definition.AtOnce = 5
	if err := approved(w.State(), &other, 1, now); err == nil || !strings.Contains(err.Error(), "not as it was approved") {
		t.Errorf("another definition: %v", err)
	}
	other = one
	other.Runs = []plan.Run{{Covered: plan.Covered{Agency: "b", Epoch: one.Runs[0].Epoch, Source: "exchange", Target: "ox"}}}
	if err := approved(w.State(), &other, 1, now); err == nil {
		t.Error("another agency is covered")
	}
	other = one
	other.Proposal = "p-two"
	if err := approved(w.State(), &other, 1, now); err == nil || !strings.Contains(err.Error(), "not in the table any more") {
		t.Errorf("no proposal: %v", err)
	}
	for name, spoil := range map[string]func(p *approval.Proposal){
		"withdrawn":      func(p *approval.Proposal) { p.End = approval.Withdrawn },
		"open":           func(p *approval.Proposal) { p.End = "" },
		"another kind":   func(p *approval.Proposal) { p.Kind = "cutover" },
		"nobody's word":  func(p *approval.Proposal) { p.Approvals = nil },
		"another digest": func(p *approval.Proposal) { p.Plan[0]++ },
	} {
		w := newWorld(t, "a", "b")
		w.propose("one", plan.Definition{Agencies: []routing.AgencyID{"a"}})
		if err := w.stored(func(s *routing.State) (c table.Change, err error) {
			p, _, err := approval.Find(s, "p-one")
			spoil(&p)
			d, err2 := p.Document()
			c.Documents = []routing.Document{d}
			return c, errors.Join(err, err2)
		}); err != nil {
			t.Fatal(err)
		}
		if err := approved(w.State(), &one, 1, now); err == nil {
			t.Errorf("%s: it counts", name)
		}
	}
}

// A cutover with an approval of its own, of an agency of a wave.
func TestCutoversBesidesTheWave(t *testing.T) {
	w := newWorld(t, "a", "b", "z")
	w.propose("one", plan.Definition{Agencies: []routing.AgencyID{"a", "b"}})
	begins := func(id routing.AgencyID, kind operation.Kind) ([]routing.Document, error) {
		return Documents(w.State(), &operation.Operation{ID: "x", Kind: kind, Agency: id, Agencies: []routing.AgencyID{id}, Step: operation.StepDrain})
	}
	if docs, err := begins("a", operation.Cutover); err != nil || len(docs) != 1 {
		t.Errorf("while nothing is stopped: %v, %v", docs, err)
	}
	w.say("one", func(o plan.Wave) (plan.Wave, error) { return o.Claim("a", "mx1", "i", 1, time.Now()) })
	if _, err := begins("a", operation.Cutover); err == nil || !strings.Contains(err.Error(), "about to cut agency a over") {
		t.Errorf("while the wave starts it: %v", err)
	}
	if err := w.stored(func(s *routing.State) (c table.Change, err error) {
		c.Documents, err = plan.Trip(s, plan.Finding{Cause: plan.ByPerson, Text: "no", Time: time.Now()}, "olga")
		return c, err
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := begins("b", operation.Cutover); !errors.Is(err, plan.ErrStopped) {
		t.Errorf("while the plan is stopped: %v", err)
	}
	if docs, err := begins("z", operation.Cutover); err != nil || docs != nil {
		t.Errorf("an agency of no wave: %v, %v", docs, err)
	}
	for _, id := range []routing.AgencyID{"a", "b", "z"} {
		if docs, err := begins(id, operation.Rollback); err != nil || docs != nil {
			t.Errorf("a rollback: %v, %v", docs, err)
		}
	}
	// An operation that says it is a wave's, and has no claim.
	for _, wave := range []string{"one", "none"} {
		if _, err := Documents(w.State(), &operation.Operation{ID: "x", Kind: operation.Cutover, Agency: "b", Wave: wave, Step: operation.StepDrain}); err == nil {
			t.Errorf("an operation of wave %s begins without a claim", wave)
		}
	}
}

// An agency that people have moved meanwhile is passed over; one that is rolled back pauses the wave.
func TestWhatPeopleDoMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		set := func(id routing.AgencyID, phase routing.Phase) {
			if err := w.stored(func(s *routing.State) (c table.Change, err error) {
				a, _ := s.Agency(id)
				a.Phase, a.Epoch = phase, a.Epoch.Next()
				c.Agencies = []routing.Agency{a}
				return c, nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		w.propose("one", plan.Definition{Agencies: []routing.AgencyID{"a", "b", "c"}, Bake: plan.Span(time.Minute)})
		set("b", routing.PhaseTarget)
		n := w.node("mx1").begin()
		time.Sleep(time.Minute)
		w.want("b is there already", w.places("one"), "running a=done b=elsewhere c=waiting")
		set("a", routing.PhaseToSource)
		time.Sleep(5 * time.Second)
		w.want("a goes back", w.places("one"), "paused a=back b=elsewhere c=waiting")
		time.Sleep(5 * time.Minute)
		w.want("order", w.order(), "a")
		n.end()
	})
}

// Without the table nothing happens, and afterwards all of it.
func TestTheTableIsAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		n := w.node("mx1").begin()
		n.slow = make(chan struct{})
		w.propose("one", plan.Definition{Agencies: []routing.AgencyID{"a", "b"}})
		time.Sleep(2 * time.Second)
		w.mu.Lock()
		w.away = true
		w.mu.Unlock()
		close(n.slow)
		n.mu.Lock()
		n.slow = nil
		n.mu.Unlock()
		time.Sleep(time.Minute)
		w.want("nothing began", w.order(), "")
		w.mu.Lock()
		w.away = false
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		w.want("afterwards", w.places("one"), "done a=done b=done")
		n.end()
	})
}

func TestNewWantsWhatItNeeds(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("a desk of nothing")
	}
	w := newWorld(t, "a")
	n := w.node("mx1")
	n.desk.o.Acts = func() Acts { return nil }
	if err := n.desk.Stop(context.Background(), plan.Finding{Cause: plan.ByCanary, Text: "x"}); !errors.Is(err, ErrNotYet) {
		t.Errorf("stopped before the API is there: %v", err)
	}
}
