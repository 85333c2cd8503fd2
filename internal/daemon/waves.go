package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"

	"mailcutover/admin"
	identitydesk "mailcutover/identity/desk"
	"mailcutover/internal/config"
	"mailcutover/internal/metrics"
	"mailcutover/plan"
	"mailcutover/plan/desk"
	"mailcutover/rollback/operation"
	"mailcutover/rollback/rehearse"
	verifydesk "mailcutover/rollback/verify/desk"
	"mailcutover/routing"
)

// waves is this node's part in the plan (docs/operations/plan.md).
type waves struct {
	desk    *desk.Desk
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// openWaves makes the desk. The runner of operations is there.
func (d *Daemon) openWaves() (err error) {
	id, instance := d.keeper.Node()
	d.waves.desk, err = desk.New(desk.Options{
		Node: id, Instance: instance, Table: d.table, Replica: d.replica, Runner: d.runner, Knows: waveKnows{d}, Alarms: d.alarms,
		Acts: d.waveActs, Settings: d.waveSettings, Needed: d.approvalsNeeded, Fallback: d.cutoverTakes, Logger: d.logger,
	})
	return err
}

// startWaves begins to look after waves. The API is there.
func (d *Daemon) startWaves() {
	ctx, cancel := context.WithCancel(d.ctx)
	d.waves.cancel = cancel
	d.waves.running.Go(func() {
		if d.caughtUp(ctx) == nil { // which waves there are isn't known before
			d.waves.desk.Run(ctx)
		}
	})
}

// endWaves lets nothing start any more; stopWaves waits for it.
func (d *Daemon) endWaves() {
	if d.waves.cancel != nil {
		d.waves.cancel()
	}
}

func (d *Daemon) stopWaves() {
	d.endWaves()
	d.waves.running.Wait()
}

// waveActs is who acts for waves.
func (d *Daemon) waveActs() desk.Acts {
	if d.admin == nil {
		return nil
	}
	return d.admin.server
}

func (d *Daemon) waveSettings() plan.Settings {
	p := &d.config.Load().Plan
	return plan.Settings{
		AtOnce: p.AtOnce, BackupAge: p.BackupAge, RehearsalAge: p.RehearsalAge, VerifyAge: p.VerifyAge, Retries: p.Retries,
		Stop: plan.Thresholds{Canaries: p.Stop.CanaryFailures, Findings: p.Stop.VerifyFindings, ErrorRate: p.Stop.ErrorRate, Drift: p.Stop.Drift, Aborts: p.Stop.Aborts},
	}
}

// approvalsNeeded is how many others have to approve by the configuration in force.
func (d *Daemon) approvalsNeeded() int {
	cfg := d.config.Load()
	if cfg.Approval == config.ApprovalNone {
		return 0
	}
	return cfg.Approvals
}

// bareCutover is what a cutover is taken to last where nothing was measured, besides its hooks
// and what moves the content.
const bareCutover = 30 * time.Second

// cutoverTakes is how long a cutover takes by the settings alone.
func (d *Daemon) cutoverTakes() time.Duration {
	takes := bareCutover
	cfg := d.config.Load()
	for i := range cfg.Platforms {
		h := &cfg.Platforms[i].Hooks
		for _, one := range []*config.Hook{h.Close, h.Open, h.ForwardOn, h.ForwardOff} {
			if one != nil {
				takes += one.Timeout
			}
		}
	}
	if expected, wanted := d.mover(operation.Cutover); wanted {
		takes += expected
	}
	return takes
}

// waveCounts are the figures of the plan.
func (d *Daemon) waveCounts() metrics.Waves {
	k := d.waves.desk
	if k == nil {
		return metrics.Waves{}
	}
	c := k.Counts()
	w := metrics.Waves{States: make(map[string]int), Next: c.Next, Stopped: c.Stopped}
	for _, s := range plan.Standings() {
		w.States[string(s)] = c.Waves[s]
	}
	return w
}

// waveDocuments are the documents that follow an operation: those of lists, and those of waves.
func waveDocuments(s *routing.State, op *operation.Operation) ([]routing.Document, error) {
	docs, err := admin.ListDocuments(s, op)
	if err != nil {
		return nil, err
	}
	more, err := desk.Documents(s, op)
	return append(docs, more...), err
}

// waveKnows is what this node knows of agencies besides the table.
type waveKnows struct{ *Daemon }

// Lists implements desk.Knows.
func (k waveKnows) Lists(id routing.AgencyID) plan.Fact {
	cfg := k.config.Load()
	if !cfg.Identity.Configured() && cfg.Lab {
		return plan.Fact{OK: true, Informs: true, Text: "no directories are configured: the mailboxes were compared with nothing, which only a lab may do"}
	}
	read, err := listsCheck(k).ready(cfg, id)
	if err != nil {
		return plan.Fact{Text: err.Error()}
	}
	return plan.Fact{OK: true, Text: "each mailbox is in an approved list in force, and the directory, read at " + read.UTC().Format(time.RFC3339) + ", says the same"}
}

// Rehearsed implements desk.Knows.
func (k waveKnows) Rehearsed(s *routing.State, id routing.AgencyID) (plan.Rehearsal, bool) {
	doc, ok := s.Document(rehearse.Key(id))
	if !ok {
		return plan.Rehearsal{}, false
	}
	r, err := rehearse.ParseRecord(doc.Text)
	if err != nil {
		return plan.Rehearsal{Text: err.Error()}, true
	}
	text := fmt.Sprintf("%d of %d mailboxes", r.Mailboxes, r.Of)
	if a, ok := s.Agency(id); ok && a.Mapping != r.Mapping {
		text += ", of a list that is not in force any more"
	}
	if len(r.Problems) > 0 {
		text = r.Problems[0]
	}
	return plan.Rehearsal{Time: r.Ended, OK: r.Passed, Text: text}, true
}

// Compared implements desk.Knows.
func (k waveKnows) Compared(s *routing.State, id routing.AgencyID) plan.Comparison {
	c := plan.Comparison{Open: len(k.Crossed(s, id))}
	a, _ := s.Agency(id)
	c.Possible = k.mailboxes(a.Source) != nil && k.mailboxes(a.Target) != nil
	if r, err := verifydesk.RecordOf(s, id); err == nil && r.Last != nil {
		c.Time = r.Last.Began
	}
	return c
}

// Crossed implements desk.Knows.
func (k waveKnows) Crossed(s *routing.State, id routing.AgencyID) (all []string) {
	found, err := verifydesk.Findings(s, id)
	if err != nil {
		return []string{err.Error()}
	}
	for i := range found {
		if f := &found[i]; f.State.Open() && f.Kind.Alarms() {
			all = append(all, f.ID)
		}
	}
	return all
}

// Drifted implements desk.Knows.
func (k waveKnows) Drifted(ids []routing.AgencyID) (all []desk.Drift) {
	d := k.desk()
	if d == nil {
		return nil
	}
	for _, id := range ids {
		rows, err := d.Drift(id)
		if err != nil {
			continue // what isn't known is no finding; the checklist refuses for it
		}
		one := desk.Drift{Agency: id}
		for _, row := range rows {
			if row.Kind.Blocks() {
				one.Rows = append(one.Rows, identitydesk.Say(row))
			}
		}
		if len(one.Rows) > 0 {
			all = append(all, one)
		}
	}
	return all
}

// Answers implements desk.Knows.
func (k waveKnows) Answers() (refused, all uint64) { return k.metrics.Transfer().Answers() }

// waveCheck refuses the cutover of an agency of a wave while the plan is stopped, and says in
// which wave an agency is.
type waveCheck struct{ *Daemon }

// Check implements operation.Checker.
func (c waveCheck) Check(_ context.Context, p *operation.Plan) (all []operation.Check) {
	const name = "waves"
	if p.Kind != operation.Cutover {
		return nil
	}
	state := c.replica.State()
	waves, unreadable := plan.Waves(state)
	member := len(unreadable) > 0
	for i := range waves {
		w := &waves[i]
		if w.Run(p.Agency) == nil || w.Standing.Over() {
			continue
		}
		member = true
		all = append(all, operation.Check{Name: name, OK: true, Informs: true, Text: fmt.Sprintf("agency %s is in wave %s, which is %s", p.Agency, w.Name, w.Standing)})
	}
	if err := plan.Refuses(state); err != nil && member {
		return append(all, operation.Failed(name, err))
	}
	return all
}
