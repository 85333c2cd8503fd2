package daemon

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mailcutover/internal/config"
	"mailcutover/internal/metrics"
	"mailcutover/node"
	"mailcutover/routing"
	"mailcutover/routing/replica"
	"mailcutover/routing/table"
	"mailcutover/spool"
)

// surrenderPatience bounds the word to the table that this node decides nothing any more.
const surrenderPatience = 2 * time.Second

// followTable starts the replica, makes the gate, and waits a moment for the first contact.
func (d *Daemon) followTable(ctx context.Context, cfg *config.Config) error {
	var err error
	d.replica, err = replica.Open(replica.Options{
		Table: d.table, Dir: filepath.Join(cfg.Data, "replica"), Logger: d.logger,
		OnSeen: func(old, next *routing.State) {
			d.gate.Update(old, next)
			d.ownSpool(next, cfg.Routing.Separator)
		},
		OnUpdate: func(old, now *routing.State) {
			d.gate.Update(old, now)
			d.watchNames(now)
			if q := d.queue.Load(); q != nil {
				q.Update(old, now)
			}
		},
	})
	if err != nil {
		return err
	}
	d.ownSpool(d.replica.State(), cfg.Routing.Separator)
	id, err := routing.ParseNodeID(strings.ToLower(cfg.Node))
	if err != nil {
		return err
	}
	d.keeper, err = node.OpenKeeper(node.KeeperOptions{
		Table: d.table, Replica: d.replica, Node: id, Build: d.version.Version,
		Lease: node.Lease{Settled: cfg.Lease.Settled, Armed: cfg.Lease.Armed, Margin: cfg.Lease.Margin}, Renew: cfg.Lease.Renew,
		Dir: filepath.Join(cfg.Data, "node"), Counts: d.counts, Logger: d.logger,
		ClockRuns: cfg.Lease.ClockRunsWhileStopped, Limit: longest(cfg),
	})
	if err != nil {
		return err
	}
	d.gate = node.NewGate(d.replica, d.keeper, cfg.Routing.Separator)
	d.keeper.Attach(d.gate)
	d.metrics = metrics.New(d.version.Version, metrics.Sources{
		State: d.replica.State, Status: d.replica.Status, Load: d.gate.Load, Alarms: d.alarms, Certificates: d.certificateEnds,
		Spool: d.Spool, Lease: d.keeper.Status, Retained: d.copies, Recalls: d.recalls, Compared: d.comparisons, Waves: d.waveCounts, Directories: d.directoryCounts, Notices: d.noticeCounts,
		Canary: func(id routing.AgencyID) bool { return canaries{d}.of(id) != nil },
	})
	d.hold("replica", func() error {
		if d.initTable() != nil {
			d.hold("first incarnation", func() error { d.keepInitTable(); return nil })
		}
		return d.replica.Run(d.holds)
	})
	ctx, cancel := context.WithTimeout(ctx, firstContact)
	defer cancel()
	if err := d.caughtUp(ctx); err != nil {
		d.logger.Warn("table not reached yet: mail is put off until it is", "error", err)
	}
	return nil
}

// ownSpool has the spool keep its mail by who has which address in a state of the table, before
// anything is decided by it: so nothing overtakes what is held for an address that goes to
// another mailbox (P6). It is for one goroutine: the replica's, once that runs.
func (d *Daemon) ownSpool(s *routing.State, separator string) {
	if d.owning != nil && s.SameNames(d.owning) {
		return
	}
	d.owning = s
	d.spool.Own(func(a routing.Address) (routing.MailboxID, bool) {
		at := s.DecideAddress(a, separator)
		return at.Mailbox, !at.Mailbox.IsZero() || at.Reason == routing.ReasonFixed
	})
}

// hold runs f as a part of the node that ends after all others.
func (d *Daemon) hold(name string, f func() error) {
	d.holding.Go(func() {
		if err := f(); err != nil && d.holds.Err() == nil {
			d.fail(name, err)
		}
	})
}

// keepLease starts the keeper, and waits a moment for the first lease, if the table is there.
func (d *Daemon) keepLease(ctx context.Context) {
	d.hold("lease", func() error { return d.keeper.Run(d.holds) })
	if _, ok := d.replica.Fresh(); !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, firstContact)
	defer cancel()
	for d.gate.Ready() != nil {
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			d.logger.Warn("no lease yet: mail is put off until there is one", "error", d.gate.Ready())
			return
		}
	}
}

// stopKeeping gives the lease up and ends the copy of the table, after everything that
// decides has ended.
func (d *Daemon) stopKeeping() error {
	d.letGo()
	d.holding.Wait()
	if d.keeper == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), surrenderPatience)
	defer cancel()
	if err := d.keeper.Surrender(ctx); err != nil {
		d.logger.Warn("lease is not given up; it runs out", "error", err)
	}
	return d.keeper.Close()
}

// counts returns how much mail of each agency is in the spool.
func (d *Daemon) counts() []table.Count {
	_, agencies := d.spool.Counts()
	var list []table.Count
	for _, id := range slices.Sorted(maps.Keys(agencies)) {
		c := agencies[id]
		if held, waiting := c.Of(spool.StateHeld), c.Of(spool.StateWaiting); id != "" && held+waiting > 0 {
			list = append(list, table.Count{Agency: id, Held: held, Waiting: waiting})
		}
	}
	return list
}

// initTable gives an empty table its first incarnation, but only if this node never saw
// another: a table that was emptied is not a new one. What is wrong with it, the replica reports.
func (d *Daemon) initTable() error {
	_, err := d.table.Position(d.ctx)
	if errors.Is(err, table.ErrEmpty) && d.replica.State().Position().Incarnation == "" {
		if _, err = d.table.Init(d.ctx); err == nil {
			d.logger.Info("table was empty and is now ours to fill")
		}
	}
	return err
}

// keepInitTable tries it until the table is there, or this node has seen one.
func (d *Daemon) keepInitTable() {
	for pause := 100 * time.Millisecond; d.replica.State().Position().Incarnation == ""; pause = min(2*pause, 5*time.Second) {
		select {
		case <-time.After(pause):
		case <-d.ctx.Done():
			return
		}
		if d.initTable() == nil {
			return
		}
	}
}

// caughtUp returns when the replica has seen all that the table has now.
func (d *Daemon) caughtUp(ctx context.Context) error {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		pos, err := d.table.Position(ctx)
		if err == nil {
			return d.replica.Wait(ctx, pos)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}
