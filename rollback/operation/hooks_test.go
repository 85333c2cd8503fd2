package operation

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// stage has hooks, and writes down what they do.
type stage struct {
	mu    sync.Mutex
	log   []string
	fails map[string]int // "do close" → how often yet; negative: always
	hang  map[string]bool
	hooks []Hook
}

func (s *stage) Of(Kind, routing.Agency) []Hook { return s.hooks }

func (s *stage) lines() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.log, ", ")
}

func (s *stage) act(ctx context.Context, what string, c Call) (string, error) {
	s.mu.Lock()
	s.log = append(s.log, what)
	hang := s.hang[what]
	left := s.fails[what]
	if left > 0 {
		s.fails[what]--
	}
	s.mu.Unlock()
	if hang {
		<-ctx.Done()
		return "", ctx.Err()
	}
	if left != 0 {
		return "", errors.New("platform says no")
	}
	return fmt.Sprintf("%s: %s -> %s, attempt %d", what, c.Losing, c.Winning, c.Attempt), nil
}

type fakeHook struct {
	s        *stage
	name     string
	point    Point
	external bool
	undoes   bool
	patience time.Duration
	missing  error // it couldn't be called
}

func (h *fakeHook) Callable(context.Context) error { return h.missing }

func (h *fakeHook) Name() string { return h.name }
func (h *fakeHook) Point() Point { return h.point }
func (h *fakeHook) Platform() routing.PlatformID {
	return map[string]routing.PlatformID{"close-exchange": "exchange", "open-ox": "ox"}[h.name]
}
func (h *fakeHook) Digest() routing.Digest  { return sha256.Sum256([]byte(h.name)) }
func (h *fakeHook) Describe() string        { return "run " + h.name }
func (h *fakeHook) Expected() time.Duration { return 2 * time.Second }
func (h *fakeHook) Patience() time.Duration { return h.patience }
func (h *fakeHook) External() bool          { return h.external }
func (h *fakeHook) Undoes() bool            { return h.undoes }
func (h *fakeHook) Do(ctx context.Context, c Call) (string, error) {
	return h.s.act(ctx, "do "+h.name, c)
}
func (h *fakeHook) Undo(ctx context.Context, c Call) (string, error) {
	return h.s.act(ctx, "undo "+h.name, c)
}

// newStage has a hook at each point, given in another order.
func newStage(external bool) *stage {
	s := &stage{fails: map[string]int{}, hang: map[string]bool{}}
	s.hooks = []Hook{
		&fakeHook{s: s, name: "open-ox", point: PointOpen, undoes: true, patience: time.Minute},
		&fakeHook{s: s, name: "forward", point: PointForward, patience: time.Minute},
		&fakeHook{s: s, name: "close-exchange", point: PointClose, undoes: true, patience: time.Minute},
	}
	if external {
		s.hooks = append(s.hooks, &fakeHook{s: s, name: "mover", point: PointMover, external: true, patience: time.Minute})
	}
	return s
}

func hooked(t *testing.T, nodes int, s *stage) *cluster {
	return newCluster(t, openLocal(t), nodes, func(o *Options) { o.Hooks = s })
}

// Hooks are called in order between drained and commit, tried again, and leave receipts in
// the journal and in the table.
func TestHooks(t *testing.T) {
	t.Parallel()
	s := newStage(false)
	s.fails["do close-exchange"] = 1
	c := hooked(t, 1, s)
	a := c.nodes[0]
	var steps []string
	op, err := a.Run(t.Context(), Request{Kind: Cutover, Agency: "police", Who: "tester", Reason: "test", Progress: func(op Operation) {
		if n := len(steps); n == 0 || steps[n-1] != string(op.Step) {
			steps = append(steps, string(op.Step))
		}
	}})
	if err != nil || op.Step != StepDone {
		t.Fatalf("%+v, %v", op, err)
	}
	if got, want := s.lines(), "do close-exchange, do close-exchange, do forward, do open-ox"; got != want {
		t.Errorf("called %s, want %s", got, want)
	}
	if got, want := strings.Join(steps, " "), "begin drain hooks commit publish spread done"; got != want {
		t.Errorf("steps %s, want %s", got, want)
	}
	all, err := c.real.Operations(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatal(err)
	}
	inTable, err := FromRecord(&all[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []Operation{a.last(), inTable} {
		h := o.hook("close-exchange")
		if h.Status != HookDone || h.Attempts != 2 || h.Receipt != "do close-exchange: exchange -> ox, attempt 2" || h.Error != "" || h.Ended.Before(h.Started) {
			t.Errorf("%+v", h)
		}
	}
	if got := a.alarms.list(); len(got) != 0 {
		t.Errorf("alarms %q", got)
	}
}

// A hook that never succeeds ends the operation where it began, with everything undone in
// reverse order; people can have it left out instead.
// A plan says that a hook can't be called, unless it is left out.
func TestAPlanSeesAMissingHook(t *testing.T) {
	t.Parallel()
	s := newStage(false)
	s.hooks[0].(*fakeHook).missing = errors.New("no such program")
	a := hooked(t, 1, s).nodes[0]
	for _, without := range [][]string{nil, {"open-ox"}} {
		p, err := a.Plan(t.Context(), Request{Kind: Cutover, Agency: "police", Who: "tester", Reason: "test", Without: without})
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(p.Checks, func(c Check) bool { return c.Name == "hooks" })
		if i < 0 || p.Checks[i].OK != (without != nil) || p.Checks[i].Informs {
			t.Errorf("without %v: %+v", without, p.Checks)
		}
	}
}

func TestHookFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		without bool // said while it fails
		before  bool // said in the request
		hangs   bool
		want    Step
		calls   string
	}{
		"aborted":            {want: StepAborted, calls: "do close-exchange, do forward, do open-ox, undo open-ox, undo close-exchange"},
		"without":            {without: true, want: StepDone, calls: "do close-exchange, do forward, do open-ox"},
		"hangs, and without": {without: true, hangs: true, want: StepDone, calls: "do close-exchange, do forward, do open-ox"},
		"left out":           {before: true, want: StepDone, calls: "do close-exchange, do forward"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(false)
			s.fails["do open-ox"] = -1
			s.hang["do open-ox"] = c.hangs
			if !c.without {
				s.hooks[0].(*fakeHook).patience = 0
			}
			cl := hooked(t, 2, s)
			a, b := cl.nodes[0], cl.nodes[1]
			req := Request{Kind: Cutover, Agency: "police", Who: "tester", Reason: "test"}
			if c.before {
				req.Without = []string{"open-ox"}
			}
			said := make(chan error, 1)
			var once sync.Once
			req.Progress = func(op Operation) {
				if h := op.hook("open-ox"); c.without && h != nil && h.Attempts == 1 {
					once.Do(func() {
						go func() {
							b.until("called", func() bool { return strings.Contains(s.lines(), "do open-ox") })
							said <- b.Without(context.Background(), op.ID, "open-ox", "ben", "opened by hand")
						}()
					})
				}
			}
			op, err := a.Run(t.Context(), req)
			if op.Step != c.want || (err == nil) != (c.want == StepDone) || c.want == StepAborted && !errors.Is(err, ErrHook) {
				t.Fatalf("%+v, %v", op, err)
			}
			calls := s.lines()
			if c.without {
				if err := <-said; err != nil {
					t.Error(err)
				}
				if h := op.hook("open-ox"); h.Status != HookSkipped || h.Who != "ben" || h.Receipt != "opened by hand" {
					t.Errorf("%+v", h)
				}
				calls = strings.ReplaceAll(strings.ReplaceAll(calls, "do open-ox, ", ""), "do open-ox", "") + "do open-ox"
			}
			if calls != c.calls {
				t.Errorf("called %s, want %s", calls, c.calls)
			}
			phase := routing.PhaseSource
			if c.want == StepDone {
				phase = routing.PhaseTarget
			}
			a.stands("police", phase)
		})
	}
}

// What can't be undone is listed with an alarm, and doesn't keep the agency closed.
func TestUndoFails(t *testing.T) {
	t.Parallel()
	s := newStage(false)
	s.fails["do forward"], s.fails["undo close-exchange"] = -1, -1
	for _, h := range s.hooks {
		h.(*fakeHook).patience = 0
	}
	a := hooked(t, 1, s).nodes[0]
	op, err := a.run(Cutover, "police")
	if err == nil || op.Step != StepAborted || op.hook("close-exchange").Status != HookUndoFailed || op.hook("forward").Status != HookUndone {
		t.Errorf("%+v, %v", op, err)
	}
	if got := a.alarms.list(); len(got) != 1 || !strings.HasSuffix(got[0], "/close-exchange") {
		t.Errorf("alarms %q", got)
	}
	a.stands("police", routing.PhaseSource)

	// People have it tried again, when the platform is well.
	ctx := t.Context()
	if err := a.Undo(ctx, op.ID, "forward", "ben", "why not", false); !errors.Is(err, ErrHook) {
		t.Errorf("undo of what is undone: %v", err)
	}
	if err := a.Undo(ctx, op.ID, "close-exchange", "ben", "again", false); err == nil || len(a.alarms.list()) != 1 {
		t.Errorf("it failed again: %v", err)
	}
	s.mu.Lock()
	s.fails["undo close-exchange"] = 0
	s.mu.Unlock()
	if err := a.Undo(ctx, op.ID, "close-exchange", "ben", "again", false); err != nil {
		t.Fatal(err)
	}
	last := a.last()
	if h := last.hook("close-exchange"); h.Status != HookUndone || h.Who != "ben" || h.Receipt == "" || h.Error != "" || len(a.alarms.list()) != 0 {
		t.Errorf("%+v, alarms %q", h, a.alarms.list())
	}
	if !strings.HasSuffix(s.lines(), "undo close-exchange") {
		t.Errorf("calls: %s", s.lines())
	}
}

// Every node has the alarm about a hook that wasn't undone, and it goes everywhere, whichever
// node the hook is undone by.
func TestEveryNodeKnowsOfAHookThatWasNotUndone(t *testing.T) {
	t.Parallel()
	s := newStage(false)
	s.fails["do forward"], s.fails["undo close-exchange"] = -1, -1
	for _, h := range s.hooks {
		h.(*fakeHook).patience = 0
	}
	c := hooked(t, 2, s)
	a, b := c.nodes[0], c.nodes[1]
	op, err := a.run(Cutover, "police")
	if err == nil || op.Step != StepAborted {
		t.Fatalf("%+v, %v", op, err)
	}
	key := hookAlarm(op.ID, "close-exchange")
	have := func(want bool) {
		t.Helper()
		for _, n := range c.nodes {
			n.until("the alarm", func() bool {
				_ = n.Tend(t.Context()) // a table that doesn't answer is asked again
				return (n.alarms.text(key) != "") == want
			})
		}
	}
	have(true)
	s.mu.Lock()
	s.fails["undo close-exchange"] = 0
	s.mu.Unlock()
	b.until("the abort", func() bool { return b.agency("police").Phase == routing.PhaseSource })
	if err := b.Undo(t.Context(), op.ID, "close-exchange", "ben", "again", false); err != nil {
		t.Fatal(err)
	}
	have(false)
	if a.alarms.text(key) != "" {
		t.Error("the alarm came back")
	}
}

// A hook that is being undone is interrupted when the next operation begins: it would close
// what that one opens.
func TestUndoEndsWhereTheNextOperationBegins(t *testing.T) {
	t.Parallel()
	s := newStage(false)
	s.fails["do forward"], s.fails["undo close-exchange"] = 1, -1
	for _, h := range s.hooks {
		h.(*fakeHook).patience = 0
	}
	a := hooked(t, 1, s).nodes[0]
	op, err := a.run(Cutover, "police")
	if err == nil {
		t.Fatalf("%+v", op)
	}
	s.mu.Lock()
	s.hang["undo close-exchange"] = true
	s.mu.Unlock()
	before := s.lines()
	undone := make(chan error, 1)
	go func() { undone <- a.Undo(t.Context(), op.ID, "close-exchange", "ben", "again", false) }()
	for s.lines() == before {
		time.Sleep(time.Millisecond)
	}
	if _, err := a.run(Cutover, "police"); err != nil {
		t.Error(err)
	}
	if err := <-undone; !errors.Is(err, ErrEpoch) {
		t.Errorf("undone: %v", err)
	}
	if len(a.alarms.list()) != 1 {
		t.Errorf("alarms %q", a.alarms.list())
	}
}

// What people undid by hand is noted without a call; and nothing is undone once the agency
// has moved.
func TestUndoneByHandOrTooLate(t *testing.T) {
	t.Parallel()
	for name, moved := range map[string]bool{"by hand": false, "too late": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(false)
			s.fails["do forward"], s.fails["undo close-exchange"] = 1, -1
			for _, h := range s.hooks {
				h.(*fakeHook).patience = 0
			}
			a := hooked(t, 1, s).nodes[0]
			op, err := a.run(Cutover, "police")
			if err == nil {
				t.Fatalf("%+v", op)
			}
			if moved {
				if _, err := a.run(Cutover, "police"); err != nil {
					t.Fatal(err)
				}
			}
			before := s.lines()
			err = a.Undo(t.Context(), op.ID, "close-exchange", "ben", "opened in the console", !moved)
			if moved != errors.Is(err, ErrEpoch) || !moved && err != nil || s.lines() != before {
				t.Errorf("%v; calls %s", err, s.lines())
			}
		})
	}
}

// An external step waits until somebody says that it is done, on any node; it outlives the
// runner, and abort undoes what came before it.
func TestExternalStep(t *testing.T) {
	t.Parallel()
	s := newStage(true)
	c := newCluster(t, openLocal(t), 2, quick(func(o *Options) { o.Hooks = s }))
	a, b := c.nodes[0], c.nodes[1]
	start := func(n *simNode, kind Kind) (<-chan Operation, routing.OperationID) {
		ended, id := make(chan Operation, 1), make(chan routing.OperationID, 1)
		go func() {
			var once sync.Once
			op, _ := n.Run(context.Background(), Request{Kind: kind, Agency: "police", Who: "tester", Reason: "test", Progress: func(op Operation) {
				if strings.Contains(op.Waiting, "say that mover is done") {
					once.Do(func() { id <- op.ID })
				}
			}})
			ended <- op
		}()
		return ended, <-id
	}
	ended, id := start(a, Cutover)
	b.catchUp()
	if err := b.Tell(t.Context(), id, "open-ox", "ben", "x"); !errors.Is(err, ErrHook) {
		t.Errorf("told of a hook that isn't external: %v", err)
	}
	if op, err := a.Abort(t.Context(), id, "ben", "not today"); err != nil || op.Step != StepAborted {
		t.Errorf("%+v, %v", op, err)
	}
	<-ended
	if got, want := s.lines(), "do close-exchange, undo close-exchange"; got != want {
		t.Errorf("called %s, want %s", got, want)
	}
	a.stands("police", routing.PhaseSource)

	ended, id = start(a, Cutover)
	a.goSilent()
	a.Halt() // the node stops, and b goes on
	if op := <-ended; op.Step != StepHooks {
		t.Errorf("left at %s", op.Step)
	}
	a.restart()
	a.set(func(n *simNode) { n.silent, n.brief = false, false })
	b.catchUp()
	rec, _ := b.replica.State().Operation(id)
	op, err := FromRecord(&rec)
	if err != nil {
		t.Fatal(err)
	}
	op.Deadline = time.Now().Add(-time.Minute) // of the drain, which is over
	if rec, err = op.record(rec); err != nil {
		t.Fatal(err)
	}
	c.store(table.Change{Operations: []routing.Operation{rec}})
	b.tended("taken over", func() bool { op, ok := b.replica.State().Operation(id); return ok && op.Runner == "b" })
	a.catchUp()
	if err := a.Tell(t.Context(), id, "mover", "ben", "4,812 mailboxes"); err != nil {
		t.Fatal(err)
	}
	b.tended("done", func() bool { return len(b.replica.State().Operations()) == 0 })
	b.stands("police", routing.PhaseTarget)
	if op := b.last(); op.hook("mover").Status != HookTold || op.hook("mover").Receipt != "4,812 mailboxes" || op.Runner != "b" {
		t.Errorf("%+v", op)
	}
}

// The runner dies before and after each change of a hook's status: another node goes on,
// each hook is called at least once, in order, and the operation ends once.
func TestHooksAreTakenOver(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 9; n++ {
		for _, happened := range []bool{false, true} {
			t.Run(fmt.Sprint(n, happened), func(t *testing.T) {
				t.Parallel()
				s := newStage(false)
				c := newCluster(t, openLocal(t), 2, quick(func(o *Options) { o.Hooks = s }))
				a, b := c.nodes[0], c.nodes[1]
				count, dead := 0, false
				a.table.set(func(ch table.Change, do func() (routing.Position, error)) (routing.Position, error) {
					if strings.Contains(ch.ID, "/hooks/") {
						count++
					}
					if dead || count == n {
						if happened && !dead {
							_, _ = do()
						}
						dead = true
						return routing.Position{}, errCrash
					}
					return do()
				})
				if _, err := a.run(Cutover, "police"); err == nil {
					t.Fatal("no crash")
				}
				a.goSilent()
				b.tended("done", func() bool { return len(b.replica.State().Operations()) == 0 })
				b.stands("police", routing.PhaseTarget)
				calls := s.lines()
				if i, j, k := strings.LastIndex(calls, "do close"), strings.LastIndex(calls, "do forward"), strings.LastIndex(calls, "do open"); i < 0 || j < i || k < j || strings.Contains(calls, "undo") {
					t.Errorf("called %s", calls)
				}
			})
		}
	}
}
