// Package transfer joins a listener with the platforms: for each recipient it asks where
// the mailbox is now, opens the platform's transaction, passes its answers on, and
// streams the message through.
//
// It promises that a platform is only ever sent the table's canonical address, under a
// decision that still holds right before the final dot; that a 250 to the sender means for
// each recipient that a platform has the message or that it is durable in the spool (P1 to
// P3); and that whatever was not foreseen is answered temporarily (P5).
//
// What one answer of one platform can speak for is streamed and touches no disk: custody
// stays with the sending relay until the platform has taken over. Otherwise the message is
// written into the spool beside it, and stays there for the recipients that were not
// taken: those of closed agencies are held, those of another way wait
// (docs/architecture/spool.md). Unknown addresses of served domains get 451 4.1.1,
// foreign domains 550 5.7.1. Without a spool, what would go there is put off.
//
// The listener (proxy/smtp) calls a session from one goroutine. A [Transfer] is safe for
// concurrent use.
package transfer
