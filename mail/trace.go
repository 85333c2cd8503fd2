package mail

import (
	"bytes"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Trace is what goes into the one Received line that we add (RFC 5321 section 4.4).
type Trace struct {
	Client       Client
	Node         string // our host name, in "by"
	Installation string // word that tells our own lines from those of another mailcutover
	Transaction  TransactionID
	Time         time.Time
}

// Append appends the Received line, folded and ended by CRLF, to b.
//
// It is ASCII, whatever the client said and whatever the message needs. It names no recipient:
// with a "for" clause a Bcc recipient would show to the others.
func (t *Trace) Append(b []byte) []byte {
	b = append(b, "Received: from "...)
	if t.Client.Helo == "" {
		b = append(b, "unknown"...)
	} else {
		b = t.appendWord(b, t.Client.Helo)
	}
	b = append(b, " ("...)
	if t.Client.Name != "" {
		b = t.appendWord(b, t.Client.Name)
		b = append(b, ' ')
	}
	b = append(b, '[')
	if addr := t.Client.Addr.Addr().Unmap(); addr.Is6() {
		b = append(b, "IPv6:"...)
		b = addr.WithZone("").AppendTo(b)
	} else if addr.IsValid() {
		b = addr.AppendTo(b)
	} else {
		b = append(b, "unknown"...)
	}
	b = append(b, "])\r\n\tby "...)
	b = append(b, t.Node...)
	b = append(b, ' ')
	b = append(b, ownMark...)
	b = append(b, t.Installation...)
	b = append(b, ") with "...)
	b = append(b, t.Client.With...)
	b = append(b, " id "...)
	b = append(b, t.Transaction...)
	b = append(b, ";\r\n\t"...)
	b = t.Time.AppendFormat(b, "Mon, 02 Jan 2006 15:04:05 -0700")
	return append(b, "\r\n"...)
}

const ownMark = "(mailcutover "

// maxTraceWord is how long a peer's word may be, in bytes: as long as a domain.
const maxTraceWord = 255

// appendWord appends what a peer said about itself, without what could end a clause or
// open a comment. It is ASCII always: 8-bit bytes would make a message that came with SMTPUTF8
// need it, and platforms without it would refuse one that they could take. So an
// internationalised name is written as A-labels (RFC 5890 section 2.3.2.1), as RFC 5321
// section 4.1.1.1 wants it in EHLO; what can't be written so has a question mark for each byte.
func (t *Trace) appendWord(b []byte, s string) []byte {
	if !isASCII(s) && utf8.ValidString(s) {
		if name, err := idna.Punycode.ToASCII(s); err == nil && len(name) <= maxTraceWord {
			s = name
		}
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c <= ' ' || c >= 0x7f || strings.IndexByte("()<>;\\\"", c) >= 0:
			b = append(b, '?')
		default:
			b = append(b, c)
		}
	}
	return b
}

// TraceScanner counts the Received lines in a message's header while it streams by.
// Its memory doesn't grow with the header. The zero value, with Installation set, is ready.
type TraceScanner struct {
	Installation string
	Identify     bool // note the Message-ID too

	hops, own int
	messageID string
	done      bool                 // the header's end was seen; what comes after it is ignored
	line      [traceLineBytes]byte // start of the current unfolded field
	n         int                  // bytes of line in use
	total     int                  // bytes of the current physical line
}

// traceLineBytes is how much of a header field is looked at; our own mark stands
// within: "from" takes at most 255 twice, "by" 255.
const traceLineBytes = 1024

// Hops returns the number of Received fields seen so far.
func (s *TraceScanner) Hops() int { return s.hops }

// Own returns how many of them this installation wrote.
func (s *TraceScanner) Own() int { return s.own }

// MessageID returns the message's Message-ID with its angle brackets, cut to
// MaxMessageID bytes; empty if there was none so far, or Identify isn't set.
func (s *TraceScanner) MessageID() string { return s.messageID }

// MaxMessageID is how many bytes of a Message-ID are noted.
const MaxMessageID = 200

// Scan looks at the next bytes of the message, which must have CRLF line ends, cut
// anywhere.
func (s *TraceScanner) Scan(p []byte) {
	for len(p) > 0 && !s.done {
		i := bytes.IndexByte(p, '\n')
		part := p
		if i >= 0 {
			part = p[:i+1]
		}
		p = p[len(part):]
		if s.total == 0 && part[0] != ' ' && part[0] != '\t' {
			s.field()
		}
		s.total += len(part)
		if s.n < len(s.line) {
			s.n += copy(s.line[s.n:], part)
		}
		if i >= 0 {
			// An empty line ends the header. Its length alone says so, wherever it was cut.
			if s.total == 2 && s.n >= 2 && string(s.line[s.n-2:s.n]) == "\r\n" || s.total == 1 {
				s.field()
				s.done = true
			}
			s.total = 0
		}
	}
}

// End tells the scanner that the message is over, with or without a body.
func (s *TraceScanner) End() {
	s.field()
	s.done = true
}

// field judges the field collected so far and begins the next.
func (s *TraceScanner) field() {
	if s.Identify && s.messageID == "" && isField(s.line[:s.n], "message-id:") {
		id := bytes.TrimSpace(s.line[len("message-id:"):s.n])
		s.messageID = strings.ToValidUTF8(string(id[:min(len(id), MaxMessageID)]), "?")
	}
	if isField(s.line[:s.n], "received:") {
		s.hops++
		if bytes.Contains(s.line[:s.n], []byte(ownMark+s.Installation+")")) {
			s.own++
		}
	}
	s.n = 0
}

// isField reports whether a header field has this name, colon included.
func isField(field []byte, name string) bool {
	return len(field) >= len(name) && strings.EqualFold(string(field[:len(name)]), name)
}

// String shows the counts, for logs.
func (s *TraceScanner) String() string {
	return strconv.Itoa(s.hops) + " hops, " + strconv.Itoa(s.own) + " of them ours"
}
