// Package identity is only this page; the packages below it make sure that a mailbox is the
// right one (docs/architecture/identity.md, docs/architecture/promises.md, P3 and P9).
//
//   - directory: what a directory knows, whatever its schema; pure. ldapdir reads one by LDAP.
//   - model: which agency an object belongs to, and the row that its mailbox should have.
//   - list: batch lists, made from a directory or brought by people.
//   - check: a list compared with directories, table and earlier lists; report shows it.
//   - register: the lists that people have approved, kept in the table.
//   - watch: directories read again and again, what has drifted, and proof of absence.
//   - desk: all of these together, for admin and internal/daemon.
//
// None of them changes the table, and none decides for people. They import nothing of node,
// proxy, spool or rollback.
package identity
