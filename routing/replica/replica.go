package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"mailcutover/internal/durable"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Options are what a replica needs.
type Options struct {
	Table table.Table

	// Dir is the directory of the disk copy; it belongs to this replica alone. Empty:
	// the copy is kept in memory only.
	Dir string

	// Disk is the file system that holds Dir; nil is the machine's.
	Disk durable.Disk

	// Interval is how often the table is asked where it stands when nothing changes;
	// 0 is one second. If nothing is heard for ten intervals, but for 5 s at least, the
	// connection is given up and made again.
	Interval time.Duration

	Logger *slog.Logger // nil is slog.Default

	// OnSeen, unless nil, is called from Run's goroutine with each State before it is
	// durable and before State returns it, also if it then isn't taken: what it closes may
	// be closed at once. It must not wait for the replica.
	OnSeen func(old, next *routing.State)

	// OnUpdate, unless nil, is called from Run's goroutine after State returns now, and
	// before Fresh and Wait know of it. It must not wait for the replica. The copy that
	// Open reads from the disk isn't reported.
	OnUpdate func(old, now *routing.State)
}

// Replica is this node's copy of the table.
type Replica struct {
	opts  Options
	log   *slog.Logger
	disk  *disk // nil without Dir
	state atomic.Pointer[routing.State]
	fresh atomic.Pointer[time.Time] // nil: closed

	retryPause time.Duration // least time between two attempts of upkeep

	// Used by Run's goroutine only.
	asked   time.Time                             // moment of the newest contact at which the table was ahead of us
	ahead   routing.Revision                      // where it stood then
	loaded  map[routing.AgencyID]*routing.Mapping // by snapshots that were not completed
	retried time.Time                             // when missing mappings were last asked for

	mu      sync.Mutex
	high    Marks         // the highest position seen; Above isn't set
	status  Status        // what is not computed from state and fresh
	changed chan struct{} // closed and replaced when Wait has to look again
}

// Status describes a replica, for readiness and for people.
type Status struct {
	Position  routing.Position
	Agencies  int
	Mailboxes int
	Missing   []routing.AgencyID // their mappings could not be loaded: their names are unavailable
	Regressed []routing.AgencyID // closed until their epoch is above one that was seen

	Open    bool      // Fresh says so
	Contact time.Time // moment before the last contact that found this copy up to date; zero: none since the start
	Reason  string    // why it isn't open; empty if it is
	Err     error     // of the last attempt to reach or follow the table; nil while it is being followed

	OnDisk  routing.Position // what the disk copy holds with its mappings; zero without one
	DiskErr error            // of the last attempt to write mappings, or to compact marks

	// MarksErr wraps ErrMarks while the newest State of the table is not taken, since what
	// it says can't be made durable.
	MarksErr error
}

const reasonNotLoaded = "not yet loaded from the table"

// Open makes a replica and loads the copy on disk, if there is one. A copy that can't be
// read is no error; a directory that can't be used is.
func Open(opts Options) (*Replica, error) {
	if opts.Interval <= 0 {
		opts.Interval = time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	r := &Replica{opts: opts, log: opts.Logger, changed: make(chan struct{}), retryPause: retryPause, loaded: map[routing.AgencyID]*routing.Mapping{}}
	r.status.Reason = reasonNotLoaded
	state := routing.NewState(routing.Position{})
	if opts.Dir != "" {
		var err error
		if r.disk, err = openDisk(opts.Disk, opts.Dir, r.log); err != nil {
			return nil, fmt.Errorf("open replica: %w", err)
		}
		if state, r.high, err = r.disk.load(); err != nil {
			return nil, fmt.Errorf("open replica: %w", err)
		}
		r.status.OnDisk = state.Position()
		var mappings []*routing.Mapping
		for _, a := range state.Agencies() {
			if m := state.Mapping(a.ID); m != nil {
				mappings = append(mappings, m)
			}
		}
		largePages(state, mappings)
	}
	r.state.Store(state)
	return r, nil
}

// State returns the newest State; never nil. What it may be taken for, Fresh says.
func (r *Replica) State() *routing.State { return r.state.Load() }

// Fresh returns a moment at which State, or the State before it, was what the table
// said: the one before the last contact that found them equal, with a monotonic clock
// reading. ok is false while the replica is closed.
//
// A caller that decides reads Fresh first and State second: then the State is at least
// as new as the moment.
func (r *Replica) Fresh() (at time.Time, ok bool) {
	if p := r.fresh.Load(); p != nil {
		return *p, true
	}
	return time.Time{}, false
}

// Wait returns when the replica follows the table of p's incarnation and has applied its
// revision, or is in a later term, or with an error that wraps ctx's.
func (r *Replica) Wait(ctx context.Context, p routing.Position) error {
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		now := r.State().Position()
		_, ok := r.Fresh()
		if ok && now.Incarnation == p.Incarnation && reached(now, p.Term, p.Revision) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for revision %d of table %s; replica is at %d of %q, open %t: %w",
				p.Revision, p.Incarnation, now.Revision, now.Incarnation, ok, ctx.Err())
		}
	}
}

// Status describes the replica now.
func (r *Replica) Status() Status {
	r.mu.Lock()
	s := r.status
	r.mu.Unlock()
	state := r.State()
	s.Position, s.Agencies, s.Mailboxes = state.Position(), state.Len(), state.Mailboxes()
	s.Missing, s.Regressed = state.Missing(), state.Regressed()
	if at, ok := r.Fresh(); ok {
		s.Open, s.Contact, s.Reason = true, at, ""
	}
	return s
}

// Run follows the table until ctx ends, and returns its error. It may be called once.
func (r *Replica) Run(ctx context.Context) error {
	var writer sync.WaitGroup
	if r.disk != nil {
		dirty := r.disk.dirty
		writer.Go(func() { r.writeDisk(dirty) })
		defer func() { close(dirty); writer.Wait() }()
	}
	for failures := 0; ; failures++ {
		began := time.Now()
		err := r.attempt(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.failed(err)
		if time.Since(began) > 10*time.Second || errors.Is(err, errTerm) {
			failures = 0
		}
		select {
		case <-time.After(pause(failures)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pause is how long to wait after so many failed attempts: doubling from 50 ms to 1 s,
// each between half and all of it, so that the nodes of a table that comes back don't
// come all at once. It is short beside a lease: who follows late decides late.
func pause(failures int) time.Duration {
	most := min(50*time.Millisecond<<min(failures, 7), time.Second)
	return most/2 + rand.N(most/2)
}

// failed notes and logs why an attempt ended. A table that is only out of reach leaves
// the replica open: the moment that Fresh returns gets older.
func (r *Replica) failed(err error) {
	r.mu.Lock()
	repeated := r.status.Err != nil && r.status.Err.Error() == err.Error()
	r.status.Err = err
	r.mu.Unlock()
	if !repeated {
		r.log.Warn("table is not being followed", "error", err)
	}
}

// close makes Fresh say "closed", because of what err says.
func (r *Replica) close(err error) {
	was := r.fresh.Swap(nil)
	r.mu.Lock()
	r.status.Reason = err.Error()
	if was != nil {
		r.status.Contact = *was
	}
	r.mu.Unlock()
	r.asked, r.ahead = time.Time{}, 0
	if was != nil {
		r.log.Error("replica is closed until it is loaded again", "reason", err.Error())
	}
}

// publish makes s, which is the State after u, the State, in the order that the package's
// page promises. If its marks can't be written it isn't taken.
func (r *Replica) publish(s *routing.State, u *routing.Update) error {
	old := r.State()
	if r.opts.OnSeen != nil {
		r.opts.OnSeen(old, s)
	}
	r.mu.Lock()
	high := r.high.upTo(s)
	r.mu.Unlock()
	if r.disk != nil && u != nil {
		err := r.disk.mark(u, s, high)
		r.mu.Lock()
		repeated := r.status.MarksErr != nil
		r.status.MarksErr = err
		r.mu.Unlock()
		if err != nil {
			if !repeated {
				r.log.Error("table's change is not taken: what it says can't be made durable", "revision", s.Position().Revision, "error", err)
			}
			return err
		}
	}
	r.mu.Lock()
	r.high = high
	r.mu.Unlock()
	r.state.Store(s)
	if r.opts.OnUpdate != nil {
		r.opts.OnUpdate(old, s)
	}
	if r.disk != nil {
		r.disk.wake()
	}
	return nil
}

// upTo returns the marks after a State was seen.
func (m Marks) upTo(s *routing.State) Marks {
	pos := s.Position()
	if m.Incarnation == pos.Incarnation && !reached(pos, m.Term, m.Revision) {
		return m
	}
	m = Marks{Incarnation: pos.Incarnation, Term: pos.Term, Revision: pos.Revision}
	if t := s.Lineage().Last(); t.Number == pos.Term {
		m.Began = t.Began
	}
	return m
}

// reached reports whether pos is at or above a revision of a term.
func reached(pos routing.Position, term uint32, revision routing.Revision) bool {
	return pos.Term > term || pos.Term == term && pos.Revision >= revision
}

// Marks returns what this replica knows for good. State is at least as new as they say,
// unless the table went back.
func (r *Replica) Marks() Marks {
	r.mu.Lock()
	m := r.high
	r.mu.Unlock()
	s := r.State()
	m.LostNames = s.LostNames()
	for _, id := range s.Regressed() {
		if seen, ok := s.Seen(id); ok {
			m.Above = append(m.Above, seen)
		}
	}
	return m
}

// contact notes that the table stood at pos when it was asked at that moment.
func (r *Replica) contact(at time.Time, pos routing.Position) {
	if pos.Revision > r.State().Position().Revision {
		// Changes up to pos are on their way; once they are here, this State is as
		// fresh as this moment.
		r.asked, r.ahead = at, pos.Revision
		return
	}
	r.fresh.Store(&at)
	r.wakeWaiters()
}

// caughtUp takes over the moment of a contact that found the table ahead.
func (r *Replica) caughtUp() {
	if !r.asked.IsZero() && r.ahead <= r.State().Position().Revision {
		at := r.asked
		r.asked, r.ahead = time.Time{}, 0
		r.fresh.Store(&at)
	}
	r.wakeWaiters()
}

func (r *Replica) wakeWaiters() {
	r.mu.Lock()
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
}
