// Package splice joins a client's connection with a platform's and passes bytes both ways,
// as they are.
//
// A joined pair has no goroutine and no buffer while nobody sends: an [Engine] watches the
// sockets of all its pairs in one epoll set of its own, and a few workers move what is there
// with borrowed buffers. The sockets stay those of package net. Elsewhere than on Linux
// goroutines wait in the place of epoll, with the same results.
//
// It promises that
//   - bytes arrive unaltered and in order, and a peer's end is passed on when all before it
//     has been (RFC 9293 section 3.6; with TLS close_notify, RFC 8446 section 6.1);
//   - [Owner.Flow] is asked after a chunk was read and before any of it is written, each time;
//   - after [Joint.CutPlatform] has returned no write of bytes from or to the platform begins;
//   - when [Owner.PlatformGone] is called no byte can reach the platform any more, not even
//     one that this host's kernel still had;
//   - a peer that reads slowly stops its own direction only, and holds at most one buffer of
//     each kind there;
//   - a client's last words never come behind half a TLS record.
//
// It refuses connections that it can't watch: anything but TCP, and TLS over TCP that was not
// put on by way of [Under]. crypto/tls can't go on with a record that was written in part, so
// what is between it and the socket must take a record whole, and send it later.
//
// When a peer fails, what came from it before is still passed on; the other side gets an end,
// and some time to end as well. A pair that is left alone is ended by a limit of [Options].
//
// Callbacks come from a worker, one at a time for each pair; they must not wait for I/O.
// The caller is proxy/login.
package splice
