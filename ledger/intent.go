package ledger

import (
	"time"

	"mailcutover/mail"
	"mailcutover/routing"
)

// Bytes kept of a field; what is longer is cut and ends in "…".
const (
	maxAddress   = 254
	maxMessageID = 200
	maxHost      = 64
	maxText      = 80 // of an answer that is not 2yz
	maxTextOK    = 64
	maxTextAct   = 400 // of what a person did: the reason, and who it was
)

// MaxRecipients is how many recipients one intent may have.
const MaxRecipients = 10_000

// Recipient is one that a message is handed over for.
type Recipient struct {
	Address routing.Address   // canonical, as decided at RCPT
	Agency  routing.AgencyID  // empty for fixed addresses
	Mailbox routing.MailboxID // zero for fixed addresses
	Epoch   routing.Epoch     // of the decision that sent it there
	Mapping routing.Digest    // by which it was decided; zero for fixed addresses, and where it isn't known
}

// Intent is one transaction with a platform, right before its final dot, or with Local set
// something else that becomes of a message.
type Intent struct {
	Time        time.Time // zero: now
	Transaction mail.TransactionID
	Platform    routing.PlatformID
	Host        string // the platform's host that answers; of a Local one who brought the message, if that is known
	From        string // envelope sender as on the wire, without brackets; empty: <>
	MessageID   string // of the message's header; empty if it has none
	Size        int64  // of the message as handed over, in bytes
	Digest      Digest
	Recipients  []Recipient

	// Local says that nothing is handed to a platform by this: it tells what becomes of the
	// message on this node. With [Ledger.Intend] the message is about to be durable in the
	// spool, and its outcome is noted once the sender's answer is known; an intent of which
	// that isn't known when the process ends names a possible duplicate, but no doubt that a
	// drain or a delivery has to wait for. All else is written with [Ledger.Note]. Platform
	// is the one that had a part in it, or empty.
	Local bool
}

// Result is how a handover ended for a recipient.
type Result uint8

const (
	// ResultUnknown is the result of nothing.
	ResultUnknown Result = iota
	// ResultPending: the dot may be on its way and the answer is awaited now.
	ResultPending
	// ResultDelivered: the platform answered 2yz, and the sender is told so.
	ResultDelivered
	// ResultNotAcknowledged: the platform answered 2yz, but the sender is not told 250
	// (docs/architecture/switch.md, node rule 4): a copy is there, and another may follow.
	// Of a Local intent: the copy is in the spool, or was.
	ResultNotAcknowledged
	// ResultRefused: the platform answered 4yz or 5yz.
	ResultRefused
	// ResultInDoubt: the final dot was sent, or may have been, and no answer was seen.
	ResultInDoubt
	// ResultNotSent: the intent was withdrawn before its dot; of a Local one, the spool
	// didn't take the message.
	ResultNotSent

	// These are of Local intents only.

	// ResultAccepted: the message is in the spool, and its sender is told 250.
	ResultAccepted
	// ResultExpired: it was tried for too long.
	ResultExpired
	// ResultNotice: a notice to the sender is in the spool (RFC 3464).
	ResultNotice
	// ResultNoNotice: the sender is told nothing, because he wanted none (RFC 3461 section 4.1).
	ResultNoNotice
	// ResultQuarantined: it is set aside for a person, in the spool.
	ResultQuarantined
	// ResultReleased: a person took it out of quarantine.
	ResultReleased
	// ResultDropped: a person removed it from the spool.
	ResultDropped
	// ResultPutOff: an attempt from the spool failed for now. Of attempts in a row that end
	// alike there is the first.
	ResultPutOff

	numResults
)

var resultNames = [numResults]string{"unknown", "pending", "delivered", "not acknowledged", "refused", "in doubt", "not sent",
	"accepted", "expired", "notice sent", "no notice", "quarantined", "released", "dropped", "put off"}

// String returns the word for r that logs and the CLI show.
func (r Result) String() string {
	if r < numResults {
		return resultNames[r]
	}
	return resultNames[ResultUnknown]
}

// Answer is how a handover ended, and what the platform said.
type Answer struct {
	Result Result
	Code   int // the platform's reply code; 0 if it gave none
	// Text is the reply's text. Of its first line 80 bytes are kept (64 of a delivery, 400 of
	// a person's reason), with "=" in the place of the Message-ID or the recipient's address.
	Text string
}

// Record is an intent with its outcome.
type Record struct {
	Intent

	// Answers has one element for all recipients, or one for each.
	Answers []Answer
	// Answered is when the outcome was noted; zero if it wasn't.
	Answered time.Time
}

// Answer returns what became of the recipient with this index.
func (r *Record) Answer(recipient int) Answer {
	if len(r.Answers) == 0 {
		return Answer{}
	}
	return r.Answers[min(recipient, len(r.Answers)-1)]
}

// identity names an intent across the copies that are carried from segment to segment.
type identity struct {
	transaction mail.TransactionID
	platform    routing.PlatformID
	first       routing.Address // two legs of a transaction may go to one platform at one time
	micros      int64
	local       bool
}

func (i *Intent) identity() identity {
	id := identity{transaction: i.Transaction, platform: i.Platform, micros: i.Time.UnixMicro(), local: i.Local}
	if len(i.Recipients) > 0 {
		id.first = i.Recipients[0].Address
	}
	return id
}
