// Package durable keeps small sets of files that appear whole or not at all.
//
// A [Folder] promises that a file which it wrote is, after a crash or a power cut at any
// point, either the one before or the new one, and that it is on the disk when Write
// returns: the bytes go into a temporary file, which is fsynced and renamed, and then the
// directory is fsynced. A half-written temporary file is removed at the next Open.
//
// It refuses names with a separator, hidden names and names longer than a file system
// takes; it never deletes a file that it isn't told to delete. What can't be read any
// more, its owner sets aside under a new name, for a human.
//
// An error of Write means that the old file is still there, or, if only the directory
// could not be fsynced, that either may be there after a power cut: the caller repeats
// the write. After an error of fsync nothing is tried again on the same file, since the
// kernel reports a lost page only once: the temporary file is thrown away.
//
// The spool and the ledger, which append, write through [Disk] themselves; so all can be
// tested on a disk that forgets (package memdisk).
//
// The replica, the node's marks and the journal of operations are kept this way. Methods are safe for concurrent
// use as long as no two calls name the same file.
package durable
