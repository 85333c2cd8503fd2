// Package desk answers whose mailbox is whose, for everything outside of identity: it joins
// the directories, the agencies' model, the lists and their check with the table as this
// node has it.
//
// It reads the directories on a schedule and compares the table with each reading: what is
// a pure addition enters by itself, within bounds, and what has drifted raises an alarm
// and keeps the agency from being cut over. It makes lists, checks those that people bring,
// says what activating one would store, and proves at RCPT that nobody has an address.
//
// It promises that a list is called clean only against a reading of the source's directory
// that came to its end and is younger than CheckAge, and that nothing enters the table but
// through Options.Enter. It refuses to answer, with ErrStale, where its reading is too old:
// what isn't known isn't right. It decides on no list: people do (package admin).
//
// A directory that can't be read is an alarm and nothing else; mail and logins don't need it.
// All methods of a Desk are safe for concurrent use; Run is called once and owns the watch's
// goroutine.
package desk
