// Package notice makes events of what changes in the state table and of alarms, for
// programs and people that are told of them.
//
// An [Event] is in the form of CloudEvents 1.0. Each has a [Type]; [Types] lists all of them,
// with what it says in English and German, and the document docs/operations/notices.md is held to that list.
//
// It promises that every node derives the same events from the same changes: an event's ID
// is a digest of the table's incarnation, the revision, the type and what the record says
// then. So who is told twice can know. It derives them from records as they were before
// and after a change, of which it keeps only [Facts]: never a mailbox's address, a login or a
// list's rows. What people wrote as a reason, and the text of an alarm, are in the events.
//
// Documents of kinds it doesn't know, and those it can't read, make no events.
//
// The package is pure and its functions are safe for concurrent use. Package notice/desk
// calls it: that follows the table and sends; notice/outbox keeps what is still to be sent.
package notice
