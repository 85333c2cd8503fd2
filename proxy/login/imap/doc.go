// Package imap is the IMAP dialogue of the login proxy, up to authentication, on both sides
// (RFC 9051, RFC 3501). It is a [login.Dialogue]; what it says to clients and platforms comes
// from here, all decisions come from the core.
//
// Towards the client it takes CAPABILITY, ID, NOOP, LOGOUT, STARTTLS, LOGIN and
// AUTHENTICATE. It announces only what it does itself, never what the platform might do: no
// COMPRESS, since a compressed stream couldn't be handed over, and no IMAP4rev2, since that is the
// platform's to say. The tag of the command that logged in is kept, and the platform's answer
// to the login is the client's, with its capabilities. Commands that come behind it stay
// unread; the platform gets them once, in order, after success, and after a failure they are
// answered here.
//
// Towards the platform it refuses whatever isn't the answer to what it asked: PREAUTH,
// foreign tags, a missing STARTTLS, bytes behind the answer to STARTTLS, more than 64 KiB, and
// UNAUTHENTICATE (RFC 8437) among the capabilities. Every such error means that the platform
// can't be used for now. A refusal of the credentials is a [login.Rejection], and only
// what RFC 9051 calls that is one (see judge).
//
// All that is read is bounded: lines, literals, initial responses and their sum. A literal that
// is refused is skipped by its count or ends the connection; its bytes are never read as
// commands.
//
// [Dialogue] holds no state; each connection has its own in Serve or Authenticate, on the
// goroutine that calls it. What [Dialogue.Tracker] returns belongs to one goroutine at a time.
package imap
