// Package canary tries mail and logins of an agency as its users have them: a message to one
// of its mailboxes and logins to it, through a node's own listeners, to see that all of them end on
// the platform that has the agency now, and that the message is in that mailbox.
//
// It promises that a [Result] that is OK means just that of all its [Part]s, and that one which isn't says what was
// seen instead. It changes nothing but the canary's mailbox: a message comes with each trial, and goes again once it
// was found there. Whether it is in the mailbox is seen by IMAP only; where nobody can look, no part says so.
//
// It refuses nothing and repeats nothing: a message that is put off, or that doesn't arrive in
// time, is a failure. Whatever it was doing when ctx ends is what failed.
//
// The runner of an operation calls it when the agency is open on its other platform; whoever
// wants to know how an agency is may call it at any time, from any goroutine.
package canary
