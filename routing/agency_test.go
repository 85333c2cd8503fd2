package routing

import (
	"encoding/json"
	"errors"
	"testing"
)

const (
	testOp    = OperationID("op-1")
	testNonce = Nonce(7)
)

// agencyIn returns a record in this phase, as the methods of Agency lead to it.
func agencyIn(t *testing.T, p Phase) Agency {
	t.Helper()
	a, err := NewAgency("health", "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	a = a.Arm()
	must := func(next Agency, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		a = next
	}
	cutOver := func() {
		must(a.Begin(testOp, testNonce, EventBegin))
		must(a.Commit(testOp, testNonce))
		must(a.Publish(testOp))
	}
	switch p {
	case PhaseSource:
	case PhaseToTarget:
		must(a.Begin(testOp, testNonce, EventBegin))
	case PhaseTarget:
		cutOver()
	case PhaseToSource:
		cutOver()
		must(a.Begin(testOp, testNonce, EventBegin))
	case PhaseRemapSource:
		must(a.Begin(testOp, testNonce, EventBeginRemap))
	case PhaseRemapTarget:
		cutOver()
		must(a.Begin(testOp, testNonce, EventBeginRemap))
	default:
		a.Phase = p
	}
	if a.Phase != p {
		t.Fatalf("phase %s, want %s", a.Phase, p)
	}
	return a
}

func TestEveryMethodInEveryPhase(t *testing.T) {
	type outcome struct {
		phase  Phase
		err    error // nil: allowed
		epochs uint32
		open   bool
	}
	type method struct {
		name string
		do   func(Agency) (Agency, error)
		want func(Phase) outcome
	}
	follows := func(e Event, closedAfter bool) func(Phase) outcome {
		return func(p Phase) outcome {
			to, ok := arrows[p][e]
			if !ok {
				return outcome{err: ErrTransition}
			}
			return outcome{phase: to, epochs: 1, open: to.Open() && !closedAfter}
		}
	}
	owned := func(p Phase) bool { return p != PhaseUnknown && !p.Open() }
	begin := func(e Event) func(Phase) outcome {
		return func(p Phase) outcome {
			if owned(p) {
				return outcome{err: ErrOperationOpen}
			}
			return follows(e, false)(p)
		}
	}
	ofOwner := func(next func(Phase) outcome) func(Phase) outcome {
		return func(p Phase) outcome {
			if !owned(p) {
				return outcome{err: ErrNotOwner}
			}
			return next(p)
		}
	}
	methods := []method{
		{"begin", func(a Agency) (Agency, error) { return a.Begin(testOp, testNonce, EventBegin) }, begin(EventBegin)},
		{"begin remap", func(a Agency) (Agency, error) { return a.Begin(testOp, testNonce, EventBeginRemap) }, begin(EventBeginRemap)},
		{"begin with commit's event", func(a Agency) (Agency, error) { return a.Begin(testOp, testNonce, EventCommit) }, func(p Phase) outcome {
			if owned(p) {
				return outcome{err: ErrOperationOpen}
			}
			return outcome{err: ErrTransition}
		}},
		{"commit", func(a Agency) (Agency, error) { return a.Commit(testOp, testNonce) }, ofOwner(follows(EventCommit, true))},
		{"commit with another nonce", func(a Agency) (Agency, error) { return a.Commit(testOp, testNonce+1) }, func(Phase) outcome { return outcome{err: ErrNotOwner} }},
		{"commit by another", func(a Agency) (Agency, error) { return a.Commit("op-2", testNonce) }, func(Phase) outcome { return outcome{err: ErrNotOwner} }},
		{"commit by nobody", func(a Agency) (Agency, error) { return a.Commit("", a.Nonce) }, func(Phase) outcome { return outcome{err: ErrNotOwner} }},
		{"abort", func(a Agency) (Agency, error) { return a.Abort(testOp, testNonce) }, ofOwner(follows(EventAbort, false))},
		{"abort by another", func(a Agency) (Agency, error) { return a.Abort("op-2", testNonce) }, func(Phase) outcome { return outcome{err: ErrNotOwner} }},
		{"publish", func(a Agency) (Agency, error) { return a.Publish(testOp) }, ofOwner(func(Phase) outcome { return outcome{err: ErrPublished} })},
		{"publish by another", func(a Agency) (Agency, error) { return a.Publish("op-2") }, func(Phase) outcome { return outcome{err: ErrNotOwner} }},
		{"arm", func(a Agency) (Agency, error) { return a.Arm(), nil }, func(p Phase) outcome { return outcome{phase: p, open: p.Open()} }},
		{"settle", Agency.Settle, func(p Phase) outcome {
			if owned(p) {
				return outcome{err: ErrOperationOpen}
			}
			return outcome{phase: p, open: p.Open()}
		}},
		{"end of settling", Agency.EndSettle, func(Phase) outcome { return outcome{err: ErrNotSettling} }},
		{"finalise", Agency.Finalise, func(p Phase) outcome {
			switch {
			case owned(p):
				return outcome{err: ErrOperationOpen}
			case p != PhaseTarget:
				return outcome{err: ErrNotTarget}
			}
			return outcome{phase: p, epochs: 1, open: true}
		}},
		{"emergency begin", func(a Agency) (Agency, error) { return a.BeginEmergency(testOp, testNonce) }, begin(EventBegin)},
		{"commit of another mapping", func(a Agency) (Agency, error) { return a.CommitRemap(testOp, testNonce, Digest{1}) }, func(p Phase) outcome {
			if p != PhaseRemapSource && p != PhaseRemapTarget {
				return outcome{err: ErrTransition}
			}
			return follows(EventCommit, true)(p)
		}},
		{"lock", Agency.Lock, func(p Phase) outcome { return outcome{phase: p, epochs: 1} }},
		{"unlock", Agency.Unlock, func(Phase) outcome { return outcome{err: ErrNotLocked} }},
	}
	for _, p := range Phases() {
		for _, m := range methods {
			before := agencyIn(t, p)
			after, err := m.do(before)
			want := m.want(p)
			if want.err != nil {
				if !errors.Is(err, want.err) || after != before {
					t.Errorf("%s in %s: error %v, want %v and an unchanged record", m.name, p, err, want.err)
				}
				continue
			}
			if err != nil || after.Phase != want.phase || after.Open() != want.open || after.Epoch.Term != before.Epoch.Term || after.Epoch.Number-before.Epoch.Number != want.epochs {
				t.Errorf("%s in %s, epoch %s: %s, open %t, epoch %s, %v; want %+v", m.name, p, before.Epoch, after.Phase, after.Open(), after.Epoch, err, want)
			}
		}
	}
}

func TestCommitIsClosedUntilPublish(t *testing.T) {
	for _, p := range []Phase{PhaseToTarget, PhaseToSource, PhaseRemapSource, PhaseRemapTarget} {
		a, err := agencyIn(t, p).Commit(testOp, testNonce)
		if err != nil {
			t.Fatal(err)
		}
		if a.Open() || !a.Phase.Open() {
			t.Errorf("%s committed: %+v", p, a)
		}
		if _, err := a.Abort(testOp, testNonce); !errors.Is(err, ErrNotPublished) {
			t.Errorf("abort after commit: %v", err)
		}
		if _, err := a.Commit(testOp, testNonce); !errors.Is(err, ErrTransition) {
			t.Errorf("commit after commit: %v", err)
		}
		if _, err := a.Begin("op-2", 8, EventBegin); !errors.Is(err, ErrOperationOpen) {
			t.Errorf("begin after commit: %v", err)
		}
		if _, err := a.Settle(); !errors.Is(err, ErrOperationOpen) {
			t.Errorf("settle after commit: %v", err)
		}
		open, err := a.Publish(testOp)
		if err != nil || !open.Open() || open.Operation != "" || open.Epoch != a.Epoch.Next() {
			t.Errorf("published: %+v, %v", open, err)
		}
	}
	if _, err := agencyIn(t, PhaseSource).Publish(""); !errors.Is(err, ErrNotOwner) {
		t.Errorf("publish of no operation: %v", err)
	}
	a := agencyIn(t, PhaseToTarget)
	a.Published = false // no method leads here
	if _, err := a.Publish(testOp); !errors.Is(err, ErrTransition) {
		t.Errorf("publish of what was not committed: %v", err)
	}
}

func TestBeginIsRefused(t *testing.T) {
	settled := agencyIn(t, PhaseSource)
	settled, _ = settled.Settle()
	settled, _ = settled.EndSettle()
	unknown := agencyIn(t, PhaseSource)
	unknown.Tightness = TightnessUnknown
	final := agencyIn(t, PhaseTarget)
	final.Finalised = true
	for name, test := range map[string]struct {
		agency Agency
		op     OperationID
		nonce  Nonce
		event  Event
		want   error
	}{
		"settled":                    {settled, testOp, testNonce, EventBegin, ErrNotArmed},
		"tightness unknown":          {unknown, testOp, testNonce, EventBegin, ErrNotArmed},
		"way back finalised":         {final, testOp, testNonce, EventBegin, ErrFinalised},
		"finalised, but remap":       {final, testOp, testNonce, EventBeginRemap, nil},
		"without operation":          {agencyIn(t, PhaseSource), "", testNonce, EventBegin, ErrBadID},
		"without nonce":              {agencyIn(t, PhaseSource), testOp, 0, EventBegin, ErrBadID},
		"locked: the incident's way": {mustLock(t, agencyIn(t, PhaseTarget)), testOp, testNonce, EventBegin, nil},
	} {
		if _, err := test.agency.Begin(test.op, test.nonce, test.event); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

func mustLock(t *testing.T, a Agency) Agency {
	t.Helper()
	a, err := a.Lock()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestLockIsBesideThePhase(t *testing.T) {
	for _, p := range Phases() {
		a := agencyIn(t, p)
		locked := mustLock(t, a)
		if locked.Open() || locked.Phase != p || locked.Operation != a.Operation {
			t.Errorf("%s: %+v", p, locked)
		}
		if _, err := locked.Lock(); !errors.Is(err, ErrLocked) {
			t.Errorf("%s: locked twice: %v", p, err)
		}
		back, err := locked.Unlock()
		if err != nil || back.Open() != a.Open() || back.Epoch != a.Epoch.Next().Next() {
			t.Errorf("%s: unlocked: %+v, %v", p, back, err)
		}
	}
}

func TestArmingNotesItsEpoch(t *testing.T) {
	a := agencyIn(t, PhaseTarget).Arm()
	if a.Tightness != Armed || a.ArmedAt != a.Epoch {
		t.Errorf("%+v", a)
	}
}

func TestNewAgencyWantsTwoPlatforms(t *testing.T) {
	for _, p := range [][2]PlatformID{{"", "ox"}, {"exchange", ""}, {"ox", "ox"}} {
		if _, err := NewAgency("health", p[0], p[1]); err == nil {
			t.Errorf("%q to %q: no error", p[0], p[1])
		}
	}
}

func TestAgencyJSON(t *testing.T) {
	want := agencyIn(t, PhaseToSource)
	want.Mapping, want.Nonce, want.Revision = Digest{1, 2}, 1<<63+5, 9
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Agency
	if err := json.Unmarshal(b, &got); err != nil || got != want {
		t.Errorf("%s: %+v, %v", b, got, err)
	}
	for _, bad := range []string{`{"epoch":"1"}`, `{"epoch":"1.99999999999"}`, `{"nonce":"7"}`, `{"mapping":"00"}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
	if err := json.Unmarshal([]byte(`{"tightness":"loose","phase":"none"}`), &got); err != nil || got.Tightness != TightnessUnknown || got.Open() {
		t.Errorf("words of a newer version: %+v, %v", got, err)
	}
}

func TestEpochsCompareByTermFirst(t *testing.T) {
	order := []Epoch{{}, {0, 9}, {1, 1}, {1, 2}, {2, 0}, {2, 1}}
	for i, a := range order {
		for j, b := range order {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if a.Compare(b) != want {
				t.Errorf("%s against %s: %d", a, b, a.Compare(b))
			}
		}
	}
}

func TestAnEmergencyWaitsForASecondPerson(t *testing.T) {
	a, err := agencyIn(t, PhaseTarget).BeginEmergency(testOp, testNonce)
	if err != nil || a.Unconfirmed != Emergencies(testOp) {
		t.Fatalf("emergency: %+v, %v", a, err)
	}
	if a, err = a.Commit(testOp, testNonce); err != nil {
		t.Fatal(err)
	}
	if a, err = a.Publish(testOp); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Begin("op-2", 9, EventBegin); !errors.Is(err, ErrUnconfirmed) {
		t.Errorf("the next operation: %v", err)
	}
	onTarget := agencyIn(t, PhaseTarget).Emergency("lock-1")
	if _, err := onTarget.Finalise(); !errors.Is(err, ErrUnconfirmed) {
		t.Errorf("finalise: %v", err)
	}
	again, err := a.BeginEmergency("op-3", 9)
	if err != nil || !again.Unconfirmed.Has("op-3") || !again.Unconfirmed.Has(testOp) {
		t.Errorf("another emergency: %+v, %v", again, err)
	}
	if again, err = again.Confirmed("op-3"); err != nil || again.Unconfirmed != Emergencies(testOp) {
		t.Errorf("only one of two is confirmed: %+v, %v", again, err)
	}
	for _, id := range []OperationID{"", "op-2"} {
		if _, err := a.Confirmed(id); err == nil {
			t.Errorf("emergency %q confirmed, it is %q", id, a.Unconfirmed)
		}
	}
	confirmed, err := a.Confirmed(testOp)
	if err != nil || confirmed.Epoch != a.Epoch {
		t.Fatalf("confirmed: %+v, %v", confirmed, err)
	}
	if _, err := confirmed.Begin("op-2", 9, EventBegin); err != nil {
		t.Errorf("begin after the confirmation: %v", err)
	}
}

func TestSettlingIsTreatedAsArmed(t *testing.T) {
	a, err := agencyIn(t, PhaseSource).Settle()
	if err != nil || a.Tightness != Settling {
		t.Fatalf("settle: %+v, %v", a, err)
	}
	if _, err := a.Begin(testOp, testNonce, EventBegin); !errors.Is(err, ErrNotArmed) {
		t.Errorf("begin while settling: %v", err)
	}
	if a, err = a.EndSettle(); err != nil || a.Tightness != Settled {
		t.Errorf("settled: %+v, %v", a, err)
	}
}

func TestATermIsNeverLowered(t *testing.T) {
	a := agencyIn(t, PhaseSource)
	a.Epoch = Epoch{Term: 3, Number: 7}
	for term, want := range map[uint32]Epoch{2: {3, 8}, 3: {3, 8}, 4: {4, 8}} {
		next, err := a.InTerm(term).Lock()
		if err != nil || next.Epoch != want {
			t.Errorf("lock in term %d: epoch %s, %v; want %s", term, next.Epoch, err, want)
		}
	}
}
