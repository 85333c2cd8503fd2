package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"mailcutover/internal/durable"
	"mailcutover/routing"
	"mailcutover/routing/replica"
	"mailcutover/routing/table"
)

// Table is what a [Keeper] asks of the state table.
type Table interface {
	table.Coordination
	Change(ctx context.Context, c table.Change) (routing.Position, error)
	Confirm(ctx context.Context) error
}

// Copy is this node's copy of the table. *replica.Replica is one.
type Copy interface {
	Source
	Wait(ctx context.Context, pos routing.Position) error
	Marks() replica.Marks
}

// KeeperOptions are what a keeper needs.
type KeeperOptions struct {
	Table   Table
	Replica Copy

	Node  routing.NodeID
	Build string // for people

	Lease Lease
	Renew time.Duration // between two renewals; 0 is DefaultRenew of the lease

	// ClockRuns declares that Now goes on while the machine is stopped.
	ClockRuns bool

	// Limit is the longest time after which a platform ends a connection: how long something
	// may still arrive that another process of this node's name had under way.
	Limit time.Duration

	// Dir is the directory of the node's identity and of its own locks. It belongs to one
	// process at a time.
	Dir  string
	Disk durable.Disk // that holds Dir; nil is the machine's

	Counts func() []table.Count // held and waiting mail; nil: none is told
	Logger *slog.Logger         // nil is slog.Default

	// Now is the node's clock; nil is time.Now. Only differences matter: it must not jump.
	Now func() time.Time
}

// DefaultRenew returns how often a lease is renewed: five times while its short one lasts,
// and every 2 s at least.
func DefaultRenew(l Lease) time.Duration { return min(l.Armed/5, 2*time.Second) }

// Keeper keeps this node's leases, and so its right to decide. Use [OpenKeeper].
type Keeper struct {
	o        KeeperOptions
	folder   *durable.Folder
	lock     io.Closer // of the directory; nil where the disk has no locks
	file     uint64    // number of its file in the file system; 0: not known
	instance routing.InstanceID
	gate     *Gate // set by Attach

	grant    atomic.Pointer[grant]
	draining atomic.Bool            // people have taken this node out
	address  atomic.Pointer[string] // nil: not known

	checkMu    sync.Mutex
	collecting *batch        // nil: nobody asks
	check      chan struct{} // holds one token while somebody does

	kick   chan struct{} // holds one token when a renewal is due at once
	counts counters

	// Used by Run's goroutine only, and by Surrender after it.
	sequence    uint64
	before      []routing.InstanceID // that this one may follow; the first is sent
	registered  bool                 // the table has taken this instance
	confirmed   bool                 // and that is known to be durable
	replication string
	rest        maintenance
	heir        heir
	told        routing.Position // the newest that the table told and the copy hasn't reached
	toldAt      time.Time

	mu     sync.Mutex
	locks  map[routing.AgencyID]LocalLock
	status KeeperStatus // what is not computed
}

// grant is for what the node may decide until when, on its own clock.
type grant struct {
	settled, armed         time.Time
	settledLife, armedLife uint64
}

// counters are what a keeper counts.
type counters struct{ renewals, renewalsFailed, checks, checksFailed atomic.Uint64 }

// OpenKeeper locks the node's directory and makes a new instance of the node. The keeper
// grants nothing before Run has reached the table. ErrInUse if another process has it.
func OpenKeeper(o KeeperOptions) (*Keeper, error) {
	if o.Renew <= 0 {
		o.Renew = DefaultRenew(o.Lease)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	k := &Keeper{
		o: o, instance: routing.InstanceID(uuid.NewString()),
		check: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		locks: make(map[routing.AgencyID]LocalLock),
	}
	k.grant.Store(&grant{})
	if err := k.openDir(); err != nil {
		return nil, errors.Join(fmt.Errorf("open node %s in %s: %w", o.Node, o.Dir, err), k.Close())
	}
	return k, nil
}

// Attach makes gate the one whose work is reported, and puts this node's own locks into
// force there. It is called once, before Run.
func (k *Keeper) Attach(gate *Gate) {
	k.gate = gate
	k.mu.Lock()
	defer k.mu.Unlock()
	gate.setLocks(agenciesOf(k.locks))
}

// Close gives the directory back, after Run has ended. It may be called again.
func (k *Keeper) Close() error {
	if k.lock == nil {
		return nil
	}
	lock := k.lock
	k.lock = nil
	return lock.Close()
}

// Node returns the node's name, and the instance of this process.
func (k *Keeper) Node() (routing.NodeID, routing.InstanceID) { return k.o.Node, k.instance }

// SetAddress tells the other nodes the host:port of this one's admin API.
func (k *Keeper) SetAddress(hostport string) {
	k.address.Store(&hostport)
	k.Kick()
}

// Right implements [Rights]: what the table has granted, whenever the copy was last read.
func (k *Keeper) Right(time.Time) Right {
	g, now := k.grant.Load(), k.o.Now()
	return Right{
		Settled: now.Before(g.settled), SettledLife: g.settledLife,
		Armed: now.Before(g.armed), ArmedLife: g.armedLife,
	}
}

// Ready returns nil if this node may decide for settled agencies, else why not.
func (k *Keeper) Ready() error {
	if k.Draining() {
		return errMaintenance
	}
	if k.Right(time.Time{}).Settled {
		return nil
	}
	s := k.Status()
	switch {
	case s.Err != nil:
		return fmt.Errorf("no lease: %w", s.Err)
	case s.Why != "":
		return fmt.Errorf("no lease: %s", s.Why)
	}
	return errors.New("no lease: not renewed yet")
}

// Kick makes a renewal due at once.
func (k *Keeper) Kick() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// Run renews the leases until ctx ends, and returns its error. It may be called once. The
// right to decide stays for as long as it was granted; [Keeper.Surrender] gives it up.
func (k *Keeper) Run(ctx context.Context) error {
	var checks sync.WaitGroup
	defer checks.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	checks.Go(func() { k.answerChecks(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-k.kick:
		case <-k.gate.report:
		case <-ctx.Done():
			return ctx.Err()
		}
		began := k.o.Now()
		pause := k.round(ctx)
		for _, d := range k.gate.Doubts() {
			pause = min(pause, max(time.Until(d.Until), leastPause))
		}
		timer.Reset(pause)
		// What comes meanwhile is reported together.
		if rest := leastPause - k.o.Now().Sub(began); rest > 0 {
			select {
			case <-time.After(rest):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// drop ends the right at once.
func (k *Keeper) drop() {
	g := *k.grant.Load()
	g.settled, g.armed = time.Time{}, time.Time{}
	k.grant.Store(&g)
}

// put extends the right to these ends, for what kind isn't zero. Where it had lapsed a new
// life begins.
func (k *Keeper) put(settled, armed time.Time) {
	g, now := *k.grant.Load(), k.o.Now()
	began := false
	extend := func(end *time.Time, life *uint64, to time.Time) {
		if !to.After(*end) {
			return
		}
		if !now.Before(*end) {
			*life++
			began = true
		}
		*end = to
	}
	extend(&g.settled, &g.settledLife, settled)
	extend(&g.armed, &g.armedLife, armed)
	k.grant.Store(&g)
	if began && k.gate != nil {
		k.gate.tellAll()
	}
}
