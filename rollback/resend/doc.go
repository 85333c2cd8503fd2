// Package resend delivers retained copies to the platform that their mailboxes are on now: the
// way back of mail whose mailboxes on the other platform can't be read (promise P8).
//
// A copy goes into this node's spool as mail of ours, with the null sender, so that nobody is
// told of its fate and nothing answers it (RFC 5321 section 4.5.5), and with the body as the
// target took it: the Received line with the transaction id of the first delivery is its key.
// When the other platform can be read again, recall knows it by that and doesn't bring it twice.
// No Received line is added; the body has one of ours already, like any message.
//
// It promises that a copy which was handed to the spool is not handed to it again, whenever the
// process is killed: in the spool and the ledger it has an id that follows from the first
// transaction, the agency and the recipients. What can't be delivered ends in the spool's
// quarantine, as every message with a null sender does.
//
// It refuses copies that are not what was kept; they are counted and named in the log. A spool
// that is full or out of service ends [Resender.Deliver] with an error; the same call goes on
// where it was.
//
// It does not look at what the other platform's mailbox may have of the same message: whoever
// calls it knows that nobody can look (docs/architecture/retained.md). Its caller is
// rollback/recall/desk. A [Resender] is safe for concurrent use.
package resend
