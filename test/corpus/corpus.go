package corpus

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
)

// Message is one message of the corpus.
type Message struct {
	Name string // a-z, 0-9 and hyphens; unique

	// EightBit and UTF8 say that the message needs BODY=8BITMIME (RFC 6152), or
	// SMTPUTF8 (RFC 6531), to be sent by the rules.
	EightBit, UTF8 bool

	// Open means that the last line has no CRLF, which only BDAT can send (RFC 3030).
	Open bool

	Content []byte
}

// LargeSize is about the size of Large.
const LargeSize = 50 << 20

// All returns every message but Large.
func All() []Message {
	return []Message{
		{Name: "plain", Content: text("Plain", "Good morning,\r\n\r\nnothing special here.\r\n")},
		{Name: "tnef", Content: tnef()},
		{Name: "smime-signed", Content: smime()},
		{Name: "dkim-simple", Content: signed(false)},
		{Name: "dkim-relaxed", Content: signed(true)},
		{Name: "invitation", Content: invitation()},
		{Name: "eight-bit", EightBit: true, Content: eightBit()},
		{Name: "utf8", UTF8: true, EightBit: true, Content: []byte("From: Jörg Müller <jörg@müller.example>\r\nTo: 雪 <雪@例え.example>\r\nSubject: Grüße – Ελληνικά – 你好\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nÄÖÜ äöü ß 🙂\r\n")},
		{Name: "line-998", Content: text("Line of 998", strings.Repeat("a", 998)+"\r\n")},
		{Name: "line-5000", Content: text("Lines of 5000", strings.Repeat(strings.Repeat("b", 5000)+"\r\n", 5))},
		{Name: "line-1mb", Content: text("Line of 1 MB", "before\r\n"+strings.Repeat("0123456789abcdef", 1<<16)+"\r\nafter\r\n")},
		{Name: "dots", Content: text("Dots", dots())},
		{Name: "dots-first", Content: []byte(".Strange: a header that begins with a dot\r\n..More: and one with two\r\n\r\n.\r\n")},
		{Name: "dots-long", Content: text("Long lines with dots", "."+strings.Repeat("x", 4999)+"\r\n"+strings.Repeat(".", 70000)+"\r\n.\r\n..\r\n")},
		{Name: "nul", Content: text("NUL", "a\x00b\r\n\x00\r\n\x00.\r\n.\x00\r\n\x00\x00\x00 end\r\n")},
		{Name: "control-bytes", EightBit: true, Content: append([]byte("Subject: Every byte\r\n\r\n"), everyByte()...)},
		{Name: "nothing", Content: []byte{}},
		{Name: "empty-body", Content: []byte("From: a@out.example\r\nSubject: Empty body\r\n\r\n")},
		{Name: "only-headers", Content: []byte("From: a@out.example\r\nSubject: No blank line, no body\r\n")},
		{Name: "no-headers", Content: []byte("\r\nA body behind a blank line, and nothing before.\r\n")},
		{Name: "line-ends", Content: text("Line ends", "\r\n\r\n  \r\n\t\r\nlast\r\n\r\n\r\n")},
		{Name: "from-lines", Content: text("From lines", "From here on\r\nFrom a@out.example Sat Jan  3 01:05:34 1996\r\n>From quoted\r\n")},
		{Name: "long-header", Content: longHeader()},
		{Name: "many-headers", Content: manyHeaders()},
		{Name: "no-final-line-end", Open: true, Content: text("No CRLF at the end", "one\r\ntwo")},
		{Name: "ends-in-dot", Open: true, Content: text("Ends in a dot", "one\r\n.")},
		{Name: "ends-in-crlf-dot", Open: true, Content: []byte("\r\n.")},
	}
}

// Large returns a message of about LargeSize: a megabyte in base64, again and again, each
// time behind a line with its number.
func Large() Message {
	part := attachment("large", 3<<18)
	var b bytes.Buffer
	b.Grow(LargeSize + len(part) + 4096)
	b.WriteString(header("Large", "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"))
	for n := 0; b.Len() < LargeSize; n++ {
		fmt.Fprintf(&b, "part%04d\r\n%s", n, part)
	}
	return Message{Name: "large", Content: b.Bytes()}
}

// source is a source of numbers that is the same each time.
func source(name string) *rand.ChaCha8 {
	var seed [32]byte
	copy(seed[:], name)
	return rand.NewChaCha8(seed)
}

func fill(random *rand.ChaCha8, b []byte) {
	_, _ = random.Read(b) // never fails, says its documentation
}

func header(subject, more string) string {
	return "From: Anna Berg <anna@out.example>\r\nTo: undisclosed-recipients:;\r\nSubject: " + subject +
		"\r\nDate: Fri, 15 Aug 2025 07:05:00 +0200\r\nMessage-ID: <" + strings.ReplaceAll(strings.ToLower(subject), " ", ".") + "@out.example>\r\nMIME-Version: 1.0\r\n" + more + "\r\n"
}

func text(subject, body string) []byte {
	return []byte(header(subject, "Content-Type: text/plain; charset=us-ascii\r\n") + body)
}

// attachment is n bytes that begin with magic, in base64.
func attachment(name string, n int, magic ...byte) string {
	raw := make([]byte, n)
	fill(source(name), raw)
	copy(raw, magic)
	all := base64.StdEncoding.EncodeToString(raw)
	var b strings.Builder
	for len(all) > 76 {
		b.WriteString(all[:76] + "\r\n")
		all = all[76:]
	}
	return b.String() + all + "\r\n"
}

// tnef has a winmail.dat as Outlook sends it: signature, key, and attributes with their
// checksums, in little-endian order ([MS-OXTNEF] section 2.1).
func tnef() []byte {
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) } // a bytes.Buffer takes all
	put(uint32(0x223e9f78))
	put(uint16(4711))
	attribute := func(level byte, id uint32, value []byte) {
		put(level)
		put(id)
		put(uint32(len(value)))
		b.Write(value)
		var sum uint16
		for _, c := range value {
			sum += uint16(c)
		}
		put(sum)
	}
	attribute(1, 0x00089006, []byte{0, 0, 1, 0})               // version
	attribute(1, 0x00078008, []byte("IPM.Microsoft Mail\x00")) // class
	attribute(1, 0x00018004, []byte("Subject\x00"))
	properties := make([]byte, 3000)
	fill(source("tnef"), properties)
	attribute(1, 0x00069003, properties)

	return []byte(header("TNEF", "X-MS-Has-Attach: yes\r\nX-MS-TNEF-Correlator: <tnef@out.example>\r\nContent-Type: multipart/mixed;\r\n\tboundary=\"_000_4711out_\"\r\n") +
		"This is a multi-part message in MIME format.\r\n\r\n--_000_4711out_\r\nContent-Type: text/plain; charset=\"iso-8859-1\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nMit freundlichen Gr=FC=DFen=20\r\n\r\n" +
		"--_000_4711out_\r\nContent-Disposition: attachment; filename=\"winmail.dat\"\r\nContent-Transfer-Encoding: base64\r\nContent-Type: application/ms-tnef; name=\"winmail.dat\"\r\n\r\n" +
		attachment("tnef", b.Len(), b.Bytes()...) + "\r\n--_000_4711out_--\r\n")
}

// smime looks like a signed message: what is signed has blanks at line ends, which must
// stay (RFC 8551 section 3.1).
func smime() []byte {
	return []byte(header("Signed", "Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\";\r\n micalg=sha-256; boundary=\"----=_Part_1\"\r\n") +
		"------=_Part_1\r\nContent-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\nSigned text   \r\n\twith blanks at its line ends\t\r\n -- \r\n\r\n" +
		"------=_Part_1\r\nContent-Type: application/pkcs7-signature; name=\"smime.p7s\"\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=\"smime.p7s\"\r\n\r\n" +
		attachment("smime", 2200, 0x30, 0x82, 0x08, 0x94, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02) + "\r\n------=_Part_1--\r\n")
}

// invitation is a meeting request; its calendar has folded lines (RFC 5545 section 3.1).
func invitation() []byte {
	calendar := "BEGIN:VCALENDAR\r\nPRODID:-//out.example//corpus//EN\r\nVERSION:2.0\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nUID:4711@out.example\r\nDTSTAMP:20250815T050500Z\r\nDTSTART;TZID=Europe/Berlin:20250820T100000\r\nDTEND;TZID=Europe/Berlin:20250820T110000\r\nSUMMARY:Retrospective\r\n" +
		"DESCRIPTION:What went wrong in the night\\, what we learned of it\\, and what we\r\n  will do otherwise. Bring the list\\, both columns of it.\r\n" +
		"ORGANIZER;CN=Anna Berg:mailto:anna@out.example\r\nATTENDEE;ROLE=REQ-PARTICIPANT;PARTSTAT=NEEDS-ACTION;RSVP=TRUE:mailto:ben@in\r\n .example\r\nSEQUENCE:0\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
	return []byte(header("Invitation", "Content-Type: multipart/alternative; boundary=\"=-cal\"\r\nContent-Class: urn:content-classes:calendarmessage\r\n") +
		"--=-cal\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\nRetrospective, 20 August, 10:00\r\n\r\n--=-cal\r\nContent-Type: text/calendar; charset=utf-8; method=REQUEST\r\nContent-Transfer-Encoding: 7bit\r\n\r\n" + calendar + "\r\n--=-cal--\r\n")
}

// eightBit has Latin-1 and bytes that are no text at all.
func eightBit() []byte {
	body := []byte("Gr\xfc\xdfe aus K\xf6ln\r\n")
	raw := make([]byte, 20000)
	fill(source("eight bit"), raw)
	for i, c := range raw {
		if c == '\r' || c == '\n' || c == 0 {
			raw[i] = 0xff
		}
	}
	for len(raw) > 900 {
		body = append(append(body, raw[:900]...), "\r\n"...)
		raw = raw[900:]
	}
	return append([]byte(header("Eight bit", "Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n")), body...)
}

// everyByte has every byte in the middle, at the beginning and at the end of a line, but
// for CR and LF.
func everyByte() []byte {
	var b []byte
	for c := range 256 {
		if c != '\r' && c != '\n' {
			b = append(b, 'a', byte(c), 'b', '\r', '\n', byte(c), '\r', '\n')
		}
	}
	return b
}

// dots has lines that begin with dots, and dots wherever a buffer may end.
func dots() string {
	var b strings.Builder
	for n := range 8 {
		b.WriteString(strings.Repeat(".", n) + "\r\n" + strings.Repeat(".", n) + "text\r\n")
	}
	// Lines of growing length put "CRLF dot" on every offset of buffers up to 128 KiB.
	for n := range 600 {
		b.WriteString("." + strings.Repeat("x", n) + "\r\n")
	}
	b.WriteString(".\r\n..\r\n.\r\n")
	return b.String()
}

func longHeader() []byte {
	var folded strings.Builder
	for i := range 400 {
		fmt.Fprintf(&folded, "\r\n\t<message.%d.with.a.long.id.that.goes.on.and.on@out.example>", i)
	}
	return []byte("From: a@out.example\r\nSubject: Long headers\r\nX-Long: " + strings.Repeat("x", 60000) + "\r\nReferences:" + folded.String() + "\r\n\r\nbody\r\n")
}

func manyHeaders() []byte {
	var b strings.Builder
	for i := range 20 { // below any hop limit
		fmt.Fprintf(&b, "Received: from relay%d.out.example (relay%d.out.example [192.0.2.%d])\r\n\tby relay%d.out.example with ESMTP id %d;\r\n\tFri, 15 Aug 2025 07:05:%02d +0200\r\n", i, i, i, i+1, i, i)
	}
	for i := range 2000 {
		fmt.Fprintf(&b, "X-Header-%d: value %d\r\n", i, i)
	}
	return []byte(b.String() + "From: a@out.example\r\nSubject: Many headers\r\n\r\nbody\r\n")
}
