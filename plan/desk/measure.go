package desk

import (
	"context"
	"time"

	"mailcutover/plan"
	"mailcutover/rollback/operation"
)

// forecast is made of the last cutovers that the table knows.
func (d *Desk) forecast() *plan.Forecast {
	d.mu.Lock()
	defer d.mu.Unlock()
	return plan.NewForecast(d.measured, d.o.Fallback())
}

// measure reads how long cutovers took. The waves have their own; the table keeps the last
// operations, whoever began them.
func (d *Desk) measure(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	s := d.o.Replica.State()
	all := make(map[string]plan.Measure)
	ops, err := d.o.Table.Operations(ctx)
	if err != nil && ctx.Err() == nil {
		d.o.Logger.Warn("past operations are not read for the forecast", "error", err)
	}
	for i := range ops {
		op, err := operation.FromRecord(&ops[i])
		if err == nil && op.Kind == operation.Cutover && op.Step == operation.StepDone && !op.Opened.IsZero() {
			all[string(op.ID)] = plan.Measure{Took: op.Opened.Sub(op.Started), Mailboxes: mailboxes(s, op.Agency), Time: op.Opened}
		}
	}
	waves, _ := plan.Waves(s)
	for i := range waves {
		for _, r := range waves[i].Runs {
			if r.Place == plan.Moved && r.Ended.After(r.Started) {
				all[string(r.Operation)] = plan.Measure{Took: r.Ended.Sub(r.Started), Mailboxes: r.Mailboxes, Time: r.Ended}
			}
		}
	}
	measured := make([]plan.Measure, 0, len(all))
	for _, m := range all {
		measured = append(measured, m)
	}
	d.mu.Lock()
	d.measured = measured
	d.mu.Unlock()
}

// readPatience bounds what is read of the table.
const readPatience = 5 * time.Second
