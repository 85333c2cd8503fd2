package desk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"mailcutover/internal/alarm"
	"mailcutover/notice"
	"mailcutover/notice/outbox"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Errors that callers test for with errors.Is.
var (
	ErrNoChannel = errors.New("no such channel")
	ErrEnded     = errors.New("the node stops")
)

// Alarms is the node's list of what a human has to see; *alarm.Set is one.
type Alarms interface {
	Raise(key, text string)
	Clear(key string) bool
	List() []alarm.Alarm
}

// Replica is the node's copy of the table; *replica.Replica is one.
type Replica interface{ State() *routing.State }

// Options are what a Desk works with; all are required unless they say otherwise.
type Options struct {
	Node         routing.NodeID
	Installation string
	Table        table.Table
	Replica      Replica
	Alarms       Alarms
	Dir          string // of the outbox; it must exist
	Limit        int    // events that wait, of the table and of this node each; 0: DefaultLimit
	Logger       *slog.Logger

	// Started is when the node started, of which it tells itself, and Build its version; zero: it doesn't.
	Started time.Time
	Build   string

	// Pace is how often it is looked at alarms, at whose turn it is, and how long the first
	// pause after a failure is; 0: DefaultPace.
	Pace time.Duration
}

// DefaultPace is that of a node.
const DefaultPace = 5 * time.Second

// DefaultLimit is how many events wait at most.
const DefaultLimit = 10_000

// Channel is one way to tell somebody.
type Channel struct {
	Name   string // a word
	Kind   string // webhook or mail, for people
	To     string // for people: no secret is in it
	Filter notice.Filter

	// Most is how many events go at once, 1 or more; Every, how much time lies between two
	// sendings at least. With Every, what comes within a moment is waited for.
	Most  int
	Every time.Duration

	// Timeout bounds one attempt.
	Timeout time.Duration

	// Send tells of events. nil: the receiver has all of them. An error that wraps
	// notice.ErrRejected is about what they say. It is called by one goroutine at a time, and by Test.
	Send func(ctx context.Context, events []notice.Event) error
}

// Desk tells channels of events. Use [New].
type Desk struct {
	o   Options
	box *outbox.Box

	configured chan struct{} // something about the channels is new

	mu       sync.Mutex
	channels []*Channel
	senders  map[string]*sender // of channels that are at work
	turn     bool               // this node tells of the table's events
	teller   routing.NodeID     // the node that does, as this one sees it; empty: it isn't known
	alone    bool               // there is no other member
	ended    bool
	begun    bool // what the start has to tell was told; of Run alone
}

// New opens the outbox. Nobody is told before Run.
func New(o Options) (*Desk, error) {
	if o.Limit == 0 {
		o.Limit = DefaultLimit
	}
	if o.Pace == 0 {
		o.Pace = DefaultPace
	}
	box, err := outbox.Open(o.Dir, o.Limit)
	if err != nil {
		return nil, fmt.Errorf("notices: %w", err)
	}
	if err := box.Damage(); err != nil {
		o.Logger.Error("what was known of the table is damaged: notices begin anew", "error", err)
		o.Alarms.Raise(damagedAlarm, fmt.Sprintf("What notices knew of the table can't be read from this node's disk. They begin anew, and nobody is told what happened meanwhile: %v", err))
	}
	return &Desk{o: o, box: box, configured: make(chan struct{}, 1), senders: make(map[string]*sender)}, nil
}

// Close closes the outbox, after Run has returned or instead of it.
func (d *Desk) Close() error { return d.box.Close() }

// Configure says which channels there are from now on. What waits for one that stays is kept;
// each name stands once.
func (d *Desk) Configure(channels []*Channel) {
	d.mu.Lock()
	d.channels = channels
	d.mu.Unlock()
	select {
	case d.configured <- struct{}{}:
	default:
	}
}

// Run tells, until ctx ends.
func (d *Desk) Run(ctx context.Context) {
	for ctx.Err() == nil {
		d.mu.Lock()
		channels := d.channels
		d.mu.Unlock()
		d.with(ctx, channels)
	}
	d.mu.Lock()
	d.ended = true
	d.mu.Unlock()
}

// with works with these channels until there are others, or ctx ends.
func (d *Desk) with(ctx context.Context, channels []*Channel) {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	names := make([]string, len(channels))
	for i, c := range channels {
		names[i] = c.Name
	}
	d.persist(ctx, "set the channels", func() error { return d.box.SetChannels(names) })
	if !d.begun {
		d.begun = true
		if len(channels) > 0 && !d.o.Started.IsZero() {
			d.put(ctx, outbox.Addition{Stream: outbox.Node, Events: []notice.Event{notice.NewStart(d.o.Installation, string(d.o.Node), d.o.Build, d.o.Started)}})
		}
	}
	senders := make(map[string]*sender, len(channels))
	for _, c := range channels {
		senders[c.Name] = newSender(d, c)
	}
	d.mu.Lock()
	d.senders = senders
	d.mu.Unlock()
	if len(channels) > 0 {
		work.Go(func() { d.follow(ctx) })
		work.Go(func() { d.watchAlarms(ctx) })
		work.Go(func() { d.takeTurns(ctx) })
		for _, s := range senders {
			work.Go(func() { s.run(ctx) })
		}
	}
	select {
	case <-d.configured:
	case <-ctx.Done():
	}
}

// wake tells all senders that there may be something for them.
func (d *Desk) wake() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.senders {
		s.wake()
	}
}

const (
	unwrittenAlarm = "notices-unwritten"
	unreadAlarm    = "notices-unread"
	failingAlarm   = "notices-failing/"
	droppedAlarm   = "notices-dropped/"
	refusedAlarm   = "notices-refused/"
	damagedAlarm   = "notices-damaged"
)

// persist does something with the outbox until it succeeds or ctx ends. It reports whether it did.
func (d *Desk) persist(ctx context.Context, what string, do func() error) bool {
	for said := false; ; {
		err := do()
		if err == nil {
			if said {
				d.o.Alarms.Clear(unwrittenAlarm)
			}
			return true
		}
		d.o.Logger.Warn("notices are not kept", "error", fmt.Errorf("%s: %w", what, err))
		d.o.Alarms.Raise(unwrittenAlarm, fmt.Sprintf("Events can't be written to this node's disk, and nobody is told of them: %s: %v", what, err))
		said = true
		if !pause(ctx, d.o.Pace) {
			return false
		}
	}
}

// put keeps an addition, and says what went for it.
func (d *Desk) put(ctx context.Context, a outbox.Addition) bool {
	var dropped []outbox.Dropped
	if !d.persist(ctx, "keep events", func() (err error) { dropped, err = d.box.Put(a); return err }) {
		return false
	}
	lost := make(map[string]int)
	d.mu.Lock()
	for i := range dropped {
		for _, name := range dropped[i].Channels {
			if s := d.senders[name]; s != nil && s.Filter.Wants(&dropped[i].Event) {
				lost[name]++
				s.lose(1)
			}
		}
	}
	d.mu.Unlock()
	for name, n := range lost {
		d.o.Logger.Error("events are dropped, too many wait", "channel", name, "events", n)
		d.o.Alarms.Raise(droppedAlarm+name, fmt.Sprintf("%d events more for the channel %s were dropped: more than %d wait. mailcutover notice queue shows why.", n, name, d.o.Limit))
	}
	if len(a.Events) > 0 {
		d.wake()
	}
	return true
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, length time.Duration) bool {
	select {
	case <-time.After(length):
		return true
	case <-ctx.Done():
		return false
	}
}
