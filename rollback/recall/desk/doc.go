// Package desk keeps the runs that bring mail over after a switch: recalls, from the target
// back to the source, and sweeps, from the losing side to the winning one. It shares a run's
// mailboxes among the nodes, has package recall bring each of them, and says how far it is.
//
// A run is a document of the table. It is set in the change by which an operation opens its
// agencies, or by people. Each mailbox is one node's, by rendezvous hashing over the nodes of
// the run; that node's disk has its journal (docs/architecture/recall.md). When a node has
// brought all of its share it says so by a document of its own; with the last of these the run
// is done. Nobody leads: each node reads the documents and does its part.
//
// It promises that a run which was set goes on until it is done or people end it, through any
// number of restarts; that a mailbox which can't be brought keeps no other from it; that a
// platform which doesn't answer is waited for; and that what a status says is so: what isn't
// known to be back is not counted as back. It refuses a run of an agency that is not on the
// run's winning platform, and stands still while the agency is elsewhere.
//
// A node that is gone keeps its share until it is evicted, or people say that the others take it. Who
// brings a mailbox that another node brought before fetches what that one knows; where it can't be
// asked, or its disk is lost, the share says that what a user has deleted since may come back once.
// No share is said to be brought before the ledgers of all nodes that share the run were asked; those
// that nobody can ask stand with the numbers. What no run needs any more is removed, after it was told.
//
// All methods of a [Desk] are safe for concurrent use. Run is called once, and owns the
// goroutines: one for each run with a share of this node, which has as many for mailboxes as Workers
// says, one that asks other nodes and one that delivers copies; and one that looks after nodes that
// are gone, watermarks, and what can go.
package desk
