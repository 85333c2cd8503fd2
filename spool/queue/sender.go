package queue

import (
	"context"
	"fmt"
	"strings"
	"time"

	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// Sender brings messages to platforms. proxy/deliver has one. It is safe for concurrent use.
type Sender interface {
	// Send makes one attempt for a delivery, and returns a result for each of its
	// recipients. It calls d.Settle with the same results as soon as it has them, before
	// it tells the ledger; if it doesn't, the queue does after it returned.
	Send(ctx context.Context, d *Delivery) []Result

	// Connections returns how many deliveries a platform takes at once; 0: it isn't known.
	Connections(platform routing.PlatformID) int
}

// Delivery is one message on its way to one platform, for the recipients that go
// together. An armed agency's goes for that agency alone.
type Delivery struct {
	Message    *spool.Message
	Platform   routing.PlatformID
	Notice     bool // a notice of ours, on its fixed way: no agency's
	Recipients []Recipient
	Body       Body
	Settle     func([]Result)

	// Written calls its argument once the spool has written what Settle recorded: at once,
	// unless the disk takes no writes. What is told to the ledger before that would hide a
	// second copy, if this node is killed meanwhile.
	Written func(func())
}

// Recipient is one of a delivery.
type Recipient struct {
	Index    int // in Message.Recipients
	Decision routing.Decision
}

// Status is how an attempt ended for a recipient.
type Status uint8

const (
	StatusUnknown Status = iota // not set: taken for Deferred
	Delivered                   // the platform answered 2yz
	Refused                     // for good, with proof: another try would change nothing
	Deferred                    // put off: the mailbox, or the message for now
	Unavailable                 // the platform can't be reached, or takes nothing now
	Closed                      // the agency closed before the dot: nothing was sent
	InDoubt                     // the dot was sent, and it isn't known, or doesn't count, what became of it
	Damaged                     // the spool's copy isn't whole: nothing was sent
)

var statusNames = [...]string{"unknown", "delivered", "refused", "deferred", "unavailable", "closed", "in doubt", "damaged"}

// String returns the word for s that logs and metrics show.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return statusNames[StatusUnknown]
}

// Result is how an attempt ended for one recipient.
type Result struct {
	Status Status
	Reply  *mail.Reply // the platform's answer, nil if it gave none
	Err    error       // why it isn't Delivered; for logs
	Slow   bool        // the platform shows that it has too much to do
	Until  time.Time   // InDoubt: when the platform can't take it any more
	Noted  bool        // Refused: the ledger has the platform's answer already
	Silent bool        // Delivered: the platform doesn't report success to the sender (RFC 3461 section 5.2.2)
}

// text returns what the spool keeps of a result; replyOf reads it back.
func (r *Result) text() string {
	switch {
	case r.Reply != nil && r.Reply.EnhancedCode[0] > 0:
		c := r.Reply.EnhancedCode
		return fmt.Sprintf("%d.%d.%d %s", c[0], c[1], c[2], r.Reply.Message)
	case r.Reply != nil:
		return r.Reply.Message
	case r.Err != nil:
		return r.Err.Error()
	default:
		return ""
	}
}

// replyOf returns the answer that a recipient's last attempt got, or nil.
func replyOf(r *spool.Recipient) *mail.Reply {
	if r.Last.Code == 0 {
		return nil
	}
	reply := mail.NewReply(r.Last.Code, 0, 0, 0, r.Reason)
	var c [3]int
	word, rest, _ := strings.Cut(r.Reason, " ")
	if n, err := fmt.Sscanf(word, "%d.%d.%d", &c[0], &c[1], &c[2]); err == nil && n == 3 {
		reply.EnhancedCode, reply.Message = c, rest
	}
	return reply
}
