// Package register keeps the lists that people have approved, as documents of the state table,
// so that every node has them and no disk's loss loses one.
//
// An [Entry] is a list with what was found of it when it was proposed, by whom it was
// proposed and approved, and whether it is in force. A list that was approved is never
// changed; a newer one that names the same mailboxes takes its place row by row.
//
// It promises that what it reads is what was approved: each entry carries the digest of its
// rows, and one that doesn't fit them is told as unreadable and counts for nothing. It
// answers which mailboxes of an agency no approved list names, or names with another address.
//
// The package is pure: callers store the documents by a change of the table, with the
// revision that they read.
package register
