// Package retained keeps copies of the mail that went to an agency's target while its way
// back is open, so that a target which dies takes nobody's mail with it (promise P8).
//
// They are the second net. The first one is the mailbox on the target, from which recall
// brings mail back with what users did to it. So nothing ever fails because of a copy: an
// [Incoming] takes every byte, [Incoming.Keep] returns nothing, and mail is neither refused nor
// put off. A copy that can't be kept is counted, [Status] says why and since when, and the
// ledger has each delivery, so that the gaps can be named. Nor does anybody wait for a disk
// that hangs for longer than Options.Patience, and then nobody until it answers again.
//
// When Keep returns, the copy is with the kernel: a killed process loses none whose sender was
// told 250. Nothing is fsynced for a message. Twice a minute what was written is, so a power cut
// costs the copies of the last half minute, and nothing else. A start fsyncs what a killed process left.
//
// # Files
//
// The folder has for each agency
//
//	AGENCY.NNNNNNNN.heads           what is known of each copy: envelope, recipients, digest, where its chunks are
//	AGENCY.NNNNNNNN.bodies          bodies, in chunks; those of several messages may alternate
//	AGENCY.KKKKKKKKKKKKKKKK.key     its data key, sealed with one of the operator's keys
//
// and removed.json, the record of what was removed. Heads and bodies are only appended to; a
// body is written before its head, and what no head names counts for nothing. A pair, a segment,
// ends at Options.SegmentBytes or after a day, as soon as the messages that began in it have
// ended, and then its heads end in a frame with totals. After a failed write, and after a start,
// a new segment is begun: nothing goes behind a torn tail.
//
// A chunk is 64 KiB of a body, compressed by itself (zstd at its fastest) unless that makes it
// longer, then sealed if there are keys; before it stand its length and a CRC-32C. So memory
// holds one chunk of each message that passes, whatever its size, 64 that wait for the writer, and
// what the next write of each segment takes, some 512 KiB. Copies that end within a millisecond are
// written together, as long as other messages pass whose copies are still to come. What was
// written goes to the disk, and out of memory, two megabytes at a time. Compressing costs more than all
// else together, so it may take a hundredth of the processors, enough for some ten megabytes a
// second on eight of them: what is beyond, on a node that streams as much as it can, is kept as
// it is.
//
// What names a copy is the transaction id of its message. That its content is right is shown by
// the CRC-32C of each chunk, by the tag of each sealed one, and at the end by size and digest,
// the one that the ledger has too. Whoever can write the files can forge a copy that isn't
// sealed, as he can the spool.
//
// With keys, heads and chunks are sealed (package seal) under keys for each segment, that follow
// from the agency's data key. Which keys the operator has may change; the data keys are sealed
// again with the first one at each start.
//
// # What goes, and when
//
// The oldest pair of an agency goes when the agency has more than Options.AgencyBytes; the
// oldest of all beyond Options.TotalBytes, or when the disk has less free than the spool needs
// for itself; and one whose last copy is older than Options.MaxAge. When an agency is finalised
// all of its copies go, the data keys first: what is left of the files on a disk can't be read
// then. Each removal is written to removed.json before it happens, and reported.
//
// # Failure
//
// A damaged head or chunk costs that copy. It is passed over, counted in [Status], and yielded
// by [Store.Find] as an error wrapping [ErrDamaged]; a file whose header can't be read costs all
// of its copies. Neither is a reason not to start. A copy whose data key can't be opened is
// [ErrDamaged] too, until the operator's key is there again.
//
// All methods of [Store] are safe for concurrent use. One goroutine writes and removes, another
// fsyncs; [Store.Close] waits for both. An [Incoming] or [Body] belongs to one goroutine. The
// callers are proxy/transfer and proxy/deliver, which bring copies, package rollback/resend and the
// admin API, which read them.
package retained
