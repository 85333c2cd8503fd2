// Package spool keeps held and waiting mail on this node's disk.
//
// It promises that a message whose Commit returned nil is found after any crash or power
// cut, complete and unaltered, with its recipients' states (P1); that what nobody
// committed is delivered to nobody; and that a body which isn't what was accepted is
// never taken for it: [Body.Verify] has to return nil before the final dot. It keeps the
// order of acceptance: a sequence number is fixed when a message is written to the
// journal. It knows neither network nor routes; package queue decides what is sent when. Only
// whose mail it is it asks anew when that changes ([Store.Own]): the order of held mail (P6) is
// that of the mailbox that has the address now, whoever had it at acceptance.
//
// # On disk
//
//	id                      identity of the spool, its owner, earlier owners
//	lock                    keeps other processes of the machine out
//	journal/NNNNNNNN.log    segments of records
//	journal/NNNNNNNN.cut    up to where a segment counts whose fsync failed
//	bodies/TRANSACTION.body bodies over 64 KiB: a line, the bytes, size and CRC-32C
//	quarantine/             what couldn't be read, for a human
//
// A record of the journal has a frame with lengths and two CRC-32C: of frame, place, spool
// and head, and of the body behind it. There are two kinds: a message (envelope and
// recipients, and a body of up to 64 KiB behind them), and the new state of one
// recipient. Records of the second kind that end a message name the segments for which
// they are needed. After a start a new segment is begun: nothing goes behind a torn tail.
//
// # Order of writes
//
// One goroutine, the committer, writes for all who wait at once. For a message:
//
//  1. a body over 64 KiB: bytes, trailer, fsync of the file, by the goroutine that brings
//     it, beside others; then, once for the group, fsync of the directory bodies/
//  2. a new segment, if one is due: fsync of the old one; creation, header, fsync of the
//     directory journal/
//  3. the records of the group, smaller bodies in them, in one write
//  4. fsync of the segment
//  5. Commit returns nil; only then may a 250 be sent
//
// An outcome (Set) is written at once, so that a killed process loses none, and fsynced
// with the next group, at the latest after a second: a power cut may forget the last ones,
// and such a message is then delivered twice, never not at all. A body's file is removed
// only when the outcome that ended its message is fsynced. Compaction writes what is
// needed of an old segment into the newest, fsyncs that and whatever made the rest
// needless, removes the old one, and fsyncs the directory before it removes another: else
// an outcome could be gone whose message comes back. A start fsyncs the last segment and
// its directory before it builds on them: after a kill they are in the kernel only. Tests
// leave out these fsyncs in turn and see it.
//
// # Failure
//
// A bound or a full disk is [ErrFull]; a part of the disk always stays free
// ([Options.Space]), so that what is there can be delivered; what was half written is cut off, and the next try
// may succeed. Any other failed write, and every failed fsync, takes the spool out of
// service ([ErrBroken]), because the kernel reports a lost page once and then calls it
// clean: nothing is written to that segment again, and nothing new is taken until an
// operator calls Resume. Reading goes on, and so do outcomes: they are written to a new
// segment as soon as there can be one, again if they were not fsynced. Before that a file
// NNNNNNNN.cut says up to where the old segment counts, so that a message whose Commit
// failed isn't found at the next start; only if the process ends before there is one, it
// may be, and then comes twice.
//
// Damage is no reason not to start. Bytes of the journal that hold no record, and bodies
// that no record names while some can't be read, go to quarantine/; a message with a
// damaged or lost body stays, with its recipients in [StateQuarantined]. All of it is
// listed in [Status] and raised as an alarm. A file of quarantine/ stays until a human
// removes it or, if the operator wants that, for [Options].QuarantineAge; each removal is
// reported. Mail never goes by age.
//
// # Whose it is
//
// A spool belongs to one node. [Adopt] gives it to another by compare-and-set on the id
// file; the old owner finds that out at its next start, Commit or Open of a body, and
// takes and delivers nothing more ([ErrAdopted]).
//
// # Encryption
//
// With Options.Keys bodies are sealed before they go to the disk (package seal), in the journal
// as in files; sizes and checksums in the journal are then those of what is on the disk, and its
// heads say so with another version. Envelopes are not sealed. Bodies from before there were
// keys, and those of older keys, are read as long as their key is there; a body whose key isn't
// is neither damaged nor lost: it can't be opened, with [seal.ErrUnknownKey], and waits.
//
// # Why bodies are in the journal
//
// A file for each body costs an inode, a directory entry and an fsync of its own. With
// bodies of 10 KiB and 20 connections, on two busy cores and ext4, BenchmarkAccept took
// 9,800 to 11,900 messages per second with bodies in the journal and 1,600 in files; with
// 1 connection 2,400 and 350, with 100 15,000 and 1,600. A trial without the store's own
// work gave 8,700 for one segment, 4,200 for a segment of bodies beside a journal, 3,300
// for files made durable by one syncfs, 2,100 for files with parallel fsyncs. What a plain
// file has over a record, that it can be read with plain tools, is worth less: the body
// stands in the segment as it came, and grep -a finds it. Larger bodies cost the disk
// more than the fsync, and would be copied in compaction; they keep their files.
//
// The committer waits for a moment while more messages have begun than have come, as long
// as the last fsync took and a millisecond at most: without, the first of many would have
// an fsync for itself.
//
// Memory holds some 120 bytes for a held message of one recipient at a million, in rows
// without pointers, beside some 180 for each address of a mailbox that has any; what can be read
// back from the journal isn't among it. A start with 100,000 held messages
// of 10 KiB took 0.4 s, the files being in memory.
package spool
