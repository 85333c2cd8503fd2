package msgkey

import (
	"bufio"
	"encoding/base64"
	"io"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"
)

// squeezed passes text on without white space, invisible spaces included. What is cut in the
// middle of a character at the end of a Write waits for the next.
type squeezed struct {
	to   io.Writer
	rest []byte // start of a character
}

func (s *squeezed) Write(p []byte) (int, error) {
	text := p
	if len(s.rest) > 0 {
		text = append(s.rest, p...)
		s.rest = nil
	}
	out := make([]byte, 0, len(text))
	for len(text) > 0 {
		if !utf8.FullRune(text) {
			s.rest = append([]byte(nil), text...)
			break
		}
		r, n := utf8.DecodeRune(text)
		if !unicode.IsSpace(r) && r != '\u200b' && r != '\ufeff' {
			out = append(out, text[:n]...)
		}
		text = text[n:]
	}
	if _, err := s.to.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// maxHTMLToken bounds a tag with its attributes; an image may stand in one.
const maxHTMLToken = 1 << 20

// writeHTML writes the text of HTML, without tags, styles and scripts. Where a tag is longer
// than maxHTMLToken the text ends.
func writeHTML(to io.Writer, from io.Reader) {
	tokens := html.NewTokenizer(from)
	tokens.SetMaxBuf(maxHTMLToken)
	hidden := ""
	for {
		switch tokens.Next() {
		case html.ErrorToken:
			return
		case html.TextToken:
			if hidden == "" {
				to.Write(tokens.Text()) // a digest takes everything
			}
		case html.StartTagToken:
			if name, _ := tokens.TagName(); string(name) == "style" || string(name) == "script" || string(name) == "title" {
				hidden = string(name)
			}
		case html.EndTagToken:
			if name, _ := tokens.TagName(); string(name) == hidden {
				hidden = ""
			}
		}
	}
}

// lenientBase64 decodes base64 as mail programs do (RFC 2045 section 6.8): what isn't in the
// alphabet is passed over, padding ends the data, and so does a last character that alone
// says nothing.
type lenientBase64 struct {
	in    *bufio.Reader
	out   []byte // decoded, not yet read
	ended bool
	space [768]byte
}

func newLenientBase64(r io.Reader) io.Reader {
	return &lenientBase64{in: bufio.NewReader(r)}
}

func (l *lenientBase64) Read(p []byte) (int, error) {
	for len(l.out) == 0 {
		if l.ended {
			return 0, io.EOF
		}
		l.fill()
	}
	n := copy(p, l.out)
	l.out = l.out[n:]
	return n, nil
}

// fill decodes the next groups.
func (l *lenientBase64) fill() {
	var group [len(l.space) / 3 * 4]byte
	n := 0
	for n < len(group) && !l.ended {
		c, err := l.in.ReadByte()
		switch {
		case err != nil || c == '=':
			l.ended = true
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '+', c == '/':
			group[n] = c
			n++
		}
	}
	if n%4 == 1 {
		n--
	}
	decoded, _ := base64.RawStdEncoding.Decode(l.space[:], group[:n]) // nothing else is in it
	l.out = l.space[:decoded]
}
