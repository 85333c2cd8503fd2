// Package backup writes a copy of the state table into one file, and reads it again.
//
// A file has everything that one node's copy of the table had at one revision: agencies,
// mappings, domains, fixed addresses, members, operations that have not ended, freezes and
// documents. It has no secrets, since the table has none, but names of mailboxes.
//
// It is text, a JSON value in each line. The first line says whose copy it is, of which table
// and from when; the last one how many lines stand between them, and the SHA-256 of all before
// it. That digest is the backup's name: people who restore it agree to it, and the audit log of
// the node that made it has it.
//
// Read refuses a file that was cut or altered, a line or field that this program doesn't know
// (a newer program's file is not half understood), a mapping that isn't the one its agency's
// record names, and records that were changed later than the copy says it was made. A digest
// that is right says that the file is as it was written, not who wrote it.
//
// What a restored table is taken for, is said elsewhere (docs/architecture/switch.md, node
// rule 10): it is never taken for newer than what nodes have seen. Callers are
// rollback/control and the command line. A Copy is not altered once it is read; it may be
// shared.
package backup
