// Package operation carries out cutovers, rollbacks and changes of mappings: begin closes
// the agencies, every node drains or is fenced, hooks act on the platforms, commit sets the
// other platform or mapping, and once that is confirmed to be durable publish opens
// (docs/architecture/switch.md, "The operation").
//
// It promises that the agencies of an operation change together or not at all, that
// nothing is committed before each member of the table is drained or proven unable to
// deliver, and that an operation which doesn't get as far as commit by its deadline ends
// where it began, open on the old platform, with its hooks undone. Every step is written
// into a journal on this node's disk before it is taken, and the operation's record in the
// table changes with it: another node goes on when the runner is gone, two runners at once
// do no harm, and no step happens twice. [Runner.Plan] shows all of it beforehand, and a
// run that was approved does nothing else.
//
// It refuses an agency that isn't armed, is in the wrong phase, frozen, owned by another
// operation, or whose way back is finalised; members of another protocol version; and a
// plan that is another now than the one that was approved. A table that can't be reached
// is asked again until the deadline. What can neither be finished nor aborted stays
// closed: mail for it is put off, and nothing is guessed.
//
// The admin API calls Run, Plan, and what people may say meanwhile (Abort, Publish, Tell,
// Without), from any goroutine; the node calls Recover once after its start, when it has
// caught up with the table, and then Tend every second. Hooks, probes and further checks
// are given in Options. Goroutines that Recover and Tend start end with Stop, which waits
// for them.
package operation
