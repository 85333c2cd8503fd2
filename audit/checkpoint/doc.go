// Package checkpoint signs where a node's audit log stands, so that a log can be held against
// what was said of it earlier, by anybody who has the public key (docs/architecture/promises.md, P9).
//
// A [Checkpoint] is one line of text: the head of the log, the time, its place among this
// node's checkpoints, the digest of the one before, and an Ed25519 signature (RFC 8032). The
// [Keeper] makes them while the node runs, appends them to a file ([Book]) that can lie on
// other storage, or be copied there, and hands them to the table. [Verify] needs no node: it
// takes the log, the public keys and the lines, from wherever they were kept.
//
// # What is found, and what isn't
//
// A log that was written anew, cut or replaced shows against the checkpoints that were kept
// out of reach, and [Mismatch] names the records between the last checkpoint that still
// holds and the first that doesn't. Lines that were changed, left out of the middle or
// invented are refused: each is signed and names the one before. Lines missing at the end can't be
// told from lines that were never written; compare the last one's time with when you expect it.
//
// Whoever has the node's disk has its key, and can sign what he likes from then on. He can't
// change what was signed before, as long as one copy of it lies where he can't write. So a
// checkpoint is worth as much as the place where it is kept.
//
// # Keys
//
// A key is a PKCS #8 file (RFC 5958) that [NewKey] makes. A new key can carry the word of the
// one before that it follows it ([Key.Handover]): then the first checkpoint it signs says so,
// and who knows the old key can go on to the new one. From there on the old key signs nothing
// for that node any more.
//
// Append to a book, and all methods of a Keeper, are safe for concurrent use; everything else
// is immutable or keeps no state. The node makes checkpoints, the API asks for some, the
// command audit verify checks them.
package checkpoint
