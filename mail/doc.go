// Package mail has the nouns that everything below hands around: the path of an
// envelope, the client that sent it, a transaction's id, trace lines, and replies.
//
// It promises that a [Path] holds no byte that could end a command or add a
// parameter, whatever a peer sent, so that whoever writes one to a platform needs no
// check of his own. It refuses what RFC 5321 section 4.1.2 and RFC 6531 section 3.3
// don't allow, and says why.
//
// It does no I/O, holds no state and knows nothing of agencies. Its values are
// immutable and safe for concurrent use, but for the two builders [TraceScanner] and
// [Trace], which belong to one goroutine.
package mail
