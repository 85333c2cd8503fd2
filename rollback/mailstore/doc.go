// Package mailstore reads and writes the mailboxes of a platform over IMAP.
//
// A [Session] is one mailbox: its folders with their roles, its messages as far as it takes
// to know them again (package msgkey), their bytes as a stream, and what puts a message into a folder.
// Folders have the same names whatever the platform calls them: levels are separated by "/",
// and the prefix of the personal namespace (RFC 2342) is taken off. Folders of other users
// are never listed.
//
// It promises that no command takes for ever: each may be waited for as long as the
// platform's limit says, and for as much longer as the bytes that move justify. After that the
// connection is closed, and the error wraps [ErrTimeout]. Memory doesn't grow with a mailbox
// or a message; an answer of more than 16 MiB without one ends the connection with [ErrProtocol]. A platform that asks for time is given it, by growing pauses, before the
// error wraps [ErrThrottled].
//
// It refuses to take anything away: nothing here deletes or expunges. A message is moved by
// MOVE (RFC 6851) only, never by copying and deleting.
//
// What went wrong is told by the kinds of errors: some are about one mailbox, others say that
// the whole platform has to wait. A name or a password is never in an error.
//
// Package watermark, package recall, package verify and package locate call it. A [Session] belongs to one
// goroutine at a time; a [Store] is safe for concurrent use.
package mailstore
