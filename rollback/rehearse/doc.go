// Package rehearse is the record of a rehearsal: a cutover and a rollback of an agency's
// shape between built-in platforms, before the real one.
//
// A record says when it was, of which mapping and by which program, how long the agency was
// closed, and what became of every message and login. The table keeps the last one of each
// agency as a document ([Key], [ParseRecord]); whoever decides whether an agency may go looks
// at [Record.Passed], [Record.Ended] and [Record.Mapping].
//
// It promises that a record which is not whole, or says of itself things that can't both be
// true, is refused ([ErrBadRecord]) and never taken for one that passed.
//
// It runs no rehearsal and stores nothing: package demo runs them, the API stores what they
// came to. It has no state, and is safe for concurrent use.
package rehearse
