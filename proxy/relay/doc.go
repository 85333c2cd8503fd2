// Package relay is the way to a platform: an SMTP and LMTP client with a pool of
// connections for one endpoint, that is, for one platform and one origin of mail.
//
// A message is a [Transaction]: Open takes a connection, Rcpts sends MAIL and all
// recipients in one write, Data, Write and Flush bring the body over as it streams in,
// and Dot sends the final dot as a write of its own, so that the caller can look once
// more whether he may (docs/architecture/switch.md, node rule 3).
//
// It promises that
//   - an answer is the platform's own, or an error that asks for another try: nothing
//     that goes wrong here ever looks permanent (docs/architecture/promises.md, P5), and
//     a refusal for good is passed on only if it is about the sender, the recipient or the
//     content (the table in refusal.go);
//   - an answer too many, which shifts those that follow, makes nothing final: see
//     confirm.go;
//   - an error wraps [ErrInDoubt] exactly if the dot may have been sent and its answer
//     was not seen (P7); every other error means that the platform has no message;
//   - a transaction that was not ended by Dot never shows a dot to the platform, also
//     not when the process is killed (SO_LINGER 0, node rule 7);
//   - what is written is a [mail.Path], checked xtext, or a dot-stuffed body without
//     bare CR or LF; never a byte that could end a command or a message early;
//   - credentials and mail that needs TLS go nowhere without it.
//
// It refuses, for each recipient, what the platform does not announce and the message
// needs (8BITMIME, SMTPUTF8, REQUIRETLS, a larger SIZE). It does not speak HELO, BDAT
// or TLS below 1.2, and it never falls back from TLS to plain text on an error. The
// AUTH parameter of MAIL (RFC 4954 section 5) is not carried.
//
// On failure the connection is closed. A host that refuses connections, greets with 421 or
// goes away before it answered a MAIL is left alone for a growing, jittered time; others
// take its place. One connection that had worked and breaks says little of its host; if one that
// was made afterwards breaks as well, with none that worked in between, it counts as a
// refusal. Another host or a fresh connection is tried only as long as MAIL has not
// been answered. If no host is left the error comes at once.
//
// A client that falls silent between RCPT and DATA does not keep a connection from others:
// the pool takes it back when somebody waits (Limits.MaxPause), and asks the platform again when
// the client goes on.
//
// Sockets, the TLS policy, back-off and PROXY headers are proxy/dial's; which host is next
// is the pool's own, because it knows of connections that broke and of hosts that are full.
//
// proxy/transfer calls it from the goroutine of the session that brings the message,
// proxy/deliver from a worker of spool/queue, proxy/probe for whoever asks. A [Pool] is safe for
// concurrent use, a [Transaction] belongs to one goroutine. The pool has one goroutine,
// which closes idle connections; [Pool.Close] waits for it. There is none per message.
package relay
