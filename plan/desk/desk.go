package desk

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"mailcutover/approval"
	"mailcutover/internal/alarm"
	"mailcutover/plan"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Kind is the kind of proposals about waves.
const Kind = "wave"

// Table is what a desk reads of the table besides its copy; a table.Table is one.
type Table interface {
	Nodes(ctx context.Context) (table.Nodes, error)
	Operations(ctx context.Context) ([]routing.Operation, error)
}

// Replica is this node's copy of the table.
type Replica interface {
	State() *routing.State
}

// Runner makes plans of operations; *operation.Runner is one.
type Runner interface {
	Plan(ctx context.Context, req operation.Request) (operation.Plan, error)
}

// Acts does what a desk wants done, and writes it into the audit log first; *admin.Server does.
type Acts interface {
	// ChangePlan stores what compute makes of the newest copy of the table, in the name of as, and
	// computes it again if that was overtaken. A change without records stores nothing. The copy
	// has it when ChangePlan returns nil.
	ChangePlan(ctx context.Context, as string, compute func(*routing.State) (table.Change, error)) error

	// Cutover carries out an operation of a wave, and returns when it has ended, or with ctx's
	// error while it goes on. Its step says how far it came.
	Cutover(ctx context.Context, req operation.Request, proposal string) (operation.Operation, error)
}

// Drift is how a moved agency differs from what directory and lists say.
type Drift struct {
	Agency routing.AgencyID
	Rows   []string // those that would keep it from being cut over, in words
}

// Knows is what a node knows of agencies besides the table. Its methods may be called from any
// goroutine.
type Knows interface {
	Lists(routing.AgencyID) plan.Fact
	Rehearsed(*routing.State, routing.AgencyID) (plan.Rehearsal, bool)
	Compared(*routing.State, routing.AgencyID) plan.Comparison
	// Crossed names the open findings that mailboxes of an agency hold others' content.
	Crossed(*routing.State, routing.AgencyID) []string
	// Drifted returns those of these agencies that differ.
	Drifted([]routing.AgencyID) []Drift
	// Answers counts the recipients for which platforms gave an answer, and those that they
	// refused for the moment, since the node's start.
	Answers() (refused, all uint64)
}

// Options are what a desk works with. All are required but those that say what nil or zero is.
type Options struct {
	Node     routing.NodeID
	Instance routing.InstanceID // of this process
	Table    Table
	Replica  Replica
	Runner   Runner
	Knows    Knows
	Alarms   alarm.Sink

	// Acts returns who acts; nil: nobody can yet.
	Acts func() Acts

	Settings func() plan.Settings
	Needed   func() int           // approvals that a proposal needs today; 0: none
	Fallback func() time.Duration // how long a cutover takes by the settings alone

	Pause  time.Duration    // between two looks; 0: a second
	Logger *slog.Logger     // nil: nothing is logged
	Now    func() time.Time // nil: time.Now
}

// Desk is this node's part in the plan. Use [New].
type Desk struct {
	o      Options
	now    func() time.Time
	raised *alarm.Standing

	wake    chan struct{}
	working sync.WaitGroup // operations that this node carries out for waves

	mu       sync.Mutex
	carried  map[routing.OperationID]bool
	measured []plan.Measure
	canaries []plan.Finding // that failed outside of operations, of late
	counts   Counts

	// What the goroutine of Run alone knows.
	rates   rates
	looked  time.Time // for what stops the plan
	counted time.Time // for the figures
}

// New returns a desk that does nothing before Run.
func New(o Options) (*Desk, error) {
	if o.Table == nil || o.Replica == nil || o.Runner == nil || o.Knows == nil || o.Alarms == nil || o.Acts == nil || o.Settings == nil || o.Needed == nil || o.Fallback == nil {
		return nil, errors.New("desk of waves: want the table, a runner, acts, alarms, settings and what is known")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	return &Desk{o: o, now: o.Now, wake: make(chan struct{}, 1), carried: make(map[routing.OperationID]bool), raised: alarm.NewStanding(o.Alarms, 0)}, nil
}

// Run does this node's part until ctx ends; it returns when nothing of it runs any more. What
// it has begun goes on in the runner of operations.
func (d *Desk) Run(ctx context.Context) {
	defer d.working.Wait()
	look := time.NewTicker(d.o.Pause)
	defer look.Stop()
	for {
		d.look(ctx)
		select {
		case <-look.C:
		case <-d.wake:
		case <-ctx.Done():
			return
		}
	}
}

// Look has the waves looked at soon.
func (d *Desk) Look() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Plan returns all waves as this node sees them now, with what it knows; what can't be read as
// errors.
func (d *Desk) Plan() (*plan.Plan, []error) { return d.plan(d.o.Replica.State()) }

func (d *Desk) plan(s *routing.State) (*plan.Plan, []error) {
	waves, unreadable := plan.Waves(s)
	return &plan.Plan{Now: d.now(), Waves: waves, Settings: d.o.Settings(), Facts: d.facts(s), Forecast: d.forecast()}, unreadable
}

func (d *Desk) facts(s *routing.State) *plan.Facts {
	return &plan.Facts{
		State:     s,
		Approved:  func(w *plan.Wave) error { return approved(s, w, d.o.Needed(), d.now()) },
		Lists:     d.o.Knows.Lists,
		Rehearsed: func(id routing.AgencyID) (plan.Rehearsal, bool) { return d.o.Knows.Rehearsed(s, id) },
		Compared:  func(id routing.AgencyID) plan.Comparison { return d.o.Knows.Compared(s, id) },
		Mailboxes: func(id routing.AgencyID) int { return mailboxes(s, id) },
	}
}

// mailboxes returns how many mailboxes an agency has; -1: not known.
func mailboxes(s *routing.State, id routing.AgencyID) int {
	if m := s.Mapping(id); m != nil {
		return m.Len()
	}
	return -1
}

// approved returns why a wave that was started is not, or no longer, what others have approved.
func approved(s *routing.State, w *plan.Wave, needed int, now time.Time) error {
	p, ok, err := approval.Find(s, w.Proposal)
	bound := w.Bound()
	switch {
	case err != nil:
		return err
	case !ok:
		return errors.New("its proposal is not in the table any more: propose it again")
	case p.Kind != Kind || p.End != approval.Used:
		return errors.New("its proposal is " + string(p.State(now, needed)) + ", and not in use")
	case p.Plan != bound.Digest():
		return errors.New("the wave is not as it was approved")
	case p.Missing(needed) > 0:
		return approval.ErrNotApproved
	}
	return nil
}

// Counts are figures for metrics.
type Counts struct {
	Waves   map[plan.Standing]int
	Next    time.Time // when the next agency is likely to start; zero: none is to
	Stopped bool
}

// Counts returns the figures as they were when they were counted last, some seconds ago.
func (d *Desk) Counts() Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts
}

// countPause is the time between two counts of what takes a simulation.
const countPause = 30 * time.Second

func (d *Desk) count(p *plan.Plan) {
	c := Counts{Waves: make(map[plan.Standing]int), Stopped: plan.Refuses(p.Facts.State) != nil}
	for i := range p.Waves {
		c.Waves[p.Waves[i].Standing]++
	}
	d.mu.Lock()
	c.Next = d.counts.Next
	d.mu.Unlock()
	if p.Now.Sub(d.counted) >= countPause || c.Next.Before(p.Now) && !c.Next.IsZero() {
		d.counted, c.Next = p.Now, time.Time{}
		brief := *p
		brief.Brief = true
		brief.Waves = nil
		for i := range p.Waves {
			if p.Waves[i].Standing != plan.Proposed && p.Waves[i].Standing != plan.Paused {
				brief.Waves = append(brief.Waves, p.Waves[i])
			}
		}
		c.Next = brief.Timetable().Next
	}
	d.mu.Lock()
	d.counts = c
	d.mu.Unlock()
}
