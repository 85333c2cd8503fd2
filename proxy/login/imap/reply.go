package imap

import (
	"errors"

	"mailcutover/proxy/login"
)

// reply makes the tagged answer to a login that was refused: all that the client may learn of
// r. Response codes: RFC 9051 section 7.1. What wasn't foreseen is UNAVAILABLE, which tells
// a client to come back and not to ask for another password.
func reply(tag string, r *login.Refusal) []byte {
	answer := func(text string) []byte { return []byte(tag + " " + text + "\r\n") }
	switch r.Cause {
	case login.CauseWrong:
		if len(r.Answer) > 0 {
			return answer(string(r.Answer))
		}
		return answer("NO [AUTHENTICATIONFAILED] Login refused")
	case login.CauseName:
		// Not AUTHENTICATIONFAILED: nobody has looked at the password. It can never succeed
		// with this name, whatever is done here, and that is what CANNOT says.
		return answer("NO [CANNOT] This name can't be used to log in")
	case login.CausePrivacy:
		return answer("NO [PRIVACYREQUIRED] Encryption is needed first")
	case login.CauseLimit:
		return answer("NO [LIMIT] Too many sessions or attempts, try again later")
	case login.CausePlatform:
		// The platform's reason is passed on where it is one that a client understands as
		// temporary, and that isn't about the way to the platform.
		if u := (*unwilling)(nil); errors.As(r.Err, &u) {
			switch u.code {
			case "INUSE", "LIMIT", "CONTACTADMIN":
				return answer("NO [" + u.code + "] Login isn't possible now, try again later")
			}
		}
		return answer("NO [UNAVAILABLE] Mailbox not available now, try again later")
	case login.CauseClosed, login.CauseLocked, login.CauseMoved:
		return answer("NO [UNAVAILABLE] Mailbox is being moved, try again later")
	case login.CauseDrain:
		return answer("NO [UNAVAILABLE] Server is going down, connect again")
	case login.CauseOperator:
		return answer("NO [UNAVAILABLE] Session closed by an operator")
	}
	// CauseNoSuchName too: that the table doesn't know a name proves nothing.
	return answer("NO [UNAVAILABLE] Login isn't possible now, try again later")
}

// Farewell implements [login.Dialogue].
func (Dialogue) Farewell(cause login.Cause, logged bool) []byte {
	switch cause {
	case login.CauseIdle:
		if logged {
			return []byte("* BYE Idle for too long\r\n")
		}
		return []byte("* BYE Login took too long\r\n")
	case login.CauseErrors:
		return []byte("* BYE Too many errors\r\n")
	case login.CauseLimit:
		return []byte("* BYE [LIMIT] Too many connections, try again later\r\n")
	case login.CauseDrain:
		return []byte("* BYE [UNAVAILABLE] Server is going down, connect again\r\n")
	case login.CauseOperator:
		return []byte("* BYE [UNAVAILABLE] Session closed by an operator\r\n")
	case login.CauseClosed, login.CauseLocked, login.CauseMoved:
		return []byte("* BYE [UNAVAILABLE] Mailbox is being moved, connect again\r\n")
	}
	return []byte("* BYE [UNAVAILABLE] Try again later\r\n")
}
