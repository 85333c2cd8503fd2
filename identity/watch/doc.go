// Package watch compares the directories with the table, again and again: what has drifted
// since a list was approved, what is new and enters by itself, and, when somebody asks at
// RCPT, whether an address exists at all.
//
// A directory is read as a whole, every few hours and on demand; only a reading that came to
// its end replaces the one before. New mailboxes of a known agency, and new names of known
// mailboxes, are pure additions: they enter by themselves, and are audited. Everything else
// waits for a list that people have approved, and until then keeps the agency from being cut
// over. What a directory says never takes a name from anybody.
//
// That nobody has an address is proven only if the directory was read as a whole within the
// hour and says so again when it is asked now. A directory that can't be asked, or too many
// questions at once, prove nothing.
package watch
