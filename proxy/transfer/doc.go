// Package transfer joins a listener with the platforms: for each recipient it asks where
// the mailbox is now, opens the platform's transaction, passes its answers on, and
// streams the message through.
//
// It promises that a platform is only ever sent the table's canonical address, under a
// decision that still holds right before the final dot; that a 250 to the sender is a
// platform's 250 for all recipients it speaks for (P1 to P3); and that whatever was not
// foreseen is answered temporarily (P5). Nothing touches the disk: custody stays with
// the sending relay until the platform has taken over.
//
// What one answer of one platform can't speak for is put off with 452 4.5.3, so that
// the sending relay splits the message and comes again: recipients of another platform,
// a second recipient where the sender speaks SMTP and the platform LMTP, a second
// agency beside an armed one. Recipients of a closed agency get 451 4.3.2, unknown
// addresses of served domains 451 4.1.1, foreign domains 550 5.7.1.
//
// The listener (proxy/smtp) calls a session from one goroutine. A [Transfer] is safe for
// concurrent use.
package transfer
