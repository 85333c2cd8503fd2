// Package verify compares mailboxes on both platforms over IMAP, and finds content of one
// mailbox in another.
//
// [Run] goes through the mailboxes of agencies, all or a sample. Each is compared folder by
// folder: counts, keys (package msgkey), sizes, dates, UIDs. What lies on the target and not
// in the same mailbox on the source, and isn't newer than the cutover, has to have come from
// somewhere: it is looked for on the source side of all mailboxes, and what stands in another
// one is evidence that the two were crossed, the more the rarer it is there and the clearer
// it names whose it is. docs/architecture/verify.md says what counts as evidence, and why
// newsletters, lists, colleagues and shared mailboxes don't.
//
// It promises that memory grows with the largest mailbox (some 50 bytes for each of its
// messages) and the number of mailboxes, not with the number of messages: keys and evidence
// go through files in a folder of the run's own, which are removed when it ends. It reads
// only; nothing on either platform is changed. What lies on the disk and in results are
// keys, numbers, names of folders and addresses of mailboxes, never a message's content.
//
// It refuses to call a mailbox compared that it couldn't read to the end: such a one is in the
// report, with the reason, and there is no word on its content. A platform that doesn't answer
// at all ends the run.
//
// A finding is evidence, not proof: people look at it and say what it is. That a finding is
// gone is said by another run over its mailboxes ([Options].Only), not by who removed it.
//
// Package desk keeps results and findings, and decides when to run. Run may be called from
// any goroutine, several at once with folders of their own; the goroutines that it starts
// have ended when it returns.
package verify
