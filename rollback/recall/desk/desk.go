package desk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"

	"mailcutover/internal/alarm"
	"mailcutover/mail"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/msgkey"
	"mailcutover/rollback/recall"
	"mailcutover/rollback/resend"
	"mailcutover/rollback/watermark"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Table is what a desk needs of the table; a table.Table is one.
type Table interface {
	Nodes(ctx context.Context) (table.Nodes, error)
	Change(ctx context.Context, c table.Change) (routing.Position, error)
	Mapping(ctx context.Context, agency routing.AgencyID, digest routing.Digest) (*routing.Mapping, error)
}

// Replica is this node's copy of the table.
type Replica interface {
	State() *routing.State
	Wait(ctx context.Context, pos routing.Position) error
}

// Nodes asks the other nodes. silent names those that did not answer, and why; nodes that are
// evicted, or attested to be dead, are not asked and not named.
type Nodes interface {
	// Deliveries returns what the other nodes' ledgers have.
	Deliveries(ctx context.Context, q Query) (all []Delivered, silent []Silent)
	// Back returns what the other nodes' journals have of a run, if they know it as v.
	Back(ctx context.Context, id ID, v Version) (all []Back, silent []Silent)
	// Known gives take what the other nodes know of mailboxes that node brings, if they know the
	// run as v: each in pages, from one goroutine. A page that take can't use ends that node's.
	Known(ctx context.Context, id ID, v Version, node routing.NodeID, take func(*Known) error) (silent []Silent)
	// Watermarks returns the bytes of a set that another node has.
	Watermarks(ctx context.Context, d routing.Digest) ([]byte, error)
}

// Copies are this node's retained copies of what went to a target.
type Copies interface {
	// Plan says, for people, what is there of an agency and what isn't any more.
	Plan(agency routing.AgencyID, since time.Time) []string
	// Deliver hands the copies of what went to from since then to the spool, for delivery to the
	// agency's platform of now; those that were handed over before are passed over. It returns
	// how many it handed over. It ends with ctx.
	// What back says is there already is left out.
	Deliver(ctx context.Context, agency routing.AgencyID, from routing.PlatformID, since time.Time, back func(mail.TransactionID, routing.MailboxID) bool) (int, error)
	// Each calls f for each of these copies and mailboxes, with what has become of it. It ends with
	// ctx, or with f's error.
	Each(ctx context.Context, agency routing.AgencyID, from routing.PlatformID, since time.Time, f func(mail.TransactionID, routing.MailboxID, resend.State) error) error
}

// Settings may change while the node runs.
type Settings struct {
	// Mailboxes returns the mailboxes of a platform; nil: they can't be read.
	Mailboxes func(routing.PlatformID) mailstore.Store
	// Limit returns after how long a platform ends any connection.
	Limit func(routing.PlatformID) time.Duration

	Workers  int           // mailboxes at once, of one run on this node; 0: 8
	Messages int           // a second, of one run on this node; 0: no limit
	Settle   time.Duration // between two passes over a mailbox; 0: 10 s
}

// Options are what a desk works with. Those of the first group are required.
type Options struct {
	Node     routing.NodeID
	Table    Table
	Replica  Replica
	Dir      string // of journals, watermarks and progress on this node
	Ledger   Ledger
	Alarms   alarm.Sink
	Settings func() Settings

	// Engine returns what brings the mailboxes of a run. nil: package recall, by Settings.
	Engine func(r *Run) (Engine, Journals, error)

	Nodes  Nodes  // nil: there are no others
	Copies Copies // nil: none are kept

	// Removed is told before something is removed for good; an error keeps it. nil: nobody is.
	Removed func(context.Context, *Removal) error

	FirstPause time.Duration // before a mailbox or a platform is tried again, doubled each time; 0: 2 s

	Logger *slog.Logger     // nil: nothing is logged
	Now    func() time.Time // nil: time.Now
}

// Desk is this node's part in all runs. Use [New].
type Desk struct {
	o      Options
	files  *watermark.Files
	now    func() time.Time
	disk   string // names this node's disk
	raised *alarm.Standing

	mu     sync.Mutex
	works  map[ID]*work  // of runs with a share of this node, also those that ended here
	absent map[ID]string // texts about nodes that have a share and are not there
	wake   chan struct{} // somebody wants the runs looked at now

	asking   sync.Mutex
	evidence map[routing.AgencyID]*evidence

	opening sync.Mutex
	open    map[string]*recall.Journals // by directory
}

// New returns a desk that does nothing before Run.
func New(o Options) (*Desk, error) {
	if o.Replica == nil || o.Table == nil || o.Settings == nil || o.Alarms == nil || o.Ledger == nil {
		return nil, errors.New("desk of recalls: want the table, a ledger, alarms and settings")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.FirstPause = cmp.Or(o.FirstPause, firstPause)
	disk, err := diskName(o.Dir)
	if err != nil {
		return nil, err
	}
	files, err := watermark.Open(filepath.Join(o.Dir, "watermarks"))
	if err != nil {
		return nil, err
	}
	return &Desk{
		o: o, files: files, now: o.Now, disk: disk,
		works: make(map[ID]*work), raised: alarm.NewStanding(o.Alarms, 0), wake: make(chan struct{}, 1),
		open: make(map[string]*recall.Journals), evidence: make(map[routing.AgencyID]*evidence),
	}, nil
}

// settings returns those of now, without zeros.
func (d *Desk) settings() Settings {
	s := d.o.Settings()
	s.Workers = cmp.Or(s.Workers, 8)
	s.Settle = cmp.Or(s.Settle, 10*time.Second)
	return s
}

// lookPause is the time between two looks at the runs of the table.
const lookPause = time.Second

// Run does this node's part in all runs, until ctx ends; it returns when nothing of it runs
// any more.
func (d *Desk) Run(ctx context.Context) {
	var beside sync.WaitGroup
	defer beside.Wait()
	defer d.stopAll()
	beside.Go(func() { d.keep(ctx) })
	look := time.NewTicker(lookPause)
	defer look.Stop()
	for {
		d.look(ctx)
		select {
		case <-look.C:
		case <-d.wake:
		case <-ctx.Done():
			return
		}
	}
}

// Restart begins what is under way anew, with the settings of then.
func (d *Desk) Restart() {
	d.mu.Lock()
	for _, w := range d.works {
		w.stop()
	}
	d.mu.Unlock()
	d.Look()
}

// Look has the runs looked at soon.
func (d *Desk) Look() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// look begins what has to be begun, and ends what has ended.
func (d *Desk) look(ctx context.Context) {
	s := d.o.Replica.State()
	runs, err := Runs(s)
	alarms := make(map[string]string)
	if err != nil {
		alarms["recall-unreadable"] = fmt.Sprintf("The table has recalls that this program can't read, and takes no part in: %v", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range runs {
		r := &runs[i]
		w := d.works[r.ID]
		stands := r.Stands(s)
		if t := r.Totals(s); stands == Done && t.left() != "" && r.Accepted == nil {
			alarms["recall-not-back/"+string(r.ID)] = fmt.Sprintf("%s %s of agency %s ended with %s. mailcutover recall status %[2]s names each; once they are seen to: mailcutover recall accept %[2]s --reason ...", r.Kind, r.ID, r.Agency, t.left())
		}
		// Copies are delivered by every node that has some, whether or not it has a share.
		copies := r.Copies && d.o.Copies != nil && r.Accepted == nil
		wanted := (stands == Running && r.shares(d.o.Node) || (stands == Running || stands == Done) && copies) && !r.brought(s, d.o.Node)
		switch {
		case w != nil && (!wanted || !w.same(r)):
			if !w.stopped() {
				w.stop()
				break // begun anew at the next look, if it is wanted
			}
			if wanted {
				d.works[r.ID] = d.begin(ctx, r)
			}
		case w == nil && wanted, w != nil && wanted && w.stopped():
			d.works[r.ID] = d.begin(ctx, r)
		}
		if w := d.works[r.ID]; w != nil && wanted {
			if text := w.trouble(); text != "" {
				alarms["recall/"+string(r.ID)] = text
			}
		}
	}
	for id, text := range d.absent {
		alarms["recall-silent/"+string(id)] = text
	}
	d.raised.Set(alarms)
}

// stopAll ends all work and waits for it.
func (d *Desk) stopAll() {
	d.mu.Lock()
	works := make([]*work, 0, len(d.works))
	for _, w := range d.works {
		w.stop()
		works = append(works, w)
	}
	d.mu.Unlock()
	for _, w := range works {
		w.done.Wait()
	}
}

// store changes documents of the table, in the node's own name. compute is called again if
// others were faster; nil documents: there is nothing to change.
func (d *Desk) store(ctx context.Context, what string, compute func(*routing.State) ([]routing.Document, error)) error {
	id := "recall/" + uuid.NewString()
	for try := 0; ; try++ {
		s := d.o.Replica.State()
		docs, err := compute(s)
		if err != nil || len(docs) == 0 {
			return err
		}
		c := table.Change{
			ID: fmt.Sprintf("%s/%d", id, try), Incarnation: s.Position().Incarnation, Term: s.Position().Term, Documents: docs,
			Who: string(d.o.Node), What: what, Reason: "the node's part is done",
		}
		pos, err := d.o.Table.Change(ctx, c)
		switch {
		case err == nil:
			return d.o.Replica.Wait(ctx, pos)
		case errors.Is(err, table.ErrStale), errors.Is(err, table.ErrTerm), errors.Is(err, table.ErrRejoining), errors.Is(err, table.ErrUnavailable):
			// Again, from what the copy has by then: whether it happened shows there.
		default:
			return fmt.Errorf("%s: %w", what, err)
		}
		select {
		case <-time.After(lookPause):
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, errors.Join(err, ctx.Err()))
		}
	}
}

// Engine brings one mailbox; *recall.Engine is one.
type Engine interface {
	Mailbox(ctx context.Context, job recall.Job) (recall.Result, error)
}

// Journals know what became of mailboxes; *recall.Journals are some.
type Journals interface {
	Result(id routing.MailboxID) (recall.Result, bool, error)
	Accounted(id routing.MailboxID) ([]msgkey.Key, error)
	Mailboxes() ([]routing.MailboxID, error)
	Export(id routing.MailboxID) ([]byte, error)
	Take(id routing.MailboxID, node routing.NodeID, text []byte) error
	Sent(id routing.MailboxID, messages ...mail.TransactionID) error
}

// engine returns what brings mailboxes of a run; ErrMailboxes if a side can't be read.
func (d *Desk) engine(r *Run, set Settings) (Engine, Journals, error) {
	if d.o.Engine != nil {
		return d.o.Engine(r)
	}
	from, to := set.Mailboxes(r.From), set.Mailboxes(r.To)
	switch {
	case from == nil:
		return nil, nil, fmt.Errorf("%w: of %s", ErrMailboxes, r.From)
	case to == nil:
		return nil, nil, fmt.Errorf("%w: of %s", ErrMailboxes, r.To)
	}
	journals, err := d.opened(d.journals(r))
	if err != nil {
		return nil, nil, err
	}
	e, err := recall.New(recall.Options{From: from, To: to, Journals: journals, Messages: set.Messages, Logger: d.o.Logger, Now: d.o.Now})
	return e, journals, err
}

// opened returns the journals in a directory, which this process opens once.
func (d *Desk) opened(dir string) (*recall.Journals, error) {
	d.opening.Lock()
	defer d.opening.Unlock()
	if j := d.open[dir]; j != nil {
		return j, nil
	}
	j, err := recall.OpenJournals(dir)
	if err == nil {
		d.open[dir] = j
	}
	return j, err
}

// journals is where the journals of a run lie, which it shares with the other runs of its
// operation and direction.
func (d *Desk) journals(r *Run) string {
	return filepath.Join(d.o.Dir, "journals", journalsOf(r), string(r.Agency)+"-from-"+string(r.From))
}

// journalsOf names the journals of a run's operation.
func journalsOf(r *Run) string { return cmp.Or(string(r.Operation), "by-hand") }

// ErrMailboxes is about a platform whose mailboxes this node can't read by its settings.
var ErrMailboxes = errors.New("mailboxes can't be read: platforms.mailboxes isn't set")
