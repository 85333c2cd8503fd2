// Package nonblock connects, reads and writes sockets by system calls of which the Go
// scheduler is not told.
//
// Before an ordinary system call the scheduler prepares for it to block, so that another
// thread can take over. A socket of package net never blocks, and a message through a
// proxy is two dozen of such calls: see docs/performance.md.
//
// It promises to read, write and wait as the socket's own methods do, with their
// deadlines. It refuses nothing. An error is an *os.SyscallError, or the one with which
// package net ends a wait; that of a function which takes a descriptor is an errno. Its
// callers are proxy/smtp, proxy/relay, proxy/dial and proxy/splice, for sockets of package
// net only: never for files or pipes, which block.
package nonblock
