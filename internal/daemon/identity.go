package daemon

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"mailcutover/identity/desk"
	"mailcutover/identity/ldapdir"
	"mailcutover/identity/list"
	"mailcutover/internal/config"
	"mailcutover/internal/metrics"
	"mailcutover/rollback/hook"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
)

// identity is what the node knows of the directories by one state of its configuration.
type identity struct {
	desk    *desk.Desk
	clients []*ldapdir.Client
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// openIdentity makes what a configuration asks for; nil if there is no directory. It reads
// nothing before begin.
func (d *Daemon) openIdentity(cfg *config.Config) (*identity, error) {
	c := &cfg.Identity
	if !c.Configured() {
		return nil, nil
	}
	m, err := c.Model()
	if err != nil {
		return nil, err
	}
	key, err := list.NewKey([]byte(c.Key.Reveal()))
	if err != nil {
		return nil, fmt.Errorf("identity.key: %w", err)
	}
	o := desk.Options{
		Model: m, Key: key, State: d.replica.State, Alarms: d.alarms,
		CheckAge: c.CheckAge, CheckEvery: c.CheckEvery, ListRows: c.ListRows,
		MostRows: c.Additions.MostRows, MostPercent: c.Additions.MostPercent,
		ProofAge: c.Unknown.SnapshotAge, Rate: float64(c.Unknown.MaxRate), Separator: cfg.Routing.Separator,
		Forwarded: func(id routing.PlatformID) bool { return d.hook(id, hook.ForwardOn) != nil },
		Enter:     d.admin.server.Enter, Logger: d.logger,
	}
	i := &identity{}
	for n := range c.Directories {
		dir := &c.Directories[n]
		settings, err := dir.Options(m.Attributes())
		if err != nil {
			return nil, err
		}
		settings.Logger = d.logger
		client, err := ldapdir.New(settings)
		if err != nil {
			return nil, err
		}
		i.clients = append(i.clients, client)
		if dir.Role == config.DirectorySource {
			o.Source = client
		} else {
			o.Target = client
		}
	}
	i.desk, err = desk.New(o)
	return i, err
}

// begin lets the directories be read, until end.
func (i *identity) begin(ctx context.Context) {
	ctx, i.cancel = context.WithCancel(ctx)
	i.running.Go(func() { _ = i.desk.Run(ctx) }) // it ends with ctx, and for no other reason
}

// end stops reading, and takes the alarms back.
func (i *identity) end() {
	i.cancel()
	i.running.Wait()
	i.desk.Clear()
	for _, c := range i.clients {
		c.Close()
	}
}

// startIdentity begins to read the directories, if there are any. The API is there.
func (d *Daemon) startIdentity(cfg *config.Config) error {
	i, err := d.openIdentity(cfg)
	if err != nil || i == nil {
		return err
	}
	d.identity.Store(i)
	i.begin(d.ctx)
	return nil
}

// takeOverIdentity puts another configuration of the directories into force, and reads them
// anew. What stays as it was keeps its readings.
func (d *Daemon) takeOverIdentity(old, next *config.Config, fresh *identity) {
	if sameIdentity(old, next) {
		return
	}
	was := d.identity.Swap(fresh)
	if was != nil {
		was.end()
	}
	if fresh != nil {
		fresh.begin(d.ctx)
	}
}

func sameIdentity(old, next *config.Config) bool {
	return reflect.DeepEqual(old.Identity, next.Identity) && old.Routing.Separator == next.Routing.Separator
}

// stopIdentity is for the end of the node; its alarms go with it.
func (d *Daemon) stopIdentity() {
	if i := d.identity.Swap(nil); i != nil {
		i.end()
	}
}

// desk returns who knows the directories now; nil: none is configured.
func (d *Daemon) desk() *desk.Desk {
	if i := d.identity.Load(); i != nil {
		return i.desk
	}
	return nil
}

// directoryCounts are the figures of the directories; none: none is configured.
func (d *Daemon) directoryCounts() (out metrics.Directories) {
	k := d.desk()
	if k == nil {
		return out
	}
	c := k.Counts()
	for _, one := range c.Directories {
		out.Read = append(out.Read, metrics.Directory{
			Name: one.Directory, Age: one.Age, Took: one.Took, Objects: one.Objects, Problems: one.Problems, Failures: one.Failures,
		})
	}
	for _, one := range c.Drift {
		out.Drift = append(out.Drift, metrics.Drift(one))
	}
	return out
}

// directoryNames are the directories as the mail side asks them.
type directoryNames struct{ *Daemon }

// Absent implements transfer.Names.
func (n directoryNames) Absent(ctx context.Context, a routing.Address) error {
	if k := n.desk(); k != nil {
		return k.Absent(ctx, a)
	}
	return fmt.Errorf("%w: no directory is configured", desk.ErrUnproven)
}

// Encapsulated implements transfer.Names.
func (n directoryNames) Encapsulated(a routing.Address) (routing.Address, bool) {
	if k := n.desk(); k != nil {
		return k.Encapsulated(a)
	}
	return "", false
}

// listsCheck refuses a cutover of an agency whose mailboxes are not as approved lists and the
// directory say; before a rollback it only informs (docs/architecture/identity.md).
type listsCheck struct{ *Daemon }

// Check implements operation.Checker.
func (c listsCheck) Check(_ context.Context, p *operation.Plan) []operation.Check {
	const name = "lists"
	if p.Kind == operation.Remap {
		return nil // an approval says which
	}
	cfg := c.config.Load()
	if !cfg.Identity.Configured() && cfg.Lab {
		return []operation.Check{{Name: name, Informs: true, Text: "no directories are configured: that each mailbox is the right one was not compared with anything, which only a lab may do"}}
	}
	var all []operation.Check
	for i := range p.Agencies {
		one := operation.Passed(name, "")
		read, err := c.ready(cfg, p.Agencies[i].ID)
		if err != nil {
			one = operation.Failed(name, err)
		} else {
			one.Text = fmt.Sprintf("agency %s: each mailbox is in an approved list in force, and the directory, read at %s, says the same", p.Agencies[i].ID, read.UTC().Format(time.RFC3339))
		}
		one.Informs = p.Kind == operation.Rollback
		all = append(all, one)
	}
	return all
}

var errNoDirectories = errors.New("no directories are configured (identity), so nothing says that each mailbox is the right one: only in a lab an agency is cut over all the same")

func (c listsCheck) ready(cfg *config.Config, id routing.AgencyID) (time.Time, error) {
	k := c.desk()
	switch {
	case !cfg.Identity.Configured():
		return time.Time{}, errNoDirectories
	case k == nil:
		return time.Time{}, fmt.Errorf("agency %s: %w", id, desk.ErrStale)
	}
	return k.Ready(id)
}
