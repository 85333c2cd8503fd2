// Package tabletest holds the promises of package table as tests: one suite that every
// driver passes, whatever stands behind it.
//
// [Run] takes a function that opens a fresh, empty table. What only some tables can do,
// such as being opened again, stands in [Hooks]; a hook that is nil leaves out the tests
// that need it, so a driver's own test states what it can't.
package tabletest
