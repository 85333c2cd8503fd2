// Package smtp is the listener for SMTP (RFC 5321) and LMTP (RFC 2033): it speaks with
// the peers that bring mail, and hands what they ask to a [Backend].
//
// It promises that a session sees only commands that are well formed and in order;
// that nothing but CRLF.CRLF ends a message, whatever else a peer sends; that body
// bytes pass unchanged but for bare CR and LF, which are made CRLF and counted, or
// refused; that a message counts as accepted only if its session read it to the end
// and said so; and that an error nobody foresaw leaves as a temporary answer
// (docs/architecture/promises.md, P1 and P5).
//
// It refuses: bare LF at the end of a command; bytes that arrive behind STARTTLS or
// DATA before its answer; PROXY headers from peers that are not listed, and no header
// from those that are; XFORWARD from peers not trusted; TLS before 1.2 and without
// forward secrecy; AUTH, XCLIENT, BINARYMIME, and all that it did not announce. Every
// wait for a peer has a deadline and every store of a peer's bytes a bound ([Limits]).
//
// When the connection fails within a message, the session's Read fails and the message
// is not answered; after a timeout the peer gets 421. When a session fails, its peer gets what mail.AsReply makes of the error.
// A message that ends in CR CR LF . CR LF is taken, and the connection closed behind
// its answer: peers disagree on whether it ended there, so nothing that follows is
// ever taken as a command.
//
// Accepting, its limits, PROXY headers and the end in order are proxy/listen's. A [Server]
// has one goroutine for each listener, in [Server.Serve], and one for each connection, for
// which Serve waits. While a connection is idle it holds no buffers of
// ours; in TLS, crypto/tls keeps one as large as the largest record that it received.
package smtp
