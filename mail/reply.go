package mail

import (
	"errors"

	"github.com/emersion/go-smtp"
)

// Reply is an SMTP or LMTP reply and an error: what a peer may learn of it.
type Reply = smtp.SMTPError

// NewReply returns a reply with a basic code (RFC 5321 section 4.2) and an enhanced
// one (RFC 3463). The class of the two must be the same.
func NewReply(code int, class, subject, detail int, text string) *Reply {
	return &Reply{Code: code, EnhancedCode: smtp.EnhancedCode{class, subject, detail}, Message: text}
}

// AsReply maps a non-nil error to all that an SMTP peer may learn of it: the first
// [Reply] that it wraps, or a temporary local error. What nobody foresaw is never
// permanent (P5), and never shows its text.
func AsReply(err error) *Reply {
	var r *Reply
	if errors.As(err, &r) && r != nil {
		return r
	}
	return NewReply(451, 4, 3, 0, "Local error, try again later")
}

// IsTemporary reports whether r asks the peer to try again.
func IsTemporary(r *Reply) bool { return r.Code/100 == 4 }

// IsPermanent reports whether r tells the peer not to try again.
func IsPermanent(r *Reply) bool { return r.Code/100 == 5 }
