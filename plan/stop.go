package plan

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"mailcutover/routing"
)

// Cause is why the plan was stopped.
type Cause string

const (
	ByCanary Cause = "canary" // canaries failed
	ByVerify Cause = "verify" // mailboxes hold others' content
	ByErrors Cause = "errors" // platforms refuse too much of the mail for the moment
	ByAborts Cause = "aborts" // operations of waves were aborted
	ByDrift  Cause = "drift"  // the directory says something else than the table of agencies that were moved
	ByPerson Cause = "person" // somebody wanted it
)

// Finding is what crosses a threshold.
type Finding struct {
	Cause  Cause            `json:"cause"`
	Agency routing.AgencyID `json:"agency,omitempty"`
	Text   string           `json:"text"` // the evidence, for people

	// Keys tell single pieces of evidence apart: what a releaser has seen and lifted doesn't
	// stop the plan again. None: the text is the key.
	Keys []string  `json:"keys,omitempty"`
	Time time.Time `json:"time"`
	Node string    `json:"node,omitempty"` // that has found it
}

// keys are the finding's keys, with its cause.
func (f *Finding) keys() (all []string) {
	for _, k := range f.Keys {
		all = append(all, string(f.Cause)+"/"+k)
	}
	if len(all) == 0 {
		all = []string{string(f.Cause) + "/" + f.Text}
	}
	return all
}

// Stop keeps waves from starting agencies, and cutovers of agencies of waves from beginning,
// until a releaser lifts it. Rollbacks go on.
type Stop struct {
	Since    time.Time        `json:"since"`
	Person   string           `json:"person,omitempty"` // empty: the program, by Node of the first finding
	Findings []Finding        `json:"findings"`         // the oldest first
	Revision routing.Revision `json:"-"`
}

// Lifted is what releasers have seen of earlier stops.
type Lifted struct {
	Person   string           `json:"person"`
	Reason   string           `json:"reason"`
	Time     time.Time        `json:"time"`
	Keys     []string         `json:"keys,omitempty"`
	Revision routing.Revision `json:"-"`
}

// Bounds of what is kept of stops.
const (
	maxFindings = 20
	maxKeys     = 300 // of one finding
	maxLifted   = 1000
)

// ErrStopped is about a cutover of an agency of a wave while the plan is stopped.
var ErrStopped = errors.New("the plan is stopped")

// ErrNotStopped is about lifting a stop that there isn't.
var ErrNotStopped = errors.New("the plan is not stopped")

// StopOf returns the stop in force; nil: there is none. With an error there is one that can't
// be read.
func StopOf(s *routing.State) (*Stop, error) {
	var stop Stop
	rev, ok, err := read(s, stopKey, &stop)
	if !ok || err != nil {
		return nil, err
	}
	stop.Revision = rev
	return &stop, nil
}

// Refuses returns why nothing may start, as an ErrStopped; nil: nothing keeps it.
func Refuses(s *routing.State) error {
	stop, err := StopOf(s)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrStopped, err)
	case stop == nil:
		return nil
	}
	return fmt.Errorf("%w since %s: %s", ErrStopped, stop.Since.UTC().Format(time.RFC3339), stop.Why())
}

// Why says in one line why the plan is stopped.
func (s *Stop) Why() string {
	if len(s.Findings) == 0 {
		return "nobody says why"
	}
	why := s.Findings[0].Text
	if n := len(s.Findings); n > 1 {
		why += fmt.Sprintf("; and %d more findings", n-1)
	}
	return why
}

// LiftedOf returns what releasers have seen; the zero Lifted: nothing.
func LiftedOf(s *routing.State) (l Lifted, err error) {
	l.Revision, _, err = read(s, liftedKey, &l)
	return l, err
}

// New returns the finding without the evidence that releasers have seen, or that stands in the stop
// already; false: nothing is new.
func (l *Lifted) New(f Finding, stop *Stop) (Finding, bool) {
	known := func(k string) bool {
		if slices.Contains(l.Keys, k) {
			return true
		}
		return stop != nil && slices.ContainsFunc(stop.Findings, func(o Finding) bool { return slices.Contains(o.keys(), k) })
	}
	var fresh []string
	for i, k := range f.keys() {
		if !known(k) {
			if len(f.Keys) == 0 {
				return f, true
			}
			fresh = append(fresh, f.Keys[i])
		}
	}
	f.Keys = fresh
	return f, len(fresh) > 0
}

// Trip returns the documents that stop the plan for a finding, or add it to the stop in force;
// none: it says so already, or is full.
func Trip(s *routing.State, f Finding, person string) ([]routing.Document, error) {
	stop, err := StopOf(s)
	if err != nil {
		return nil, err // it is stopped
	}
	f.Time = f.Time.UTC()
	f.Text = clip(f.Text)
	f.Keys = f.Keys[:min(len(f.Keys), maxKeys)]
	if stop == nil {
		stop = &Stop{Since: f.Time, Person: person}
	} else if _, fresh := (&Lifted{}).New(f, stop); !fresh || len(stop.Findings) >= maxFindings {
		return nil, nil
	}
	stop.Findings = append(slices.Clone(stop.Findings), f)
	d, err := document(stopKey, stop, stop.Revision)
	if err != nil && len(stop.Findings) > 1 {
		return nil, nil // it is full, and stopped all the same
	}
	return []routing.Document{d, Turn(s)}, err
}

// Lift returns the documents that end the stop, on a releaser's word. What it rested on
// doesn't stop the plan again.
func Lift(s *routing.State, person, reason string, now time.Time) ([]routing.Document, *Stop, error) {
	d, ok := s.Document(stopKey)
	if !ok {
		return nil, nil, ErrNotStopped
	}
	stop, err := StopOf(s)
	if err != nil {
		stop = &Stop{} // a person has looked, and it must not last for ever
	}
	l, err := LiftedOf(s)
	if err != nil {
		old, _ := s.Document(liftedKey)
		l = Lifted{Revision: old.Revision}
	}
	for i := range stop.Findings {
		for _, k := range stop.Findings[i].keys() {
			if !slices.Contains(l.Keys, k) {
				l.Keys = append(l.Keys, k)
			}
		}
	}
	l.Person, l.Reason, l.Time = person, clip(reason), now.UTC()
	l.Keys = l.Keys[max(0, len(l.Keys)-maxLifted):]
	next, err := document(liftedKey, l, l.Revision)
	for err != nil && len(l.Keys) > 0 {
		l.Keys = l.Keys[(len(l.Keys)+1)/2:]
		next, err = document(liftedKey, l, l.Revision)
	}
	if err != nil {
		return nil, nil, err
	}
	return []routing.Document{{Key: stopKey, Removed: true, Revision: d.Revision}, next, Turn(s)}, stop, nil
}
