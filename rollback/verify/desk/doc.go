// Package desk decides when mailboxes are compared (package verify), keeps what came of it,
// and the list of findings that people work through.
//
// Each agency has a [Record] in the table: what runs, and what the last comparisons found; and
// its findings, each with its state. A finding is found; people say that what is wrong has
// been removed, or dismiss it with a reason; then the program looks again by itself, and either
// confirms that it is gone or finds it again. docs/architecture/verify.md has the states.
//
// It compares a sample of an agency by itself soon after its cutover, all of it when the sample
// found crossed mailboxes, again what people say they removed, and on a schedule where one is
// configured. Any node may do that: who stores first that it runs does it, and a run whose
// node is silent for long is taken for ended and begun anew.
//
// It promises that a finding stays open until a comparison that would have found it didn't, or
// a person dismissed it; that every node raises the alarm about open crossed mailboxes; and
// that a lock, where configured, is tried until it is known to be in the table, or people have
// seen to what was found. It refuses an agency of which a platform's mailboxes can't be read.
//
// All methods of a [Desk] are safe for concurrent use. Run is called once, and owns the
// goroutine of the comparison under way; when it returns that has ended. One comparison runs on
// a node at a time.
package desk
