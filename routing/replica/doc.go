// Package replica keeps this node's copy of the state table, in memory and on disk.
//
// State returns one consistent read of the table, without a lock and without waiting for
// anything. Run keeps it up to date: it reads a snapshot, loads the mappings that it
// doesn't have, follows the log of changes, and starts again with jittered pauses when
// the connection ends.
//
// The promise is about what State may be taken for. Fresh says at which moment, at the
// latest, State was what the table said; whether that is recent enough to decide is for
// the caller's lease. Fresh says "closed" before the first contact, also with a copy
// from the disk, and after a gap in the log, a revision that went back or another
// incarnation, until a whole snapshot has been loaded again. A record that went back
// stays closed after that too (routing.State, Seen). Another incarnation is never taken
// over; only a replica that has none yet, or one of a table that has had nothing but nodes,
// takes the one it meets.
//
// The order of events for each new State is:
//
//  1. Options.OnSeen is called with it, for what may be closed at once;
//  2. its marks are fsynced: the changed records, the revision, the term and the
//     incarnation (docs/architecture/switch.md, node rule 1). If that fails, the State is
//     not taken: Fresh gets older, Status says why, and it is tried again;
//  3. State returns it;
//  4. Options.OnUpdate is called with the old and the new one, and returns;
//  5. Fresh may move past the moment of the change, and Wait for it returns;
//  6. some time later its mappings are on the disk.
//
// "Closed" comes before all of them: Fresh says so first, then the snapshot is loaded.
// After a restart State is never older than what was acted on, and Marks tells it.
//
// On disk there is one file with all records; files of marks, with a line for each change
// since; and, since a mapping never changes, one file for each mapping, so that a new
// mapping writes its own size only. Marks are taken into the records when they are many,
// and when Run ends. Each line carries a CRC, and the records' file ends in a digest; a
// mapping's file is named by its digest. What can't be read is set aside for a human,
// logged, and read from the table again. A last line of marks that is torn was acted on by
// nobody. If mappings can't be written, the node goes on with those in memory and says so
// in its Status.
//
// The node's main function opens a replica and runs it in one goroutine of its own; all
// other methods may be called from any goroutine.
package replica
