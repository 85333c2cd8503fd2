package daemon

import (
	"context"
	"errors"
	"sync"
	"time"

	"mailcutover/rollback/canary"
	"mailcutover/rollback/canary/desk"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
)

// trying is what tries canaries between switches (docs/operations/canaries.md).
type trying struct {
	desk    *desk.Desk
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// openCanaries makes the desk, which the runner of operations tells what it tried.
func (d *Daemon) openCanaries() {
	id, _ := d.keeper.Node()
	d.canaries.desk = desk.New(desk.Options{
		Node: id, Table: d.table, Replica: d.replica, Alarms: d.alarms, Logger: d.logger,
		Settings: func() desk.Settings {
			o := &d.config.Load().Operations
			return desk.Settings{Every: o.CanaryEvery, Failures: o.CanaryFailures, React: desk.React(o.CanaryReact)}
		},
		Configured: func(agency routing.AgencyID) bool { return canaries{d}.of(agency) != nil },
		Try:        canaries{d}.try, Ready: d.mayTry, Failed: d.canaryFailed,
		Noted: func(r *canary.Result) { d.metrics.Canaries().Tried(r.Agency, r.Parts, r.Ended) },
		Freeze: func(ctx context.Context, id routing.AgencyID, reason string) error {
			return d.admin.server.FreezeForCanary(ctx, id, reason)
		},
		RollBack: func(ctx context.Context, id routing.AgencyID, reason string) error {
			return d.admin.server.RollBackForCanary(ctx, id, reason)
		},
	})
}

// startCanaries begins to try them. The API is there, and the listeners are.
func (d *Daemon) startCanaries() {
	ctx, cancel := context.WithCancel(d.ctx)
	d.canaries.cancel = cancel
	d.canaries.running.Go(func() {
		if d.caughtUp(ctx) == nil {
			d.canaries.desk.Run(ctx)
		}
	})
}

// stopCanaries ends it.
func (d *Daemon) stopCanaries() {
	if d.canaries.cancel != nil {
		d.canaries.cancel()
		d.canaries.running.Wait()
	}
}

// errShortLease is why mail of armed agencies is put off here for the moment.
var errShortLease = errors.New("this node's short lease is over")

// mayTry is why this node can't try canaries now, whatever the platforms do.
func (d *Daemon) mayTry() error {
	if err := d.keeper.Ready(); err != nil {
		return err
	}
	if !d.keeper.Right(time.Time{}).Armed {
		return errShortLease
	}
	return nil
}

// canaryFailed may stop the plan of waves.
func (d *Daemon) canaryFailed(ctx context.Context, id routing.AgencyID, reason string) {
	if d.waves.desk != nil {
		d.waves.desk.CanaryFailed(ctx, id, reason)
	}
}

// followDocuments are those of waves, of lists and of canaries that follow an operation.
func followDocuments(s *routing.State, op *operation.Operation) ([]routing.Document, error) {
	docs, err := waveDocuments(s, op)
	if err != nil || op.Step != operation.StepSpread || op.Kind != operation.Cutover && op.Kind != operation.Rollback {
		return docs, err
	}
	for _, id := range op.Agencies {
		doc, err := desk.Switched(s, id, op.ID, op.Runner, op.TakesBack && !op.Plan.IsZero())
		if err != nil {
			return docs, err
		}
		docs = append(docs, doc)
	}
	return docs, nil
}
