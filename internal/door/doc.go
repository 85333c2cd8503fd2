// Package door bounds the connections of an HTTP server that strangers can reach and people in
// charge have to.
//
// A [Listener] has so many connections at a time. When all are taken and one more comes, it cuts
// a stranger's: of the address that has most of them, the one that has been there longest. A
// connection is a stranger's until a request on it was answered for somebody who is known: the
// server's handler says so by [Vouch], for which the server gives its connections [Context].
//
// It promises that whoever proves himself within the time in which others fill the door once gets
// in, however many hold on to what they have: by silence, by half a request, or by asking again
// and again for what needs no right. It never cuts a connection that was vouched for. It refuses
// nobody; where all connections are known ones, the next one waits.
//
// It doesn't fail. Its callers are admin and page, from the goroutines of net/http, and
// internal/daemon, which makes the listeners.
package door
