package letter

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"slices"
	"strings"
	"time"

	"mailcutover/notice"
)

// Letter is one mail about some events.
type Letter struct {
	Templates    *Templates
	Language     notice.Language
	Installation string
	Node         string // host name of the node that sends; stands in the Message-ID
	Channel      string
	From         string   // address, as it stands on the wire
	To           []string // addresses
	Events       []notice.Event
	Date         time.Time
}

// ID returns the Message-ID: the same for the same channel and events.
func (l *Letter) ID() string {
	ids := make([]string, len(l.Events))
	for i := range l.Events {
		ids[i] = l.Events[i].ID
	}
	slices.Sort(ids)
	sum := sha256.Sum256([]byte(l.Channel + "\n" + strings.Join(ids, "\n")))
	return "<notice." + hex.EncodeToString(sum[:16]) + "@" + domain(l.From, l.Node) + ">"
}

// domain is that of the sender, which is the same on all nodes.
func domain(from, node string) string {
	if i := strings.LastIndexByte(from, '@'); i >= 0 && i+1 < len(from) {
		return from[i+1:]
	}
	return node
}

// Bytes returns the message, with CRLF at the ends of its lines, all of them ASCII and of at
// most 998 octets (RFC 5322 section 2.1.1).
func (l *Letter) Bytes() ([]byte, error) {
	subject, text, err := l.Templates.execute(l)
	if err != nil {
		return nil, fmt.Errorf("write a letter about %d events: %w", len(l.Events), err)
	}
	if len(l.To) == 0 {
		return nil, fmt.Errorf("write a letter about %d events: it has no recipient", len(l.Events))
	}
	var b bytes.Buffer
	header := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	header("From", "mailcutover <"+address(l.From)+">")
	to := make([]string, len(l.To))
	for i, a := range l.To {
		to[i] = "<" + address(a) + ">"
	}
	header("To", strings.Join(to, ",\r\n "))
	header("Subject", folded(subject))
	header("Date", l.Date.Format(time.RFC1123Z))
	header("Message-ID", address(l.ID()))
	header("Auto-Submitted", "auto-generated") // RFC 3834 section 5
	header("X-Auto-Response-Suppress", "All")  // Exchange's own word for it
	header("Precedence", "bulk")
	header("Content-Language", string(l.Language))
	header("MIME-Version", "1.0")
	header("Content-Type", "text/plain; charset=utf-8")
	header("Content-Transfer-Encoding", "quoted-printable")
	if notice.Worst(l.Events) == notice.Alert {
		header("Importance", "high") // RFC 2156 section 5.3.4
	}
	b.WriteString("\r\n")
	w := quotedprintable.NewWriter(&b)
	_, err = w.Write([]byte(strings.ReplaceAll(printable(text), "\n", "\r\n")))
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("write a letter about %d events: %w", len(l.Events), err)
	}
	return b.Bytes(), nil
}

// maxSubject is how much of a subject is kept, in characters.
const maxSubject = 200

// folded returns a subject as RFC 2047 encodes it, where it has to be: in words of at most 75 octets, one
// in each line. An ASCII one is folded at spaces (RFC 5322 section 2.2.3).
func folded(subject string) string {
	if runes := []rune(subject); len(runes) > maxSubject {
		subject = string(runes[:maxSubject-1]) + "\u2026"
	}
	subject = strings.ReplaceAll(subject, "=?", "= ?") // somebody's text isn't an encoded word
	encoded := mime.QEncoding.Encode("utf-8", subject)
	if encoded != subject {
		return strings.ReplaceAll(encoded, "?= =?", "?=\r\n =?")
	}
	var b strings.Builder
	length := len("Subject: ")
	for i, word := range strings.Split(subject, " ") {
		switch {
		case i == 0:
		case length+1+len(word) > 78:
			b.WriteString("\r\n ")
			length = 1
		default:
			b.WriteByte(' ')
			length++
		}
		b.WriteString(word)
		length += len(word)
	}
	return b.String()
}

// address returns an address without what could end its header.
func address(a string) string { return strings.TrimSpace(notice.OneLine(a)) }

// printable keeps line ends, and makes other control characters spaces.
func printable(text string) string {
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(notice.OneLine(line), " ")
	}
	return strings.Join(lines, "\n")
}
