package relay

import (
	"errors"
	"fmt"

	"mailcutover/mail"
	"mailcutover/routing"
)

var (
	// ErrInDoubt is wrapped by the errors of [Transaction.Dot] for recipients of which
	// nobody knows whether the platform took the message: the dot may have been sent,
	// its answer was not seen.
	ErrInDoubt = errors.New("final dot sent, no answer seen")

	// ErrBusy is wrapped by the error of [Pool.Open] when no connection came free in time.
	ErrBusy = errors.New("no free connection")

	// ErrClosed is wrapped by the error of [Pool.Open] after Close.
	ErrClosed = errors.New("pool is closed")

	// ErrProtocol is wrapped by errors about answers that no server should give.
	ErrProtocol = errors.New("protocol violation")

	// ErrBareLineEnd is wrapped by the error of [Transaction.Write] for a CR without LF or
	// a LF without CR: some platforms take either for a line's end, and with it a
	// dot of the content for the message's.
	ErrBareLineEnd = errors.New("bare CR or LF in the body")

	// ErrNeedsOperator is wrapped by errors that no other try cures: this node, its
	// configuration, the table or the platform has to be changed by somebody. They are
	// temporary for the sender and worth an alarm. Among them are a [PlatformReply] with
	// Ours, and an address of the table beyond ASCII where the platform lacks SMTPUTF8.
	ErrNeedsOperator = errors.New("an operator has to look at it")

	// ErrState is wrapped by errors about calls in an order that makes no sense: a
	// mistake of the caller's.
	ErrState = errors.New("call out of order")
)

// Replies for what a message needs and the platform did not announce; the proof for
// a permanent answer is its EHLO, and that the message came with the need. Errors of [Transaction.Rcpts] wrap them.
var (
	ErrLacks8BitMIME   error = mail.NewReply(554, 5, 6, 3, "The mailbox's platform does not take 8-bit content")
	ErrLacksSMTPUTF8   error = mail.NewReply(550, 5, 6, 7, "The mailbox's platform does not take internationalised addresses")
	ErrLacksRequireTLS error = mail.NewReply(550, 5, 7, 30, "The mailbox's platform does not support REQUIRETLS")
	ErrTooLarge        error = mail.NewReply(552, 5, 3, 4, "Message is larger than the mailbox's platform takes")
)

// errLateUTF8 is for a recipient that needs SMTPUTF8 after MAIL was sent without it.
var errLateUTF8 error = mail.NewReply(452, 4, 5, 3, "Recipient needs a transaction with SMTPUTF8, try again")

// errTableUTF8 is for an address of the table that the platform can't take, though what
// the sender gave was fine: not the sender's fault.
var errTableUTF8 error = mail.NewReply(451, 4, 3, 5, "The mailbox's address on its platform can't be used there, try again later")

// PlatformReply is a refusal as the platform gave it.
type PlatformReply struct {
	Platform routing.PlatformID
	Host     string // as configured
	Verb     string // what was refused: MAIL, RCPT, DATA, or "." for the message
	Reply    *mail.Reply

	// Ours says that this is a refusal for good (5yz) which is not about the sender, the
	// recipient or the content, but about us, our session or the platform's state, such
	// as "530 Must issue a STARTTLS command first". The error wraps ErrNeedsOperator
	// then, and mail.AsReply makes a 451 of it.
	Ours bool
}

// Error implements error.
func (e *PlatformReply) Error() string {
	c := e.Reply.EnhancedCode
	not := ""
	if e.Ours {
		not = " (not about the message)"
	}
	return fmt.Sprintf("platform %s at %s answered %s with %d %d.%d.%d %s%s",
		e.Platform, e.Host, e.Verb, e.Reply.Code, c[0], c[1], c[2], e.Reply.Message, not)
}

// Unwrap returns the reply, so that mail.AsReply passes it on.
func (e *PlatformReply) Unwrap() error { return e.Reply }

// Is reports whether target is ErrNeedsOperator and e is about us.
func (e *PlatformReply) Is(target error) bool { return target == ErrNeedsOperator && e.Ours }

// As gives mail.AsReply a temporary reply if the platform's is not about the message.
func (e *PlatformReply) As(target any) bool {
	r, ok := target.(**mail.Reply)
	if ok && e.Ours {
		*r = replyOurs
	}
	return ok && e.Ours
}

// ConnectionError is a failure of the connection or of its set-up, or a 421 that ended it.
// Always temporary: mail.AsReply makes a 451 of it, whatever it wraps.
type ConnectionError struct {
	Platform routing.PlatformID
	Host     string // empty if none was chosen
	Doing    string // what was attempted: dial, EHLO, MAIL, body, ...
	InDoubt  bool   // see ErrInDoubt
	Err      error
}

// Error implements error.
func (e *ConnectionError) Error() string {
	at := ""
	if e.Host != "" {
		at = " at " + e.Host
	}
	doubt := ""
	if e.InDoubt {
		doubt = ", " + ErrInDoubt.Error()
	}
	return fmt.Sprintf("platform %s%s: %s%s: %v", e.Platform, at, e.Doing, doubt, e.Err)
}

// Unwrap returns the cause.
func (e *ConnectionError) Unwrap() error { return e.Err }

// Is reports whether target is ErrInDoubt and e is.
func (e *ConnectionError) Is(target error) bool { return target == ErrInDoubt && e.InDoubt }

// As gives mail.AsReply a temporary reply; a greeting of 554 must not look like a
// refusal of the message.
func (e *ConnectionError) As(target any) bool {
	r, ok := target.(**mail.Reply)
	if !ok {
		return false
	}
	switch {
	case errors.Is(e.Err, ErrBusy):
		*r = mail.NewReply(451, 4, 4, 5, "The mailbox's platform is busy, try again later")
	case errors.Is(e.Err, ErrBareLineEnd) || errors.Is(e.Err, ErrState):
		*r = mail.NewReply(451, 4, 3, 0, "Local error, try again later")
	default:
		*r = mail.NewReply(451, 4, 4, 2, "The connection to the mailbox's platform failed, try again later")
	}
	return true
}
