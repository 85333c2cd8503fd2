package desk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"mailcutover/rollback/canary"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Table is what a desk changes; a table.Table is one.
type Table interface {
	Change(ctx context.Context, c table.Change) (routing.Position, error)
}

// Replica is this node's copy of the table.
type Replica interface {
	State() *routing.State
	Wait(ctx context.Context, pos routing.Position) error
}

// Alarms takes what a human has to see; *alarm.Set is one.
type Alarms interface {
	Raise(key, text string)
	Clear(key string) bool
}

// Settings may change while the node runs.
type Settings struct {
	Every    time.Duration // between two tries; 0: only after a switch
	Failures int           // in a row on one node, before a reaction
	React    React
}

// Options are what a desk works with. Failed, Noted, Logger and Now may be nil.
type Options struct {
	Node     routing.NodeID
	Table    Table
	Replica  Replica
	Alarms   Alarms
	Settings func() Settings

	// Configured reports whether this node has a canary of an agency; Try tries it. Ready is why this
	// node couldn't now, whatever the platform does; nil: it could.
	Configured func(agency routing.AgencyID) bool
	Try        func(ctx context.Context, agency routing.AgencyID, platform routing.PlatformID) canary.Result
	Ready      func() error

	// Freeze keeps operations of an agency from beginning, RollBack brings it back as an
	// emergency. Neither may fail because it is so already.
	Freeze, RollBack func(ctx context.Context, agency routing.AgencyID, reason string) error

	// Failed is told of a canary that failed as often as configured, once.
	Failed func(ctx context.Context, agency routing.AgencyID, reason string)

	// Noted is told of each result that counts.
	Noted func(r *canary.Result)

	Logger *slog.Logger
	Now    func() time.Time
}

// Desk tries canaries. Use [New].
type Desk struct {
	o      Options
	next   map[routing.AgencyID]next      // of Run alone, as the following
	again  map[routing.AgencyID]time.Time // when a reaction that failed is tried again
	raised map[routing.AgencyID]string
}

// next is when this node tries an agency's canary again.
type next struct {
	at     time.Time
	after  routing.OperationID // the agency's last switch when this was set: a later one ends it
	runner bool                // it is the end of the patience with what the runner tries
}

// New returns a desk that does nothing before Run.
func New(o Options) *Desk {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Failed == nil {
		o.Failed = func(context.Context, routing.AgencyID, string) {}
	}
	if o.Noted == nil {
		o.Noted = func(*canary.Result) {}
	}
	return &Desk{o: o, next: make(map[routing.AgencyID]next), again: make(map[routing.AgencyID]time.Time), raised: make(map[routing.AgencyID]string)}
}

const (
	// lookPause is the time between two looks at the table.
	lookPause = 2 * time.Second
	// silence is after how long another node carries a reaction out that has no end.
	silence = time.Minute
	// runnerPatience is how long the runner's own node waits for what the runner tries.
	runnerPatience = 10 * time.Minute
	// retryPause is the time after which a canary that failed is tried again, if that is sooner.
	retryPause = time.Minute
	// changePatience bounds one change of the table, and actPatience a reaction. One that fails is
	// tried again after actPause: each try stands in the audit log.
	changePatience = 10 * time.Second
	actPatience    = 30 * time.Second
	actPause       = 15 * time.Second
)

// Run tries canaries, one after the other, and keeps the alarms of all nodes' until ctx ends.
func (d *Desk) Run(ctx context.Context) {
	tick := time.NewTicker(lookPause)
	defer tick.Stop()
	for {
		for _, a := range d.o.Replica.State().Agencies() {
			d.look(ctx, a.ID)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// look does what is due for one agency. Its record and what was found are of one copy of the table: the
// canaries before it may have taken so long that it was switched meanwhile.
func (d *Desk) look(ctx context.Context, id routing.AgencyID) {
	s := d.o.Replica.State()
	a, ok := s.Agency(id)
	if !ok {
		return
	}
	r, err := RecordOf(s, id)
	if err != nil {
		d.o.Logger.Warn("canary can't be looked at", "agency", id, "error", err)
		return
	}
	if d.due(&a, &r) {
		d.try(ctx, &a, r.Operation)
		s = d.o.Replica.State()
		if r, err = RecordOf(s, id); err != nil {
			return
		}
		a, _ = s.Agency(id)
	}
	d.react(ctx, &a, &r)
	d.alarm(&r)
}

// due reports whether this node has to try an agency's canary now.
func (d *Desk) due(a *routing.Agency, r *Record) bool {
	if !d.o.Configured(a.ID) || !steady(a) || d.o.Ready() != nil {
		return false
	}
	now := d.o.Now()
	mine, tried := r.Nodes[d.o.Node]
	switched := r.Operation != "" && (!tried || mine.Operation != r.Operation)
	set := d.o.Settings()
	n, ok := d.next[a.ID]
	if ok = ok && n.after == r.Operation && (!n.runner || switched); !ok {
		n = next{at: now, after: r.Operation}
		switch {
		case switched && r.Runner == d.o.Node: // the runner has tried it, or does so now
			n.at, n.runner = now.Add(runnerPatience), true
		case switched:
		case mine.Failures > 0: // as the runner found
			if n.at = mine.Time.Add(retryPause); n.at.After(now.Add(retryPause)) { // by a clock that was set back
				n.at = now.Add(retryPause)
			}
		case set.Every == 0:
			return false
		default: // as after a start: spread, so that nodes that start together don't try together
			n.at = now.Add(rand.N(set.Every))
		}
		d.next[a.ID] = n
	}
	if !switched && mine.Failures == 0 && set.Every == 0 {
		return false
	}
	return !now.Before(n.at)
}

// steady reports whether mail and logins of an agency are to work now.
func steady(a *routing.Agency) bool { return a.Open() && a.Operation == "" }

// schedule says when the next try is due, unless the agency is switched before. last is its last switch.
func (d *Desk) schedule(id routing.AgencyID, last routing.OperationID, ok bool) {
	every := d.o.Settings().Every
	if !ok && (every == 0 || every > retryPause) {
		every = retryPause
	}
	if every == 0 {
		delete(d.next, id)
		return
	}
	d.next[id] = next{at: d.o.Now().Add(every*9/10 + rand.N(every/5+1)), after: last}
}

// try tries a canary, and notes what came of it unless that says nothing. last is the agency's last
// switch when it was looked at.
func (d *Desk) try(ctx context.Context, was *routing.Agency, last routing.OperationID) {
	result := d.o.Try(ctx, was.ID, was.Platform())
	d.schedule(was.ID, last, result.OK)
	now, _ := d.o.Replica.State().Agency(was.ID)
	moved := !steady(&now) || now.Epoch != was.Epoch
	if moved {
		delete(d.next, was.ID) // it is tried as it is then
	}
	if moved || !result.OK && (ctx.Err() != nil || d.o.Ready() != nil) {
		d.o.Logger.Info("canary says nothing: this node or the agency changed meanwhile", "agency", was.ID)
		return
	}
	err := d.note(ctx, &result, was.Platform(), func(r *Record) bool { return r.Operation == last })
	if err != nil && ctx.Err() == nil {
		d.o.Logger.Warn("what a canary found isn't in the table", "agency", was.ID, "error", err)
	}
}

// Note stores what this node's canary found on a platform after the agency's last switch.
func (d *Desk) Note(ctx context.Context, result *canary.Result, platform routing.PlatformID) error {
	return d.note(ctx, result, platform, func(*Record) bool { return true })
}

// note stores it if the record that it goes into is the one that it is about.
func (d *Desk) note(ctx context.Context, result *canary.Result, platform routing.PlatformID, about func(*Record) bool) error {
	d.o.Noted(result)
	return d.store(ctx, result.Agency, "canary of agency "+string(result.Agency), func(r *Record) bool {
		if !about(r) {
			return false
		}
		one := Tried{Time: d.o.Now().UTC(), Platform: platform, Operation: r.Operation, OK: result.OK, Text: result.Text()}
		if !one.OK {
			one.Failures = r.Nodes[d.o.Node].Failures + 1
		}
		if r.Nodes = maps.Clone(r.Nodes); r.Nodes == nil {
			r.Nodes = make(map[routing.NodeID]Tried)
		}
		r.Nodes[d.o.Node] = one
		if _, worst := r.failing(); worst.Failures == 0 {
			r.Reaction = nil
		} else if set := d.o.Settings(); r.Reaction == nil && worst.Failures >= max(set.Failures, 1) {
			r.Reaction = &Reaction{Kind: r.kind(set), Node: d.o.Node, Began: one.Time, Reason: r.text()}
		}
		return true
	})
}

// kind is what follows: an agency that may not be rolled back is frozen.
func (r *Record) kind(set Settings) React {
	if set.React != Rollback {
		return set.React
	}
	_, worst := r.failing()
	well := slices.ContainsFunc(slices.Collect(maps.Values(r.Nodes)), func(t Tried) bool { return t.OK && t.Platform == worst.Platform })
	if !r.Rollback || well {
		return Freeze
	}
	return Rollback
}

// text says what is wrong, node by node.
func (r *Record) text() string {
	var all string
	for _, id := range slices.Sorted(maps.Keys(r.Nodes)) {
		t := r.Nodes[id]
		if t.Failures == 0 {
			continue
		}
		if all != "" {
			all += "; "
		}
		all += fmt.Sprintf("on node %s %d times in a row, last at %s on platform %s: %s", id, t.Failures, t.Time.UTC().Format(time.RFC3339), t.Platform, t.Text)
	}
	return all
}

// react carries out what is to follow, if that is this node's to do.
func (d *Desk) react(ctx context.Context, a *routing.Agency, r *Record) {
	k := r.Reaction
	if k == nil || !k.Ended.IsZero() || k.Node != d.o.Node && d.o.Now().Sub(k.Began) < silence {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, actPatience)
	defer cancel()
	if k.Kind == Rollback && !steady(a) {
		d.forgo(ctx, r)
		return
	}
	if d.o.Now().Before(d.again[r.Agency]) {
		return
	}
	reason := "its canary failed " + k.Reason
	if len(reason) > 900 {
		reason = strings.ToValidUTF8(reason[:900], "") + "..."
	}
	var err error
	switch k.Kind {
	case Freeze:
		err = d.o.Freeze(ctx, r.Agency, reason)
	case Rollback:
		err = d.o.RollBack(ctx, r.Agency, reason)
	}
	delete(d.again, r.Agency)
	if err != nil {
		d.again[r.Agency] = d.o.Now().Add(actPause)
		d.o.Logger.Error("what follows from a canary is not done yet", "agency", r.Agency, "reason", k.Kind, "error", err)
		d.o.Alarms.Raise(key(r.Agency)+"/reaction", fmt.Sprintf("The canary of agency %s failed, and %s doesn't succeed: %v. Do it by hand, or end its cause.", r.Agency, k.Kind, err))
		return
	}
	d.o.Alarms.Clear(key(r.Agency) + "/reaction")
	d.o.Failed(ctx, r.Agency, reason)
	if err := d.store(ctx, r.Agency, fmt.Sprintf("canary of agency %s: %s", r.Agency, k.Kind), func(now *Record) bool {
		if now.Reaction == nil || now.Reaction.Began != k.Began {
			return false
		}
		done := *now.Reaction
		done.Ended = d.o.Now().UTC()
		now.Reaction = &done
		return true
	}); err != nil {
		d.o.Logger.Warn("that a canary led to something isn't in the table", "agency", r.Agency, "error", err)
	}
}

// forgo takes a rollback back that hasn't begun, of an agency that people have locked or are switching: they
// are at it, and an emergency would end what they do. What fails once the agency is open again leads to
// another one.
func (d *Desk) forgo(ctx context.Context, r *Record) {
	d.o.Alarms.Clear(key(r.Agency) + "/reaction")
	what := fmt.Sprintf("canary of agency %s: no rollback, as it is locked, closed or being switched", r.Agency)
	if err := d.store(ctx, r.Agency, what, func(now *Record) bool {
		if now.Reaction == nil || now.Reaction.Began != r.Reaction.Began || !now.Reaction.Ended.IsZero() {
			return false
		}
		now.Reaction = nil
		return true
	}); err != nil {
		d.o.Logger.Warn("that a canary leads to no rollback isn't in the table", "agency", r.Agency, "error", err)
	}
}

func key(agency routing.AgencyID) string { return "canary/" + string(agency) }

// alarm raises or clears an agency's alarm on this node, whichever node found it.
func (d *Desk) alarm(r *Record) {
	text := ""
	if _, worst := r.failing(); worst.Failures > 0 {
		text = fmt.Sprintf("The canary of agency %s says that something is wrong %s. See mailcutover canary list.", r.Agency, r.text())
		if k := r.Reaction; k != nil && k.Kind != Alarm && !k.Ended.IsZero() {
			text += fmt.Sprintf(" What followed: %s, by node %s.", k.Kind, k.Node)
		}
	}
	switch was, ok := d.raised[r.Agency]; {
	case text == "" && (was != "" || !ok && len(r.Nodes) > 0):
		d.o.Alarms.Clear(key(r.Agency))
		d.raised[r.Agency] = ""
	case text != was && text != "":
		d.o.Alarms.Raise(key(r.Agency), text)
		d.raised[r.Agency] = text
	}
}

// store changes an agency's record; change is called again if another node was faster.
func (d *Desk) store(ctx context.Context, id routing.AgencyID, what string, change func(*Record) bool) error {
	ctx, cancel := context.WithTimeout(ctx, changePatience)
	defer cancel()
	base := "canary/" + uuid.NewString()
	for try := 0; ; try++ {
		s := d.o.Replica.State()
		r, err := RecordOf(s, id)
		if err != nil {
			return err
		}
		if !change(&r) {
			return nil
		}
		doc, err := r.document()
		if err != nil {
			return err
		}
		pos, err := d.o.Table.Change(ctx, table.Change{
			ID: fmt.Sprintf("%s/%d", base, try), Incarnation: s.Position().Incarnation, Term: s.Position().Term, Documents: []routing.Document{doc}, Who: string(d.o.Node), What: what,
		})
		if err == nil {
			return d.o.Replica.Wait(ctx, pos)
		}
		if !errors.Is(err, table.ErrStale) && !errors.Is(err, table.ErrTerm) {
			return fmt.Errorf("%s: %w", what, err)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, errors.Join(err, ctx.Err()))
		}
	}
}
