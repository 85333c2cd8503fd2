package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"mailcutover/routing"
)

// Errors that callers test for with errors.Is.
var (
	ErrState   = errors.New("the wave is not in a state for that")
	ErrNoWave  = errors.New("no such wave")
	ErrAgency  = errors.New("the wave has no such agency, or it is past that")
	ErrRetries = errors.New("it was tried again as often as the approval of the wave covers")
	ErrItem    = errors.New("the wave's checklist has no such item")
)

// Standing says how far a wave is.
type Standing string

const (
	Proposed Standing = "proposed" // to be approved and started
	Running  Standing = "running"  // nodes start its agencies
	Paused   Standing = "paused"   // they don't, until a person resumes it
	Done     Standing = "done"     // no agency is left
	Ended    Standing = "ended"    // by a person
)

// Standings are all of them.
func Standings() []Standing { return []Standing{Proposed, Running, Paused, Done, Ended} }

// Over reports whether nothing of the wave starts any more.
func (s Standing) Over() bool { return s == Done || s == Ended }

// Place says how far an agency of a wave is.
type Place string

const (
	Waiting   Place = "waiting"   // to be cut over
	Starting  Place = "starting"  // a node is about to begin
	UnderWay  Place = "running"   // its operation has begun
	Moved     Place = "done"      // by this wave
	Aborted   Place = "aborted"   // its operation was; nothing tries again without people
	Skipped   Place = "skipped"   // by a person
	Elsewhere Place = "elsewhere" // it was cut over without this wave
	Back      Place = "back"      // it was rolled back after this wave had moved it
)

// Over reports whether the wave has nothing left to do for the agency.
func (p Place) Over() bool { return p != Waiting && p != Starting && p != UnderWay }

// Busy reports whether its cutover is under way, or about to be.
func (p Place) Busy() bool { return p == Starting || p == UnderWay }

// Run is an agency of a wave.
type Run struct {
	Covered
	Again     routing.Epoch       `json:"again,omitzero"` // that it is in after aborted attempts of the wave; zero: the one that was approved
	Place     Place               `json:"place"`
	Attempt   int                 `json:"attempt,omitempty"` // counts those that were started, from 1
	Operation routing.OperationID `json:"operation,omitempty"`
	Node      routing.NodeID      `json:"node,omitempty"` // that starts it
	Instance  routing.InstanceID  `json:"instance,omitempty"`

	Since     time.Time `json:"since,omitzero"`   // it stands where it stands
	Started   time.Time `json:"started,omitzero"` // the last operation
	Ended     time.Time `json:"ended,omitzero"`
	ClosedFor Span      `json:"closed_for,omitempty"`
	Mailboxes int       `json:"mailboxes,omitempty"` // when it was started

	NotBefore time.Time `json:"not_before,omitzero"` // of another attempt
	Refusals  int       `json:"refusals,omitempty"`  // in a row
	Retries   int       `json:"retries,omitempty"`   // after aborted operations, that people asked for
	Why       string    `json:"why,omitempty"`       // it was refused or aborted
	Canary    string    `json:"canary,omitempty"`    // that failed after the switch
}

// Expected returns the epoch in which the approval still covers the agency.
func (r *Run) Expected() routing.Epoch {
	if r.Again != (routing.Epoch{}) {
		return r.Again
	}
	return r.Epoch
}

// Word is what a person, or the program, said last about a wave.
type Word struct {
	Person string    `json:"person"`
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
	Itself bool      `json:"itself,omitempty"` // it was the program
}

// Answer is a person's answer to an item of the checklist.
type Answer struct {
	Item   string    `json:"item"`
	OK     bool      `json:"ok"`
	Person string    `json:"person"`
	Time   time.Time `json:"time"`
	Note   string    `json:"note,omitempty"`
}

// Wave is a wave with all that became of it, as the table has it.
type Wave struct {
	Name       Name       `json:"name"`
	Definition Definition `json:"definition"`
	Standing   Standing   `json:"standing"`

	Proposal  string    `json:"proposal"` // its id
	Proposer  string    `json:"proposer"`
	Reason    string    `json:"reason"`
	Made      time.Time `json:"made"`
	Approvers []string  `json:"approvers,omitempty"` // once it is started
	Started   Word      `json:"started,omitzero"`
	Said      Word      `json:"said,omitzero"` // last: why it is paused, running again or ended
	Over      time.Time `json:"over,omitzero"` // it is done or ended

	Answers []Answer `json:"answers,omitempty"`
	Runs    []Run    `json:"runs"`

	Revision routing.Revision `json:"-"` // of its document
}

// New returns a wave that is proposed.
func New(b Bound, proposal, person, reason string, now time.Time) Wave {
	w := Wave{Name: b.Wave, Definition: b.Definition, Standing: Proposed, Proposal: proposal, Proposer: person, Reason: reason, Made: now.UTC()}
	for _, c := range b.Covers {
		w.Runs = append(w.Runs, Run{Covered: c, Place: Waiting})
	}
	return w
}

// Bound returns what the approval of the wave is bound to.
func (w *Wave) Bound() Bound {
	b := Bound{Wave: w.Name, Definition: w.Definition}
	for i := range w.Runs {
		b.Covers = append(b.Covers, w.Runs[i].Covered)
	}
	return b
}

// Run returns an agency's part; nil: it has none.
func (w *Wave) Run(id routing.AgencyID) *Run {
	for i := range w.Runs {
		if w.Runs[i].Agency == id {
			return &w.Runs[i]
		}
	}
	return nil
}

// OperationID returns the id of the operation by which an attempt cuts an agency over: the
// same one on every node, so that an attempt is made once. Another approval makes others.
func (w *Wave) OperationID(id routing.AgencyID, attempt int) routing.OperationID {
	space := uuid.NewSHA1(uuid.NameSpaceURL, []byte("mailcutover:wave:"+w.Proposal))
	return routing.OperationID(uuid.NewSHA1(space, fmt.Appendf(nil, "%s/%s/%d", w.Name, id, attempt)).String())
}

func (w Wave) clone() Wave {
	w.Runs, w.Answers = slices.Clone(w.Runs), slices.Clone(w.Answers)
	return w
}

func (w *Wave) must(act string, in ...Standing) error {
	if slices.Contains(in, w.Standing) {
		return nil
	}
	return fmt.Errorf("%s wave %s: %w: it is %s", act, w.Name, ErrState, w.Standing)
}

// Start lets nodes start its agencies: a person used its approved proposal.
func (w Wave) Start(by Word, approvers []string) (Wave, error) {
	if err := w.must("start", Proposed); err != nil {
		return w, err
	}
	w = w.clone()
	w.Standing, w.Started, w.Said, w.Approvers = Running, by, by, approvers
	return w, nil
}

// Pause keeps its next agencies from starting. What is under way goes on.
func (w Wave) Pause(by Word) (Wave, error) {
	if err := w.must("pause", Running); err != nil {
		return w, err
	}
	by.Reason = clip(by.Reason)
	w.Standing, w.Said = Paused, by
	return w, nil
}

// Resume ends a pause. retry are agencies whose operation was aborted, and that a person wants
// to be tried again: each as often as the definition says, which is what was approved.
func (w Wave) Resume(by Word, retry []routing.AgencyID) (Wave, error) {
	if err := w.must("resume", Paused); err != nil {
		return w, err
	}
	w = w.clone()
	for _, id := range retry {
		r := w.Run(id)
		if r == nil || r.Place != Aborted {
			return w, fmt.Errorf("resume wave %s: agency %s was not aborted: %w", w.Name, id, ErrAgency)
		}
		if r.Retries >= w.Definition.Retries {
			return w, fmt.Errorf("resume wave %s: agency %s: %w: %d times", w.Name, id, ErrRetries, w.Definition.Retries)
		}
		r.Place, r.Since, r.NotBefore, r.Refusals = Waiting, by.Time, time.Time{}, 0
		r.Retries++
	}
	w.Standing, w.Said = Running, by
	return w.finished(by.Time), nil
}

// Skip takes an agency that waits, or was aborted, out of the order.
func (w Wave) Skip(by Word, id routing.AgencyID) (Wave, error) {
	if err := w.must("change", Running, Paused); err != nil {
		return w, err
	}
	w = w.clone()
	r := w.Run(id)
	if r == nil || r.Place != Waiting && r.Place != Aborted {
		return w, fmt.Errorf("skip agency %s of wave %s: %w", id, w.Name, ErrAgency)
	}
	r.Place, r.Since, r.Why = Skipped, by.Time, clip(by.Reason)
	return w.finished(by.Time), nil
}

// End ends the wave for good. What is under way goes on.
func (w Wave) End(by Word) (Wave, error) {
	if err := w.must("end", Proposed, Running, Paused); err != nil {
		return w, err
	}
	w.Standing, w.Said, w.Over = Ended, by, by.Time
	return w, nil
}

// Answer notes a person's answer to an item of the checklist, in the place of an earlier one.
func (w Wave) Answer(a Answer) (Wave, error) {
	if w.Standing.Over() {
		return w, w.must("answer for", Proposed)
	}
	if _, ok := w.Definition.Item(a.Item); !ok {
		return w, fmt.Errorf("answer %q of wave %s: %w", a.Item, w.Name, ErrItem)
	}
	a.Note = clip(a.Note)
	w = w.clone()
	w.Answers = slices.DeleteFunc(w.Answers, func(o Answer) bool { return o.Item == a.Item })
	w.Answers = append(w.Answers, a)
	return w, nil
}

// Claim gives the next attempt of an agency to a node.
func (w Wave) Claim(id routing.AgencyID, node routing.NodeID, instance routing.InstanceID, mailboxes int, now time.Time) (Wave, error) {
	if err := w.must("start an agency of", Running); err != nil {
		return w, err
	}
	w = w.clone()
	r := w.Run(id)
	if r == nil || r.Place != Waiting {
		return w, fmt.Errorf("start agency %s of wave %s: %w", id, w.Name, ErrAgency)
	}
	r.Attempt++
	r.Place, r.Since, r.Node, r.Instance, r.Mailboxes = Starting, now.UTC(), node, instance, mailboxes
	r.Operation, r.Started, r.Ended = w.OperationID(id, r.Attempt), now.UTC(), time.Time{}
	return w, nil
}

// refusalPause is the time before another attempt after one that was refused before it began;
// doubled each time, up to longestPause.
const (
	refusalPause = time.Minute
	longestPause = 15 * time.Minute
)

// Release gives an attempt back that did not begin and never will.
func (w Wave) Release(op routing.OperationID, why string, now time.Time) (Wave, error) {
	w = w.clone()
	r := w.Of(op)
	if r == nil || !r.Place.Busy() {
		return w, fmt.Errorf("give operation %s of wave %s back: %w", op, w.Name, ErrAgency)
	}
	pause := min(longestPause, refusalPause<<min(r.Refusals, 10))
	r.Refusals++
	r.Place, r.Since, r.Why, r.NotBefore, r.Started = Waiting, now.UTC(), clip(why), now.UTC().Add(pause), time.Time{}
	return w, nil
}

// Of returns the agency whose last attempt an operation is; nil: none's.
func (w *Wave) Of(op routing.OperationID) *Run {
	for i := range w.Runs {
		if w.Runs[i].Operation == op && op != "" {
			return &w.Runs[i]
		}
	}
	return nil
}

// Begun notes that an operation has begun.
func (w Wave) Begun(op routing.OperationID, now time.Time) (Wave, error) {
	w = w.clone()
	r := w.Of(op)
	if r == nil || r.Place != Starting {
		return w, fmt.Errorf("begin operation %s of wave %s: %w", op, w.Name, ErrAgency)
	}
	r.Place, r.Since, r.Refusals, r.Why = UnderWay, now.UTC(), 0, ""
	return w, nil
}

// Finish notes that the operation of an agency ended well. canary says what failed afterwards;
// empty: nothing.
func (w Wave) Finish(op routing.OperationID, closed time.Duration, canary string, now time.Time) (Wave, error) {
	w = w.clone()
	r := w.Of(op)
	if r == nil || !r.Place.Busy() {
		return w, fmt.Errorf("end operation %s of wave %s: %w", op, w.Name, ErrAgency)
	}
	r.Place, r.Since, r.Ended, r.ClosedFor, r.Canary, r.Why = Moved, now.UTC(), now.UTC(), Span(closed.Round(time.Millisecond)), clip(canary), ""
	return w.finished(now), nil
}

// Abort notes that the operation of an agency was aborted, and pauses the wave. after is the
// epoch that the agency has then, if all that happened to it since the approval was that
// operation; zero: it is another story.
func (w Wave) Abort(op routing.OperationID, why string, after routing.Epoch, now time.Time) (Wave, error) {
	w = w.clone()
	r := w.Of(op)
	if r == nil || !r.Place.Busy() {
		return w, fmt.Errorf("abort operation %s of wave %s: %w", op, w.Name, ErrAgency)
	}
	r.Place, r.Since, r.Ended, r.Why = Aborted, now.UTC(), now.UTC(), clip(why)
	if after != (routing.Epoch{}) {
		r.Again = after
	}
	if w.Standing == Running {
		w.Standing = Paused
		w.Said = Word{Person: "wave " + string(w.Name), Time: now.UTC(), Itself: true, Reason: clip(fmt.Sprintf("the cutover of agency %s was aborted: %s", r.Agency, why))}
	}
	return w, nil
}

// Return notes that agencies that the wave has moved are rolled back, and pauses it. same: it
// says so already, or never moved them.
func (w Wave) Return(ids []routing.AgencyID, now time.Time) (next Wave, same bool) {
	next, same = w.clone(), true
	var back []string
	for i := range next.Runs {
		if r := &next.Runs[i]; r.Place == Moved && slices.Contains(ids, r.Agency) {
			r.Place, r.Since = Back, now.UTC()
			back = append(back, string(r.Agency))
			same = false
		}
	}
	if !same && next.Standing == Running {
		next.Standing = Paused
		next.Said = Word{Person: "wave " + string(w.Name), Time: now.UTC(), Itself: true, Reason: clip("rolled back: " + strings.Join(back, ", "))}
	}
	return next, same
}

// Pass notes that an agency was cut over without the wave.
func (w Wave) Pass(id routing.AgencyID, now time.Time) Wave {
	w = w.clone()
	if r := w.Run(id); r != nil && r.Place == Waiting {
		r.Place, r.Since, r.Why = Elsewhere, now.UTC(), "it was on its target platform already"
	}
	return w.finished(now)
}

// finished makes a wave done that has no agency left.
func (w Wave) finished(now time.Time) Wave {
	if w.Standing != Running && w.Standing != Paused {
		return w
	}
	for i := range w.Runs {
		if p := w.Runs[i].Place; !p.Over() || p == Aborted {
			return w
		}
	}
	w.Standing, w.Over = Done, now.UTC()
	return w
}

// clip bounds a text that is kept in a document.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "..."
}
