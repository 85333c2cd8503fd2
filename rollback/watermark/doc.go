// Package watermark notes the state of an agency's mailboxes on both platforms at one
// moment: per folder UIDVALIDITY, UIDNEXT, HIGHESTMODSEQ where the server has one, and the
// number of messages (RFC 9051 sections 2.3.1 and 6.3.11, RFC 7162 section 3.1.2). What has a
// higher UID later came later.
//
// Watermarks are taken before a cutover begins, while everything is open. The source's serve
// the sweep after it, the target's the recall after a rollback (package recall). They only
// save work: whoever finds none, or one that doesn't fit the folder any more, compares
// everything and comes to the same result.
//
// It promises that a [Set] that is read is byte for byte the one that was written, since it is
// named by its digest. It refuses to read any other. A mailbox that can't be looked at is in
// the set with the reason; a platform that doesn't answer at all is an error of [Take].
//
// A Set is read-only once it is made. [Files] are safe for concurrent use.
// Goroutines that Take starts end before it returns.
package watermark
