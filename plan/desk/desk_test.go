package desk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/approval"
	"mailcutover/internal/alarm"
	"mailcutover/plan"
	"mailcutover/rollback/canary"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// world is a table that several desks share, with a runner of operations that behaves as the
// real one does towards it: an operation begins and ends in one change with its documents, only
// from records that are the newest ones.
type world struct {
	t *testing.T

	mu      sync.Mutex
	state   *routing.State
	ended   []routing.Operation
	leases  map[routing.NodeID]table.Lease
	begun   []routing.AgencyID             // in order
	overlap int                            // most operations at one time
	open    map[routing.OperationID]string // agency
	refuse  map[routing.AgencyID]string    // the plan refuses, with this
	fail    map[routing.AgencyID]string    // the operation is aborted, with this
	broken  map[routing.AgencyID]string    // its canary fails, with this
	takes   time.Duration
	pause   time.Duration // between two looks; 0: as usual
	changes int
	audited []string
	away    bool // the table can't be reached
}

func newWorld(t *testing.T, ids ...routing.AgencyID) *world {
	t.Helper()
	w := &world{t: t, takes: 30 * time.Second, leases: map[routing.NodeID]table.Lease{}, open: map[routing.OperationID]string{},
		refuse: map[routing.AgencyID]string{}, fail: map[routing.AgencyID]string{}, broken: map[routing.AgencyID]string{}}
	u := routing.Update{Whole: true, Position: routing.Position{Incarnation: "i", Term: 1, Revision: 1}}
	for _, id := range ids {
		a, err := routing.NewAgency(id, "exchange", "ox")
		if err != nil {
			t.Fatal(err)
		}
		a.Revision = 1
		u.Agencies = append(u.Agencies, a)
	}
	s, err := routing.NewState(routing.Position{}).Apply(u)
	if err != nil {
		t.Fatal(err)
	}
	w.state = s
	return w
}

// State implements Replica.
func (w *world) State() *routing.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// change takes a change as the table does.
func (w *world) change(c *table.Change) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away {
		return table.ErrUnavailable
	}
	pos := w.state.Position()
	pos.Revision++
	u := routing.Update{Position: pos}
	for _, d := range c.Documents {
		if have, _ := w.state.Document(d.Key); have.Revision != d.Revision {
			return table.ErrStale
		}
		if slices.ContainsFunc(u.Documents, func(o routing.Document) bool { return o.Key == d.Key }) {
			return table.ErrBadChange
		}
		d.Revision = pos.Revision
		u.Documents = append(u.Documents, d)
	}
	for _, a := range c.Agencies {
		if have, _ := w.state.Agency(a.ID); have.Revision != a.Revision {
			return table.ErrStale
		}
		a.Revision = pos.Revision
		u.Agencies = append(u.Agencies, a)
	}
	for _, o := range c.Operations {
		have, _ := w.state.Operation(o.ID)
		if have.Revision != o.Revision {
			return table.ErrStale
		}
		if o.Revision = pos.Revision; o.Ended {
			w.ended = append(w.ended, o)
		}
		u.Operations = append(u.Operations, o)
	}
	s, err := w.state.Apply(u)
	if err != nil {
		return err
	}
	w.state = s
	w.changes++
	return nil
}

// Operations implements Table.
func (w *world) Operations(context.Context) ([]routing.Operation, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append(w.state.Operations(), w.ended...), nil
}

// Nodes implements Table.
func (w *world) Nodes(context.Context) (table.Nodes, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := table.Nodes{Time: time.Now(), Leases: map[routing.NodeID]table.Lease{}}
	for id, l := range w.leases {
		n.Leases[id] = l
	}
	return n, nil
}

// stored changes the table by a function, until it is taken.
func (w *world) stored(compute func(*routing.State) (table.Change, error)) error {
	for {
		c, err := compute(w.State())
		if err != nil || len(c.Documents)+len(c.Agencies)+len(c.Operations) == 0 {
			return err
		}
		if err := w.change(&c); !errors.Is(err, table.ErrStale) {
			return err
		}
	}
}

// node is one node at the world.
type node struct {
	*world
	name     routing.NodeID
	instance routing.InstanceID
	desk     *Desk
	alarms   *alarm.Set
	stop     context.CancelFunc
	running  sync.WaitGroup
	settings plan.Settings

	mu        sync.Mutex
	dead      bool // nothing that it does reaches the table
	slow      chan struct{}
	crossed   map[routing.AgencyID][]string
	drift     map[routing.AgencyID][]string
	refused   uint64
	answered  uint64
	notListed map[routing.AgencyID]bool
}

func (w *world) node(name routing.NodeID) *node {
	w.t.Helper()
	n := &node{world: w, name: name, instance: routing.InstanceID(string(name) + "-1"), alarms: alarm.NewSet(nil), crossed: map[routing.AgencyID][]string{}, drift: map[routing.AgencyID][]string{},
		notListed: map[routing.AgencyID]bool{}, settings: plan.Settings{AtOnce: 5, Stop: plan.Thresholds{Canaries: 1, Findings: 1, ErrorRate: 25, Drift: 1, Aborts: 2}}}
	w.lease(name, n.instance, time.Now().Add(1000*time.Hour))
	var err error
	n.desk, err = New(Options{
		Node: n.name, Instance: n.instance, Table: w, Replica: w, Runner: n, Knows: n, Alarms: n.alarms, Acts: func() Acts { return n },
		Settings: func() plan.Settings { return n.settings }, Needed: func() int { return 1 }, Fallback: func() time.Duration { return time.Minute }, Pause: w.pause,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) lease(name routing.NodeID, instance routing.InstanceID, end time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leases[name] = table.Lease{Node: name, Instance: instance, ShortEnd: end, LongEnd: end}
}

// begin lets the node look after waves until the test's end.
func (n *node) begin() *node {
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	n.running.Go(func() { n.desk.Run(ctx) })
	return n
}

func (n *node) end() {
	n.stop()
	n.running.Wait()
}

// die lets the node do nothing any more, whatever it is doing, and its lease end.
func (n *node) die() {
	n.mu.Lock()
	n.dead = true
	n.mu.Unlock()
	n.lease(n.name, n.instance, time.Now().Add(5*time.Second))
}

func (n *node) isDead() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dead
}

var errDead = errors.New("the node is dead")

// ChangePlan implements Acts.
func (n *node) ChangePlan(_ context.Context, as string, compute func(*routing.State) (table.Change, error)) error {
	return n.stored(func(s *routing.State) (table.Change, error) {
		if n.isDead() {
			return table.Change{}, errDead
		}
		c, err := compute(s)
		if err == nil && c.What != "" && len(c.Documents) > 0 {
			n.world.mu.Lock()
			n.audited = append(n.audited, as+": "+c.What)
			n.world.mu.Unlock()
		}
		return c, err
	})
}

// Plan implements Runner.
func (n *node) Plan(_ context.Context, req operation.Request) (operation.Plan, error) {
	p := operation.Plan{Kind: req.Kind, Agency: req.Agency, Who: req.Who, Reason: req.Reason}
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	if why := n.refuse[req.Agency]; why != "" {
		p.Checks = append(p.Checks, operation.Failed("probe", errors.New(why)))
	}
	return p, nil
}

// step stores a step of an operation with its documents.
func (n *node) step(op *operation.Operation, next func(routing.Agency) (routing.Agency, error)) error {
	expected := op.Begun[op.Agency]
	return n.stored(func(s *routing.State) (c table.Change, err error) {
		if n.isDead() {
			return c, errDead
		}
		a, _ := s.Agency(op.Agency)
		if op.Step == operation.StepDrain && a.Epoch != expected {
			return c, operation.ErrEpoch
		}
		done := *op
		if a, err = next(a); err != nil {
			return c, err
		}
		done.Begun = map[routing.AgencyID]routing.Epoch{op.Agency: a.Epoch}
		if op.Step != operation.StepDrain {
			done.Begun = op.Begun
		}
		docs, err := Documents(s, &done)
		if err != nil && op.Step == operation.StepDrain {
			return c, err
		}
		was, _ := s.Operation(op.ID)
		rec := routing.Operation{ID: op.ID, Kind: string(op.Kind), Agency: op.Agency, Agencies: []routing.AgencyID{op.Agency}, Step: string(op.Step), Runner: op.Runner, Instance: op.Instance, Ended: op.Step.Ended(), Detail: "{}", Started: op.Started, Revision: was.Revision}
		c = table.Change{Documents: docs, Agencies: []routing.Agency{a}, Operations: []routing.Operation{rec}}
		if op.Step == operation.StepDrain {
			op.Begun = done.Begun
		}
		return c, nil
	})
}

// Cutover implements Acts.
func (n *node) Cutover(ctx context.Context, req operation.Request, _ string) (operation.Operation, error) {
	op := operation.Operation{
		ID: req.ID, Kind: req.Kind, Agency: req.Agency, Agencies: []routing.AgencyID{req.Agency}, Wave: req.Wave, Who: req.Who, Reason: req.Reason, Runner: n.name, Instance: n.instance,
		Step: operation.StepDrain, Started: time.Now(), Closed: time.Now(), Nonce: 7, Begun: map[routing.AgencyID]routing.Epoch{req.Agency: req.Expected},
	}
	n.mu.Lock()
	slow := n.slow
	n.mu.Unlock()
	if slow != nil {
		<-slow
	}
	if err := n.step(&op, func(a routing.Agency) (routing.Agency, error) { return a.Begin(op.ID, op.Nonce, routing.EventBegin) }); err != nil {
		op.Step, op.Error = operation.StepRefused, err.Error()
		return op, err
	}
	n.world.mu.Lock()
	n.begun = append(n.begun, req.Agency)
	n.open[op.ID] = string(req.Agency)
	n.overlap = max(n.overlap, len(n.open))
	takes, fail, broken := n.takes, n.fail[req.Agency], n.broken[req.Agency]
	n.world.mu.Unlock()
	defer func() {
		n.world.mu.Lock()
		delete(n.open, op.ID)
		n.world.mu.Unlock()
	}()
	time.Sleep(takes)
	op.Opened = time.Now()
	if fail != "" {
		op.Step, op.Error = operation.StepAborted, fail
		err := n.step(&op, func(a routing.Agency) (routing.Agency, error) { return a.Abort(op.ID, op.Nonce) })
		return op, errors.Join(errors.New(fail), err)
	}
	if broken != "" {
		op.Canaries = []canary.Result{{Agency: req.Agency, Mail: broken}}
	}
	op.Step = operation.StepDone
	err := n.step(&op, func(a routing.Agency) (routing.Agency, error) {
		a, err := a.Commit(op.ID, op.Nonce)
		if err != nil {
			return a, err
		}
		return a.Publish(op.ID)
	})
	return op, err
}

// What the node knows.
func (n *node) Lists(id routing.AgencyID) plan.Fact {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.notListed[id] {
		return plan.Fact{Text: "not listed"}
	}
	return plan.Fact{OK: true}
}

func (n *node) Rehearsed(*routing.State, routing.AgencyID) (plan.Rehearsal, bool) {
	return plan.Rehearsal{}, false
}

func (n *node) Compared(*routing.State, routing.AgencyID) plan.Comparison { return plan.Comparison{} }

func (n *node) Crossed(_ *routing.State, id routing.AgencyID) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.crossed[id]
}

func (n *node) Drifted(ids []routing.AgencyID) (all []Drift) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range ids {
		if rows := n.drift[id]; len(rows) > 0 {
			all = append(all, Drift{id, rows})
		}
	}
	return all
}

func (n *node) Answers() (refused, all uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.refused, n.answered
}

// propose stores an approved wave, and starts it.
func (w *world) propose(name plan.Name, d plan.Definition) {
	w.t.Helper()
	d.Owner = "team"
	if d.Zone == "" {
		d.Calendar = plan.Calendar{Zone: "Europe/Berlin", Windows: []plan.Window{{Days: []plan.On{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}, To: 24 * 60}}}
	}
	if err := d.Check(); err != nil {
		w.t.Fatal(err)
	}
	now := time.Now()
	err := w.stored(func(s *routing.State) (c table.Change, err error) {
		bound, err := plan.Bind(s, name, d)
		if err != nil {
			return c, err
		}
		content := approval.Content{Kind: Kind, Plan: bound.Digest()}
		p, err := approval.New(approval.Proposal{ID: "p-" + string(name), Content: content, Person: "anna", Reason: "r", Created: now, Expires: now.Add(time.Hour), Needed: 1})
		if err != nil {
			return c, err
		}
		if p, err = p.Approve(approval.Vote{Person: "ben", Time: now}, p.Digest()); err != nil {
			return c, err
		}
		if p, err = p.Use(approval.Vote{Person: "olga", Time: now}, &content, 1, "start"); err != nil {
			return c, err
		}
		wave := plan.New(bound, p.ID, "anna", "r", now)
		if wave, err = wave.Start(plan.Word{Person: "olga", Time: now, Reason: "go"}, []string{"ben"}); err != nil {
			return c, err
		}
		for _, each := range []func() (routing.Document, error){p.Document, wave.Document} {
			doc, err := each()
			if err != nil {
				return c, err
			}
			have, _ := s.Document(doc.Key)
			doc.Revision = have.Revision
			c.Documents = append(c.Documents, doc)
		}
		return c, nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) wave(name plan.Name) plan.Wave {
	w.t.Helper()
	one, err := plan.Find(w.State(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return one
}

// say changes a wave by a person's word.
func (w *world) say(name plan.Name, next func(plan.Wave) (plan.Wave, error)) {
	w.t.Helper()
	if err := w.stored(func(s *routing.State) (c table.Change, err error) {
		one, err := plan.Find(s, name)
		if err == nil {
			one, err = next(one)
		}
		if err != nil {
			return c, err
		}
		c.Documents, err = documents(s, &one, nil)
		return c, err
	}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) order() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, id := range w.begun {
		out = append(out, string(id))
	}
	return strings.Join(out, " ")
}

// places says where a wave's agencies are.
func (w *world) places(name plan.Name) string {
	one := w.wave(name)
	out := []string{string(one.Standing)}
	for _, r := range one.Runs {
		out = append(out, fmt.Sprintf("%s=%s", r.Agency, r.Place))
	}
	return strings.Join(out, " ")
}

func (w *world) want(what, got, want string) {
	w.t.Helper()
	if got != want {
		w.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func (n *node) alarmed(key string) bool {
	return slices.ContainsFunc(n.alarms.List(), func(a alarm.Alarm) bool { return strings.HasPrefix(a.Key, key) })
}

func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}
