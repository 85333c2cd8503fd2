// Package incident writes what is known of an agency's mail in a span of time, for the report
// that the law wants within 72 hours (Regulation (EU) 2016/679, article 33), and for the people who
// are asked then.
//
// An export has a summary in English and in German that prints, and tables in CSV and JSON:
// who did what, which switches and lists there were, each delivery with where it went by which
// mapping, whose mailboxes and which correspondents were concerned, what came back, and what lies in the
// wrong mailbox. It has neither subjects nor content of messages. A [Writer] makes a directory
// or a zip file of it, with a manifest of SHA-256 sums at last.
//
// It promises that an export is whole or not there under its name: it is written beside it
// and renamed. What is missing, such as a node that didn't answer, stands in the summaries and in the
// manifest. Cells that a program for tables would take for formulas are made texts: who sends
// mail chooses some of them.
//
// It refuses to write over anything. A Writer belongs to one goroutine. The command incident
// export calls it, with what the API answered.
package incident
