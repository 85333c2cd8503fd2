package daemon

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"mailcutover/internal/config"
	"mailcutover/internal/durable"
	"mailcutover/rollback/control"
	"mailcutover/rollback/hook"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
)

const (
	// tendPause is the time between two looks at what operations left unsettled.
	tendPause = time.Second

	// settlePause is the time between two looks at agencies that are armed.
	settlePause = 30 * time.Second

	// abortPatience is how long an operation may try to abort after the grace period.
	abortPatience = 2 * time.Second
)

// startOperations makes the runner, and settles what the last stop left as soon as the
// table is there; recovered is closed after that.
func (d *Daemon) startOperations(cfg *config.Config) (recovered <-chan struct{}, err error) {
	journal, err := durable.Open(nil, filepath.Join(cfg.Data, "operations"))
	if err != nil {
		return nil, fmt.Errorf("open the journal of operations: %w", err)
	}
	id, instance := d.keeper.Node()
	if err := d.openReturns(cfg); err != nil {
		return nil, err
	}
	if err := d.openVerification(cfg); err != nil {
		return nil, err
	}
	d.control = control.New(control.Options{Table: d.table, Replica: d.replica, Logger: d.logger, Longest: cfg.Lease.Settled})
	d.runner = operation.New(operation.Options{
		Node: id, Instance: instance, Table: d.table,
		Replica: d.replica, Folder: journal, Alarms: d.alarms, Logger: d.logger,
		Leases: operation.Leases{Short: cfg.Lease.Armed, Long: cfg.Lease.Settled, Margin: cfg.Lease.Margin},
		Limit:  d.mailLimit,
		Logins: d.logins, Puts: func(id routing.AgencyID) bool { return slices.Contains(d.config.Load().Spool.PutOff, id) },
		Checks: []operation.Checker{listsCheck{d}, forwardsCheck{d}, d.returns.desk, d.verification.desk, waveCheck{d}}, Documents: followDocuments, Returns: d.returns.desk,
		Prober: prober{d}, Canaries: canaries{d}, Sessions: d.sessionsOf,
		Hooks: &hook.Operations{Find: d.hook, State: d.replica.State, Mover: d.mover, Forwards: forwards{d}},
	})
	d.openCanaries()
	if err := d.openWaves(); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	d.parts.Go(func() { d.tendOperations(done) })
	tender := d.control.Tender(cfg.Lease.SettleAfter)
	d.parts.Go(func() { d.settleAgencies(tender) })
	return done, nil
}

// mailLimit returns after how long a platform ends any connection for mail, by the configuration
// in force; 0: not configured.
func (d *Daemon) mailLimit(id routing.PlatformID) time.Duration {
	cfg := d.config.Load()
	for i := range cfg.Platforms {
		if cfg.Platforms[i].ID == id {
			return cfg.Platforms[i].ConnectionLimit
		}
	}
	return 0
}

// logins returns whether the nodes pass logins on to a platform, by the configuration in
// force, and after how long it ends any of them: the longest limit of its endpoints, 0 if one
// has none.
func (d *Daemon) logins(id routing.PlatformID) (limit time.Duration, takes bool) {
	cfg := d.config.Load()
	if len(cfg.Logins.Listeners) == 0 {
		return 0, false
	}
	unlimited := false
	for i := range cfg.Platforms {
		p := &cfg.Platforms[i]
		if p.ID != id {
			continue
		}
		for _, e := range []*config.LoginEndpoint{p.IMAP, p.Submission, p.POP3, p.Sieve} {
			if e != nil {
				takes, unlimited = true, unlimited || e.ConnectionLimit == 0
				limit = max(limit, e.ConnectionLimit)
			}
		}
	}
	if unlimited {
		limit = 0
	}
	return limit, takes
}

// sessionsOf counts an agency's login sessions on all nodes but those that it names.
func (d *Daemon) sessionsOf(ctx context.Context, agency routing.AgencyID) (n int, missing []string) {
	if d.admin == nil { // plans are made for those who ask it
		return 0, []string{d.config.Load().Node}
	}
	return d.admin.server.SessionsOf(ctx, agency)
}

// longest is the longest time after which a platform ends a connection, as far as that is
// configured.
func longest(cfg *config.Config) (limit time.Duration) {
	for i := range cfg.Platforms {
		p := &cfg.Platforms[i]
		limit = max(limit, p.ConnectionLimit)
		for _, e := range []*config.LoginEndpoint{p.IMAP, p.Submission, p.POP3, p.Sieve} {
			if e != nil {
				limit = max(limit, e.ConnectionLimit)
			}
		}
	}
	return limit
}

// hook returns a platform's hook by the configuration in force; nil: it has none.
func (d *Daemon) hook(id routing.PlatformID, kind hook.Kind) *hook.Hook {
	cfg := d.config.Load()
	for i := range cfg.Platforms {
		if cfg.Platforms[i].ID == id {
			return cfg.Platforms[i].Hook(kind)
		}
	}
	return nil
}

// mover reports whether an operation waits for what moves the mailboxes' content.
func (d *Daemon) mover(kind operation.Kind) (expected time.Duration, wanted bool) {
	o := d.config.Load().Operations
	return o.MoverExpected, slices.Contains(o.Mover, config.Move(kind))
}

// settleAgencies looks, now and then, for agencies that settle by themselves.
func (d *Daemon) settleAgencies(tender *control.Tender) {
	look := time.NewTicker(settlePause)
	defer look.Stop()
	for said := ""; ; {
		select {
		case <-look.C:
		case <-d.ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(d.ctx, settlePause)
		err := tender.Tend(ctx)
		cancel()
		switch {
		case err == nil:
			said = ""
		case err.Error() != said && d.ctx.Err() == nil:
			said = err.Error()
			d.logger.Warn("agencies are not settled", "error", err)
		}
	}
}

// tendOperations keeps looking after what operations left, until the node stops. Their
// alarms are the runner's.
func (d *Daemon) tendOperations(recovered chan<- struct{}) {
	for d.caughtUp(d.ctx) != nil {
		if d.ctx.Err() != nil {
			close(recovered)
			return
		}
	}
	err := d.runner.Recover(d.ctx)
	close(recovered)
	for said := ""; ; {
		switch {
		case err == nil:
			said = ""
		case err.Error() != said && d.ctx.Err() == nil:
			said = err.Error()
			d.logger.Error("operations are not settled", "error", err)
		}
		select {
		case <-time.After(tendPause):
			err = d.runner.Tend(d.ctx)
		case <-d.ctx.Done():
			return
		}
	}
}

// stopOperations ends the API, and the operations that it runs. What can neither end nor
// be aborted soon after ctx ended, since the table doesn't answer, is left to the next start.
func (d *Daemon) stopOperations(ctx context.Context) error {
	if d.runner == nil {
		return nil
	}
	defer d.runner.Stop()
	if d.admin == nil {
		return nil
	}
	stopped := make(chan struct{})
	var patience sync.WaitGroup
	patience.Go(func() {
		select {
		case <-stopped:
			return
		case <-ctx.Done():
		}
		select {
		case <-stopped:
		case <-time.After(abortPatience):
			d.runner.Halt()
		}
	})
	err := d.admin.server.Shutdown(ctx)
	close(stopped)
	patience.Wait()
	return err
}
