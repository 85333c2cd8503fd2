// Package directory is what a directory of persons and groups knows of mailboxes, whatever
// its schema: Active Directory, Univention, OpenLDAP.
//
// An [Object] is one entry in our terms. Its key is the directory id, the 16 bytes of
// AD's objectGUID, which never change; names and addresses are attributes of it. [ParseID]
// reads an id in the forms in which people and programs write it, and refuses what could be
// meant in two ways: read in the other order it would be another mailbox.
//
// A [Directory] promises that what it read as a whole is whole: a result that was cut,
// by a limit, by a lost connection or by a deadline, is an error. What it can't read in an
// object, it says in the object, and leaves out; it never guesses.
//
// The package is pure; adapters are elsewhere (identity/ldapdir). Objects are values of
// whoever got them.
package directory
