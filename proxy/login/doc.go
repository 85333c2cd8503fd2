// Package login is the proxy for logins: it finds the mailbox that a client's login means,
// logs in at the platform that holds it now, and joins both connections.
//
// A protocol is a [Dialogue]: it speaks with the client until that one has given
// credentials, and with the platform until that one has taken them. The packages imap,
// submission, pop3 and sieve are the four of them. All else is here, once: accepting,
// TLS, limits, which mailbox a name means, which platform it is on, waiting while an agency
// is closed, the way to the platform, and the end of sessions when an agency closes.
// After authentication bytes are passed on as they are, so that every extension of the
// platform works.
//
// It promises that
//   - a session is with the platform that holds the mailbox, by a decision that is still
//     right when the platform is asked, and once more before the first byte flows
//     (docs/architecture/promises.md, P2 and P3);
//   - what a platform is told as a login is the table's, never the client's bytes;
//   - a client hears of a wrong password only if the platform said so under a decision
//     that still holds; everything else asks for another try (P5);
//   - bytes of two sessions never meet; what a client sent before its login failed
//     reaches no platform;
//   - credentials go to the platform that is in force, as its TLS policy says, and into
//     no log.
//
// It refuses names that mean no mailbox, or more than one; names of a master user; and
// platforms that announce UNAUTHENTICATE (RFC 8437), with which a second user could ride
// on the first one's route.
//
// When an agency closes, the platform's side of its sessions is cut at once, and the
// client is told within the configured spread (docs/architecture/switch.md, node rule 6).
// While the node has no right to decide, sessions of armed agencies are suspended.
//
// A platform that can't be reached, a table that can't be asked, a dialogue that panics: each
// ends that login, and nothing of it is left behind, neither a ticket nor a socket.
//
// A [Proxy] is what all listeners of a node share: sessions, limits, endpoints. A [Server] is
// one listener of it. A connection has a goroutine until it is joined, and none while it
// is idle after that; one goroutine of the proxy looks after sessions that are suspended. The
// caller is internal/daemon; docs/architecture/login.md has the way of a login.
package login
