// Package probe tries whether mail and logins would be taken, as a peer would see it: at a
// platform ([Recipients], [Login]), and through this node's own listeners ([Entrance]).
//
// It promises that
//   - [Recipients] leaves nothing at a platform: after RCPT comes RSET;
//   - what is tried is what production does: the relay's own pool and its endpoint, and the
//     hosts, the TLS policy and the PROXY header of the endpoint for logins;
//   - a login by IMAP proves that the mailbox opens, not only that the password is right, and finds a
//     platform that announces UNAUTHENTICATE, before the login or behind it; by other protocols
//     ([Entrance.LogIn]) it is done by the dialogues that log in at platforms;
//   - of a mailbox nothing is deleted but the message that [Entrance.Login] looked for, known by its
//     Message-ID;
//   - errors name neither passwords nor what a platform said of them.
//
// It refuses to send a password without TLS as the endpoint's policy asks for it.
//
// Every call ends soon after its context, and keeps no connection but those of the relay's
// pool. A failure says at what it failed; nothing is tried twice.
//
// The node calls it, for the checks of a plan and for canaries, from any goroutine.
package probe
