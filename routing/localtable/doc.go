// Package localtable keeps the state table of a single node in one file: the default
// when no Redis is configured.
//
// It promises what package table does, and that an acknowledged change has been written
// and fsynced: Confirm has nothing left to wait for. The file belongs to one process at
// a time, which [Open] sees to by a lock on it; whoever follows the log does so inside
// that process.
//
// It refuses files that are in use, that were made by something else or by a newer
// version, and files that are damaged as far as opening shows it. Every record carries a
// checksum, because bbolt has none for its pages: a flipped bit in one becomes an error,
// never another platform.
//
// A disk that fails makes calls answer [table.ErrUnavailable]. A call that was already
// writing can't be interrupted by its context; one that waits for its turn can.
//
// The file is a bbolt database with these buckets:
//
//	meta     format, incarnation, revision, mapped, term, and book: a table.Book
//	agency   id -> record; domain, fixed, freeze, operation and document alike
//	ended    revision and id of operations that ended, to forget the oldest
//	mapping  agency:digest -> bucket of numbered parts, and "complete", written last
//	log      revision -> entry; the oldest go beyond Options.LogLength
//	applied  change id -> digest and position; id_at: revision -> change id, to forget
//	         the oldest
//
// There is one node, but its rules are those of many (table.Book). The file is the same
// after a restart, so nothing has to rejoin; one that was put back from a backup is known
// by what its node has seen.
//
// The process that runs mailcutover opens one Table; all methods are safe for concurrent use.
package localtable
