package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Errors that callers test for with errors.Is, besides those of routing and table.
var (
	// ErrNoAgency is about an agency that the table doesn't have.
	ErrNoAgency = errors.New("no such agency in the table")
	// ErrNoNode is about a node that is no member.
	ErrNoNode = errors.New("no such node in the table")
	// ErrEpoch is about an agency whose record is not the one that the act was meant for.
	ErrEpoch = errors.New("agency's epoch is another")
	// ErrNoReason is an act without a reason.
	ErrNoReason = errors.New("a reason is required")
	// ErrNothing is an act that there is nothing to do for.
	ErrNothing = errors.New("nothing to do")
	// ErrLives is about a node that renews its lease, though people say that it is dead.
	ErrLives = errors.New("the node lives: it renews its lease")
)

// Replica is this node's copy of the table.
type Replica interface {
	State() *routing.State
	// Wait returns nil once the copy, and whoever follows it, has seen the position.
	Wait(ctx context.Context, pos routing.Position) error
}

// Options are what acts work with; Table, Replica and Logger are required.
type Options struct {
	Table   table.Table
	Replica Replica
	Logger  *slog.Logger

	// Receipts is how long the answers of other nodes are waited for; 0: two seconds.
	Receipts time.Duration

	// Silence is for how long a node whose short lease isn't over has to be silent before
	// Attest believes that it is dead; 0: three seconds.
	Silence time.Duration

	// Longest is the longest lease that any node has configured, for Bootstrap: a node that
	// is silent then may serve for that long. 0: an hour.
	Longest time.Duration
}

// Control carries out acts. Use [New]. It is safe for concurrent use.
type Control struct {
	Options

	mu      sync.Mutex
	silents map[routing.NodeID]silent // nodes that Evict has looked at
}

// New returns a Control.
func New(o Options) *Control {
	if o.Receipts == 0 {
		o.Receipts = 2 * time.Second
	}
	if o.Silence == 0 {
		o.Silence = 3 * time.Second
	}
	if o.Longest == 0 {
		o.Longest = time.Hour
	}
	return &Control{Options: o, silents: make(map[routing.NodeID]silent)}
}

// Act is one act of a person.
type Act struct {
	// ID makes the act happen once: at most 150 bytes of printable ASCII. A second call
	// with it gets the first one's result, as far as it is still known.
	ID     string
	Who    string // a person
	Reason string // required: it stands in the table's log

	// Expected are the epochs that the person has seen. An agency that isn't named here is
	// taken as it is.
	Expected map[routing.AgencyID]routing.Epoch
}

// done is a change that happened.
type done struct {
	at routing.Position
	// base is the newest revision of the records that it was computed from: who had it knew
	// how they are leased. 0: not known.
	base routing.Revision
}

// maxTries is how often an act is computed anew because others changed the same records.
const maxTries = 20

// change stores what compute makes of the newest State, again if that was overtaken, and
// returns when it is durable and this node has seen it. compute sets records, What and
// Guard; ErrNothing from it is passed on. step tells the changes of one act apart.
func (c *Control) change(ctx context.Context, act Act, step string, compute func(*routing.State) (table.Change, error)) (done, error) {
	if strings.TrimSpace(act.Reason) == "" {
		return done{}, ErrNoReason
	}
	for try := 0; ; try++ {
		state := c.Replica.State()
		change, err := compute(state)
		if err != nil {
			return done{}, err
		}
		at := state.Position()
		change.ID, change.Incarnation, change.Term = act.ID+"/"+step, at.Incarnation, at.Term
		change.Who, change.Reason = act.Who, act.Reason
		var pos routing.Position
		err = table.Persist(ctx, func() (err error) { pos, err = c.Table.Change(ctx, change); return err })
		if errors.Is(err, table.ErrStale) || errors.Is(err, table.ErrTerm) || errors.Is(err, table.ErrReused) {
			// Reused: the act happened, from an older record than the one here.
			if try >= maxTries {
				return done{}, fmt.Errorf("%s: %w", change.What, err)
			}
			if err := c.catchUp(ctx); err != nil {
				return done{}, fmt.Errorf("%s: %w", change.What, err)
			}
			if errors.Is(err, table.ErrReused) {
				return done{at: c.Replica.State().Position()}, c.confirm(ctx, change.What)
			}
			continue
		}
		if err != nil {
			return done{}, fmt.Errorf("%s: %w", change.What, err)
		}
		c.Logger.InfoContext(ctx, "table changed", "what", change.What, "person", act.Who, "reason", act.Reason, "revision", pos.Revision)
		if err := c.confirm(ctx, change.What); err != nil {
			return done{}, err
		}
		if err := c.Replica.Wait(ctx, pos); err != nil {
			return done{}, fmt.Errorf("%s: stored as revision %d, but this node's copy has not followed yet: %w", change.What, pos.Revision, err)
		}
		d := done{at: pos}
		for _, a := range change.Agencies {
			d.base = max(d.base, a.Revision)
		}
		return d, nil
	}
}

// confirm makes sure that what was stored can't be lost any more.
func (c *Control) confirm(ctx context.Context, what string) error {
	if err := table.Confirm(ctx, c.Table); err != nil {
		return fmt.Errorf("%s: stored, but not known to be durable: %w", what, err)
	}
	return nil
}

// catchUp waits until the replica is where the table is.
func (c *Control) catchUp(ctx context.Context) error {
	pos, err := c.Table.Position(ctx)
	if err != nil {
		return err
	}
	return c.Replica.Wait(ctx, pos)
}

// agencies computes the next records of all these agencies, in their order.
func agencies(state *routing.State, act Act, ids []routing.AgencyID, next func(routing.Agency) (routing.Agency, error)) ([]routing.Agency, error) {
	var list []routing.Agency
	for _, id := range ids {
		a, ok := state.Agency(id)
		if !ok {
			return nil, fmt.Errorf("agency %q: %w", id, ErrNoAgency)
		}
		if want, ok := act.Expected[id]; ok && want != a.Epoch {
			return nil, fmt.Errorf("agency %s: %w: it is %s, expected was %s", id, ErrEpoch, a.Epoch, want)
		}
		n, err := next(a.InTerm(state.Position().Term))
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	if len(list) == 0 {
		return nil, ErrNothing
	}
	return list, nil
}

func names(ids []routing.AgencyID) string {
	var s []string
	for _, id := range ids {
		s = append(s, string(id))
	}
	if len(s) > 5 {
		return fmt.Sprintf("%s and %d more", strings.Join(s[:5], ", "), len(s)-5)
	}
	return strings.Join(s, ", ")
}
