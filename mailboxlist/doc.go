// Package mailboxlist reads a CSV list of mailboxes and fixed addresses, and plans what
// storing it would change in the table.
//
// It promises that a list is taken as a whole or refused as a whole, with every row that
// is wrong, its line and the reason. What a plan changes is a pure addition: new
// mailboxes, and new names of known ones; no name that somebody can use today gets
// another meaning, also not one that is somebody's by sub-addressing. Names and
// directory ids are unique within the list and against the whole table, over all
// agencies, names in all spellings that fold together.
//
// A plan is checked twice: row by row against what is known of the list and its
// agencies, to name lines, and as the table that it would make.
//
// It refuses columns that it doesn't know, or that are missing, cells that look like
// formulas or hold line breaks, text that isn't UTF-8, new names that mix alphabets, and
// everything that would give a name or a mailbox to somebody else: that is a switch
// (docs/architecture/switch.md), not an import. [List.Remap] prepares that switch: it makes
// the mappings of all agencies concerned, and says which name goes from whom to whom. It
// refuses to touch a mailbox that the list doesn't name, and fixed addresses. It can't tell whether a directory id belongs to the address beside it
// when neither is known yet; that takes the directories.
//
// It is pure: package admin reads the request, stores the plan, and plans again when
// the table changed meanwhile.
package mailboxlist
