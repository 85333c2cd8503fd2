// Package docs has no code of its own: its test runs the commands that the documents show.
//
// A page with fenced blocks of commands says in a comment at its top what has to be there
// before the first one, and which ports it uses:
//
//	<!-- run: nothing; ports 2525 8025 -->
//
// Each block whose language is sh is then run by bash, in the order of the page, with the
// directory and the variables that the block before it left, and fails the test if a command
// of it fails. A block of the language text that follows directly is what the reader should
// see: each of its lines has to be among the lines that were printed, in that order. Words
// behind sh say what is special, and no forge shows them:
//
//	sh background   goes on until the page has ended, as in another terminal
//	sh fails        has to fail
//	sh until        is run again until it prints what is shown
//	sh elsewhere    can't be run here; only what stands in the test's list, with the reason
//
// In what is shown, "..." stands for anything, and each time, duration, id and digest for any
// other one; a later command that names a shown id or digest is given the one that was really
// printed. Ports are replaced by free ones.
//
// The pages below docs/operations show commands for reference, indented, among settings and
// what is printed. Each of those is run too, in the order of the pages, against a lab in which
// an agency was cut over and brought back; or it stands in the test's list of those that can't
// be run there, with the reason and where it is run instead. They must succeed; what they print
// isn't compared. The runbook's commands, in its sentences, come after them: nothing is wrong in
// the lab, so the node may refuse them, but not because a command isn't right.
//
// That the commands of all other documents exist, with their flags, is tested in
// cmd/mailcutover.
package docs
