package daemon

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mailcutover/audit"
	"mailcutover/internal/config"
	"mailcutover/internal/metrics"
	"mailcutover/mail"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/operation"
	"mailcutover/rollback/recall/desk"
	"mailcutover/rollback/resend"
	"mailcutover/routing"
)

// returns is what brings mail over after a switch (docs/architecture/recall.md).
type returns struct {
	desk    *desk.Desk
	stores  atomic.Pointer[map[routing.PlatformID]mailstore.Store] // by the configuration in force
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// openReturns makes the desk, which the runner of operations asks.
func (d *Daemon) openReturns(cfg *config.Config) error {
	stores, err := openMailboxes(cfg, d)
	if err != nil {
		return err
	}
	d.returns.stores.Store(&stores)
	id, _ := d.keeper.Node()
	o := desk.Options{
		Node: id, Table: d.table, Replica: d.replica, Dir: filepath.Join(cfg.Data, "recall"), Ledger: d.ledger, Alarms: d.alarms,
		Settings: d.returnSettings, Nodes: otherNodes{d}, Removed: d.recallRemoved, Logger: d.logger,
	}
	if d.retained != nil {
		o.Copies = resend.New(resend.Options{
			Copies: d.retained, Spool: d.spool, Ledger: d.ledger, Node: cfg.Node, Logger: d.logger,
			Added: func(id mail.TransactionID, first int) { d.queue.Load().AddedFrom(id, first) },
		})
	}
	d.returns.desk, err = desk.New(o)
	return err
}

// startReturns begins to bring what is to be brought. The API is there.
func (d *Daemon) startReturns() {
	ctx, cancel := context.WithCancel(d.ctx)
	d.returns.cancel = cancel
	d.returns.running.Go(func() {
		if d.caughtUp(ctx) == nil { // what the table wants isn't known before
			d.returns.desk.Run(ctx)
		}
	})
}

// stopReturns ends it; the next start goes on.
func (d *Daemon) stopReturns() {
	if d.returns.cancel != nil {
		d.returns.cancel()
		d.returns.running.Wait()
	}
}

// openMailboxes returns the mailboxes of the platforms whose mailboxes can be read.
func openMailboxes(cfg *config.Config, d *Daemon) (map[routing.PlatformID]mailstore.Store, error) {
	all := make(map[routing.PlatformID]mailstore.Store)
	for i := range cfg.Platforms {
		p := &cfg.Platforms[i]
		if p.Mailboxes == nil {
			continue
		}
		o, err := cfg.MailboxOptions(p, d.logger)
		if err != nil {
			return nil, err
		}
		store, err := mailstore.New(o)
		if err != nil {
			return nil, err
		}
		all[p.ID] = store
	}
	return all, nil
}

// takeOverReturns puts other settings into force; nil: they are as they were. What is under way
// begins anew with them.
func (d *Daemon) takeOverReturns(stores map[routing.PlatformID]mailstore.Store) {
	if stores == nil {
		return
	}
	d.returns.stores.Store(&stores)
	d.returns.desk.Restart()
}

// sameReturns reports whether two configurations read mailboxes alike.
func sameReturns(old, next *config.Config) bool {
	if !reflect.DeepEqual(old.Recall, next.Recall) || len(old.Platforms) != len(next.Platforms) {
		return false
	}
	for i := range old.Platforms {
		a, b := &old.Platforms[i], &next.Platforms[i]
		if a.ID != b.ID || !reflect.DeepEqual(a.Mailboxes, b.Mailboxes) || !reflect.DeepEqual(a.IMAP, b.IMAP) || a.ConnectionLimit != b.ConnectionLimit {
			return false
		}
	}
	return true
}

// returnSettings are those of the configuration in force.
func (d *Daemon) returnSettings() desk.Settings {
	r := &d.config.Load().Recall
	return desk.Settings{
		Mailboxes: d.mailboxes, Limit: d.platformLimit,
		Workers: r.Workers, Messages: r.MessagesPerSecond, Settle: r.Settle,
	}
}

// mailboxes returns those of a platform; nil: they can't be read.
func (d *Daemon) mailboxes(id routing.PlatformID) mailstore.Store {
	return (*d.returns.stores.Load())[id]
}

// platformLimit returns after how long a platform ends any connection for mail, or a login.
func (d *Daemon) platformLimit(id routing.PlatformID) time.Duration {
	logins, _ := d.logins(id)
	return max(cmp.Or(d.mailLimit(id), operation.DefaultLimit), logins)
}

// otherNodes asks the other nodes through the API, which is there before anybody asks.
type otherNodes struct{ *Daemon }

// Deliveries implements desk.Nodes.
func (o otherNodes) Deliveries(ctx context.Context, q desk.Query) ([]desk.Delivered, []desk.Silent) {
	return o.admin.server.RecallPeers().Deliveries(ctx, q)
}

// Back implements desk.Nodes.
func (o otherNodes) Back(ctx context.Context, id desk.ID, v desk.Version) ([]desk.Back, []desk.Silent) {
	return o.admin.server.RecallPeers().Back(ctx, id, v)
}

// Known implements desk.Nodes.
func (o otherNodes) Known(ctx context.Context, id desk.ID, v desk.Version, node routing.NodeID, take func(*desk.Known) error) []desk.Silent {
	return o.admin.server.RecallPeers().Known(ctx, id, v, node, take)
}

// Watermarks implements desk.Nodes.
func (o otherNodes) Watermarks(ctx context.Context, digest routing.Digest) ([]byte, error) {
	return o.admin.server.RecallPeers().Watermarks(ctx, digest)
}

// recallRemoved notes in the audit log what recalls don't need any more, before it is removed. The
// API is there before anything is.
func (d *Daemon) recallRemoved(_ context.Context, r *desk.Removal) error {
	e := audit.Entry{What: "remove-recall", Subject: r.What, Reason: r.Reason, Digests: r.Digests}
	if r.Agency != "" {
		e.Subject += " of agency " + string(r.Agency)
	}
	var before []string
	for i, id := range r.Runs {
		before = append(before, fmt.Sprintf("%s: %s", id, r.Texts[i]))
	}
	for _, path := range r.Files {
		before = append(before, filepath.Base(filepath.Dir(path))+"/"+filepath.Base(path))
	}
	e.Before = strings.Join(before, "\n")
	_, err := d.admin.server.Audit.Append(e)
	return err
}

// recalls returns how the runs stand, for metrics; zero before they are looked at.
func (d *Daemon) recalls() metrics.Recalls {
	k := d.returns.desk
	if k == nil {
		return metrics.Recalls{}
	}
	c := k.Counts()
	return metrics.Recalls{Running: c.Running, Mailboxes: c.Mailboxes, Left: c.Left}
}
