package daemon

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"mailcutover/internal/config"
	"mailcutover/internal/metrics"
	"mailcutover/ledger"
	"mailcutover/mail"
	recalldesk "mailcutover/rollback/recall/desk"
	"mailcutover/rollback/verify/desk"
	"mailcutover/routing"
)

// verification is what compares mailboxes (docs/architecture/verify.md).
type verification struct {
	desk    *desk.Desk
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// openVerification makes the desk, which the runner of operations asks.
func (d *Daemon) openVerification(cfg *config.Config) (err error) {
	id, _ := d.keeper.Node()
	d.verification.desk, err = desk.New(desk.Options{
		Node: id, Table: d.table, Replica: d.replica, Dir: filepath.Join(cfg.Data, "verify"), Alarms: d.alarms, Settings: d.verifySettings,
		Before: func(ctx context.Context, id routing.AgencyID) desk.Before {
			b := d.returns.desk.Before(ctx, id)
			return desk.Before{Operation: b.Operation, Since: b.Since, Marks: b.Marks}
		},
		Cutover: recalldesk.LastCutover, Lock: d.lockCrossed, Delivered: d.deliveredTo, Logger: d.logger,
	})
	return err
}

// comparisons returns how comparisons stand, for metrics; zero before there is a desk.
func (d *Daemon) comparisons() metrics.Comparisons {
	if d.verification.desk == nil {
		return metrics.Comparisons{}
	}
	c := d.verification.desk.Counts()
	m := metrics.Comparisons{
		Running: c.Running, Open: make(map[string]int), Ages: make(map[routing.AgencyID]time.Duration),
		Compared: c.Compared, Unreadable: c.Unreadable, Done: c.Done, Failed: c.Failed,
	}
	for kind, n := range c.Open {
		m.Open[string(kind)] = n
	}
	for _, r := range c.Results {
		m.Ages[r.Agency] = r.Age
	}
	return m
}

// startVerification begins to compare what is to be compared. The API is there.
func (d *Daemon) startVerification() {
	ctx, cancel := context.WithCancel(d.ctx)
	d.verification.cancel = cancel
	d.verification.running.Go(func() {
		if d.caughtUp(ctx) == nil { // what the table wants isn't known before
			d.verification.desk.Run(ctx)
		}
	})
}

// stopVerification ends it; the next start goes on.
func (d *Daemon) stopVerification() {
	if d.verification.cancel != nil {
		d.verification.cancel()
		d.verification.running.Wait()
	}
}

// verifySettings are those of the configuration in force.
func (d *Daemon) verifySettings() desk.Settings {
	v := &d.config.Load().Verify
	return desk.Settings{
		Mailboxes: d.mailboxes, Sample: v.Sample, AfterCutover: v.AfterCutover, Every: v.Every, MaxAge: v.MaxAge, React: desk.React(v.React), Workers: v.Workers,
	}
}

// errStarting is why nothing is locked while the API isn't there yet.
var errStarting = errors.New("the node has just started")

// lockCrossed locks an agency for crossed mailboxes.
func (d *Daemon) lockCrossed(ctx context.Context, id routing.AgencyID, reason string) error {
	if d.admin == nil {
		return errStarting
	}
	return d.admin.server.LockCrossed(ctx, id, reason)
}

// deliveredTo reports whether this node's ledger, or another's, has a transaction as delivered to a mailbox.
func (d *Daemon) deliveredTo(ctx context.Context, agency routing.AgencyID, mailbox routing.MailboxID, id mail.TransactionID) bool {
	for r, err := range d.ledger.Find(ctx, ledger.Query{Transaction: id}) {
		if err != nil {
			d.logger.Warn("the ledger is not read as evidence", "transaction", id, "error", err)
			break
		}
		for i := range r.Recipients {
			if r.Recipients[i].Mailbox == mailbox && r.Answer(i).Result == ledger.ResultDelivered {
				return true
			}
		}
	}
	return d.returns.desk.DeliveredTo(ctx, agency, mailbox, id)
}
