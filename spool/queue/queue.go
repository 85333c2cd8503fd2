package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
	"mailcutover/spool/dsn"
)

// Store is what the queue needs of a spool. [FromSpool] makes one of a spool.Store.
type Store interface {
	// Each calls f with the entries that the filter chooses, in order of acceptance, until
	// f returns false.
	Each(filter spool.Filter, f func(spool.Entry) bool)
	Get(id mail.TransactionID) (*spool.Message, error)
	Open(id mail.TransactionID) (Body, error)
	// Set changes states. It holds at once; an error is about its becoming durable.
	Set(changes ...spool.Outcome) error
	// Written calls f once all that was set before is written.
	Written(f func())
	// Put accepts a message of our own, durably.
	Put(ctx context.Context, env spool.Envelope, rcpts []spool.Recipient, content []byte) error
	// Moves has grown when held mail got another key.
	Moves() uint64
	// Counts returns how much there is, in all and per agency.
	Counts() (spool.Counts, map[routing.AgencyID]spool.Counts)
}

// Body is a message's bytes. A dot may be sent only if, after the last byte, Verify
// returned nil.
type Body interface {
	Read(p []byte) (int, error)
	Verify() error
	Close() error
}

// Router says where a recipient's mailbox is now. node.Gate is one.
type Router interface {
	Address(routing.Address) routing.Decision
}

// Alarms takes what a human has to see; key tells one alarm from another.
type Alarms interface {
	Raise(key, text string)
	Clear(key string) bool
}

// Observer counts, for metrics. Its methods must not block.
type Observer interface {
	// Attempted is called for each recipient of each attempt; replay says that it was held
	// mail.
	Attempted(platform routing.PlatformID, replay bool, s Status)
	// Notified is called for each notice that was put into the spool.
	Notified(kind dsn.Kind)
	// Quarantined is called for each recipient that was set aside.
	Quarantined()
}

// Ledger records what becomes of mail without a platform's acceptance; *ledger.Ledger is one.
type Ledger interface {
	Note(i *ledger.Intent, answers ...ledger.Answer) error
}

// Notices are the settings for what senders are told.
type Notices struct {
	dsn.Settings

	// Platform is what the Sender knows the relay by that takes notices. Empty: there is
	// none; what should be told stays in the spool, with an alarm.
	Platform routing.PlatformID

	// DelayAfter is how old waiting mail is when its sender is told that it is late;
	// 0: he isn't.
	DelayAfter time.Duration
}

// Options are what a queue needs. Store, Router, Sender and Alarms are required.
type Options struct {
	Store    Store
	Router   Router
	Sender   Sender
	Alarms   Alarms
	Observer Observer     // nil: nobody counts
	Ledger   Ledger       // nil: what becomes of mail without a platform is in the log only
	Logger   *slog.Logger // nil: nothing is logged

	Retry   Retry
	Notices Notices

	// Rate is how many messages a second go to each platform at most; 0: no limit.
	// SetRate changes it for one.
	Rate float64

	// Doubts are the messages that a start found in doubt, with the time until when they
	// rest (ledger.InDoubt). May be nil.
	Doubts map[mail.TransactionID]time.Time
}

// grace is how long deliveries under way may go on when Run is to end. After their dot
// they go on whatever happens.
const grace = 20 * time.Second

// recheck is how often it is looked whether closed agencies, of which no change was seen,
// may be delivered to: the right to decide comes back without one.
const recheck = 2 * time.Second

// noticeListener is the Listener of the envelopes of notices. No configuration can have it.
const noticeListener = "(notice)"

// Queue sends what lies in the spool. Use [New].
type Queue struct {
	o   Options
	log *slog.Logger
	obs Observer

	wake  chan struct{} // the scheduler has something to look at; holds one
	begun time.Time     // what the times of items count from, on the monotonic clock

	mu       sync.Mutex
	lanes    map[routing.PlatformID]*lane
	byNumber []*lane // by lane.number; the first is none
	boxes    map[spool.Key]*box
	triage   []*box // to be routed
	pauses   boxHeap
	cursor   uint64    // held mail up to here was loaded or left
	scanDue  bool      // there may be mail behind cursor
	scanAt   time.Time // not before
	scanNo   uint64
	scanning bool              // a scan is under way
	empty    []*box            // that the next scan fills, or ends
	hungry   map[*box]struct{} // with mail that was left, for which there was no room
	starving bool              // there may be room by now
	waiting  itemHeap
	moved    uint64                 // Store.Moves by which the boxes have their mail
	busy     map[spool.Key]struct{} // a delivery for the key is under way
	sending  map[ref]*box           // under way, whatever its key is by now, with the box that waits for it
	blocked  map[spool.Key][]item   // waiting mail that waits for it to end
	parked   map[routing.AgencyID]*parked
	nextLook time.Time // at parked
	fresh    []fresh
	early    map[ref]struct{} // waiting mail of this run that the start saw: Added names it again
	notes    []note           // what senders are to be told
	noteAt   time.Time        // not before
	telling  bool             // a goroutine does
	rates    map[routing.AgencyID]*rateMeter
	rate     map[routing.PlatformID]float64 // set by SetRate
	workers  sync.WaitGroup

	quarantine sync.Mutex // held while its alarm is raised or ended
	stopping   bool
}

// New returns a queue. Nothing is sent before Run.
func New(o Options) (*Queue, error) {
	if o.Store == nil || o.Router == nil || o.Sender == nil || o.Alarms == nil {
		return nil, errors.New("queue: store, router, sender and alarms are required")
	}
	o.Retry = o.Retry.withDefaults()
	if err := o.Retry.validate(); err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	if n := &o.Notices; n.Platform != "" && n.Host == "" {
		return nil, errors.New("queue: notices: host is required")
	}
	q := &Queue{
		o: o, log: o.Logger, obs: o.Observer, wake: make(chan struct{}, 1), begun: time.Now(),
		lanes: make(map[routing.PlatformID]*lane), byNumber: []*lane{nil}, boxes: make(map[spool.Key]*box),
		hungry: make(map[*box]struct{}), early: make(map[ref]struct{}), sending: make(map[ref]*box),
		busy: make(map[spool.Key]struct{}), blocked: make(map[spool.Key][]item),
		parked: make(map[routing.AgencyID]*parked), rates: make(map[routing.AgencyID]*rateMeter),
		rate: make(map[routing.PlatformID]float64),
	}
	if q.log == nil {
		q.log = slog.New(slog.DiscardHandler)
	}
	if q.obs == nil {
		q.obs = silent{}
	}
	return q, nil
}

type silent struct{}

func (silent) Attempted(routing.PlatformID, bool, Status) {}
func (silent) Notified(dsn.Kind)                          {}
func (silent) Quarantined()                               {}

// Run sends until ctx ends. Then nothing new is begun, and Run returns when what is under
// way has ended: that without a dot is cut after 20 s. It must be called once.
func (q *Queue) Run(ctx context.Context) error {
	sending, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	q.load()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		next := q.step(ctx, sending)
		timer.Reset(next)
		select {
		case <-ctx.Done():
		case <-q.wake:
		case <-timer.C:
		}
	}
	q.mu.Lock()
	q.stopping = true
	q.mu.Unlock()
	end := time.AfterFunc(grace, cut)
	defer end.Stop()
	q.workers.Wait()
	return nil
}

// load looks at what the spool has at the start.
func (q *Queue) load() {
	n := 0
	q.o.Store.Each(spool.Filter{}, func(e spool.Entry) bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		switch e.State {
		case spool.StateWaiting:
			// When each is due stands in the journal; reading all of it would delay the
			// start. They are spread over the first delay instead.
			q.schedule(item{ref: refOf(&e), stored: true}, q.o.Retry.spread())
			if !e.Time.Before(q.begun) {
				q.early[refOf(&e)] = struct{}{}
			}
			n++
		case spool.StateFailed, spool.StateExpired:
			q.note(note{kind: dsn.Failed, transaction: e.Transaction})
		}
		return true
	})
	q.mu.Lock()
	q.scanDue = true
	q.mu.Unlock()
	q.log.Info("queue begins", "waiting", n)
}

// step does what is due and returns how long nothing else will be.
func (q *Queue) step(ctx, sending context.Context) time.Duration {
	q.takeFresh()
	now := time.Now()
	q.mu.Lock()
	q.followMoves()
	q.resumeLanes(now)
	q.resumePauses(now)
	q.lookAtParked(now)
	asked := q.dueItems(now)
	n := min(len(q.triage), routedAtOnce)
	boxes := q.triage[:n:n]
	if q.triage = q.triage[n:]; len(q.triage) == 0 {
		q.triage = nil
	}
	q.mu.Unlock()

	for _, b := range boxes {
		if ctx.Err() != nil {
			return 0
		}
		q.routeBox(b)
	}
	for _, it := range asked {
		if ctx.Err() != nil {
			return 0
		}
		q.routeItem(it)
	}
	q.scan(ctx)

	q.mu.Lock()
	defer q.mu.Unlock()
	q.tell(sending)
	for _, l := range q.lanes {
		q.spawn(sending, l)
	}
	return q.untilNext(time.Now())
}

// untilNext returns how long the scheduler may sleep. q.mu is held.
func (q *Queue) untilNext(now time.Time) time.Duration {
	if len(q.fresh) > 0 || len(q.triage) > 0 {
		return 0
	}
	next := now.Add(time.Minute)
	earlier := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	if q.scanDue || q.starving {
		earlier(q.scanAt)
	}
	if len(q.waiting) > 0 {
		earlier(q.begun.Add(q.waiting[0].due))
	}
	if len(q.pauses) > 0 {
		earlier(q.pauses[0].until)
	}
	if len(q.parked) > 0 {
		earlier(q.nextLook)
	}
	if len(q.notes) > 0 && !q.telling {
		earlier(q.noteAt)
	}
	for _, l := range q.lanes {
		if l.down && now.Before(l.until) {
			earlier(l.until)
		}
	}
	return max(next.Sub(now), 0)
}

// signal makes the scheduler look again.
func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Update takes note of a new State: the mail of agencies that opened goes.
func (q *Queue) Update(old, current *routing.State) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for id, p := range q.parked {
		now, ok := current.Agency(id)
		was, known := old.Agency(id)
		if !ok || now.Open() && (!known || was.Epoch != now.Epoch || was.Nonce != now.Nonce) {
			q.unpark(id, p)
		}
	}
	q.signal()
}

// Wake says that a platform takes mail again: what waits for it goes at once.
func (q *Queue) Wake(platform routing.PlatformID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l := q.lanes[platform]; l != nil {
		q.up(l)
		q.wakeLane(l, time.Now())
	}
	q.signal()
}

// Added says that a message was put into the spool, after it was.
func (q *Queue) Added(id mail.TransactionID) { q.added(fresh{id: id}) }

// AddedFrom says that recipients of a message were put into the spool, after they were:
// those whose index is first and up. Each must be told of once.
func (q *Queue) AddedFrom(id mail.TransactionID, first int) { q.added(fresh{id: id, first: first}) }

// fresh is a message with recipients that the queue hasn't seen.
type fresh struct {
	id    mail.TransactionID
	first int  // the index of the first of them
	soon  bool // no attempt was made yet: it is due at once
}

func (q *Queue) added(f fresh) {
	q.mu.Lock()
	q.fresh = append(q.fresh, f)
	q.mu.Unlock()
	q.signal()
}

// takeFresh takes up what Added named.
func (q *Queue) takeFresh() {
	q.mu.Lock()
	fresh, moved := q.fresh, q.moved
	q.fresh = nil
	q.mu.Unlock()
	for _, f := range fresh {
		q.o.Store.Each(spool.Filter{Transaction: f.id}, func(e spool.Entry) bool {
			if e.Recipient < f.first {
				return true
			}
			q.mu.Lock()
			defer q.mu.Unlock()
			q.takeUp(&e, moved, f.soon)
			return true
		})
	}
}

// takeUp puts an entry where its state belongs. moved is what q.moved was before it was read.
// Waiting mail is due at once, or when its record says. q.mu is held.
func (q *Queue) takeUp(e *spool.Entry, moved uint64, soon bool) {
	switch e.State {
	case spool.StateHeld:
		k := e.Key
		if q.moved != moved {
			k = q.keyNow(e)
		}
		q.addHeld(refOf(e), k)
	case spool.StateWaiting:
		if _, twice := q.early[refOf(e)]; twice {
			delete(q.early, refOf(e))
			return
		}
		q.schedule(item{ref: refOf(e), stored: !soon}, 0)
	case spool.StateFailed, spool.StateExpired:
		q.note(note{kind: dsn.Failed, transaction: e.Transaction})
	}
}
