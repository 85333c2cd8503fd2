package submission

import (
	"bytes"

	"mailcutover/proxy/login"
)

// Replies to commands before AUTH, with their line ends.
const (
	replyAuthFirst    = "530 5.7.0 Authentication required\r\n" // RFC 4954 section 6
	replyTLSFirst     = "530 5.7.0 Must issue a STARTTLS command first\r\n"
	replyPrivacy      = "538 5.7.11 Encryption required for authentication\r\n"
	replyOK           = "250 2.0.0 OK\r\n"
	replyHelp         = "214 2.0.0 EHLO, STARTTLS and AUTH come before mail\r\n"
	replyVerify       = "252 2.0.0 Not verified\r\n"
	replyBye          = "221 2.0.0 Bye\r\n"
	replyReady        = "220 2.0.0 Ready to start TLS\r\n"
	replyTooLong      = "500 5.5.2 Line too long\r\n"
	replyLineEnd      = "500 5.5.2 Lines must end in CRLF\r\n"
	replyUnknown      = "500 5.5.1 Unknown command\r\n"
	replyNotHere      = "502 5.5.1 Command not implemented\r\n"
	replyArgument     = "501 5.5.4 Malformed argument\r\n"
	replyNoArgument   = "501 5.5.4 This command takes no argument\r\n"
	replySecure       = "503 5.5.1 TLS is on already\r\n"
	replyInjected     = "554 5.5.0 Bytes behind STARTTLS\r\n"
	replyHelloFirst   = "503 5.5.1 Send EHLO first\r\n"
	replyMechanism    = "504 5.5.4 Unknown authentication mechanism\r\n"
	replyCancelled    = "501 5.7.0 Authentication cancelled\r\n"
	replyMalformed    = "501 5.5.2 Malformed authentication message\r\n"
	replyAuthTooLong  = "500 5.5.6 Authentication message too long\r\n" // RFC 4954 section 6
	replyWelcome      = "235 2.7.0 Authentication successful\r\n"
	replyWrong        = "535 5.7.8 Authentication credentials invalid\r\n"
	replyName         = "501 5.5.4 This name can't be used to log in\r\n"
	replyTemporary    = "454 4.7.0 Temporary authentication failure, try again later\r\n"
	replyClosed       = "454 4.7.0 The mailbox can't be reached for the moment, try again soon\r\n"
	replyTooManyTries = "421 4.7.0 Too many attempts or sessions, try again later\r\n"
	replyDrain        = "421 4.3.2 Service is going down, try again\r\n"
	replyErrors       = "421 4.7.0 Too many errors, closing connection\r\n"
	replyIdle         = "421 4.4.2 Timeout, closing connection\r\n"
	replyMoved        = "421 4.3.2 The mailbox's service is moving, connect again\r\n"
	replyOperator     = "421 4.3.2 Session closed by the operator\r\n"
	replyBroken       = "421 4.3.0 Local error, closing connection\r\n"
)

// refusal returns the answer to an AUTH that failed, and whether the connection ends with it.
// Permanent answers are those for which there is proof: the platform's own 535, and what is
// wrong in the client's own message (docs/architecture/promises.md, P5).
//
// A name that can be no login isn't 535: that says that a password is wrong, so clients
// forget the one they have, though nobody looked at it. It isn't temporary either: the same
// message can never be taken.
func refusal(r *login.Refusal) (reply string, end bool) {
	switch r.Cause {
	case login.CauseWrong:
		if bytes.HasPrefix(r.Answer, []byte("535 ")) {
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
		return replyTooManyTries, true
	case login.CauseDrain:
		return replyDrain, true
	}
	return replyTemporary, false
}

// Farewell implements [login.Dialogue] (RFC 5321 section 3.8).
func (Dialogue) Farewell(cause login.Cause, _ bool) []byte {
	switch cause {
	case login.CauseErrors:
		return []byte(replyErrors)
	case login.CauseIdle:
		return []byte(replyIdle)
	case login.CauseLimit:
		return []byte(replyTooManyTries)
	case login.CauseDrain:
		return []byte(replyDrain)
	case login.CauseMoved, login.CauseClosed, login.CauseLocked, login.CauseTable, login.CausePlatform:
		return []byte(replyMoved)
	case login.CauseOperator:
		return []byte(replyOperator)
	}
	return []byte(replyBroken)
}
