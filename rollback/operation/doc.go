// Package operation carries out cutovers and rollbacks of agencies: begin closes, this
// node drains, commit sets the other platform, and once that is confirmed to be durable
// publish opens (docs/architecture/switch.md, "The operation").
//
// It promises that the agencies of an operation change together or not at all, that
// nothing is committed before this node is drained, and that an operation which doesn't
// get as far as commit by its deadline ends where it began, open on the old platform.
// Every step is written into a journal on this node's disk before it is taken, and each
// is a change with an id of its own: taking it twice does nothing. After a crash
// [Runner.Recover] publishes what was committed and aborts the rest.
//
// It refuses an agency that isn't armed, is in the wrong phase, is owned by another
// operation, or whose way back is finalised. A table that can't be reached is asked
// again until the deadline. What can neither be finished nor aborted stays closed:
// mail for it is put off, and nothing is guessed.
//
// The admin API calls Run, from any goroutine; the node calls Recover once after its
// start, when it has caught up with the table. Until then the agencies concerned stay
// closed.
package operation
