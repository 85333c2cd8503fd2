package relay

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"mailcutover/mail"
)

// A platform that once says an answer too many shifts all that follow by one: the answer
// for one recipient is read as that for the next. Nothing wrong may become final by it:
//   - DATA goes on with 354 only, which no command before it is answered with;
//   - nothing may have come in unasked when the dot is sent;
//   - a refusal for good is believed only when the dialogue is shown to be in step.
//
// What comes in unasked between the dot and its answer can't be told from that answer.

// isFinal reports whether err is a refusal by the platform that would be passed on as one
// for good.
func isFinal(err error) bool {
	r, ok := err.(*PlatformReply)
	return ok && !r.Ours && mail.IsPermanent(r.Reply)
}

// confirm shows that all answers read so far were to what was asked: by HELP, which may be
// asked at any time, changes nothing (RFC 5321 section 4.1.4), and is answered with codes
// that MAIL, RCPT and DATA don't have (section 4.3.2). An error means that they can't be
// trusted, and the connection neither.
func (t *Transaction) confirm() error {
	c := t.conn
	code, err := c.command("HELP", t.pool.ep.Timeouts.Command)
	switch {
	case err != nil:
		return err
	case code == 421:
		return t.pool.refused(c, "HELP", code)
	case !slices.Contains(helpCodes, code) || c.stale():
		return fmt.Errorf("%w: answers are not in step with commands, HELP answered with %d", ErrProtocol, code)
	}
	return nil
}

// helpCodes answer HELP: those of RFC 5321 section 4.3.2, and 500, which some give for a
// command that they don't know, smtp-sink of Postfix for one.
var helpCodes = []int{211, 214, 500, 502, 504}

// another reports whether a further reply has begun to come in, other than a goodbye.
func (c *conn) another(within time.Duration) bool {
	if !c.stale() {
		return false
	}
	code, err := c.read(within)
	return (err == nil || errors.Is(err, ErrProtocol)) && code != 421
}
