package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

const (
	// leastPause is the least time between two renewals.
	leastPause = 10 * time.Millisecond

	// soon is after which time a renewal is repeated that failed, or that wasn't granted
	// all; and, twice, how long a renewal may take.
	soon = 250 * time.Millisecond

	// confirmPatience bounds a confirm.
	confirmPatience = 2 * time.Second
)

// errLag is why a node that doesn't follow the table doesn't renew either: it could not
// drain, and whoever waits for it has to see its lease run out.
var errLag = errors.New("this node's copy doesn't follow the table")

// round renews once, and returns after which time it is due again.
func (k *Keeper) round(ctx context.Context) time.Duration {
	if k.o.Replica.State().Position().Incarnation == "" {
		k.note(nil, errors.New("the table was not read yet"))
		return soon / 5
	}
	if k.lags() && !k.wentBack(ctx) {
		k.note(nil, fmt.Errorf("%w: it is told revision %d, and has %d", errLag, k.told.Revision, k.o.Replica.State().Position().Revision))
		return soon
	}
	k.maintain()
	r := k.renewal()
	r.Lapsed = !k.Right(time.Time{}).Settled
	if k.rest.given {
		surrendered(&r)
	}
	sent := k.o.Now()
	renewed, err := k.send(ctx, r)
	if ctx.Err() != nil {
		return soon
	}
	if err != nil {
		k.refused(ctx, err)
		return min(soon, k.o.Renew)
	}
	k.tell(renewed.Position)
	if !k.registered {
		k.registered = true
		k.o.Logger.Info("node is registered with the table", "node", k.o.Node, "instance", k.instance, "revision", renewed.Position.Revision)
	}
	k.replication = renewed.Replication
	if err := k.confirm(ctx); err != nil {
		k.note(&renewed, err)
		return min(soon, k.o.Renew)
	}
	if k.rest.given {
		k.note(&table.Renewed{Server: renewed.Server, Settled: true, Armed: true}, nil) // nothing is missing
		k.mergeLocks(ctx)
		return k.o.Renew
	}
	k.note(&renewed, nil)
	if !k.rest.dropped {
		k.take(ctx, sent, renewed)
	}
	k.mergeLocks(ctx)
	if !renewed.Settled || !renewed.Armed {
		return min(soon, k.o.Renew)
	}
	return k.o.Renew*9/10 + rand.N(k.o.Renew/10+1)
}

// renewal says all that this node has to say now.
func (k *Keeper) renewal() table.Renewal {
	// The marks come last: what is said to be drained was in them.
	r := table.Renewal{
		Incarnation: k.o.Replica.State().Position().Incarnation,
		Member: routing.Member{
			Node: k.o.Node, Instance: k.instance, Protocol: table.Protocol, Build: k.o.Build, ClockRuns: k.o.ClockRuns,
		},
		// Ends that are equal would say that it is given up.
		Short: min(k.o.Lease.Armed, k.o.Lease.Settled-time.Millisecond), Long: k.o.Lease.Settled,
		Replication: k.replication,
		Drained:     k.gate.Drained(), Doubts: k.gate.Doubts(),
	}
	if address := k.address.Load(); address != nil {
		r.Member.Address = *address
	}
	if k.o.Counts != nil {
		r.Counts = k.o.Counts()
	}
	// Also later on: the table may lose what it took.
	if len(k.before) > 0 {
		r.After = k.before[0]
	}
	r.Gone = k.gone()
	marks := k.o.Replica.Marks()
	r.Term, r.Applied, r.Began, r.Above, r.NamesLost = marks.Term, marks.Revision, marks.Began, marks.Above, marks.LostNames
	k.sequence++
	r.Sequence = k.sequence
	return r
}

// send sends a renewal. Where the table knows another instance of this node, it tries those
// that this directory had before.
func (k *Keeper) send(ctx context.Context, r table.Renewal) (table.Renewed, error) {
	ctx, cancel := context.WithTimeout(ctx, max(2*soon, min(k.o.Renew, 4*soon)))
	defer cancel()
	for tries := 1; ; tries++ {
		k.counts.renewals.Add(1)
		renewed, err := k.o.Table.Renew(ctx, r)
		if err != nil {
			k.counts.renewalsFailed.Add(1)
		}
		if !errors.Is(err, table.ErrInstance) || tries >= len(k.before) {
			return renewed, err
		}
		// None is given up: another server of the table may know another one.
		k.before = append(slices.Clone(k.before[1:]), k.before[0])
		r.After = k.before[0]
		k.sequence++
		r.Sequence = k.sequence
	}
}

// refused takes note of a renewal that failed. What was granted before stays, unless the
// table says that this node has no right to it.
func (k *Keeper) refused(ctx context.Context, err error) {
	if errors.Is(err, table.ErrEvicted) || errors.Is(err, table.ErrInstance) {
		k.drop()
	}
	if errors.Is(err, table.ErrInstance) {
		k.look(ctx)
		if why := k.outlives(); why != "" {
			err = fmt.Errorf("%w; %s", err, why)
		}
	}
	k.note(nil, err)
}

// confirm makes sure, once, that the table can't lose this node's registration: whoever
// switches must know of everybody who decides.
func (k *Keeper) confirm(ctx context.Context) error {
	if k.confirmed {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, confirmPatience)
	defer cancel()
	if err := k.o.Table.Confirm(ctx); err != nil {
		return fmt.Errorf("confirm the registration of node %s: %w", k.o.Node, err)
	}
	k.confirmed = true
	// Not before: a failover that loses the registration leaves the instance before it.
	if err := k.taken(); err != nil {
		k.o.Logger.Error("instance is not written: the next start may not have its name at once", "error", err)
	}
	return nil
}

// take puts what was granted into force, counted from the moment before it was asked for.
// Where the right had lapsed, the copy must have come to where the table stood then.
func (k *Keeper) take(ctx context.Context, sent time.Time, r table.Renewed) {
	had := k.Right(time.Time{})
	var settled, armed time.Time
	if r.Settled {
		settled = sent.Add(k.o.Lease.Settled - k.o.Lease.Margin)
	}
	if r.Armed {
		armed = sent.Add(k.o.Lease.Armed - k.o.Lease.Margin)
	}
	var now, later [2]time.Time
	for i, kind := range []struct {
		had bool
		end time.Time
	}{{had.Settled, settled}, {had.Armed, armed}} {
		if kind.had {
			now[i] = kind.end
		} else {
			later[i] = kind.end
		}
	}
	k.put(now[0], now[1])
	if later == ([2]time.Time{}) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, k.o.Renew)
	defer cancel()
	if k.o.Replica.Wait(ctx, r.Position) != nil {
		return // the next renewal, if not told before that the copy lags
	}
	k.put(later[0], later[1])
}

// tell notes where the table stands.
func (k *Keeper) tell(pos routing.Position) {
	if k.caughtUp() {
		k.told, k.toldAt = pos, k.o.Now()
	}
}

// lags reports whether the copy hasn't come for as long as a short lease to where the table
// stood.
func (k *Keeper) lags() bool {
	return !k.caughtUp() && k.o.Now().Sub(k.toldAt) > k.o.Lease.Armed
}

// wentBack reports whether the table stands below where it told that it does: another server
// has lost what was told. Nobody can follow to there any more, and the renewal that says so
// begins the rejoin.
func (k *Keeper) wentBack(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*soon)
	defer cancel()
	n, err := k.o.Table.Nodes(ctx)
	if err != nil || n.Position.Incarnation != k.told.Incarnation || n.Position.Term > k.told.Term || n.Position.Revision >= k.told.Revision {
		return false
	}
	k.told, k.toldAt = n.Position, k.o.Now()
	return true
}

func (k *Keeper) caughtUp() bool {
	ours := k.o.Replica.State().Position()
	return ours.Incarnation != k.told.Incarnation || ours.Term > k.told.Term ||
		ours.Term == k.told.Term && ours.Revision >= k.told.Revision
}

// Surrender gives the leases up, after Run and everything that decides have ended. While
// messages are in doubt the table is told to wait for as long as that lasts. Without it
// the leases run out by themselves.
func (k *Keeper) Surrender(ctx context.Context) error {
	k.drop()
	if !k.registered {
		return nil
	}
	r := k.renewal()
	surrendered(&r)
	if n := k.gate.dotted(); n > 0 {
		return fmt.Errorf("give up the lease of node %s: %d dots are still awaited", k.o.Node, n)
	}
	ctx, cancel := context.WithTimeout(ctx, 4*soon)
	defer cancel()
	if _, err := k.o.Table.Renew(ctx, r); err != nil {
		return fmt.Errorf("give up the lease of node %s: %w", k.o.Node, err)
	}
	k.registered = r.Long > 0 // else there is nothing left to give up
	return nil
}
