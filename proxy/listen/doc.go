// Package listen accepts connections for the protocols that this node speaks to clients,
// and ends them in order.
//
// A [Server] accepts from sockets, keeps to the limits of connections, in all and for each
// client address, reads the PROXY headers of listed peers, and gives each connection that
// it admitted to a [Handler] in a goroutine of its own. [TLS] hands out a listener's
// configuration for handshakes, made strict.
//
// It promises that
//   - a client counts by its own address, also if a PROXY header named it;
//   - a connection counts until it has left, whether or not a goroutine still serves it;
//   - Shutdown reaches every connection, first with the wish that it ends, then with its
//     end, and returns when all have left;
//   - a panic in a handler ends that connection only.
//
// It refuses what is beyond the limits, with what the protocol says then, PROXY headers that
// are not valid, missing or too long, and versions and ciphers of TLS that BSI TR-02102-2
// doesn't recommend. A PROXY header from a peer that is not listed is for the protocol to
// refuse: it is no command of any ([SignatureV2]).
//
// When no more descriptors are to be had, accepting is tried again. Every wait for a header
// has a deadline. Nothing is read beyond a header, and no buffer is held.
//
// There is one goroutine for each socket, in [Server.Serve], and one for each connection
// until its handler returns; Serve waits for all of them, and for the connections that
// were kept. Its callers are proxy/smtp and proxy/login; internal/daemon opens their sockets by
// [Listen], and bounds those for HTTP by [Quota.Listener].
package listen
