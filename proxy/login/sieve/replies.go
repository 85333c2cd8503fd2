package sieve

import (
	"bytes"

	"mailcutover/proxy/login"
)

// Replies before a login, with their line ends.
const (
	replyReady      = "OK \"ManageSieve ready\"\r\n"
	replyCapability = "OK \"Capability completed\"\r\n"
	replyNoop       = "OK \"Done\"\r\n"
	replyBye        = "OK \"Bye\"\r\n"
	replyTLS        = "OK \"Begin TLS\"\r\n"
	replyTLSDone    = "OK \"TLS is on\"\r\n"
	replyWelcome    = "OK \"Logged in\"\r\n"
	replyMalformed  = "NO \"Malformed command\"\r\n"
	replyUnknown    = "NO \"Unknown command\"\r\n"
	replyFirst      = "NO \"Authenticate first\"\r\n"
	replyNoTLS      = "NO \"TLS is not available\"\r\n"
	replySecure     = "NO \"TLS is on already\"\r\n"
	replyPrivacy    = "NO (ENCRYPT-NEEDED) \"STARTTLS comes before credentials\"\r\n" // RFC 5804 section 1.3
	replyMechanism  = "NO \"Unknown authentication mechanism\"\r\n"
	replyCancelled  = "NO \"Authentication cancelled\"\r\n"
	replyMessage    = "NO \"Malformed authentication message\"\r\n"
	replyWrong      = "NO \"Authentication failed\"\r\n"
	replyName       = "NO \"This name can't be used to log in\"\r\n"
	replyTemporary  = "NO (TRYLATER) \"Temporary failure, try again later\"\r\n"
	replyClosed     = "NO (TRYLATER) \"The mailbox can't be reached for the moment, try again soon\"\r\n"
	byeInjected     = "BYE \"Bytes behind STARTTLS\"\r\n"
	byeTooLong      = "BYE \"Line too long\"\r\n"
	byeLineEnd      = "BYE \"Lines must end in CRLF\"\r\n"
	byeLiteral      = "BYE \"Malformed or oversized literal\"\r\n"
	byeErrors       = "BYE \"Too many errors\"\r\n"
	byeTooMany      = "BYE (TRYLATER) \"Too many attempts or sessions, try again later\"\r\n"
	byeDrain        = "BYE (TRYLATER) \"Service is going down, try again\"\r\n"
	byeIdle         = "BYE \"Timeout\"\r\n"
	byeMoved        = "BYE (TRYLATER) \"The mailbox's service is moving, connect again\"\r\n"
	byeEnded        = "BYE (TRYLATER) \"Session closed, try again\"\r\n"
)

// refusal returns the answer to an AUTHENTICATE that failed, and whether the connection ends
// with it. NO without a code is all that there is for wrong credentials; what the client isn't to
// blame for has TRYLATER (RFC 5804 section 1.3; docs/architecture/promises.md, P5).
func refusal(r *login.Refusal) (reply string, end bool) {
	switch r.Cause {
	case login.CauseWrong:
		if bytes.HasPrefix(r.Answer, []byte("NO")) {
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
		return byeTooMany, true
	case login.CauseDrain:
		return byeDrain, true
	}
	return replyTemporary, false
}

// Farewell implements [login.Dialogue].
func (Dialogue) Farewell(cause login.Cause, _ bool) []byte {
	switch cause {
	case login.CauseErrors:
		return []byte(byeErrors)
	case login.CauseIdle:
		return []byte(byeIdle)
	case login.CauseLimit:
		return []byte(byeTooMany)
	case login.CauseDrain:
		return []byte(byeDrain)
	case login.CauseMoved, login.CauseClosed, login.CauseLocked, login.CauseTable, login.CausePlatform:
		return []byte(byeMoved)
	}
	return []byte(byeEnded)
}
