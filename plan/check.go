package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"mailcutover/routing"
)

// Settings are those of the node that asks.
type Settings struct {
	AtOnce       int           // agencies of all waves that are under way or bake at one time; 0: 1
	BackupAge    time.Duration // for how long the word that the backup is confirmed counts; 0: it isn't asked
	RehearsalAge time.Duration // how old an agency's rehearsal may be; 0: none is asked
	VerifyAge    time.Duration // how old the comparison of an agency may be that the wave has moved; 0: none is asked
	Retries      int           // what a wave that doesn't say it has; 0: none
	Stop         Thresholds
}

// Thresholds say from how many findings on the plan is stopped; 0: never for that cause.
type Thresholds struct {
	Canaries  int // agencies of waves whose canary failed
	Findings  int // open ones that mailboxes of agencies of waves hold others' content
	ErrorRate int // percent of the recipients that platforms refused for the moment, on one node
	Drift     int // rows of agencies that waves have moved of which directory and table say different things
	Aborts    int // operations of waves that were aborted
}

// Names of the checks that the program makes. A wave's own items have none of these.
const (
	CheckApproval  = "approval"
	CheckRecord    = "record"
	CheckStop      = "stop"
	CheckEmergency = "emergency"
	CheckFreeze    = "freeze"
	CheckLists     = "lists"
	CheckRehearsal = "rehearsal"
	CheckVerify    = "verify"
	CheckCanaries  = "canaries"
)

var machines = []string{CheckApproval, CheckRecord, CheckStop, CheckEmergency, CheckFreeze, CheckLists, CheckRehearsal, CheckVerify, CheckCanaries, "drift", "window", "order"}

// Check is one line of the checklist, for one agency.
type Check struct {
	Name    string
	OK      bool
	Informs bool      // it refuses nothing
	Person  string    // who has answered it; empty: the program
	Until   time.Time // for how long that counts; zero: until something changes
	Text    string
}

// Fact is what a node knows of a question.
type Fact struct {
	OK      bool
	Informs bool // nothing is refused for it
	Text    string
}

// Rehearsal is the last rehearsal of an agency's cutover.
type Rehearsal struct {
	Time time.Time
	OK   bool
	Text string // what it came to
}

// Comparison is the last comparison of an agency's mailboxes.
type Comparison struct {
	Time     time.Time // zero: there was none
	Open     int       // findings that mailboxes hold others' content, to which nobody has seen
	Possible bool      // both platforms' mailboxes can be read by this node's settings
}

// Facts are what a node knows besides the wave. All are asked of one copy of the table.
type Facts struct {
	State     *routing.State
	Approved  func(w *Wave) error // nil: the wave's proposal is approved as the wave stands
	Lists     func(routing.AgencyID) Fact
	Rehearsed func(routing.AgencyID) (Rehearsal, bool)
	Compared  func(routing.AgencyID) Comparison
	Mailboxes func(routing.AgencyID) int // -1: not known
}

// GoNoGo makes the checklist of an agency of a wave.
func GoNoGo(w *Wave, id routing.AgencyID, set Settings, f *Facts, now time.Time) (all []Check) {
	add := func(name string, err error, good string) {
		c := Check{Name: name, OK: err == nil, Text: good}
		if err != nil {
			c.Text = err.Error()
		}
		all = append(all, c)
	}
	if w.Standing == Running || w.Standing == Paused {
		add(CheckApproval, f.Approved(w), "proposed by "+w.Proposer+", approved by others, and as it was approved")
	}
	add(CheckRecord, record(w, id, f.State), "the agency's record is the one that was approved")
	add(CheckStop, Refuses(f.State), "the plan is not stopped")
	add(CheckEmergency, unconfirmed(f.State), "no emergency waits to be confirmed")
	var frozen error
	if z, ok := f.State.Frozen(id); ok {
		frozen = fmt.Errorf("frozen since %s by %s: %s", z.Since.UTC().Format(time.RFC3339), z.Who, z.Reason)
	}
	add(CheckFreeze, frozen, "the agency is not frozen")
	lists := f.Lists(id)
	all = append(all, Check{Name: CheckLists, OK: lists.OK, Informs: lists.Informs, Text: lists.Text})
	all = append(all, w.rehearsed(id, set, f, now))
	all = append(all, w.compared(set, f, now)...)
	all = append(all, w.canaries())
	if set.BackupAge > 0 {
		it, _ := w.Definition.Item(Backup)
		it.Valid = Span(set.BackupAge)
		all = append(all, w.answered(it, now))
	}
	for _, it := range w.Definition.Checks {
		all = append(all, w.answered(it, now))
	}
	return all
}

// unconfirmed returns why an emergency, of whatever agency or node, keeps waves from going on.
func unconfirmed(s *routing.State) error {
	for _, a := range s.Agencies() {
		if a.Unconfirmed != "" {
			return fmt.Errorf("agency %s: %w: %s", a.ID, routing.ErrUnconfirmed, a.Unconfirmed)
		}
	}
	return s.Unconfirmed()
}

// record compares an agency's record with what was approved.
func record(w *Wave, id routing.AgencyID, s *routing.State) error {
	r := w.Run(id)
	a, ok := s.Agency(id)
	switch {
	case r == nil:
		return fmt.Errorf("agency %s: %w", id, ErrAgency)
	case !ok:
		return fmt.Errorf("agency %s is not in the table any more", id)
	case a.Phase != routing.PhaseSource || a.Operation != "":
		return fmt.Errorf("agency %s is in phase %s, want %s, without an operation", id, a.Phase, routing.PhaseSource)
	case a.Epoch != r.Expected():
		return fmt.Errorf("agency %s is in epoch %s, approved was %s: something was done to it since; propose the wave again, or cut it over by a proposal of its own", id, a.Epoch, r.Expected())
	case a.Source != r.Source || a.Target != r.Target:
		return fmt.Errorf("agency %s goes from %s to %s, approved was from %s to %s", id, a.Source, a.Target, r.Source, r.Target)
	case a.Locked:
		return fmt.Errorf("agency %s is locked", id)
	}
	return nil
}

func (w *Wave) rehearsed(id routing.AgencyID, set Settings, f *Facts, now time.Time) Check {
	c := Check{Name: CheckRehearsal}
	if set.RehearsalAge == 0 {
		c.OK, c.Informs, c.Text = true, true, "none is asked for (plan.rehearsal_age)"
		return c
	}
	r, ok := f.Rehearsed(id)
	switch {
	case !ok:
		c.Text = "the agency's cutover was never rehearsed: mailcutover rehearse --agency " + string(id) + " --reason ..."
	case !r.OK:
		c.Text = "the last rehearsal failed: " + r.Text
	case now.Sub(r.Time) > set.RehearsalAge:
		c.Text = fmt.Sprintf("the last rehearsal is of %s, older than %s", r.Time.UTC().Format(time.RFC3339), Span(set.RehearsalAge))
	default:
		c.OK, c.Text, c.Until = true, "rehearsed at "+r.Time.UTC().Format(time.RFC3339)+": "+r.Text, r.Time.Add(set.RehearsalAge)
	}
	return c
}

// compared looks at the comparisons of what the wave has moved already.
func (w *Wave) compared(set Settings, f *Facts, now time.Time) (all []Check) {
	none := Check{Name: CheckVerify, OK: true, Text: "the wave has moved no agency yet"}
	if set.VerifyAge == 0 {
		none.Informs, none.Text = true, "no comparison is asked for (plan.verify_age)"
		return []Check{none}
	}
	for i := range w.Runs {
		r := &w.Runs[i]
		if r.Place != Moved {
			continue
		}
		c := Check{Name: CheckVerify}
		m := f.Compared(r.Agency)
		switch {
		case m.Open > 0:
			c.Text = fmt.Sprintf("agency %s: %d findings that mailboxes hold others' content are open: mailcutover verify findings", r.Agency, m.Open)
		case !m.Possible:
			c.OK, c.Informs, c.Text = true, true, fmt.Sprintf("agency %s: its mailboxes can't be read by this node's settings, so nothing was compared", r.Agency)
		case m.Time.Before(r.Ended):
			c.Text = fmt.Sprintf("agency %s: its mailboxes were not compared since it was moved", r.Agency)
		case now.Sub(m.Time) > set.VerifyAge:
			c.Text = fmt.Sprintf("agency %s: the last comparison is of %s, older than %s", r.Agency, m.Time.UTC().Format(time.RFC3339), Span(set.VerifyAge))
		default:
			c.OK, c.Until, c.Text = true, m.Time.Add(set.VerifyAge), fmt.Sprintf("agency %s: compared at %s, and no mailbox holds another's content", r.Agency, m.Time.UTC().Format(time.RFC3339))
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return []Check{none}
	}
	return all
}

// canaries tells of those that failed after the wave's switches. What they lead to is the
// stop's business, which a releaser lifts.
func (w *Wave) canaries() Check {
	for i := range w.Runs {
		if r := &w.Runs[i]; r.Place == Moved && r.Canary != "" {
			return Check{Name: CheckCanaries, Informs: true, Text: fmt.Sprintf("agency %s: %s", r.Agency, r.Canary)}
		}
	}
	return Check{Name: CheckCanaries, OK: true, Informs: true, Text: "none failed after the wave's switches"}
}

// answered looks for a person's answer that still counts.
func (w *Wave) answered(it Item, now time.Time) Check {
	c := Check{Name: it.ID, Text: it.Text}
	i := slices.IndexFunc(w.Answers, func(a Answer) bool { return a.Item == it.ID })
	if i < 0 {
		c.Text += fmt.Sprintf(": nobody has said so: mailcutover wave answer %s %s", w.Name, it.ID)
		return c
	}
	a := &w.Answers[i]
	c.Person = a.Person
	if it.Valid > 0 {
		c.Until = a.Time.Add(time.Duration(it.Valid))
	}
	switch {
	case !a.OK:
		c.Text += fmt.Sprintf(": %s says no: %s", a.Person, cmp.Or(a.Note, "without a note"))
	case !c.Until.IsZero() && now.After(c.Until):
		c.Text += fmt.Sprintf(": %s said so at %s, which counted for %s", a.Person, a.Time.UTC().Format(time.RFC3339), it.Valid)
	default:
		c.OK = true
		c.Text += fmt.Sprintf(": %s said so at %s", a.Person, a.Time.UTC().Format(time.RFC3339))
	}
	return c
}

// Refused returns the checks that refuse.
func Refused(all []Check) (bad []Check) {
	for _, c := range all {
		if !c.OK && !c.Informs {
			bad = append(bad, c)
		}
	}
	return bad
}
