package imap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"mailcutover/proxy/login"
)

// tape is a connection that gives what is on it and keeps what is written.
type tape struct {
	in    *bytes.Reader
	step  int // the most that a read gives; 0: all
	turns bool
	out   bytes.Buffer
}

// turn ends what a tape with turns gives at once: a platform's answers come one by one.
const turn = '\x1e'

func (c *tape) Read(p []byte) (int, error) {
	if c.step > 0 && len(p) > c.step {
		p = p[:c.step]
	}
	n, err := c.in.Read(p)
	if !c.turns || n == 0 {
		return n, err
	}
	if i := bytes.IndexByte(p[:n], turn); i >= 0 {
		_, _ = c.in.Seek(int64(i+1-n), io.SeekCurrent)
		if i == 0 {
			return c.Read(p)
		}
		return i, nil
	}
	return n, err
}
func (c *tape) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *tape) Close() error                     { return nil }
func (c *tape) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *tape) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *tape) SetDeadline(time.Time) error      { return nil }
func (c *tape) SetReadDeadline(time.Time) error  { return nil }
func (c *tape) SetWriteDeadline(time.Time) error { return nil }

// served is what became of a client's bytes.
type served struct {
	attempts []login.Attempt
	session  *login.Session
	rest     []byte
	out      string
	err      error
}

// serve has a client say all of input. The login by the number ok succeeds.
func serve(input []byte, step, ok int, front login.Front, secure bool) served {
	var s served
	c := &tape{in: bytes.NewReader(input), step: step}
	front.Hostname, front.LineBytes, front.TokenBytes, front.Errors = "mx.example", 1024, 2048, 10
	conn := login.NewConn(login.ConnOptions{Net: c, Front: front, Secure: secure,
		Login: func(a *login.Attempt) (*login.Session, login.Welcome, error) {
			kept := *a
			kept.Secret = bytes.Clone(a.Secret)
			s.attempts = append(s.attempts, kept)
			if len(s.attempts) > ok {
				return new(login.Session), login.Welcome{Final: []byte("OK Logged in")}, nil
			}
			return nil, login.Welcome{}, &login.Refusal{Cause: login.CauseWrong}
		},
	})
	s.session, s.err = Dialogue{}.Serve(conn)
	s.rest = conn.Rest()
	if s.session != nil {
		left, _ := io.ReadAll(c.in)
		s.rest = append(s.rest, left...)
	}
	s.out = c.out.String()
	return s
}

// What a client may send has an answer or ends the connection; no login is made up, none
// comes before TLS where that is due, and what is handed over is what was not read.
func FuzzServe(f *testing.F) {
	for _, seed := range []string{
		"a LOGIN anna secret\r\nb SELECT INBOX\r\n",
		"a LOGIN {4+}\r\nanna {6}\r\nsecret\r\nb NOOP\r\n",
		"a LOGIN \"a\\\"b\" \"c\\\\d\"\r\n",
		"a ID (\"name\" {3+}\r\nabc \"os\" NIL)\r\nb LOGIN a b\r\n",
		"a AUTHENTICATE PLAIN AGFubmEAc2VjcmV0\r\n",
		"a AUTHENTICATE LOGIN\r\nYW5uYQ==\r\nc2VjcmV0\r\nb NOOP\r\n",
		"a AUTHENTICATE XOAUTH2\r\n*\r\nb LOGOUT\r\n",
		"a STARTTLS\r\nb LOGIN anna secret\r\n",
		"a XYZ {10+}\r\nb LOGIN a b c {0+}\r\n\r\n",
		"a APPEND x {99999999999999999999+}\r\n",
		"\x00\r\n a\r\n* b\r\na\nb\r",
	} {
		for mode := range byte(8) {
			f.Add(mode, []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, mode byte, input []byte) {
		front := login.Front{RequireTLS: mode&1 != 0}
		secure := mode&2 != 0
		ok := int(mode >> 4)
		s := serve(input, int(mode&4), ok, front, secure)
		if front.RequireTLS && !secure && len(s.attempts) > 0 {
			t.Fatalf("a login before TLS: %+v", s.attempts)
		}
		for _, a := range s.attempts {
			if a.Name == "" || len(a.Secret) == 0 || bytes.IndexByte(a.Secret, 0) >= 0 || strings.Contains(a.Name, "\x00") {
				t.Fatalf("a login of nobody: %+v", a)
			}
		}
		if (s.session != nil) != (s.err == nil) || (s.session != nil) != (len(s.attempts) > ok) {
			t.Fatalf("session %v, error %v, %d attempts", s.session, s.err, len(s.attempts))
		}
		if s.session != nil && !bytes.HasSuffix(input, s.rest) {
			t.Fatalf("%q handed over of %q", s.rest, input)
		}
		for line := range strings.Lines(s.out) {
			line, ok := strings.CutSuffix(line, "\r\n")
			tag, rest, blank := strings.Cut(line, " ")
			if !ok || !blank || strings.ContainsAny(line, "\r\x00") || tag != "*" && tag != "+" && !all([]byte(tag), isTagChar) || len(tag) > maxTag {
				t.Fatalf("answered %q", line)
			}
			status, _, _ := strings.Cut(rest, " ")
			if tag != "*" && tag != "+" && !isStatus([]byte(status)) {
				t.Fatalf("answered %q", line)
			}
		}
		// However it comes in segments.
		if other := serve(input, 1, ok, front, secure); other.out != s.out && !errors.Is(s.err, login.ErrInjected) {
			t.Fatalf("answered %q, and %q byte by byte", s.out, other.out)
		}
	})
}

// A name and a password arrive as they are, in whichever form.
func FuzzLogin(f *testing.F) {
	f.Add("anna", "secret", byte(0))
	f.Add("AMT\\anna", "a \"b\"\r\nx LOGIN c d\r\n", byte(5))
	f.Add("an\xc3\xa4", "{5+}", byte(2))
	f.Fuzz(func(t *testing.T, name, password string, form byte) {
		if len(name) > 400 || len(password) > 400 {
			return
		}
		valid := name != "" && password != "" && !strings.Contains(name+password, "\x00")
		said := written(password, form>>2&3)
		if form>>2&3 == 3 && strings.Contains(name, "\x00") {
			said = fmt.Sprintf("{%d}", len(password)) // it is refused by then: whoever waits to be asked for a literal sends none
		}
		input := "a LOGIN " + written(name, form&3) + " " + said + "\r\nb NOOP\r\n"
		s := serve([]byte(input), int(form>>4), 0, login.Front{}, true)
		if !valid {
			if len(s.attempts) > 0 {
				t.Fatalf("%q: a login: %+v", input, s.attempts)
			}
			return
		}
		if s.session == nil || s.attempts[0].Name != name || string(s.attempts[0].Secret) != password || string(s.rest) != "b NOOP\r\n" {
			t.Fatalf("%q: %+v, rest %q, %v", input, s.attempts, s.rest, s.err)
		}
	})
}

// written writes an astring in a form that can hold it: 0 atom, 1 quoted, 2 and 3 literals.
func written(s string, form byte) string {
	switch {
	case form == 0 && s != "" && all([]byte(s), isAstringChar):
		return s
	case form <= 1 && !strings.ContainsAny(s, "\r\n\x00"):
		return string(appendQuoted(nil, s))
	case form == 3:
		return fmt.Sprintf("{%d}\r\n%s", len(s), s)
	}
	return fmt.Sprintf("{%d+}\r\n%s", len(s), s)
}

// What a platform may say leads to a login or to an error, within bounds; the decision is
// looked at before a secret goes out, and what the client gets is whole lines.
func FuzzAuthenticate(f *testing.F) {
	for _, seed := range []string{
		"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n\x1em1 OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n* 1 EXISTS\r\n",
		"* OK hi\r\n\x1e* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nm1 OK x\r\n\x1e+ \r\n\x1em2 OK x\r\n",
		"* OK [CAPABILITY IMAP4rev1 AUTH=LOGIN ID] hi\r\n\x1e* ID (\"name\" {3}\r\nabc)\r\nm1 OK x\r\n\x1e+ VXNl\r\n\x1e+ UGFz\r\n\x1em2 NO [UNAVAILABLE] x\r\n",
		"* OK [CAPABILITY IMAP4rev1 LITERAL+] hi\r\n\x1e* LIST () \"/\" {2}\r\nab\r\nm1 OK x\r\n",
		"* OK [CAPABILITY IMAP4rev1] hi\r\n\x1e+ go\r\n\x1e+ go\r\n\x1em1 BAD x\r\n",
		"* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2 SASL-IR] hi\r\n\x1e+ e30=\r\n\x1em1 NO x\r\n",
		"* OK [CAPABILITY UNAUTHENTICATE] hi\r\n",
		"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\nm1 OK Logged in\r\n",
		"* PREAUTH hi\r\n",
		"* BYE hi\r\n",
	} {
		for mode := range byte(8) {
			f.Add(mode, []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, mode byte, input []byte) {
		c := &tape{in: bytes.NewReader(input), step: int(mode >> 4), turns: true}
		a := &login.Attempt{Login: "anna", Secret: []byte("s\xe4cret"), Mechanism: login.MechanismPassword}
		if mode&1 != 0 {
			a.Mechanism, a.Secret = login.MechanismXOAuth2, []byte("token")
		}
		target := login.Target{}
		if mode&2 != 0 {
			target.Identity = login.IdentityID
		}
		asked := 0
		a.SetLast(func() error {
			asked++
			if out := c.out.String(); strings.Contains(out, "=") || strings.Contains(out, "LOGIN \"") || strings.Contains(out, "s\xe4cret") {
				t.Fatalf("sent before the last look: %q", out)
			}
			if mode&4 != 0 {
				return errors.New("lapsed")
			}
			return nil
		})
		l := login.NewLeg(login.LegOptions{Net: c, Target: target})
		w, err := Dialogue{}.Authenticate(l, a)
		_ = l.Flush()
		rest := l.Rest()
		if asked > 1 || asked == 0 && (err == nil || strings.Contains(c.out.String(), "s\xe4cret")) {
			t.Fatalf("asked %d times: %v, %q", asked, err, c.out.String())
		}
		if mode&4 != 0 && err == nil {
			t.Fatal("logged in after the decision had lapsed")
		}
		if err != nil {
			if strings.Contains(err.Error(), "s\xe4cret") && !bytes.Contains(input, []byte("s\xe4cret")) {
				t.Fatalf("a secret in the error: %v", err)
			}
			rejection := (*login.Rejection)(nil)
			if errors.As(err, &rejection) && (!bytes.HasPrefix(rejection.Answer, []byte("NO ")) || bytes.ContainsAny(rejection.Answer, "\r\n\x00")) {
				t.Fatalf("rejected with %q", rejection.Answer)
			}
			return
		}
		if len(w.Before) > maxTotal || len(w.Final) > maxLine || bytes.ContainsAny(w.Final, "\r\n\x00") || !bytes.HasPrefix(w.Final, []byte("OK ")) ||
			len(w.Before) > 0 && (!bytes.HasPrefix(w.Before, []byte("* ")) || !bytes.HasSuffix(w.Before, []byte("\r\n"))) {
			t.Fatalf("welcome %q, %q", w.Before, w.Final)
		}
		left, _ := io.ReadAll(c.in)
		if rest = append(rest, bytes.ReplaceAll(left, []byte{turn}, nil)...); !bytes.HasSuffix(bytes.ReplaceAll(input, []byte{turn}, nil), rest) {
			t.Fatalf("rest %q of %q", rest, input)
		}
		if bytes.Contains(bytes.ToUpper(w.Final), []byte("[CAPABILITY UNAUTHENTICATE")) {
			t.Fatalf("final %q", w.Final)
		}
	})
}

// However the bytes are cut, the tracker thinks the same of them.
func FuzzTracker(f *testing.F) {
	f.Add(byte(3), []byte("* 1 FETCH (BODY[] {5}\r\nabcde)\r\na OK done\r\n+ idling\r\n"))
	f.Add(byte(1), []byte("a OK Begin compression.\r\n\x01\x02\n"))
	f.Add(byte(7), []byte("* LIST () \"/\" {9223372036854775807}\r\n"))
	f.Fuzz(func(t *testing.T, step byte, input []byte) {
		whole, parts := new(tracker), new(tracker)
		whole.Observe(input)
		for p := input; len(p) > 0; {
			n := min(int(step)+1, len(p))
			parts.Observe(p[:n])
			p = p[n:]
		}
		if whole.AtStart() != parts.AtStart() || whole.lost != parts.lost || whole.literal != parts.literal {
			t.Fatalf("%q: %+v, by %d: %+v", input, whole, step, parts)
		}
		if whole.AtStart() && len(input) > 0 && input[len(input)-1] != '\n' {
			t.Fatalf("%q: at the start of a line", input)
		}
	})
}

// What a client announces or sends in vain takes no memory (M1, M5, M7 of the attack list).
func TestServeMemory(t *testing.T) {
	for name, text := range map[string]string{
		"announced":   strings.Repeat("a LOGIN {400000000}\r\n", 10),
		"not waiting": "a LOGIN {400000000+}\r\n" + strings.Repeat("x", 1<<20),
		"skipped":     "a LOGIN {60000+}\r\n" + strings.Repeat("x", 60000) + " {3000+}\r\n" + strings.Repeat("x", 3000) + "\r\nb NOOP\r\n",
		"brackets":    "a ID " + strings.Repeat("(", 1<<20) + "\r\n",
		"parameters":  "a ID (" + strings.Repeat("\"a\" \"b\" ", 100000) + ")\r\n",
		"literals":    "a ID (" + strings.Repeat("{1+}\r\na {1+}\r\nb ", 10000) + ")\r\n",
		"a tag":       strings.Repeat("x", 1<<20),
		"base64":      "a AUTHENTICATE PLAIN\r\n" + strings.Repeat("A", 1<<20),
	} {
		// The second time counts: the first one has what is made once.
		input := []byte(text)
		var before, after runtime.MemStats
		for range 2 {
			runtime.ReadMemStats(&before)
			s := serve(input, 0, 0, login.Front{}, true)
			runtime.ReadMemStats(&after)
			if s.err == nil || len(s.attempts) > 0 {
				t.Errorf("%s: %v, %d attempts", name, s.err, len(s.attempts))
			}
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<10 {
			t.Errorf("%s: %d bytes allocated", name, grown)
		}
	}
}
