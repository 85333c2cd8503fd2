package imap

import (
	"bytes"
	"compress/flate"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestTracker(t *testing.T) {
	tests := []struct {
		stream string
		start  bool
	}{
		{"", true},
		{"*", false},
		{"* OK", false},
		{"* OK Still here\r", false},
		{"* OK Still here\r\n", true},
		{"a1 OK done\r\n", true},
		{"+ idling\r\n", true},
		{"+\r\n", true},
		{"* 1 FETCH (BODY[] {5}\r\n", false},
		{"* 1 FETCH (BODY[] {5}\r\n\r\n* ", false},
		{"* 1 FETCH (BODY[] {5}\r\n\r\n* \r)\r\n", true},
		{"* 1 FETCH (BODY[] {5}\r\nabcde", false},
		{"* 1 FETCH (BODY[] {5}\r\nabcde)\r\n", true},
		{"* 1 FETCH (BINARY[] ~{5}\r\na\x00cde X {2}\r\n\r\n)\r\n", true},
		{"* 1 FETCH (BODY[HEADER.FIELDS ({4}\r\nDate)] {0}\r\n)\r\n", true},
		{"* LIST () \"/\" {3}\r\na\r\n\r\n", true},
		{"* ESEARCH (TAG \"{5}\")\r\n", true},
		{"* SEARCH " + strings.Repeat("1234567 ", 10000) + "\r\n", true},

		// Never certain again.
		{"* OK x\n", false},
		{"\r\n", false},
		{"* \r\n", false},
		{"*\r\n", false},
		{"* \x00 EXISTS\r\n", false},
		{"hello\r\n", false},
		{"a1 YES\r\n", false},
		{"a1\r\n", false},
		{"a\x801 OK x\r\n", false},
		{strings.Repeat("x", maxTag+1) + " OK done\r\n", false},
		{strings.Repeat("x", maxTag) + " BAD\r\n", true},
		{"+foo\r\n", false},
		{"a1 OK DEFLATE active\r\n", false},
		{"a1 OK Begin compression.\r\n", false},
		{"* OK text {5}\r\n", false},
		{"* PREAUTH {5}\r\n", false},
		{"* BYE {5}\r\n", false},
		{"a1 OK {5}\r\n", false},
		{"* LIST () \"/\" foo{5}\r\n", false},
		{"* LIST () \"/\" {5+}\r\n", false},
		{"* LIST () \"/\" {9223372036854775808}\r\n", false},
		{"* LIST () \"/\" {}\r\n", false},
		{"* LIST () \"/\" }\r\n", false},
	}
	for _, test := range tests {
		for _, step := range []int{1, 2, 3, 7, 1 << 20} {
			tr := new(tracker)
			for p := []byte(test.stream); len(p) > 0; {
				n := min(step, len(p))
				tr.Observe(p[:n])
				p = p[n:]
			}
			if tr.AtStart() != test.start {
				t.Errorf("%.60q by %d: at start %v, want %v", test.stream, step, tr.AtStart(), test.start)
			}
		}
	}
}

// What isn't certain once isn't later on.
func TestTrackerStaysLost(t *testing.T) {
	tr := new(tracker)
	tr.Observe([]byte("hello\r\n* OK x\r\n"))
	if tr.AtStart() {
		t.Error("certain again")
	}
}

// A compressed stream is never taken for a line's start, however it is cut.
func TestTrackerCompressed(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var b bytes.Buffer
		b.WriteString("a1 OK go on\r\n") // says nothing of what it does
		z, err := flate.NewWriter(&b, 6)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			fmt.Fprintf(z, "* %d FETCH (FLAGS (\\Seen) UID %d MODSEQ (%d))\r\n", i, r.Uint32(), r.Uint64())
		}
		if err := z.Flush(); err != nil {
			t.Fatal(err)
		}
		tr := new(tracker)
		p := b.Bytes()
		tr.Observe(p[:13])
		if !tr.AtStart() {
			t.Fatal("lost before it began")
		}
		for p = p[13:]; len(p) > 0; {
			n := min(1+r.IntN(100), len(p))
			tr.Observe(p[:n])
			p = p[n:]
			if tr.AtStart() {
				t.Fatalf("seed %d: certain within a compressed stream", seed)
			}
		}
	}
}

func BenchmarkTracker(b *testing.B) {
	chunk := bytes.Repeat([]byte("0123456789abcde\n"), 2048)
	lines := bytes.Repeat([]byte("* 1234 FETCH (UID 4711 FLAGS (\\Seen \\Answered) MODSEQ (815))\r\n"), 512)
	b.Run("literal", func(b *testing.B) {
		tr := new(tracker)
		tr.Observe([]byte("* 1 FETCH (BODY[] {9000000000000000000}\r\n"))
		b.SetBytes(int64(len(chunk)))
		for b.Loop() {
			tr.Observe(chunk)
		}
	})
	b.Run("lines", func(b *testing.B) {
		tr := new(tracker)
		b.SetBytes(int64(len(lines)))
		for b.Loop() {
			tr.Observe(lines)
		}
		if !tr.AtStart() {
			b.Fatal("lost")
		}
	})
	b.Run("messages", func(b *testing.B) {
		tr := new(tracker)
		message := fmt.Appendf(nil, "* 1 FETCH (UID 1 BODY[] {%d}\r\n%s)\r\n", len(chunk), chunk)
		b.SetBytes(int64(len(message)))
		for b.Loop() {
			tr.Observe(message)
		}
		if !tr.AtStart() {
			b.Fatal("lost")
		}
	})
}
