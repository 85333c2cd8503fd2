package operation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mailcutover/internal/durable"
	"mailcutover/node"
	"mailcutover/routing"
	"mailcutover/routing/localtable"
	"mailcutover/routing/replica"
	"mailcutover/routing/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// faulty is a table that fails on demand.
type faulty struct {
	table.Table
	mu     sync.Mutex
	change func(c table.Change, do func() (routing.Position, error)) (routing.Position, error)
}

func (f *faulty) Change(ctx context.Context, c table.Change) (routing.Position, error) {
	do := func() (routing.Position, error) { return f.Table.Change(ctx, c) }
	f.mu.Lock()
	change := f.change
	f.mu.Unlock()
	if change == nil {
		return do()
	}
	return change(c, do)
}

func (f *faulty) set(change func(c table.Change, do func() (routing.Position, error)) (routing.Position, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.change = change
}

type alarms struct {
	mu   sync.Mutex
	keys map[string]bool
}

func (a *alarms) Raise(key, _ string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.keys == nil {
		a.keys = make(map[string]bool)
	}
	a.keys[key] = true
}

func (a *alarms) Clear(key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	was := a.keys[key]
	delete(a.keys, key)
	return was
}

func (a *alarms) list() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.keys))
}

// bench is a runner over a real table, replica and gate.
type bench struct {
	*Runner
	t       *testing.T
	table   *faulty
	replica *replica.Replica
	gate    *node.Gate
	folder  Folder
	alarms  *alarms
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	real, err := localtable.Open(filepath.Join(dir, "table.db"), localtable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, table: &faulty{Table: real}, alarms: new(alarms)}
	if _, err := real.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	b.replica, err = replica.Open(replica.Options{Table: real, Logger: quiet, OnUpdate: func(old, now *routing.State) { b.gate.Update(old, now) }})
	if err != nil {
		t.Fatal(err)
	}
	b.gate = node.NewGate(b.replica, node.Lease{Settled: time.Hour, Armed: time.Hour}, "")
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = b.replica.Run(ctx) })
	folder, err := durable.Open(nil, filepath.Join(dir, "operations"))
	if err != nil {
		t.Fatal(err)
	}
	b.folder = folder
	b.start()
	t.Cleanup(func() { cancel(); wg.Wait(); _ = real.Close() })
	b.add("health", "")
	b.add("health-pilot", "health")
	b.add("police", "")
	if err := b.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// start makes a new runner, as a new process does. Nobody has called its Recover.
func (b *bench) start() {
	b.Runner = New(Options{Table: b.table, Replica: b.replica, Gate: b.gate, Folder: b.folder, Alarms: b.alarms, Logger: slog.New(slog.DiscardHandler)})
}

// put stores records as an administrator would.
func (b *bench) put(records ...routing.Agency) {
	b.t.Helper()
	s := b.replica.State().Position()
	if s.Incarnation == "" {
		pos, err := b.table.Position(b.t.Context())
		if err != nil {
			b.t.Fatal(err)
		}
		s = pos
	}
	pos, err := b.table.Table.Change(b.t.Context(), table.Change{ID: fmt.Sprintf("test-%d", s.Revision), Incarnation: s.Incarnation, Agencies: records, Who: "test", What: "test"})
	if err == nil {
		err = b.replica.Wait(b.t.Context(), pos)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) add(id, parent routing.AgencyID) {
	b.t.Helper()
	a, err := routing.NewAgency(id, "exchange", "ox")
	if err != nil {
		b.t.Fatal(err)
	}
	a.Parent = parent
	b.put(a.Arm())
}

func (b *bench) agency(id routing.AgencyID) routing.Agency {
	b.t.Helper()
	a, ok := b.replica.State().Agency(id)
	if !ok {
		b.t.Fatalf("no agency %s", id)
	}
	return a
}

func (b *bench) run(kind Kind, id routing.AgencyID) (Operation, error) {
	return b.Run(b.t.Context(), Request{Kind: kind, Agency: id, Who: "tester", Reason: "test"})
}

// stands checks that an agency is open on a platform, and owned by nobody.
func (b *bench) stands(id routing.AgencyID, phase routing.Phase) {
	b.t.Helper()
	if a := b.agency(id); a.Phase != phase || !a.Open() || a.Operation != "" {
		b.t.Errorf("%s is in phase %s, open %v, operation %q; want %s, open, none", id, a.Phase, a.Open(), a.Operation, phase)
	}
}

func TestThereAndBack(t *testing.T) {
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
	if got := strings.Join(steps, " "); got != "begin drain commit publish done" {
		t.Errorf("steps %s", got)
	}
	b.stands("police", routing.PhaseTarget)
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

func TestChildrenGoBackWithTheirParent(t *testing.T) {
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
	b := newBench(t)
	m, err := routing.NewMapping("police", []routing.Row{{Mailbox: routing.MailboxID{1}, Kind: routing.KindUser, Addresses: []routing.Address{"a@police.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.table.PutMapping(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	rec := b.agency("police")
	rec.Mapping = m.Digest()
	pos := b.replica.State().Position()
	if _, err := b.table.Table.Change(t.Context(), table.Change{ID: "map", Incarnation: pos.Incarnation, Mapped: pos.Mapped, Agencies: []routing.Agency{rec},
		Domains: []routing.Domain{{Name: "police.example"}}, Who: "test", What: "test"}); err != nil {
		t.Fatal(err)
	}
	if now, err := b.table.Position(t.Context()); err != nil || b.replica.Wait(t.Context(), now) != nil {
		t.Fatal(err)
	}
	d := b.gate.Address("a@police.example")
	ticket, err := b.gate.Enter(&d, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := ticket.Dot(t.Context()); err != nil {
		t.Fatal(err)
	}
	op, err := b.Run(t.Context(), Request{Kind: Cutover, Agency: "police", Who: "tester", Reason: "test", Deadline: 50 * time.Millisecond})
	if err == nil || op.Step != StepAborted || !strings.Contains(op.Error, "not drained within 50ms") {
		t.Errorf("with a dot under way: %+v, %v", op, err)
	}
	b.stands("police", routing.PhaseSource)
	ticket.End()
	if _, err := b.run(Cutover, "police"); err != nil {
		t.Errorf("once it can drain: %v", err)
	}
}

// What can't be drained in time is refused before anything is closed, and says when it can.
func TestInDoubtIsRefusedAtTheStart(t *testing.T) {
	b := newBench(t)
	doubts := &doubtful{Drainer: b.gate, until: time.Now().Add(10 * time.Minute)}
	b.Runner.Gate = doubts
	before := b.agency("police").Revision
	_, err := b.run(Cutover, "police")
	if !errors.Is(err, ErrInDoubt) || !strings.Contains(err.Error(), doubts.until.Format(time.RFC3339)) {
		t.Errorf("in doubt for ten minutes: %v", err)
	}
	if ops, _ := b.List(); len(ops) != 0 || b.agency("police").Revision != before {
		t.Errorf("something was changed: %+v", ops)
	}
	doubts.until = time.Now().Add(time.Second)
	if _, err := b.run(Cutover, "police"); err != nil {
		t.Errorf("in doubt for a second: %v", err)
	}
}

// doubtful says that a message is in doubt.
type doubtful struct {
	Drainer
	until time.Time
}

func (d *doubtful) InDoubt(routing.AgencyID) time.Time { return d.until }

// The answer to a change is lost, before it happened or after: each change happens once.
func TestLostAnswers(t *testing.T) {
	for _, step := range []Step{StepBegin, StepCommit, StepPublish} {
		for _, happened := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s-%v", step, happened), func(t *testing.T) {
				b := newBench(t)
				before := b.agency("police").Epoch
				lost := 0
				b.table.set(func(c table.Change, do func() (routing.Position, error)) (routing.Position, error) {
					if !strings.HasSuffix(c.ID, "/"+string(step)) || lost == 2 {
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

// A lock in the middle of a switch doesn't stop it; it keeps the agency closed.
func TestLockedInTheMiddle(t *testing.T) {
	b := newBench(t)
	locked := false
	b.table.set(func(c table.Change, do func() (routing.Position, error)) (routing.Position, error) {
		if strings.HasSuffix(c.ID, "/commit") && !locked {
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
