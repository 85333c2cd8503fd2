// Package audit keeps what people did: an append-only log on the node's disk in which
// every record carries the digest of the one before it, and the proof that such a log is
// whole (docs/architecture/promises.md, P9).
//
// [Log.Append] writes a record before its effect happens, and returns when it is fsynced.
// If it returns an error, the caller doesn't do what he was about to do. A record says
// what was about to happen, not that it did: where the effect fails, the caller appends a
// second record that names the first (Entry.Of) and the error.
//
// # Files
//
// The folder has segments, named by the number of their first record, that are only ever
// appended to. Each line is a record: the SHA-256 of its JSON in hexadecimal digits, a
// space, the JSON. The JSON has the record's number, the digest of the record before and
// the name of the chain, which is drawn at random when the first record of a folder is
// written. Each start, and each failed write, begins a new segment, so that nothing is
// ever written behind a torn record. A torn tail (a power cut during a write) is
// recognised, left where it is and told by Verify; its effect hasn't happened.
//
// # What is found, and by what
//
// The log alone shows a record that was changed, removed, inserted or moved. That its end
// was cut, or that everything from some record on was written anew, shows only against a
// [Head] that was kept elsewhere: on paper, in another system, or in the state table,
// which has the heads of all nodes. [Verify] and [VerifyDir] need no node.
//
// Whoever has the disk and all copies of the heads can forge everything since the oldest
// head that he doesn't have. Heads say nothing of who wrote them down, and when: package
// audit/checkpoint signs them.
//
// The admin API appends, the node's own parts do where they act for a person. The methods
// of a Log are safe for concurrent use; the functions keep no state.
package audit
