package routing

import (
	"errors"
	"fmt"
)

// Phase is where an agency stands. The picture is in docs/architecture/switch.md.
type Phase uint8

const (
	PhaseUnknown     Phase = iota // not a phase we know: closed
	PhaseSource                   // open, on the source platform
	PhaseToTarget                 // closed, on the way to the target platform
	PhaseTarget                   // open, on the target platform
	PhaseToSource                 // closed, on the way back
	PhaseRemapSource              // closed on the source platform while the mapping changes
	PhaseRemapTarget              // closed on the target platform while the mapping changes
)

var phaseNames = [...]string{"unknown", "source", "to-target", "target", "to-source", "remap-source", "remap-target"}

// Phases lists every phase, the unknown one first.
func Phases() []Phase {
	return []Phase{PhaseUnknown, PhaseSource, PhaseToTarget, PhaseTarget, PhaseToSource, PhaseRemapSource, PhaseRemapTarget}
}

// String returns the word used in the table, in logs and on the command line.
func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return phaseNames[PhaseUnknown]
}

// MarshalText implements encoding.TextMarshaler.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. A word that we don't know, from a
// newer version of the program, becomes PhaseUnknown: closed, not an error.
func (p *Phase) UnmarshalText(b []byte) error {
	*p = PhaseUnknown
	for i, name := range phaseNames {
		if name == string(b) {
			*p = Phase(i)
		}
	}
	return nil
}

// Open reports whether mail and logins may go to a platform in this phase.
func (p Phase) Open() bool { return p == PhaseSource || p == PhaseTarget }

// OnTarget reports whether the mailboxes are on the target platform: from the commit of
// a cutover to that of a rollback. Unknown phases are on neither; ask Open first.
func (p Phase) OnTarget() bool {
	return p == PhaseTarget || p == PhaseToSource || p == PhaseRemapTarget
}

// Event is what moves an agency from phase to phase.
type Event uint8

const (
	EventUnknown    Event = iota
	EventBegin            // close, to go to the other platform
	EventBeginRemap       // close, to change the mapping
	EventCommit           // set the other platform, or the other mapping
	EventAbort            // back to where it was
)

var eventNames = [...]string{"unknown", "begin", "begin-remap", "commit", "abort"}

// Events lists every event, the unknown one first.
func Events() []Event {
	return []Event{EventUnknown, EventBegin, EventBeginRemap, EventCommit, EventAbort}
}

// String returns the event's word.
func (e Event) String() string {
	if int(e) < len(eventNames) {
		return eventNames[e]
	}
	return eventNames[EventUnknown]
}

type step struct {
	from Phase
	on   Event
}

// transitions is the whole machine; a pair that is absent is refused. Publish is no
// phase of its own: between commit and publish the record says "not published" and
// reads as closed.
var transitions = map[step]Phase{
	{PhaseSource, EventBegin}:    PhaseToTarget,
	{PhaseToTarget, EventCommit}: PhaseTarget,
	{PhaseToTarget, EventAbort}:  PhaseSource,

	{PhaseTarget, EventBegin}:    PhaseToSource,
	{PhaseToSource, EventCommit}: PhaseSource,
	{PhaseToSource, EventAbort}:  PhaseTarget,

	{PhaseSource, EventBeginRemap}:  PhaseRemapSource,
	{PhaseRemapSource, EventCommit}: PhaseSource,
	{PhaseRemapSource, EventAbort}:  PhaseSource,

	{PhaseTarget, EventBeginRemap}:  PhaseRemapTarget,
	{PhaseRemapTarget, EventCommit}: PhaseTarget,
	{PhaseRemapTarget, EventAbort}:  PhaseTarget,
}

// Next returns the phase that follows p on e, or a *TransitionError.
func Next(p Phase, e Event) (Phase, error) {
	to, ok := transitions[step{p, e}]
	if !ok {
		return p, &TransitionError{From: p, On: e}
	}
	return to, nil
}

// ErrTransition is what every [TransitionError] wraps.
var ErrTransition = errors.New("not possible in this phase")

// TransitionError is an event that the agency's phase doesn't allow.
type TransitionError struct {
	From Phase
	On   Event
}

func (e *TransitionError) Error() string {
	return fmt.Sprintf("%s: %s in phase %s", ErrTransition, e.On, e.From)
}

// Unwrap returns [ErrTransition].
func (e *TransitionError) Unwrap() error { return ErrTransition }
