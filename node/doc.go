// Package node is this node's right to decide, and its word that nothing old is under way.
//
// Whoever sends mail asks the [Gate] for the decision, enters with it before he speaks
// to a platform, asks once more before the final dot, and says how it ended. The gate
// follows the agencies' records: when one changes, what was decided before and has no
// dot yet can't get one any more and is cut; what has its dot is awaited. [Gate.Drained]
// names the agencies of which nothing old is left (docs/architecture/switch.md, node rules
// 3 to 5).
//
// The [Keeper] holds the node's lease in the table and tells there what the gate knows. It
// promises that the right to decide never outlasts what the table granted, less a margin,
// counted from the moment before it was asked for; that nothing is decided in a name that
// another instance has; and that what it reports to be drained stays so.
//
// The gate refuses to decide when the lease is over, when the replica says that it can't
// be trusted, and, before a final dot of an armed agency, when the table gives no answer:
// then every answer is "table can't be used", which is temporary, and no platform is
// guessed (P3). After a restart nothing is decided before the table has granted a lease.
// An agency can be closed on this node alone without the table ([Keeper.LockLocal]).
//
// A login's session is a ticket too: it counts from the question before its credentials
// until its end, is cut when its agency's record changes, and asks before each piece of bytes
// whether it may pass ([Ticket.Flows]). After a lapse it asks anew ([Ticket.Resume]). Who
// waits for an agency to open is told by [Gate.News].
//
// A message whose answer was lost after the dot is in doubt: the node isn't drained
// until the platform's own connection limit has passed, since only then can the
// platform no longer take it.
//
// The node's main function opens a keeper, attaches the gate to it and runs it in one
// goroutine; the mail side, the queue and the admin API call the gate and the keeper from
// any. All methods are safe for concurrent use, but for a [Ticket]'s, which say
// themselves who may call them, and [Keeper.Attach], Surrender and Close, which come before and after Run.
package node
