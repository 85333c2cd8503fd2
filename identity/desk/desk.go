package desk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"mailcutover/identity/directory"
	"mailcutover/identity/list"
	"mailcutover/identity/model"
	"mailcutover/identity/register"
	"mailcutover/identity/watch"
	"mailcutover/internal/alarm"
	"mailcutover/routing"
)

// ErrStale is wrapped by errors about directories that were not read lately enough.
var ErrStale = errors.New("the directories were not read lately enough")

// ErrNotModelled is wrapped by errors about an agency of which the configuration doesn't say
// what belongs to it.
var ErrNotModelled = errors.New("identity.agencies doesn't say what belongs to it")

// Addition is what enters an agency by itself.
type Addition struct {
	Agency routing.AgencyID
	Rows   []routing.Row   // new mailboxes, and known ones with more names
	Fixed  []routing.Fixed // addresses that stay where they are

	// Members are who is a member of which functional mailbox, where that is new or has
	// changed.
	Members []routing.Document
	Reason  string // for the audit log
}

// Options are what a desk works with. Those of the first group are required.
type Options struct {
	Source directory.Directory
	Model  *model.Model
	Key    list.Key
	State  func() *routing.State // the table as this node has it now
	Alarms alarm.Sink

	Target directory.Directory // nil: there is none

	CheckAge   time.Duration // how old a reading may be for lists and cutovers
	CheckEvery time.Duration // between two readings; 0: only on demand
	ListRows   int           // of a generated list; 0: list.DefaultRows

	// Enter stores an addition, as one change of the table with an audit record. What of it
	// would be more than an addition it leaves out, and returns in words. nil: nothing enters.
	Enter                 func(ctx context.Context, a *Addition) (left []string, err error)
	MostRows, MostPercent int // of an agency, after one reading

	// Forwarded reports whether a platform's forwards are set by a hook; nil: none are.
	Forwarded func(routing.PlatformID) bool

	ProofAge  time.Duration // see [watch.Options]
	Rate      float64
	Separator string // of sub-addressing; empty: none

	Logger *slog.Logger
	Now    func() time.Time // nil is time.Now
}

// Desk is the place to ask. Use [New].
type Desk struct {
	o      Options
	now    func() time.Time
	watch  *watch.Watch
	raised *alarm.Standing // of the last reading, raised by each

	mu       sync.Mutex
	failed   error
	failedAt time.Time
	counted  []DriftCounts // of the last reading
}

// New returns a desk that has read nothing yet.
func New(o Options) (*Desk, error) {
	if o.State == nil || o.Alarms == nil {
		return nil, errors.New("desk of the directories: want the table and alarms")
	}
	d := &Desk{o: o, now: o.Now, raised: alarm.NewStanding(o.Alarms, sayAgain)}
	if d.now == nil {
		d.now = time.Now
	}
	if d.o.Logger == nil {
		d.o.Logger = slog.New(slog.DiscardHandler)
	}
	var err error
	d.watch, err = watch.New(watch.Options{
		Source: o.Source, Target: o.Target, Model: o.Model, Every: o.CheckEvery, ProofAge: o.ProofAge, Rate: o.Rate,
		Read: d.wasRead, Failed: d.wasNotRead, Logger: d.o.Logger, Now: o.Now,
	})
	return d, err
}

const (
	readAlarm    = "directory-unread"
	problemAlarm = "directory-problems"
	driftAlarm   = "drift/"
	enterAlarm   = "directory-additions/"
	memberAlarm  = "members/"

	// sayAgain is so short that each reading raises what stays, also if a person has cleared it.
	sayAgain = time.Millisecond
)

// Run reads the directories at once, then on schedule and on demand, until ctx ends.
func (d *Desk) Run(ctx context.Context) error { return d.watch.Run(ctx) }

// Clear takes the desk's own alarms back, when another takes its place.
func (d *Desk) Clear() {
	d.raised.Set(nil)
	d.o.Alarms.Clear(readAlarm)
}

// wasNotRead is for a reading that didn't come to its end.
func (d *Desk) wasNotRead(err error) {
	d.mu.Lock()
	d.failed, d.failedAt = err, d.now()
	d.mu.Unlock()
	d.o.Alarms.Raise(readAlarm, fmt.Sprintf("The directories can't be read: lists can't be checked, nothing new enters, and no agency can be cut over once the last reading is older than identity.check_age. %v", err))
}

// wasRead follows a whole reading: what is new enters, what has drifted is said.
func (d *Desk) wasRead(ctx context.Context, source, target *watch.View) {
	d.mu.Lock()
	d.failed = nil
	d.mu.Unlock()
	d.o.Alarms.Clear(readAlarm)
	alarms := make(map[string]string)
	var counted []DriftCounts
	if n := len(source.Problems); n > 0 {
		alarms[problemAlarm] = fmt.Sprintf("%s has %d objects of agencies that can't be used, such as %s: %s. See mailcutover directory show.", source.Snapshot.Directory, n, source.Problems[0].DN, source.Problems[0].Text)
	}
	for _, id := range d.o.Model.Agencies() {
		if ctx.Err() != nil {
			return
		}
		if text := d.enter(ctx, source, id); text != "" {
			alarms[enterAlarm+string(id)] = text
		}
		rows, other, listed := d.drifted(source, target, id)
		if listed {
			counted = append(counted, DriftCounts{Agency: id, Blocks: len(rows), Other: other})
		}
		if len(rows) > 0 {
			alarms[driftAlarm+string(id)] = fmt.Sprintf("Agency %s has drifted from its lists in %d rows, and can't be cut over until a new list is approved: %s. See mailcutover list drift --agency %s.", id, len(rows), some(rows), id)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counted = counted
	d.raised.Set(alarms)
}

// drifted returns in words how an agency doesn't fit its lists in force any more, and how many
// differences keep nothing back. An agency without such a list has none.
func (d *Desk) drifted(source, target *watch.View, id routing.AgencyID) (rows []string, other int, listed bool) {
	state := d.o.State()
	entries, _ := register.Lists(state, id) // what can't be read refuses the cutover
	if !slices.ContainsFunc(entries, func(e register.Entry) bool { return e.Standing == register.Active }) {
		return nil, 0, false
	}
	for _, one := range watch.Compare(source, target, d.o.Model, state, id, entries) {
		if one.Kind.Blocks() {
			rows = append(rows, Say(one))
		} else {
			other++
		}
	}
	return rows, other, true
}

// Say returns a drift in words.
func Say(d watch.Drift) string {
	name := string(d.Address)
	if name == "" {
		name = d.Mailbox.String()
	}
	switch d.Kind {
	case watch.Gone:
		return name + ": the directory doesn't know the mailbox any more"
	case watch.Moved:
		if d.To == "" {
			return name + ": the directory counts the mailbox to no agency any more"
		}
		return name + ": the directory counts the mailbox to agency " + string(d.To)
	case watch.Disabled:
		return name + ": the account is disabled"
	case watch.Readdress:
		return name + ": it was listed with this address, which isn't its own any more"
	case watch.Repaired:
		if d.Owner.IsZero() {
			return name + ": it has this address, which two objects of the directory have now"
		}
		return name + ": it has this address, which is now that of mailbox " + d.Owner.String()
	case watch.Unlisted:
		return name + ": no list in force names the mailbox"
	case watch.NewName:
		return name + ": the directory gives it this address, the table doesn't"
	case watch.LostName:
		return name + ": the table gives it this address, the directory doesn't"
	case watch.Unreadable, watch.Renamed:
		return name + ": " + d.Text
	case watch.Target:
		if d.Owner.IsZero() {
			return name + ": in the target's directory two objects have what the target is told of it"
		}
		return name + ": in the target's directory it is the mailbox " + d.Owner.String()
	case watch.NotThere:
		return name + ": the target's directory doesn't know the mailbox yet"
	}
	return name + ": " + string(d.Kind)
}

// some is the first of many texts.
func some(all []string) string {
	const most = 10
	if len(all) <= most {
		return strings.Join(all, "; ")
	}
	return strings.Join(all[:most], "; ") + fmt.Sprintf("; and %d more", len(all)-most)
}

// Refresh reads the directories now, and returns when a reading that began after the call has
// ended.
func (d *Desk) Refresh(ctx context.Context) error { return d.watch.Refresh(ctx) }

// Status says what was read, and when.
type Status struct {
	Source, Target *watch.View // nil: nothing was read, or there is no target
	Failed         error       // why the last reading failed; nil: it didn't
	FailedAt       time.Time
	Stale          error // why lists can't be checked now; nil: they can
}

// Status returns what was read last.
func (d *Desk) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Status{Failed: d.failed, FailedAt: d.failedAt}
	s.Source, s.Target = d.watch.Views()
	_, _, s.Stale = d.fresh()
	return s
}

// fresh returns the readings if they are young enough.
func (d *Desk) fresh() (source, target *watch.View, err error) {
	source, target = d.watch.Views()
	if source == nil {
		return nil, nil, fmt.Errorf("%w: they were not read since the start", ErrStale)
	}
	for _, v := range []*watch.View{source, target} {
		if v != nil && d.now().Sub(v.Facts.At) > d.o.CheckAge {
			return nil, nil, fmt.Errorf("%w: %s was read at %s, and identity.check_age is %s", ErrStale, v.Snapshot.Directory, v.Facts.At.UTC().Format(time.RFC3339), d.o.CheckAge)
		}
	}
	return source, target, nil
}

// modelled refuses an agency that the model doesn't know.
func (d *Desk) modelled(id routing.AgencyID) error {
	if !slices.Contains(d.o.Model.Agencies(), id) {
		return fmt.Errorf("agency %s: %w", id, ErrNotModelled)
	}
	return nil
}

// Drift returns how the last reading differs from an agency's mapping and from its lists in
// force.
func (d *Desk) Drift(id routing.AgencyID) ([]watch.Drift, error) {
	source, target, err := d.fresh()
	if err == nil {
		err = d.modelled(id)
	}
	if err != nil {
		return nil, err
	}
	state := d.o.State()
	entries, unreadable := register.Lists(state, id)
	return watch.Compare(source, target, d.o.Model, state, id, entries), errors.Join(unreadable...)
}

// Crossings returns what crosses the border between agencies on different platforms.
func (d *Desk) Crossings() ([]watch.Crossing, error) {
	source, _, err := d.fresh()
	if err != nil {
		return nil, err
	}
	return source.Crossings(d.o.State()), nil
}

// Ready returns nil if an agency may be cut over: each of its mailboxes is in a list in
// force, with an address that it has, and the directories, read lately, say the same. read
// is when that was. The error names the first of what is wrong.
func (d *Desk) Ready(id routing.AgencyID) (read time.Time, err error) {
	source, target, err := d.fresh()
	if err == nil {
		err = d.modelled(id)
	}
	if err != nil {
		return read, err
	}
	state := d.o.State()
	if state.Mapping(id) == nil {
		return read, fmt.Errorf("agency %s: its mapping is not on this node", id)
	}
	entries, unreadable := register.Lists(state, id)
	if err := errors.Join(unreadable...); err != nil {
		return read, err
	}
	var rows []string
	for _, gap := range register.Gaps(state, id, entries) {
		if gap.Listed == "" {
			rows = append(rows, string(gap.Address)+": no list in force names the mailbox")
		} else {
			rows = append(rows, fmt.Sprintf("%s: list %s names the mailbox with %s, which it doesn't have", gap.Address, gap.List, gap.Listed))
		}
	}
	for _, one := range watch.Compare(source, target, d.o.Model, state, id, entries) {
		if text := Say(one); one.Kind.Blocks() && !slices.Contains(rows, text) {
			rows = append(rows, text)
		}
	}
	if len(rows) > 0 {
		return source.Facts.At, fmt.Errorf("agency %s: %d of its mailboxes are not as lists and directory say: %s", id, len(rows), some(rows))
	}
	return source.Facts.At, nil
}
