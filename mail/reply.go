package mail

import (
	"bytes"
	"errors"
	"strings"
	"unicode/utf8"

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

// CleanText returns at most n bytes of what a peer answered, as UTF-8 without control characters
// and without its line end: a peer's text must not forge log lines or answers.
func CleanText(p []byte, n int) string {
	p = bytes.TrimRight(p, "\r\n")
	if len(p) <= n && isPrintable(p) {
		return string(p)
	}
	s := strings.Map(func(r rune) rune {
		if r < 0x20 || 0x7f <= r && r < 0xa0 || r == utf8.RuneError {
			return '?'
		}
		return r
	}, string(p))
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return s
}

// isPrintable reports whether p is printable ASCII.
func isPrintable(p []byte) bool {
	for _, c := range p {
		if c < ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}
