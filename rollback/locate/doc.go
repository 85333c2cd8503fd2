// Package locate says in which folders of a mailbox a message lies, for the help desk: mail
// that is missed is mostly there, put into another folder by a filter, or deleted by its reader.
//
// [Find] looks on one platform, by the Message-ID and by the transaction ids of our Received
// lines. It reads headers only, marks nothing as read, and changes nothing. Platforms search an
// index that may be behind, so where the search finds nothing, the messages that arrived
// since are listed and compared one by one.
//
// It promises that "nowhere" is said only of folders that were looked at: those that couldn't
// be are counted, and so is what a bound left out. Text of other messages never leaves it.
//
// Package admin calls it, after it wrote the reason into the audit log.
package locate
