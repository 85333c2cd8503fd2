package sieve

import (
	"strings"
	"testing"

	"mailcutover/proxy/login"
	"mailcutover/proxy/login/logintest"
)

// What a client sends never gets past the core's refusal.
func FuzzServe(f *testing.F) {
	for _, seed := range []string{
		"AUTHENTICATE \"PLAIN\" \"" + proof + "\"\r\nLISTSCRIPTS\r\n", "AUTHENTICATE {5+}\r\nPLAIN\r\n{3+}\r\n\"*\"\r\n", "STARTTLS\r\nNOOP\r\n", "NOOP \"\\\"\"\r\nLOGOUT\r\n",
		"PUTSCRIPT \"x\" {10+}\r\nLOGOUT\r\nab\r\nCAPABILITY\r\n", "NOOP {4294967296+}\r\n", "NOOP {5}\r\nx", "((((\"\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) > 1<<16 {
			return
		}
		s := logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Front: login.Front{TLS: true, LineBytes: 512, TokenBytes: 1000}, Login: func(*login.Attempt) (login.Welcome, error) {
			return login.Welcome{}, &login.Refusal{Cause: login.CauseClosed}
		}})
		s.Offer(string(input))
		s.CloseWrite()
		replies := s.All()
		session, _, err := s.Result()
		if session != nil || err == nil {
			t.Errorf("got %v, %v", session, err)
		}
		if !s.Wiped() {
			t.Error("a secret is still in memory")
		}
		tr := (Dialogue{}).Tracker()
		if tr.Observe([]byte(replies)); !tr.AtStart() {
			t.Errorf("replies that can't be followed: %q", replies)
		}
	})
}

// What a platform sends gets no credentials before TLS, and nothing of its own to the
// client but one clean line.
func FuzzAuthenticate(f *testing.F) {
	for _, seed := range []string{
		"\"SASL\" \"PLAIN\"\r\nOK\r\nOK \"in\"\r\n\"X\"\r\nOK\r\n", "\"SASL\" \"LOGIN\"\r\nOK\r\n\"\"\r\n{0}\r\n\r\nNO {3}\r\na\rb\r\n", "\"STARTTLS\"\r\nOK\r\nOK\r\n", "BYE (REFERRAL \"x\") \"y\"\r\n", "\"SASL\" {5}\r\nPLAIN\r\nOK\r\nOK (SASL \"\")\r\nOK\r\n",
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, input []byte, encrypt bool) {
		if len(input) > 1<<16 {
			return
		}
		o := logintest.AuthenticateOptions{}
		if encrypt {
			o.Target.TLS = login.LegStartTLS
		}
		sent := ""
		got := logintest.Authenticate(t, Dialogue{}, o, attempt(), func(p *logintest.Peer) {
			p.Offer(string(input))
			p.CloseWrite()
			sent = p.All()
		})
		if encrypt && (got.Err == nil || got.Asked > 0 || strings.Contains(sent, "AUTHENTICATE")) {
			t.Errorf("credentials in plain text: %q, %v", sent, got.Err)
		}
		if got.Err != nil {
			return
		}
		tr := (Dialogue{}).Tracker()
		if tr.Observe(append(got.Welcome.Final, "\r\n"...)); !tr.AtStart() {
			t.Errorf("answer %q", got.Welcome.Final)
		}
	})
}

// The two ways to see where a string ends agree: the tracker, and the reader.
func FuzzTracker(f *testing.F) {
	for _, seed := range []string{"OK \"x\"\r\n", "\"a\" {3}\r\nabc\r\nOK\r\n", "{0}\r\n\r\nNO (X \"y\")\r\n", "\"\\\"\"\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, stream string) {
		at := 0
		src := &text{s: stream, at: &at}
		tr := (Dialogue{}).Tracker()
		for {
			begin := at
			if _, err := readTokens(src, fromPlatform); err != nil {
				return
			}
			if tr.Observe([]byte(stream[begin:at])); tr.(*tracker).state != lost && !tr.AtStart() {
				t.Fatalf("behind %q the tracker is in a line", stream[:at])
			}
		}
	})
}

// text is a source.
type text struct {
	s  string
	at *int
}

func (t *text) ReadLine(int) ([]byte, error) {
	line, _, ok := strings.Cut(t.s[*t.at:], "\r\n")
	if !ok || strings.ContainsAny(line, "\r\n\x00") {
		return nil, errSyntax
	}
	*t.at += len(line) + 2
	return []byte(line), nil
}

func (t *text) ReadExact(n int) ([]byte, error) {
	if n > len(t.s)-*t.at {
		return nil, errSyntax
	}
	*t.at += n
	return []byte(t.s[*t.at-n : *t.at]), nil
}
