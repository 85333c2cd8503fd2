// Package plan is the plan of a migration: waves of agencies that are cut over one after
// the other, the windows in which that may happen, what has to be so before (go or no-go),
// how long it is likely to take, and the stop that keeps all that follows from starting.
//
// A wave is proposed by one person and approved by another (docs/architecture/promises.md,
// P9). What is approved is its [Definition] together with the record of each of its
// agencies; the approval covers the cutover of each of them, once, inside the windows, as
// long as every check holds and the agency's record is the one that was approved. An agency whose
// operation was aborted is tried again only if a person names it, and as often as the definition
// says. The approval covers nothing else: no rollback, no hook left out, no agency that was
// changed since. Whatever is refused needs people.
//
// The package is pure: it reads no clock and makes no connection. What it says of a wave
// rests on a copy of the table, on a moment and on what its caller knows. Everything that
// isn't known refuses; a document that this version of the program can't read is an error,
// never a wave without checks. A wave's methods return the next one and change nothing;
// the table stores it if nobody changed it meanwhile.
//
// Package desk carries waves out on a node; the API and the commands show and change them.
package plan
