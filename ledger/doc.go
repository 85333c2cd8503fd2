// Package ledger is the record of every delivery: what was about to be handed to a
// platform, and what the platform said.
//
// Before the final dot of a message goes out, [Ledger.Intend] writes who it is for and
// which message it is; after the answer, [Ledger.Outcome] writes what was answered. Both
// return when the bytes are with the kernel, so that a killed process loses neither: the
// next start finds the intents that have no outcome and names them ([Ledger.InDoubt]) as
// in doubt, that is, as possible duplicates (P7). A kill between a platform's answer and
// the write of its outcome leaves the intent open, which is right: nobody was told 250.
//
// What becomes of a message on this node alone is there too: that the spool took it, and how
// it left the spool without a platform ([Intent].Local, [Ledger.Note]).
//
// Nothing is fsynced per message. Once a second the ledger is fsynced, and a mark says so
// in it. After a power cut, or when the file system was mounted anew, which shows by another
// [BootID] than at the last write, what came after the last mark is unknown: [Ledger.Unknown] says
// so, and from when. A start fsyncs what a killed process left, before it writes a mark of its own.
//
// # Files
//
// The folder has segments, 00000001.log and so on, that are only ever appended to, and
// beside each finished one an index, 00000001.idx, that can be made again from it. A
// segment starts with a line of text and a header record; all records have a fixed head
// with length and CRC-32C. Whatever is open when a segment ends is carried over into the
// next one, so that an intent's outcome is always in the segment of its last copy, and a
// start reads one segment. A segment is appended to in memory that the kernel writes back,
// where the disk has that (durable.Appender); after a kill it ends in zeros, which count
// for nothing. Names that repeat (agencies, platforms, hosts, domains) are
// written once in a segment. A record that can't be read is passed over and counted; a
// segment without a readable header is set aside under another name, for a human. Neither
// is a reason not to start. After a failed write a new segment is begun: nothing is ever
// written behind a torn record.
//
// Segments are removed by age and by the size of the whole, oldest first; each removal
// is reported.
//
// # What is not in it
//
// No subject and no content. Of a message there are its Message-ID, its size and a
// [Digest]. Long fields are cut, and end in "…" then. With a
// key, addresses are written as truncated HMAC-SHA256, and addresses in a platform's
// answer as "(address)"; who asks for an address finds it, who reads the files doesn't.
//
// # Failure
//
// While the disk takes no writes, Intend returns an error that wraps [ErrUnavailable] and
// the message has to be put off with 451; [Ledger.Status] says why and since when.
// Outcomes are kept in memory until they can be written. The ledger tries again ten times
// a second at most, and goes on by itself.
//
// All methods are safe for concurrent use. Transfers call Intend and Outcome, each from
// its own goroutine; one goroutine of the ledger fsyncs, indexes and removes.
package ledger
