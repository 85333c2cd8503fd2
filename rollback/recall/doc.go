// Package recall brings mail from one platform's mailbox to the same mailbox on the other
// platform, until a pass finds nothing more to bring: what came to the target since a cutover
// goes back to the source (recall), what still came to the losing platform goes to the winning
// one (sweep). It is the same code.
//
// A pass lists what lies above the watermark on From and isn't accounted for, looks for each
// message on To, and brings what is missing into the folder of the same role or name, with its
// flags, keywords and date. What To has already, such as what a mover copied, is noted and
// left. What its user moved on From is moved on To, if it lies there where he left it. A message is known
// by our transaction id, by who wrote it and when, or by its content (package msgkey); of
// several with one key, each is accounted for.
//
// It promises that a message counts as back only when it was found on To again; that one which
// was brought, or was there, is never brought a second time, whatever To holds by then, since its user may
// have deleted it; and that nothing on either platform is deleted, expunged or overwritten. What can't be
// brought is named with the reason, and so is what we delivered and can't be found.
//
// Where it can't know, it brings: of two possible mistakes a second copy is the one that is
// seen. It refuses to work on a mailbox that is being worked on.
//
// What is known of a mailbox stands in a journal, a text file of its own on the node's disk;
// a line counts once its checksum is right. What is relied on is fsynced first:
//
//	what happens                          if the process or the machine dies right after it
//	nothing yet                           the next run starts from the watermark
//	"intent" is written, and fsynced      To is asked: not there, so it is brought
//	the message is sent, in part          To drops half a message with its connection
//	To has it, no answer was seen         it is found on To, and counts as back because of the intent
//	To works it off only now              To is looked through until within Settle nothing more has come
//	"appended" is written                 the same; if its user deletes it before the next run, a second copy comes
//	it is found, "back" is written        the same, until the fsync, which comes with the next batch's
//	"back" is fsynced                     it is never brought again
//	"there" is written                    the same
//	it is moved on To                     it is found in its folder, and counts as there
//
// So each message can come twice only if the process dies within a batch and its user deletes
// what came before the next run. Two runs, or a run after retained copies were delivered, add
// nothing.
//
// An error ends the run of that mailbox; what is done is kept. mailstore.Platform says
// whether others have to wait, too. The desk (package recall/desk) calls [Engine.Mailbox] from its
// workers; the engine starts no goroutine.
package recall
