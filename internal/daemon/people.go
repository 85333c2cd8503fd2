package daemon

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"mailcutover/admin"
	"mailcutover/audit"
	"mailcutover/internal/config"
	"mailcutover/internal/durable"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

const (
	auditAlarm = "audit-log"

	// headsPause is the time between two copies of the audit log's head into the table: a
	// burst of acts makes one change of it.
	headsPause = 2 * time.Second

	// lastHead is how long a node that stops may take to copy the last one.
	lastHead = time.Second

	// keptHeads is how many heads of a node the table keeps: one of each of its last chains,
	// and of those that its log doesn't have any more.
	keptHeads = 20
)

// openPeople opens what the API keeps of people's acts on this node's disk, until the
// node's work ends.
func (d *Daemon) openPeople(cfg *config.Config, o *admin.Options) error {
	log, err := audit.Open(audit.Options{Dir: filepath.Join(cfg.Data, "audit"), Node: cfg.Node})
	if err != nil {
		return err
	}
	answers, err := durable.Open(nil, filepath.Join(cfg.Data, "answers"))
	if err != nil {
		return errors.Join(fmt.Errorf("open the answers to earlier calls: %w", err), log.Close())
	}
	if why := log.Damage(); why != "" {
		d.alarms.Raise(auditAlarm+"-damaged", "The audit log is not as it was written: "+why+". Copy its folder before anything else, and compare it with the heads in the table: mailcutover audit heads.")
	}
	keeper, err := d.openCheckpoints(cfg, log)
	if err != nil {
		return errors.Join(err, log.Close())
	}
	o.Checkpoints = keeper
	d.parts.Go(func() {
		var signing sync.WaitGroup
		signing.Go(func() { keeper.Run(d.ctx) })
		d.copyHeads(log)
		signing.Wait()
		if err := log.Close(); err != nil {
			d.logger.Error("audit log can't be closed", "error", err)
		}
	})
	d.parts.Go(d.watchEmergencies)
	o.Audit, o.Answers, o.Node = log, answers, cfg.Node
	o.Control, o.LocalLocks = d.control, d.keeper
	o.Approvals = func() int { return d.config.Load().Approvals }
	o.ApprovalLife = func() time.Duration { return d.config.Load().ApprovalLife }
	o.Limit = func() time.Duration { return longestLimit(d.config.Load()) }
	return nil
}

// copyHeads copies the head of the audit log into the table whenever it has grown, so that
// a log whose end was cut, or that was written anew, shows on every other node.
func (d *Daemon) copyHeads(log *audit.Log) {
	var copied audit.Head
	for {
		changed, head := log.Changed(), log.Head()
		var retry <-chan time.Time
		if head != copied && head.Number > 0 {
			if d.copyHead(d.ctx, log, head) {
				copied = head
			} else {
				retry = time.After(headsPause)
			}
		}
		select {
		case <-changed:
		case <-retry:
		case <-d.ctx.Done():
			if head := log.Head(); head != copied && head.Number > 0 {
				last, cancel := context.WithTimeout(context.Background(), lastHead)
				d.copyHead(last, log, head)
				cancel()
			}
			return
		}
		select {
		case <-time.After(headsPause):
		case <-d.ctx.Done():
		}
	}
}

// copyHead reports whether the table has the head now.
func (d *Daemon) copyHead(ctx context.Context, log *audit.Log, head audit.Head) bool {
	state := d.replica.State()
	if state.Position().Incarnation == "" {
		return false
	}
	doc, _ := state.Document(headsKey(d.config.Load().Node))
	text, problem := nextHeads(doc.Text, head, log.Has)
	if problem != "" {
		d.alarms.Raise(auditAlarm, "The audit log is not the one that the table knows: "+problem+". The table keeps the older head.")
	}
	doc.Key, doc.Text = headsKey(d.config.Load().Node), text
	_, err := d.table.Change(ctx, table.Change{
		ID: "audit/" + uuid.NewString(), Incarnation: state.Position().Incarnation, Term: state.Position().Term,
		Documents: []routing.Document{doc}, Guard: table.Guard{Rejoining: true},
		Who: d.config.Load().Node, What: fmt.Sprintf("head of the audit log: record %d", head.Number),
	})
	if err != nil && !errors.Is(err, table.ErrUnavailable) && !errors.Is(err, table.ErrStale) && ctx.Err() == nil {
		d.logger.Warn("head of the audit log can't be copied into the table", "error", err)
	}
	return err == nil
}

// headsKey is the key of the document with a node's heads.
func headsKey(node string) string { return admin.AuditKey + strings.ToLower(node) }

// nextHeads returns a node's heads with a newer one: it takes the place of the last one,
// unless the log lacks that.
func nextHeads(text string, head audit.Head, has func(audit.Head) error) (next, problem string) {
	lines := strings.Fields(text)
	if n := len(lines); n > 0 {
		last, err := audit.ParseHead(lines[n-1])
		switch {
		case err != nil:
			problem = err.Error()
		case last.Chain != head.Chain:
			problem = fmt.Sprintf("it is chain %s now, and was %s", head.Chain, last)
		default:
			if err := has(last); err != nil {
				problem = err.Error()
			} else {
				lines = lines[:n-1]
			}
		}
	}
	lines = append(lines, head.String())
	return strings.Join(lines[max(0, len(lines)-keptHeads):], "\n"), problem
}

// watchEmergencies keeps an alarm for each emergency that a second person has not
// confirmed, whichever node it was done on.
func (d *Daemon) watchEmergencies() {
	raised := map[routing.OperationID]bool{}
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for last := (*routing.State)(nil); ; {
		if state := d.replica.State(); state != last {
			last = state
			raised = d.showEmergencies(state, raised)
		}
		select {
		case <-second.C:
		case <-d.ctx.Done():
			return
		}
	}
}

func (d *Daemon) showEmergencies(state *routing.State, raised map[routing.OperationID]bool) map[routing.OperationID]bool {
	open := map[routing.OperationID][]string{}
	for _, a := range state.Agencies() {
		for _, id := range a.Unconfirmed.All() {
			open[id] = append(open[id], string(a.ID))
		}
	}
	now := map[routing.OperationID]bool{}
	for _, m := range state.Members() {
		for _, id := range m.Unconfirmed.All() {
			if now[id] = true; !raised[id] {
				d.alarms.Raise("emergency/"+string(id), fmt.Sprintf("One person alone attested that node %s was dead. A second one has to look, and confirm it: mailcutover emergency confirm %s --reason ... Until then no operation begins but emergencies.", m.Node, id))
			}
		}
	}
	for id, agencies := range open {
		now[id] = true
		if !raised[id] {
			d.alarms.Raise("emergency/"+string(id), fmt.Sprintf("One person alone acted on agency %s. A second one has to look, and confirm it: mailcutover emergency confirm %s --reason ...", strings.Join(agencies, ", "), id))
		}
	}
	for id := range raised {
		if !now[id] {
			d.alarms.Clear("emergency/" + string(id))
		}
	}
	return now
}
