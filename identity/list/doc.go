// Package list is the batch lists of an agency: rows of an address, a directory id and the
// agency, 200 of them by default, in which mailboxes are handed over to be moved.
//
// A list is best made by [Generate] from the directory. Each of its rows has a keyed digest
// over all that makes the row and over the list's id, so a row whose cells were mixed with
// another's, by a spreadsheet that sorted one column, say, is found without asking anybody.
// A list from elsewhere has no digests: it is a proposal, of which every row is compared
// with the directories and the table (identity/check).
//
// [Read] promises that a list is taken as a whole or refused as a whole, with every row
// that is wrong, its line and why. It reads CSV in the dialects that spreadsheets write, and
// XLSX. It refuses columns that it doesn't know, two agencies in one list, an address or id
// that is there twice, cells that are empty or hold a formula, and digests that are wrong.
//
// It is pure, and asks no directory.
package list
