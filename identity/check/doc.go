// Package check compares a list of mailboxes with everything that is known of them: the
// directories of both platforms, the table, and the agency's earlier lists.
//
// Every row gets a verdict. A list is clean if each of its rows is right by the directory of
// the source; there is no other way to be clean, so what nobody has thought of isn't either.
// Rows that are wrong together are looked at together: where a list has the right addresses
// and the right ids but in other pairs, the [Permutation] says how that happened, one column
// sorted without the others, say, in which rows, and whose mail would reach whom.
//
// The package is pure: it compares what it is given, and says how old that is.
package check
