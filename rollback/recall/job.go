package recall

import (
	"iter"
	"time"

	"mailcutover/mail"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/msgkey"
	"mailcutover/rollback/watermark"
	"mailcutover/routing"
)

// Direction is from which platform to which. The same code runs both ways: recall from the
// target to the source, sweep from the losing platform to the winning one.
type Direction struct {
	From, To routing.PlatformID
	Side     mailstore.Side // of From in the agency's rows; To is the other one
}

// Job is one mailbox.
type Job struct {
	Agency    routing.AgencyID
	Operation routing.OperationID
	Direction Direction
	Row       routing.Row

	// Since is where From's mailbox stood before mail could reach it that To doesn't get; only
	// what is above it is looked at. nil: everything, which takes longer and ends the same.
	Since *watermark.Mailbox
	// There is where To's mailbox stood when its users left it. Without it no message is moved
	// there, since nobody could say whether its user moved it.
	There *watermark.Mailbox

	// Delivered are the transactions that the ledgers of all nodes have as delivered to From
	// for this mailbox; nil: not known.
	Delivered iter.Seq[mail.TransactionID]

	// Held are transactions of which a retained copy is on its way to To, or is about to be:
	// they are left where they are, and keep the mailbox from being done. nil: none.
	Held iter.Seq[mail.TransactionID]

	// After is when nothing can reach From's mailbox any more: the commit, and the platform's
	// limit. A mailbox is done when a pass that began later found nothing.
	After time.Time
}

// Class is why something isn't back.
type Class string

const (
	ClassTooLarge Class = "too-large" // for To; it can be fetched from From
	ClassRefused  Class = "refused"   // To doesn't take it
	ClassDropped  Class = "dropped"   // To answered OK and doesn't have it
	ClassNoSpace  Class = "no-space"  // the mailbox on To is full
	ClassUnread   Class = "unread"    // From lists it and doesn't give it
	ClassMoved    Class = "moved"     // it is on To, in another folder than on From
	ClassGone     Class = "gone"      // delivered by us to From, and not there any more
	ClassFolder   Class = "folder"    // its folder can't be made on To
)

// NotBack is a message that isn't back, or not where it should be.
type NotBack struct {
	Key    msgkey.Key `json:"key"`
	Folder string     `json:"folder,omitempty"` // on From; empty: not known
	UID    uint32     `json:"uid,omitempty"`    // on From; 0: not known
	Size   int64      `json:"size,omitempty"`
	Class  Class      `json:"class"`
	Reason string     `json:"reason"`
}

// Result is what has become of a mailbox, over all its passes and runs.
type Result struct {
	Delivered     int // by us to From, by the ledgers; 0 if they weren't given
	DeliveredBack int // messages that we delivered, and that were brought, or were on To already
	ByUsers       int // brought, and not delivered by us: sent, drafts, copies, mail of colleagues
	Copied        int // not delivered by us, and on To already, such as what the mover copied
	Moved         int // were on To, and are now in the folder in which they are on From
	NotBack       []NotBack

	Passes   int // of this run
	Messages int // brought in this run
	Bytes    int64

	Rewritten     int            // of those brought: To gives them back with another size
	FlagsNotTaken map[string]int // flags and keywords that To doesn't keep, and of how many messages
	Folders       []string       // that were made on To

	Done bool // a pass that began after Job.After found nothing
}
