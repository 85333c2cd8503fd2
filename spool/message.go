package spool

import (
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/mail"
	"mailcutover/routing"
)

// MaxText is how many bytes of a reason or of a platform's answer are kept.
const MaxText = 400

// MaxMessageID is how many bytes of a Message-ID are kept.
const MaxMessageID = 200

// Envelope is what is known of a message when it begins. It never changes.
type Envelope struct {
	Transaction mail.TransactionID
	Time        time.Time // when DATA began; kept in nanoseconds, in UTC
	Client      mail.Client
	From        mail.Path
	Options     gosmtp.MailOptions // in wire form, see proxy/smtp.Session
	MessageID   string             // for people; cut to MaxMessageID bytes
}

// Recipient is one recipient of a message.
type Recipient struct {
	Address routing.Address    // canonical, as decided at RCPT: the key to ask the route again; never a platform's
	To      mail.Path          // as the client wrote it, for DSNs; the null path if it isn't known
	Options gosmtp.RcptOptions // in wire form, see proxy/smtp.Recipient
	Agency  routing.AgencyID   // at acceptance; empty for fixed addresses
	Mailbox routing.MailboxID  // at acceptance; zero for fixed addresses
	State   State              // StateHeld, StateWaiting or StateQuarantined at acceptance
	Reason  string             // why it is here, or the text of the last outcome; at most MaxText bytes
	Last    Result             // of the last attempt; zero before the first

	key Key // of who had the address when Get read it; empty: who had it at acceptance
}

// Key names whose order a recipient belongs to: a mailbox, or a fixed address.
type Key string

// Key returns the key of r: of the mailbox that had its address when [Store.Get] read it,
// as far as that is known ([Store.Own]), else of that at acceptance or, if it had none, of
// its address.
func (r *Recipient) Key() Key {
	if r.key != "" {
		return r.key
	}
	return KeyOf(r.Mailbox, r.Address)
}

// KeyOf returns the key of a mailbox or, if that is zero, of an address.
func KeyOf(mailbox routing.MailboxID, address routing.Address) Key {
	if mailbox.IsZero() {
		return Key(address)
	}
	return Key("\x00" + string(mailbox[:])) // no address holds a NUL
}

// Mailbox returns the mailbox that k names; zero if k names a fixed address.
func (k Key) Mailbox() (id routing.MailboxID) {
	if len(k) == 1+len(id) && k[0] == 0 {
		copy(id[:], k[1:])
	}
	return id
}

// String returns the mailbox's id in AD's form, or the address.
func (k Key) String() string {
	if id := k.Mailbox(); !id.IsZero() {
		return id.String()
	}
	return string(k)
}

// Result is how an attempt ended.
type Result struct {
	Time     time.Time // when
	Code     int       // of the platform's reply; 0 if there was none
	Platform routing.PlatformID
	Epoch    routing.Epoch
	Attempts int       // how many there were
	Next     time.Time // when the next is due; zero: as the queue decides
	Cause    Cause     // why there has to be a next
}

// Cause says why a recipient has to be tried again, as far as that decides what may make it
// go before Result.Next. The numbers stand in the journal.
type Cause uint8

// The causes.
const (
	CauseUnknown     Cause = iota // none of the others
	CauseDoubt                    // the dot was sent and the answer lost: nothing makes it go earlier
	CauseUnavailable              // the platform couldn't be reached: it goes when that is back
	numCauses
)

// Outcome changes the state of one recipient of a message.
type Outcome struct {
	Transaction mail.TransactionID
	Recipient   int // index in Message.Recipients
	State       State
	Reason      string // the platform's text, or why; cut to MaxText bytes
	Result
}

// Message is a message as the journal has it.
type Message struct {
	Envelope
	Sequence   uint64 // order of acceptance, from 1
	Size       int64  // bytes of the body
	Recipients []Recipient
}

// Entry is the summary of one recipient that memory holds.
type Entry struct {
	Transaction mail.TransactionID
	Recipient   int
	Sequence    uint64
	Agency      routing.AgencyID // at acceptance
	Key         Key              // now, see Store.Own
	State       State
	Time        time.Time // of the envelope
	Size        int64
}

// Filter chooses entries; fields that are zero choose all.
type Filter struct {
	Transaction mail.TransactionID
	Agency      routing.AgencyID
	Key         Key
	State       State
	After       uint64 // only sequences above this
}

// Counts is how much there is.
type Counts struct {
	Messages   int // with a recipient whose state isn't final
	Bytes      int64
	Recipients [numStates]int // by state; final states are not counted
}

// Of returns the number of recipients in a state.
func (c *Counts) Of(s State) int { return c.Recipients[s] }
