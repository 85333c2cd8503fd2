package mailstore

import (
	"errors"
	"fmt"
	"time"
)

// Kinds of errors. Those about one mailbox: ErrTimeout, ErrNoMailbox, ErrNoFolder,
// ErrNoMove, ErrProtocol. About one message: ErrTooLarge, ErrRefused. About the whole platform: ErrUnavailable,
// ErrAuth, ErrThrottled.
var (
	// ErrTimeout: the platform didn't answer a command in time. Another mailbox may be well.
	ErrTimeout = errors.New("no answer in time")
	// ErrUnavailable: the platform can't be reached, or ended the connection.
	ErrUnavailable = errors.New("platform not available")
	// ErrAuth: the platform doesn't take our own credentials, or can't say.
	ErrAuth = errors.New("our credentials were refused")
	// ErrThrottled: the platform wants to be left alone for a time, and pauses didn't help.
	ErrThrottled = errors.New("platform asks for time")
	// ErrNoMailbox: we aren't let into this mailbox; it may not exist.
	ErrNoMailbox = errors.New("no access to the mailbox")
	// ErrNoFolder: there is no such folder.
	ErrNoFolder = errors.New("no such folder")
	// ErrTooLarge: the message is larger than the platform takes.
	ErrTooLarge = errors.New("message too large")
	// ErrRefused: the platform doesn't take this message, or this name.
	ErrRefused = errors.New("refused by the platform")
	// ErrNoMove: the platform can't move messages.
	ErrNoMove = errors.New("platform has no MOVE")
	// ErrNoSpace: the mailbox is full.
	ErrNoSpace = errors.New("mailbox is full")
	// ErrProtocol: the platform answered what it may not.
	ErrProtocol = errors.New("answer not understood")
)

// ThrottledError is an ErrThrottled with the time that the platform asked for.
type ThrottledError struct {
	After time.Duration // from now; 0: it didn't say
	Err   error

	unavailable bool // it has trouble of its own (RFC 5530: UNAVAILABLE, SERVERBUG), and didn't ask for less
}

// Error says what was answered.
func (e *ThrottledError) Error() string {
	if e.After > 0 {
		return fmt.Sprintf("%v for %v: %v", ErrThrottled, e.After, e.Err)
	}
	return fmt.Sprintf("%v: %v", ErrThrottled, e.Err)
}

// Unwrap makes it an ErrThrottled, and what was answered.
func (e *ThrottledError) Unwrap() []error { return []error{ErrThrottled, e.Err} }

// Platform reports whether an error says that the whole platform has to wait, and not one
// mailbox alone.
func Platform(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrAuth) || errors.Is(err, ErrThrottled)
}
