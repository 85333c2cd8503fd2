package smtp

import (
	"bytes"
	"strings"
	"testing"
)

// scanAll runs src through a scanner, cut into pieces of n bytes, with a destination of
// room bytes. It returns the content, how many bytes were read, and whether the end was.
func scanAll(s *scanner, src []byte, n, room int) (content []byte, read int, done bool) {
	dst := make([]byte, room)
	for read < len(src) && !done {
		piece := src[read:min(read+n, len(src))]
		for {
			var wrote, took int
			wrote, took, done = s.scan(dst, piece)
			content = append(content, dst[:wrote]...)
			read += took
			piece = piece[took:]
			if done || len(piece) == 0 && wrote < room {
				break
			}
		}
	}
	return content, read, done
}

// model is what the scanner has to do, written to be read: line by line, CRLF only.
func model(src string, dots bool) (content string, read int, done bool, repaired int) {
	fix := func(line string) string { // line has no CRLF
		repaired += strings.Count(line, "\r") + strings.Count(line, "\n")
		return strings.NewReplacer("\r", "\r\n", "\n", "\r\n").Replace(line)
	}
	var out strings.Builder
	for rest := src; ; {
		line, next, ended := strings.Cut(rest, "\r\n")
		if dots && ended && line == "." {
			return out.String(), len(src) - len(next), true, repaired
		}
		if dots && strings.HasPrefix(line, ".") {
			line = line[1:]
		}
		out.WriteString(fix(line))
		if !ended {
			return out.String(), len(src), false, repaired
		}
		out.WriteString("\r\n")
		rest = next
	}
}

var scannerInputs = []string{
	"", ".", ".\r", ".\r\n", "\r\n.\r\n", "a\r\n.\r\n", "a\n.\n.\r\n", "..\r\n.\r\n", ".a\r\n.\r\nQUIT\r\n",
	"\r\r\n.\r\n", "\r\n.\r\r\n.\r\n", ".\r.\r\n", ".\n.\r\n", "\n\r\n.\r\n", "\r", "\r\r\r", "\n\n", "a\rb\nc\r\n",
	"Subject: x\r\n\r\nbody\r\n..\r\n...\r\n.\r\n", "\x00\r\n\x00.\r\n.\r\n", "no end", ".\r\n.\r\n", "\r\n\r\n.\r\n",
}

// TestScannerCutAnywhere runs all inputs in pieces of every size and into buffers of
// every size, and compares with the model.
func TestScannerCutAnywhere(t *testing.T) {
	for _, in := range scannerInputs {
		for _, dots := range []bool{true, false} {
			for n := 1; n <= len(in)+1; n++ {
				for _, room := range []int{1, 2, 3, 7, 100} {
					compareWithModel(t, in, dots, n, room)
				}
			}
		}
	}
}

func compareWithModel(t *testing.T, in string, dots bool, n, room int) {
	t.Helper()
	s := &scanner{dots: dots}
	got, read, done := scanAll(s, []byte(in), n, room)
	if !done { // what waits for its LF is judged at the end only
		var tail [3]byte
		if dots && (s.place == placeDot || s.place == placeDotCR) {
			s.place = placeLineStart // a dot alone at the end of an unfinished message is neither
			in = strings.TrimSuffix(strings.TrimSuffix(in, "\r"), ".")
			read = len(in)
		}
		unended := s.place == placeLine
		got = append(got, tail[:s.finish(tail[:])]...)
		if unended {
			got = bytes.TrimSuffix(got, []byte("\r\n"))
		}
	}
	want, wantRead, wantDone, repaired := model(in, dots)
	if string(got) != want || read != wantRead || done != wantDone || s.repaired != repaired {
		t.Fatalf("%q, dots %v, pieces of %d, room for %d:\n got %q, read %d, done %v, repaired %d\nwant %q, read %d, done %v, repaired %d",
			in, dots, n, room, got, read, done, s.repaired, want, wantRead, wantDone, repaired)
	}
	if bare.Match(got) {
		t.Fatalf("%q: bare CR or LF in %q", in, got)
	}
}

// TestScannerDoubt tells ends that all peers agree on from the one that they don't.
func TestScannerDoubt(t *testing.T) {
	for in, want := range map[string]bool{
		".\r\n": false, "a\r\n.\r\n": false, "a\r\r\n.\r\n": true, "\r\r\n.\r\n": true,
		"a\rb\r\n.\r\n": false, "a\r\r\nb\r\n.\r\n": false, ".\r\r\n.\r\n": true, "a\n.\r\n\r\n.\r\n": false,
	} {
		for n := 1; n <= len(in); n++ {
			s := &scanner{dots: true}
			if _, _, done := scanAll(s, []byte(in), n, 100); !done || s.doubtful != want {
				t.Errorf("%q in pieces of %d: done %v, doubtful %v, want %v", in, n, done, s.doubtful, want)
			}
		}
	}
}

func FuzzScanner(f *testing.F) {
	for i, in := range scannerInputs {
		f.Add(in, i%2 == 0, uint8(i), uint8(i+1))
	}
	f.Fuzz(func(t *testing.T, in string, dots bool, n, room uint8) {
		compareWithModel(t, in, dots, int(n)+1, int(room)+1)
	})
}

// BenchmarkScanner is the speed of DATA: plain lines, as in text and base64; lines that
// each begin with a dot; and one long line.
func BenchmarkScanner(b *testing.B) {
	for _, c := range []struct {
		name string
		line string
	}{
		{"base64", strings.Repeat("QUJD", 19) + "\r\n"},
		{"dots", ".." + strings.Repeat("x", 70) + "\r\n"},
		{"bare LF", strings.Repeat("x", 70) + "\n"},
		{"line of 30 KB", strings.Repeat("x", 30_000) + "\r\n"},
	} {
		b.Run(c.name, func(b *testing.B) {
			src := bytes.Repeat([]byte(c.line), bufferBytes/len(c.line)+1)
			dst := make([]byte, bufferBytes)
			s := &scanner{dots: true}
			b.SetBytes(int64(len(src)))
			b.ReportAllocs()
			for b.Loop() {
				for in := src; len(in) > 0; {
					_, read, _ := s.scan(dst, in)
					in = in[read:]
				}
			}
		})
	}
}
