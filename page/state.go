package page

import "mailcutover/admin"

// state is where an agency stands, in one word for people. It is made of the record's phase and
// marks, in the order in which they matter to who reads mail.
type state string

// The states.
const (
	stateUnknown  state = "unknown"
	stateLocked   state = "locked"
	stateToTarget state = "moving to the target"
	stateToSource state = "moving back to the source"
	stateRemap    state = "addresses being changed"
	stateSource   state = "on the source"
	stateTarget   state = "on the target"
	stateFinal    state = "finalised"
)

// states lists them in the order of a move.
var states = []state{stateLocked, stateToTarget, stateToSource, stateRemap, stateUnknown, stateSource, stateTarget, stateFinal}

func stateOf(a *admin.Agency) state {
	switch {
	case a.Locked:
		return stateLocked
	case a.Phase == "to-target" || a.Phase == "target" && !a.Published:
		return stateToTarget
	case a.Phase == "to-source" || a.Phase == "source" && !a.Published:
		return stateToSource
	case a.Phase == "remap-source" || a.Phase == "remap-target":
		return stateRemap
	case a.Regressed || a.Mailboxes < 0:
		return stateUnknown
	case a.Phase == "source":
		return stateSource
	case a.Phase == "target" && a.Finalised:
		return stateFinal
	case a.Phase == "target":
		return stateTarget
	default:
		return stateUnknown
	}
}

// Open reports whether its people have their mail.
func (s state) Open() bool { return s == stateSource || s == stateTarget || s == stateFinal }

// Class is the name of its colour.
func (s state) Class() string {
	switch s {
	case stateLocked, stateUnknown:
		return "bad"
	case stateToTarget, stateToSource, stateRemap:
		return "busy"
	case stateTarget, stateFinal:
		return "moved"
	default:
		return "still"
	}
}
