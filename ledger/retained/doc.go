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
// told 250. Nothing is fsynced for a message. Every ten seconds the segments are; larger bodies
// are left to the kernel, which writes them within half a minute (Linux, dirty_expire_centisecs).
// So a power cut costs the copies of the last seconds, and nothing else.
//
// # Files
//
// The folder has for each agency
//
//	AGENCY.NNNNNNNN.heads           what is known of each copy: envelope, recipients, digest, place
//	AGENCY.NNNNNNNN.bodies          bodies of up to 64 KiB, in chunks
//	AGENCY.NNNNNNNN.LLLLLLLL.body   a larger body, in chunks
//	AGENCY.KKKKKKKKKKKKKKKK.key     its data key, sealed with one of the operator's keys
//	AGENCY.NNNNNNNN.coming          a larger body that nobody has finished; a start removes it
//
// and removed.json, the record of what was removed. Heads and bodies are only appended to; a
// body is written before its head. A pair ends at Options.SegmentBytes or after a day, and then
// its heads end in a frame with totals. After a failed write, and after a start, a new pair is
// begun: nothing goes behind a torn tail.
//
// A chunk is 64 KiB of a body, compressed by itself (zstd at its fastest) unless that makes it
// longer, then sealed if there are keys; before it stand its length and a CRC-32C. So memory
// holds one chunk of each message that passes, whatever its size. A copy is the one that the
// platform took if its SHA-256 is the one in its head; the reader finds that out at the end.
//
// With keys, heads and chunks are sealed (package seal) under a key for each file, that follows
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
