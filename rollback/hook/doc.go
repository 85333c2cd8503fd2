// Package hook runs what an operator has set up for a platform where mail protocols can't
// reach: ending sessions, stopping logins and delivery, setting and removing forwards.
//
// A [Hook] is a command, or a URL, that is given the mailboxes of an agency as JSON lines
// and answers with a result for each:
//
//	in   {"hook":"close","operation":"0197...","agency":"health","platform":"ox","attempt":1,"mailboxes":2}
//	     {"mailbox":"6b1f2ad0-...","address":"anna@health.example","login":"anna","other_address":"anna@ox.example"}
//	     {"mailbox":"0f3e...","address":"ben@health.example","login":"ben"}
//	out  {"mailbox":"6b1f2ad0-...","ok":true}
//	     {"mailbox":"0f3e...","ok":false,"error":"no such user"}
//
// It promises that a mailbox counts as done only if the hook itself said so: one that it
// doesn't name, names twice, or names without being asked is an error, and so is a status
// other than success, after which nothing counts that it said. What isn't done is asked
// again, alone, a bounded number of times. So a hook has to be idempotent.
//
// A command runs without a shell, with a small environment, in a process group of its own,
// which is killed as a whole when its time is over. A URL is https, but for this host. An
// answer is read up to a limit. What a hook prints on its standard error is kept, cut and
// made printable, for the operation's journal; it is not logged.
//
// What forward-on and forward-off did is read back ([Forwards]), since a status is no proof; where
// that is not as it should be, the hook has failed.
//
// [Operations] says which hook an operation calls at which point, and what takes it back:
//
//	close        losing side    open
//	mover        (a person)
//	forward-off  winning side   forward-on
//	forward-on   losing side    forward-off
//	open         winning side   close
//
// Package operation calls Run from the goroutine of one operation; calls at the same time
// are safe.
package hook
