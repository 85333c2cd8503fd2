package spool

import "fmt"

// State says what is to become of a recipient.
type State uint8

// The states.
const (
	StateUnknown     State = iota
	StateHeld              // its agency is closed: delivered when it opens, before all later mail of the mailbox
	StateWaiting           // a delivery failed for now, and is tried again
	StateFailed            // refused for good, with proof: the sender has to be told
	StateExpired           // its life as waiting mail is over: the sender has to be told
	StateQuarantined       // for a human: damaged, or undeliverable with a null sender
	StateDelivered         // final: a platform took it
	StateReturned          // final: the sender was told, or wanted not to be
	StateDropped           // final: an operator removed it
	numStates
)

var stateNames = [numStates]string{"unknown", "held", "waiting", "failed", "expired", "quarantined", "delivered", "returned", "dropped"}

// Final reports whether nothing more is to be done. A message whose recipients all are
// final is forgotten.
func (s State) Final() bool { return s >= StateDelivered && s < numStates }

// String returns the word for s.
func (s State) String() string {
	if s < numStates {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// ParseState returns the state that a word names.
func ParseState(word string) (State, error) {
	for s := StateHeld; s < numStates; s++ {
		if stateNames[s] == word {
			return s, nil
		}
	}
	return StateUnknown, fmt.Errorf("state %q: want one of %q", word, stateNames[1:])
}
