package dsn

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/mail"
)

// maxValue is how much of a value goes into a field, in bytes: a line has 998 at most
// (RFC 5322 section 2.1.1).
const maxValue = 900

// status returns the fields of RFC 3464 section 2.
func (w *writer) status() []byte {
	var b []byte
	field := func(name, value string) {
		b = fmt.Appendf(b, "%s: %s\r\n", name, w.value(value))
	}
	o := &w.n.Original
	if id, ok := decodeXtext(o.Options.EnvelopeID); ok && id != "" {
		field("Original-Envelope-Id", id)
	}
	field("Reporting-MTA", "dns; "+w.Host)
	field("X-Mailcutover-Transaction", string(o.Transaction))
	if !o.Arrived.IsZero() {
		field("Arrival-Date", date(o.Arrived))
	}
	for i := range w.n.Recipients {
		r := &w.n.Recipients[i]
		b = append(b, "\r\n"...)
		if original := w.originalRecipient(r); original != "" {
			field("Original-Recipient", original)
		}
		field("Final-Recipient", w.address(string(r.Address)))
		field("Action", w.n.Kind.String())
		field("Status", w.n.statusCode(r))
		if r.Reply != nil && r.Platform != "" {
			field("Diagnostic-Code", "smtp; "+replyText(r.Reply))
		}
		if !r.LastAttempt.IsZero() {
			field("Last-Attempt-Date", date(r.LastAttempt))
		}
		if w.n.Kind == Delayed && !r.RetryUntil.IsZero() {
			field("Will-Retry-Until", date(r.RetryUntil))
		}
	}
	return b
}

// statusCode returns the code of RFC 3463 for a recipient: that of the answer, of the class
// that fits the kind. A recipient whose time is over keeps the temporary reason, as RFC
// 3463 asks in the text on X.4.7.
func (n *Notice) statusCode(r *Recipient) string {
	class := 5
	switch {
	case n.Kind == Relayed:
		return "2.0.0"
	case n.Kind == Delayed, r.Expired:
		class = 4
	}
	if r.Reply == nil || r.Reply.EnhancedCode[0] <= 0 || r.Reply.EnhancedCode[0] == 2 {
		if r.Expired {
			return "4.4.7"
		}
		return fmt.Sprintf("%d.0.0", class)
	}
	c := r.Reply.EnhancedCode
	return fmt.Sprintf("%d.%d.%d", class, c[1], c[2])
}

// replyText returns a reply as it stood, on one line.
func replyText(r *mail.Reply) string {
	if c := r.EnhancedCode; c[0] > 0 {
		return fmt.Sprintf("%d %d.%d.%d %s", r.Code, c[0], c[1], c[2], r.Message)
	}
	return fmt.Sprintf("%d %s", r.Code, r.Message)
}

// originalRecipient returns the value of the Original-Recipient field, or nothing if the
// sender gave none, or none that can be shown.
func (w *writer) originalRecipient(r *Recipient) string {
	s := r.Options.OriginalRecipient
	if s == "" {
		return ""
	}
	if strings.EqualFold(string(r.Options.OriginalRecipientType), string(gosmtp.DSNAddressTypeUTF8)) {
		decoded, ok := decodeUTF8Xtext(s)
		if !ok {
			return ""
		}
		return w.address(decoded)
	}
	decoded, ok := decodeXtext(s)
	if !ok {
		return ""
	}
	return w.address(decoded)
}

// address returns an address with its type (RFC 3464 section 2.3.1, RFC 6533 section 3).
func (w *writer) address(a string) string {
	switch {
	case isASCII([]byte(a)):
		return "rfc822; " + a
	case w.global:
		return "utf-8; " + a
	default:
		return "utf-8; " + encodeUTF8Xtext(a)
	}
}

// value returns s as it may stand in a field: one line, and ASCII unless the notice is one
// of RFC 6533.
func (w *writer) value(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError || !w.global && r > 0x7f {
			return '?'
		}
		return r
	}, s)
	return cut(s, maxValue)
}

// cut returns at most n bytes of s, whole characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func date(t time.Time) string { return t.Format("Mon, 02 Jan 2006 15:04:05 -0700") }
