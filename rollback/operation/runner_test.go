package operation

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

func TestThereAndBack(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	before := b.agency("police").Epoch
	var steps []string
	op, err := b.Run(t.Context(), Request{Kind: Cutover, Agency: "police", Who: "tester", Reason: "test", Progress: func(o Operation) {
		if n := len(steps); n == 0 || steps[n-1] != string(o.Step) {
			steps = append(steps, string(o.Step))
		}
	}})
	if err != nil || op.Step != StepDone || op.ClosedFor() <= 0 {
		t.Errorf("cutover: %+v, %v", op, err)
	}
	if got := strings.Join(steps, " "); got != "begin drain commit publish spread done" {
		t.Errorf("steps %s", got)
	}
	b.stands("police", routing.PhaseTarget)
	if _, err := b.Run(t.Context(), Request{ID: op.ID, Kind: Rollback, Agency: "police", Who: "tester", Reason: "test"}); !errors.Is(err, ErrKnown) {
		t.Errorf("once more under its id: %v", err)
	}
	if _, err := b.run(Rollback, "police"); err != nil {
		t.Error(err)
	}
	b.stands("police", routing.PhaseSource)
	b.stands("health", routing.PhaseSource)
	if after := b.agency("police").Epoch; after.Number != before.Number+6 {
		t.Errorf("epoch %s after six changes, was %s", after, before)
	}
	if ops, err := b.List(); err != nil || len(ops) != 2 || ops[0].Kind != Cutover || ops[1].Step != StepDone {
		t.Errorf("journal: %+v, %v", ops, err)
	}
}

// An entry of the journal that can't be read keeps no other operation from beginning, and its own
// id is known all the same.
func TestAnEntryThatCantBeRead(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const damaged = routing.OperationID("11111111-7a55-4a1c-9d43-1f1f6e0c4711")
	if err := b.folder.Write(string(damaged)+journalSuffix, func(w io.Writer) error { _, err := io.WriteString(w, "{"); return err }); err != nil {
		t.Fatal(err)
	}
	if _, err := b.List(); err == nil {
		t.Error("the journal is read as whole")
	}
	req := Request{ID: damaged, Kind: Cutover, Agency: "police", Who: "tester", Reason: "test"}
	if _, err := b.Run(t.Context(), req); !errors.Is(err, ErrKnown) {
		t.Errorf("under its id: %v", err)
	}
	req.ID = "22222222-7a55-4a1c-9d43-1f1f6e0c4711"
	if op, err := b.Run(t.Context(), req); err != nil || op.Step != StepDone {
		t.Errorf("another one: %+v, %v", op, err)
	}
	b.stands("police", routing.PhaseTarget)
}

func TestChildrenGoBackWithTheirParent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, id := range []routing.AgencyID{"health-pilot", "health"} {
		if _, err := b.run(Cutover, id); err != nil {
			t.Fatal(err)
		}
	}
	op, err := b.run(Rollback, "health")
	if err != nil || fmt.Sprint(op.Agencies) != "[health health-pilot]" {
		t.Errorf("rollback: %+v, %v", op, err)
	}
	b.stands("health", routing.PhaseSource)
	b.stands("health-pilot", routing.PhaseSource)
	if a, c := b.agency("health"), b.agency("health-pilot"); a.Revision != c.Revision {
		t.Errorf("parent opened at revision %d, child at %d: not at one point in time", a.Revision, c.Revision)
	}
}

func TestRefusedBeforeAnythingChanges(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.add("settled", "")
	settled, err := b.agency("settled").Settle()
	if err == nil {
		settled, err = settled.EndSettle()
	}
	if err != nil {
		t.Fatal(err)
	}
	b.put(settled)
	for name, c := range map[string]struct {
		req  Request
		want error
		text string
	}{
		"no reason":      {Request{Kind: Cutover, Agency: "police", Reason: " "}, nil, "a reason is required"},
		"unknown agency": {Request{Kind: Cutover, Agency: "nobody", Reason: "r"}, nil, `no agency "nobody"`},
		"wrong phase":    {Request{Kind: Rollback, Agency: "police", Reason: "r"}, routing.ErrTransition, "want target"},
		"not armed":      {Request{Kind: Cutover, Agency: "settled", Reason: "r"}, routing.ErrNotArmed, "settled"},
	} {
		_, err := b.Run(t.Context(), c.req)
		if err == nil || !strings.Contains(err.Error(), c.text) || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if ops, _ := b.List(); len(ops) != 0 {
		t.Errorf("journal has %+v", ops)
	}
}

func TestWithoutDrainItEndsWhereItBegan(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.set(func(n *simNode) { n.holding = true })
	op, err := b.Run(t.Context(), Request{Kind: Cutover, Agency: "police", Who: "tester", Reason: "test", Deadline: 2 * time.Second})
	if err == nil || op.Step != StepAborted || !strings.Contains(op.Error, "not drained by ") {
		t.Errorf("with a dot under way: %+v, %v", op, err)
	}
	b.stands("police", routing.PhaseSource)
	b.set(func(n *simNode) { n.holding = false })
	if _, err := b.run(Cutover, "police"); err != nil {
		t.Errorf("once it can drain: %v", err)
	}
}

// What can't be drained in time is refused before anything is closed, and says when it can.
func TestInDoubtIsRefusedAtTheStart(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	until := time.Now().Add(10 * time.Minute)
	doubt := func(d ...table.Doubt) {
		b.set(func(n *simNode) { n.doubts = d })
		b.until("the table knows", func() bool {
			n, err := b.c.real.Nodes(t.Context())
			return err == nil && len(n.Leases["a"].Doubts) == len(d) && (len(d) == 0 || n.Leases["a"].Doubts[0].Until.Equal(d[0].Until))
		})
	}
	doubt(table.Doubt{Agency: "police", Messages: 1, Until: until})
	before := b.agency("police").Revision
	_, err := b.run(Cutover, "police")
	if !errors.Is(err, ErrInDoubt) || !strings.Contains(err.Error(), until.Format(time.RFC3339)[:19]) && !strings.Contains(err.Error(), until.UTC().Format(time.RFC3339)) {
		t.Errorf("in doubt for ten minutes: %v", err)
	}
	if ops, _ := b.List(); len(ops) != 0 || b.agency("police").Revision != before {
		t.Errorf("something was changed: %+v", ops)
	}
	doubt(table.Doubt{Agency: "police", Messages: 1, Until: time.Now().Add(time.Second)})
	waited := false
	op, err := b.Run(t.Context(), Request{Kind: Cutover, Agency: "police", Who: "tester", Reason: "test", Progress: func(op Operation) {
		if strings.Contains(op.Waiting, "1 of police in doubt until") {
			waited = true
			b.set(func(n *simNode) { n.doubts = nil })
		}
	}})
	if err != nil || !waited || op.Step != StepDone {
		t.Errorf("in doubt for a second: %v, %+v", err, op)
	}
}

// The answer to a change is lost, before it happened or after: each change happens once.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	for _, step := range []Step{StepBegin, StepCommit, StepPublish} {
		for _, happened := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s-%v", step, happened), func(t *testing.T) {
				t.Parallel()
				b := newBench(t)
				before := b.agency("police").Epoch
				lost := 0
				b.table.set(func(c table.Change, do func() (routing.Position, error)) (routing.Position, error) {
					if !strings.Contains(c.ID, "/"+string(step)) || lost == 2 {
						return do()
					}
					lost++
					if happened {
						if _, err := do(); err != nil {
							return routing.Position{}, err
						}
					}
					return routing.Position{}, fmt.Errorf("connection cut: %w", table.ErrUnavailable)
				})
				if op, err := b.run(Cutover, "police"); err != nil || op.Step != StepDone || lost != 2 {
					t.Errorf("%+v, %v, lost %d", op, err, lost)
				}
				b.stands("police", routing.PhaseTarget)
				if after := b.agency("police").Epoch; after.Number != before.Number+3 {
					t.Errorf("epoch %s, was %s: want three changes", after, before)
				}
			})
		}
	}
}

// A table that takes longer to answer than a look at the nodes lasts is waited for, as one that is
// away: it is no node's fault.
func TestTheTableIsSlowBeforeBegin(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.table.mu.Lock()
	b.table.mute = time.Now().Add(beginPatience + 2*time.Second) // a second of which the look before it takes
	b.table.mu.Unlock()
	if op, err := b.run(Cutover, "police"); err != nil || op.Step != StepDone {
		t.Errorf("%+v, %v", op, err)
	}
	b.stands("police", routing.PhaseTarget)
}

// A lock in the middle of a switch doesn't stop it; it keeps the agency closed.
func TestLockedInTheMiddle(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	locked := false
	b.table.set(func(c table.Change, do func() (routing.Position, error)) (routing.Position, error) {
		if strings.Contains(c.ID, "/commit") && !locked {
			locked = true
			rec, err := b.agency("police").Lock()
			if err != nil {
				t.Error(err)
			}
			b.put(rec)
		}
		return do()
	})
	if op, err := b.run(Cutover, "police"); err != nil || op.Step != StepDone {
		t.Errorf("%+v, %v", op, err)
	}
	if a := b.agency("police"); a.Phase != routing.PhaseTarget || !a.Locked || a.Open() || !a.Published {
		t.Errorf("%+v", a)
	}
}

func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for range 4 {
		wg.Go(func() {
			if op, err := b.run(Cutover, "police"); err == nil && op.Step == StepDone {
				mu.Lock()
				done++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if done != 1 {
		t.Errorf("%d of 4 operations succeeded, want 1", done)
	}
	b.stands("police", routing.PhaseTarget)
}
