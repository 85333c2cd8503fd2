package relay

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"mailcutover/mail"
)

func TestReplies(t *testing.T) {
	for _, c := range []struct {
		name, in string
		code     int
		enhanced [3]int
		text     string
		err      error
	}{
		{"one line", "250 2.1.5 ok\r\n", 250, [3]int{2, 1, 5}, "ok", nil},
		{"no text", "250\r\n", 250, [3]int{2, 0, 0}, "", nil},
		{"blank only", "250 \r\n", 250, [3]int{2, 0, 0}, "", nil},
		{"several lines", "550-5.1.1 no\r\n550-5.1.1 such\r\n550 5.1.1 user\r\n", 550, [3]int{5, 1, 1}, "no such user", nil},
		{"no enhanced code", "550 5 apples\r\n", 550, [3]int{5, 0, 0}, "5 apples", nil},
		{"enhanced code of another class", "450 5.1.1 x\r\n", 450, [3]int{4, 0, 0}, "5.1.1 x", nil},
		{"enhanced code too long", "550 5.1.1000 x\r\n", 550, [3]int{5, 0, 0}, "5.1.1000 x", nil},
		{"enhanced code alone", "550 5.7.30\r\n", 550, [3]int{5, 7, 30}, "", nil},
		{"control bytes", "550 5.1.1 a\tb\x1b[2J\x7fc\r\n", 550, [3]int{5, 1, 1}, "a?b?[2J?c", nil},
		{"not UTF-8", "550 5.1.1 \xffx\r\n", 550, [3]int{5, 1, 1}, "?x", nil},
		{"UTF-8", "550 5.1.1 für\r\n", 550, [3]int{5, 1, 1}, "für", nil},
		{"long text is cut", "550 " + strings.Repeat("ü", 300) + "\r\n", 550, [3]int{5, 0, 0}, strings.Repeat("ü", 200), nil},
		{"ends too early", "550-x\r\n", 0, [3]int{}, "", io.EOF},
		{"half a line", "250 x", 0, [3]int{}, "", io.EOF},
		{"LF alone", "250 ok\n", 0, [3]int{}, "", ErrProtocol},
		{"CR inside", "250 o\rk\r\n", 0, [3]int{}, "", ErrProtocol},
		{"NUL", "250 o\x00k\r\n", 0, [3]int{}, "", ErrProtocol},
		{"two digits", "25 ok\r\n", 0, [3]int{}, "", ErrProtocol},
		{"four digits", "2500 ok\r\n", 0, [3]int{}, "", ErrProtocol},
		{"1yz", "150 ok\r\n", 0, [3]int{}, "", ErrProtocol},
		{"6yz", "650 ok\r\n", 0, [3]int{}, "", ErrProtocol},
		{"x6z", "260 ok\r\n", 0, [3]int{}, "", ErrProtocol},
		{"empty", "\r\n", 0, [3]int{}, "", ErrProtocol},
		{"HTTP", "HTTP/1.1 400 Bad Request\r\n", 0, [3]int{}, "", ErrProtocol},
		{"code changes", "250-x\r\n550 x\r\n", 0, [3]int{}, "", ErrProtocol},
		{"too many lines", strings.Repeat("250-x\r\n", 129), 0, [3]int{}, "", ErrProtocol},
		{"most lines", strings.Repeat("250-\r\n", 127) + "250 x\r\n", 250, [3]int{2, 0, 0}, "x", nil},
		{"longest line", "250 " + strings.Repeat("x", maxReplyLine-6) + "\r\n", 250, [3]int{2, 0, 0}, strings.Repeat("x", maxReplyText), nil},
		{"line too long", "250 " + strings.Repeat("x", maxReplyLine) + "\r\n", 0, [3]int{}, "", ErrProtocol},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := replyReader{br: bufio.NewReaderSize(strings.NewReader(c.in), maxReplyLine)}
			code, err := r.read()
			if !errors.Is(err, c.err) || code != c.code {
				t.Fatalf("got %d, %v", code, err)
			}
			if err != nil {
				return
			}
			if got := makeReply(code, r.text); got.EnhancedCode != c.enhanced || got.Message != c.text {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func FuzzReply(f *testing.F) {
	f.Add([]byte("250-5.1.1 x\r\n250 y\r\n550 5.1.1 z\r\n"))
	f.Add([]byte("250\r\n421 4.4.1 \xff\x00\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := replyReader{br: bufio.NewReaderSize(bytes.NewReader(in), maxReplyLine)}
		for {
			code, err := r.read()
			if err != nil {
				return
			}
			m := makeReply(code, r.text)
			if m.Code < 200 || m.Code > 559 || m.EnhancedCode[0] != m.Code/100 {
				t.Errorf("%q: %+v", in, m)
			}
			if len(m.Message) > maxReplyText || !utf8.ValidString(m.Message) || strings.ContainsAny(m.Message, "\r\n\x00") {
				t.Errorf("%q: text %q", in, m.Message)
			}
			if len(r.text) > maxReplyLine*maxReplyLines {
				t.Errorf("%d bytes of text kept", len(r.text))
			}
			parseCapabilities(string(r.text))
		}
	})
}

// What a hostile platform says ends in a temporary error soon, with little memory.
func TestHostilePlatform(t *testing.T) {
	long := "250 " + strings.Repeat("x", 1<<20)
	for _, verb := range []string{"greeting", "EHLO", "MAIL", "RCPT", "DATA", "."} {
		for name, answer := range map[string]string{
			"1 MB line": long, "endless lines": strings.Repeat("250-x\r\n", 1<<16) + "250 x", "nothing but LF": strings.Repeat("\n", 1000),
			"continue": "334 Z28=", "unknown class": "150 x", "line without end": strings.Repeat("2", 1<<20),
		} {
			t.Run(verb+"/"+name, func(t *testing.T) {
				peer := startPeer(t, &peer{answer: func(_ *session, v, _ string) string {
					if v == verb {
						return answer
					}
					return ""
				}})
				p := newPool(t, endpoint(peer.addr), Options{})
				start := time.Now()
				out := deliver(testContext(t), t, p, "x\r\n", "b@x.example")
				err := out.err()
				if verb == "DATA" && name == "continue" {
					return // any 3yz asks for the message
				}
				if r := mail.AsReply(err); err == nil || r.Code != 451 {
					t.Fatalf("%v, passed on as %v", err, r)
				}
				if errors.Is(err, ErrInDoubt) != (verb == ".") || p.Stats().Open != 0 {
					t.Errorf("%v, %+v", err, p.Stats())
				}
				if took := time.Since(start); took > time.Minute {
					t.Errorf("took %s", took)
				}
				if len(err.Error()) > 2000 {
					t.Errorf("error of %d bytes", len(err.Error()))
				}
			})
		}
	}
}
