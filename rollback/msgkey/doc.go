// Package msgkey says when two messages on two platforms are the same message.
//
// Byte for byte they rarely are: Exchange takes a message apart when it stores it and writes
// it anew when it is read, with other folding, other MIME boundaries, the directory's
// spelling of addresses and a date of its own form. So a message has up to three names, and
// who compares asks for them in this order:
//
//   - the transaction that brought it ([Facts.Transaction]): our id in the Received line that
//     we added. It says that we delivered this message, and is exact;
//   - who wrote what and when ([Facts.Identity]): Message-ID, date and sender, normalised so
//     that what a platform rewrites doesn't matter;
//   - what is in it ([Content]): a digest of decoded text and attachments, for a message
//     without Message-ID or date. It needs the whole message.
//
// It promises that a key depends on nothing but the message and, for transactions, the
// installation's word; that it is the same on every node and in every release that can read
// what an older one wrote down; and that reading any bytes ends, in bounded memory, without
// an error: what can't be read is simply not known.
//
// Keys are names, not proofs. One message may lie in a folder twice (once by a list, once
// directly), and then both have one identity: who counts has to count copies. Whoever writes
// a message chooses its Message-ID and date, and may copy another's; who sees an own Received
// line in a message from outside sees what its sender wanted him to see, unless the ledger
// has that transaction.
//
// The package is pure and does no I/O of its own. Recall, sweep and verify call it, from any
// goroutine.
package msgkey
