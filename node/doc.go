// Package node is this node's right to decide, and its word that nothing old is under way.
//
// Whoever sends mail asks the [Gate] for the decision, enters with it before he speaks
// to a platform, asks once more before the final dot, and says how it ended. The gate
// follows the agencies' records: when one changes, what was decided before and has no
// dot yet can't get one any more and is cut; what has its dot is awaited. [Gate.Drain]
// returns when neither is left (docs/architecture/switch.md, node rules 3 to 5).
//
// The gate refuses to decide when the table wasn't reached for longer than the agency's
// lease, less a margin, and when the replica says that it can't be trusted: then every
// answer is "table can't be used", which is temporary, and no platform is guessed
// (P3). After a restart nothing is decided before the table was reached.
//
// A message whose answer was lost after the dot is in doubt: the node isn't drained
// until the platform's own connection limit has passed, since only then can the
// platform no longer take it.
//
// All methods are safe for concurrent use.
package node
