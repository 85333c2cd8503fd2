// Package desk is a node's part in trying canaries between switches: each node tries each
// agency's canary through its own listeners, on a schedule and after each switch, and all nodes
// see what all of them found.
//
// Every node tries for itself, since what can be wrong is mostly its own: a listener, a
// certificate, its way to a platform, its copy of the table. What a node found stands in a
// document of the table, from which every node raises the alarm.
//
// It promises that
//   - nothing but an alarm follows before a canary failed on one node as often in a row as
//     configured;
//   - what this node is to blame for by itself (no lease, the table away) and what an agency
//     that was closed or changed meanwhile is to blame for counts for nothing;
//   - an agency is rolled back only if the cutover that brought it to its target was approved
//     with that in its plan, and no node's last canary there was well; where that isn't so, it is
//     frozen;
//   - a reaction is carried out by one node, and by another one if that dies meanwhile.
//
// It refuses to try a canary of an agency that is closed, or has an operation open. The node
// starts it ([Desk.Run]) and waits for it; the runner of operations tells it what it tried
// ([Desk.Note]) and puts [Switched] into the change that opens an agency. All methods are safe for
// concurrent use.
package desk
