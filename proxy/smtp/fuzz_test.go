package smtp

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailcutover/mail"
	"mailcutover/proxy/listen"
)

// script is a connection whose peer has sent everything beforehand, in pieces of at
// most n bytes, and reads everything.
type script struct {
	in  []byte
	n   int
	out bytes.Buffer

	first  int // how many bytes come first, if not 0
	writes int
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	limit := s.n
	if s.first > 0 {
		limit, s.first = s.first, 0
	}
	n := copy(p[:min(len(p), limit)], s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error) {
	s.writes++
	return s.out.Write(p)
}

func (s *script) Close() error                     { return nil }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1025} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// converse runs a whole connection and returns what the server said.
func converse(t testing.TB, o Options, backend Backend, in string, n int) string {
	t.Helper()
	srv, err := NewServer(o, backend)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{in: []byte(in), n: n}
	front, err := listen.New(srv.frontOptions(), func(in *listen.Conn) bool {
		defer func() { // listen would catch it
			if p := recover(); p != nil {
				t.Errorf("connection panicked: %v\n%s", p, debug.Stack())
			}
		}()
		srv.newConn(in).serve()
		return false
	})
	if err != nil {
		t.Fatal(err)
	}
	if !front.ServeConn(context.Background(), s) {
		t.Fatal("connection was refused")
	}
	return s.out.String()
}

func FuzzCommandLine(f *testing.F) {
	for _, s := range []string{
		"MAIL FROM:<a@b> SIZE=1 BODY=8BITMIME", "rcpt to:<\"x>\\\" y\"@b> NOTIFY=NEVER ORCPT=rfc822;a+2Bb", "BDAT 12 LAST",
		"EHLO [IPv6:::1]", "NOOP", "MAIL FROM:<@a,@b:c@d>", "XFORWARD NAME=a ADDR=1.2.3.4", " ", "MAIL", "RCPT TO:<postmaster>",
	} {
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, line []byte, utf8OK bool) {
		cmd := parseCommand(line)
		offer := offers{esmtp: true, bit8: true, utf8: utf8OK}
		for _, keyword := range []string{"FROM:", "TO:"} {
			path, params, ok := splitPath(string(cmd.arg), keyword)
			if !ok {
				continue
			}
			if p, err := mail.ParsePath(path, utf8OK); err == nil && !utf8OK && !p.IsASCII() {
				t.Errorf("%q is taken without SMTPUTF8", path)
			}
			if opts, wrong := parseMailParams(params, offer); wrong == nil && strings.ContainsAny(opts.EnvelopeID, " \r\n\x00=") {
				t.Errorf("envelope id is %q", opts.EnvelopeID)
			}
			if opts, wrong := parseRcptParams(params, true, utf8OK); wrong == nil && strings.ContainsAny(opts.OriginalRecipient, " \r\n\x00=") {
				t.Errorf("original recipient is %q", opts.OriginalRecipient)
			}
		}
		if size, _, ok := parseChunk(cmd.arg); ok && size < 0 {
			t.Errorf("%q is a chunk of %d bytes", cmd.arg, size)
		}
		greetingName(cmd.arg)
	})
}

// FuzzPath looks for paths that change their meaning when they are written to a
// platform and parsed there.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"<a@b>", `<"a> b"@c> SIZE=1`, `<"a\">"@c>`, `<"\\"@c>`, "<@a:b@c>", "<>", "<a@[127.0.0.1]>", "<m\u00fc@\u00fc.example>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		path, _, ok := splitPath("TO:"+s, "TO:")
		if !ok {
			return
		}
		p, err := mail.ParsePath(path, true)
		if err != nil {
			return
		}
		again, params, ok := splitPath("TO:<"+p.String()+">", "TO:")
		if !ok || params != "" {
			t.Fatalf("%q is written as %q, which has parameters %q", s, p, params)
		}
		if q, err := mail.ParsePath(again, true); err != nil || q != p {
			t.Fatalf("%q is written as %q, which is read as %q (%v)", s, p, q, err)
		}
	})
}

// FuzzSession runs a dialogue of any bytes in any pieces: it must end, every answer be
// well formed, and every message clean.
func FuzzSession(f *testing.F) {
	for _, c := range conformanceTable() {
		var in strings.Builder
		for _, s := range c.steps {
			in.WriteString(s.send)
		}
		if in.Len() < 4096 {
			f.Add(in.String(), uint8(255), c.lmtp)
		}
	}
	f.Fuzz(func(t *testing.T, in string, n uint8, lmtp bool) {
		o := testOptions()
		r := &recorder{}
		var backend Backend = oneAnswer{r}
		if lmtp {
			o.Protocol, backend = ProtocolLMTP, r
		}
		if strings.Contains(in, "panic") {
			return // the recorder's own word
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(converse(t, o, backend, in, int(n)+1), "\r\n"), "\r\n") {
			if len(line) < 4 || line[0] < '2' || line[0] > '5' || line[3] != ' ' && line[3] != '-' || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' }) {
				t.Fatalf("%q is no answer", line)
			}
		}
		for _, m := range r.messages {
			if bare.MatchString(m) {
				t.Fatalf("message has a bare CR or LF: %q", m)
			}
		}
		if r.opened != r.closed || len(r.clients) != r.resets {
			t.Fatalf("%d sessions opened, %d closed; %d transactions begun, %d ended", r.opened, r.closed, len(r.clients), r.resets)
		}
	})
}

// chunked returns content as BDAT commands, cut at these places.
func chunked(content string, cuts []byte) string {
	var b strings.Builder
	for i, cut := range cuts {
		n := min(int(cut), len(content))
		b.WriteString("BDAT " + strconv.Itoa(n) + "\r\n" + content[:n])
		content = content[n:]
		if i == 50 {
			break
		}
	}
	b.WriteString("BDAT " + strconv.Itoa(len(content)) + " LAST\r\n" + content)
	return b.String()
}

// compareBDAT wants content to arrive once, as the model has it, whatever it looks like.
func compareBDAT(t *testing.T, content string, cuts []byte, n int) {
	t.Helper()
	want, _, _, _ := model(content, false)
	if strings.HasSuffix(content, "\r") {
		want = strings.TrimSuffix(want, "\r\n") + "\r\n" // the model has it repaired already
	} else if want != "" && !strings.HasSuffix(want, "\r\n") {
		want += "\r\n"
	}
	r := &recorder{}
	out := converse(t, testOptions(), oneAnswer{r}, hello+envelope+chunked(content, cuts)+quit, n)
	if len(r.messages) != 1 || r.messages[0] != accepted+want || len(r.clients) != 1 {
		t.Fatalf("%q cut at %v: %d transactions, messages\n got %q\nwant %q\n%s", content, cuts, len(r.clients), r.messages, want, out)
	}
}

func FuzzBDAT(f *testing.F) {
	for _, in := range scannerInputs {
		f.Add(in, []byte{1, 2}, uint8(255))
	}
	f.Fuzz(func(t *testing.T, content string, cuts []byte, n uint8) { compareBDAT(t, content, cuts, int(n)+1) })
}

// TestBDATCutAnywhere is S13: the sequences that end a message elsewhere, by BDAT, with
// chunks and reads cut at every place.
func TestBDATCutAnywhere(t *testing.T) {
	t.Parallel()
	for _, sequence := range []string{
		"\n.\n", "\n.\r", "\r.\n", "\r.\r", "\n.\r\n", "\r.\r\n", "\r\n\x00.\r\n",
		"\r\n.\n", "\r\n.\r", "\r\n.\r\r\n", "\r\r\n.\r\r\n", "\r\r\n.\r\n", "\r\n.\r\n",
	} {
		content := "a" + sequence + "RSET\r\nMAIL FROM:<evil@x>\r\n"
		for cut := range len(sequence) + 3 {
			for _, n := range []int{1, 2, 1000} {
				compareBDAT(t, content, []byte{byte(cut)}, n)
				compareBDAT(t, content, []byte{byte(cut), 1, 1}, n)
			}
		}
	}
}

// proxyV2 builds a header of version 2.
func TestXforward(t *testing.T) {
	for arg, want := range map[string]*xforward{
		"NAME=mx.example ADDR=192.0.2.1 PORT=1025 PROTO=ESMTP HELO=h SOURCE=REMOTE": {netip.MustParseAddr("192.0.2.1"), 1025, "mx.example", "h"},
		"ADDR=IPV6:2001:db8::1":                 {addr: netip.MustParseAddr("2001:db8::1")},
		"name=[UNAVAILABLE] helo=[TEMPUNAVAIL]": {},
		"HELO=a+2Bb":                            {helo: "a+b"},
		"NAME=a+0Ab":                            nil,
		"NAME=a+20b":                            nil,
		"NAME=a+00":                             nil,
		"NAME=a+":                               nil,
		"NAME=a+zz":                             nil,
		"ADDR=1.2.3":                            nil,
		"ADDR=IPV6:1.2.3.4":                     nil,
		"ADDR=fe80::1%eth0":                     nil,
		"PORT=65536":                            nil,
		"PORT=x":                                nil,
		"PROTO=HTTP":                            nil,
		"SOURCE=SPACE":                          nil,
		"LOGIN=x":                               nil,
		"NAME":                                  nil,
		"":                                      nil,
		"nopassword":                            nil,
		"NAME=" + strings.Repeat("x", 256):      nil,
		"NAME=ok ADDR=192.0.2.1 LOGIN=nobody@in.ex": nil,
	} {
		var f xforward
		if ok := f.parse(arg); ok != (want != nil) {
			t.Errorf("%q: %v, want %v", arg, ok, want != nil)
		} else if ok && f != *want {
			t.Errorf("%q: %+v, want %+v", arg, f, *want)
		} else if !ok && f != (xforward{}) {
			t.Errorf("%q is refused but leaves %+v", arg, f)
		}
	}
}

func FuzzXforward(f *testing.F) {
	f.Add("NAME=a ADDR=192.0.2.1 PORT=1 PROTO=ESMTP HELO=b SOURCE=LOCAL")
	f.Add("ADDR=IPV6:::1 NAME=[UNAVAILABLE]")
	f.Add("HELO=a+2Bb+20")
	f.Fuzz(func(t *testing.T, arg string) {
		var x xforward
		if !x.parse(arg) {
			return
		}
		for _, s := range []string{x.name, x.helo} {
			if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
				t.Fatalf("%q gives %q", arg, s)
			}
		}
	})
}
