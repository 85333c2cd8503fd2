// Package deliver brings messages from the spool to platforms: it is the Sender of
// spool/queue, made of proxy/relay, node and ledger.
//
// Each delivery takes part in the switch like one that streams through (proxy/transfer):
// it enters at the gate with the decision it was made from, is cut when that no longer
// holds, asks once more right before the final dot, and the drain waits for it from then
// until the spool knows how it ended. The intent stands in the ledger before the dot
// (docs/architecture/switch.md, node rules 3 to 5).
//
// It promises that a dot is sent only after the body was read to its end and is, byte by
// byte, what was accepted; that the spool learns of an outcome before the ledger does, so
// that after a kill what may go twice is what the ledger names in doubt (P7); and that a
// platform that says "unknown mailbox" of one that the table has there is not believed as
// long as its agency is armed: the message waits, with an alarm (P5).
//
// It refuses mail for a platform that this node's configuration doesn't have, and mail that
// came from a platform whose mailbox it would go back to: both wait, with an alarm.
//
// A failure of the connection, of the ledger or of the right to decide leaves the message in
// the spool. The workers of spool/queue call [Sender.Send], each for one delivery at a time;
// there are no goroutines of its own. A [Sender] is safe for concurrent use.
package deliver
