package pop3

import (
	"bytes"
	"errors"

	"mailcutover/proxy/login"
)

// Replies before a login, with their line ends.
const (
	replyOK         = "+OK\r\n"
	replyBye        = "+OK Bye\r\n"
	replyPass       = "+OK Send PASS\r\n"
	replyTLS        = "+OK Begin TLS\r\n"
	replyWelcome    = "+OK Logged in\r\n"
	replyTooLong    = "-ERR Line too long\r\n"
	replyLineEnd    = "-ERR Lines must end in CRLF\r\n"
	replyUnknown    = "-ERR Unknown command\r\n"
	replyArgument   = "-ERR Malformed argument\r\n"
	replySequence   = "-ERR Log in first\r\n"
	replyUserFirst  = "-ERR USER comes first\r\n"
	replyNoTLS      = "-ERR TLS is not available\r\n"
	replySecure     = "-ERR TLS is on already\r\n"
	replyInjected   = "-ERR Bytes behind STLS\r\n"
	replyPrivacy    = "-ERR STLS comes before credentials\r\n"
	replyMechanism  = "-ERR Unknown authentication mechanism\r\n"
	replyCancelled  = "-ERR Authentication cancelled\r\n"
	replyMalformed  = "-ERR Malformed authentication message\r\n"
	replyWrong      = "-ERR [AUTH] Authentication failed\r\n"
	replyName       = "-ERR This name can't be used to log in\r\n"
	replyTemporary  = "-ERR [SYS/TEMP] Temporary failure, try again later\r\n"
	replyClosed     = "-ERR [SYS/TEMP] The mailbox can't be reached for the moment, try again soon\r\n"
	replyTooMany    = "-ERR [SYS/TEMP] Too many attempts or sessions, try again later\r\n"
	replyDrain      = "-ERR [SYS/TEMP] Service is going down, try again\r\n"
	replyErrors     = "-ERR Too many errors\r\n"
	replyIdle       = "-ERR [SYS/TEMP] Timeout\r\n"
	answerOKPrefix  = "+OK"
	answerErrPrefix = "-ERR"
)

// putOff is the error of Authenticate for a refusal that is temporary by the platform's own
// code.
type putOff struct {
	answer string // the platform's line
	code   string
}

// Error implements error.
func (e *putOff) Error() string { return "the platform put the login off: " + e.code }

// refusal returns the answer to a login that failed, and whether the connection ends with
// it. -ERR is all that POP3 has: [SYS/TEMP] (RFC 3206) says that it isn't the client's fault
// (docs/architecture/promises.md, P5).
func refusal(r *login.Refusal) (reply string, end bool) {
	var off *putOff
	switch r.Cause {
	case login.CauseWrong:
		if bytes.HasPrefix(r.Answer, []byte(answerErrPrefix)) {
			return string(r.Answer) + "\r\n", false
		}
		return replyWrong, false
	case login.CauseName:
		return replyName, false
	case login.CausePrivacy:
		return replyPrivacy, false
	case login.CauseClosed, login.CauseLocked, login.CauseMoved:
		return replyClosed, false
	case login.CauseLimit:
		return replyTooMany, true
	case login.CauseDrain:
		return replyDrain, true
	case login.CausePlatform:
		if errors.As(r.Err, &off) {
			return off.answer + "\r\n", false
		}
	}
	return replyTemporary, false
}

// Farewell implements [login.Dialogue].
func (Dialogue) Farewell(cause login.Cause, logged bool) []byte {
	switch {
	case logged:
		return nil
	case cause == login.CauseErrors:
		return []byte(replyErrors)
	case cause == login.CauseIdle:
		return []byte(replyIdle)
	case cause == login.CauseLimit:
		return []byte(replyTooMany)
	case cause == login.CauseDrain:
		return []byte(replyDrain)
	}
	return []byte(replyTemporary)
}
