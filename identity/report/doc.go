// Package report shows the check of a list to people: on a terminal, as a page that can be
// printed, as CSV and as JSON; in German and in English.
//
// What matters most comes first: whether the list is refused, what was done to it as a whole,
// and how many mailboxes would get another one's mail; then the rows that are wrong, with
// what is right; then warnings. Whoever reads it may have worked ten hours.
//
// It refuses nothing and decides nothing. Texts from files are shown so that they can't
// control a terminal, a page or a spreadsheet.
package report
