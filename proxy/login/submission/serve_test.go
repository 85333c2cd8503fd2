package submission

import (
	"encoding/base64"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mailcutover/proxy/login"
	"mailcutover/proxy/login/logintest"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

var all = login.Offers{Size: 1000, Pipelining: true, EightBitMIME: true, SMTPUTF8: true, DSN: true, Chunking: true, Enhanced: true}

// anna is the login of the only mailbox: anna, with the password secret.
func anna(a *login.Attempt) (login.Welcome, error) {
	if a.Name == "anna" && string(a.Secret) == "secret" {
		return login.Welcome{Final: []byte("235 2.7.0 Hello Anna")}, nil
	}
	return login.Welcome{}, &login.Refusal{Cause: login.CauseWrong, Answer: []byte("535 5.7.8 No")}
}

func plain(authzid, name, password string) string {
	return b64(authzid + "\x00" + name + "\x00" + password)
}

const greeting = "S: 220 mx.example ESMTP mailcutover"

// ehlo is an EHLO whose last line is the given one.
func ehlo(lines ...string) []string {
	script := []string{greeting, "C: EHLO c.example", "S: 250-mx.example"}
	for _, line := range lines {
		script = append(script, "S: "+line)
	}
	return script
}

var short = slices.Clip(ehlo("250 AUTH PLAIN LOGIN OAUTHBEARER XOAUTH2"))

func TestServe(t *testing.T) {
	tests := map[string]struct {
		front  login.Front
		secure bool
		script []string
		wants  error // nil: a session
		logins []string
	}{
		"what all platforms can do": {
			front: login.Front{Offers: func() login.Offers { return all }}, secure: true,
			script: append(ehlo("250-PIPELINING", "250-8BITMIME", "250-SMTPUTF8", "250-DSN", "250-CHUNKING", "250-ENHANCEDSTATUSCODES",
				"250-SIZE 1000", "250 AUTH PLAIN LOGIN OAUTHBEARER XOAUTH2"), "C: QUIT", "S: 221 ..."),
			wants: login.ErrQuit,
		},
		"a size without a number": {
			front: login.Front{Offers: func() login.Offers { return login.Offers{Size: -1} }}, secure: true,
			script: append(ehlo("250-SIZE", "250 AUTH PLAIN LOGIN OAUTHBEARER XOAUTH2"), "C: QUIT", "S: 221 ..."),
			wants:  login.ErrQuit,
		},
		"nothing, as long as a platform wasn't asked": {
			front:  login.Front{RequireTLS: true, Offers: func() login.Offers { return login.Offers{} }},
			script: []string{greeting, "C: EHLO x", "S: 250 mx.example", "C: QUIT", "S: 221 ..."},
			wants:  login.ErrQuit,
		},
		"PLAIN with an initial response": {
			secure: true,
			script: append(short, "C: auth plain "+plain("", "anna", "secret"), "S: 235 2.7.0 Hello Anna"),
			logins: []string{"anna secret"},
		},
		"PLAIN without": {
			secure: true,
			script: append(short, "C: AUTH PLAIN", "S: 334 ", "C: "+plain("", "anna", "secret"), "S: 235 ..."),
			logins: []string{"anna secret"},
		},
		"LOGIN": {
			secure: true,
			script: append(short, "C: AUTH LOGIN", "S: 334 VXNlcm5hbWU6", "C: "+b64("anna"), "S: 334 UGFzc3dvcmQ6", "C: "+b64("secret"), "S: 235 ..."),
			logins: []string{"anna secret"},
		},
		"LOGIN with the name at once": {
			secure: true,
			script: append(short, "C: AUTH LOGIN "+b64("anna"), "S: 334 UGFzc3dvcmQ6", "C: "+b64("secret"), "S: 235 ..."),
			logins: []string{"anna secret"},
		},
		"a token": {
			secure: true,
			script: append(short, "C: AUTH OAUTHBEARER "+b64("n,a=anna,\x01auth=Bearer secret\x01\x01"), "S: 235 ..."),
			logins: []string{"anna secret"},
		},
		"a token in Google's form": {
			secure: true,
			script: append(short, "C: AUTH XOAUTH2", "S: 334 ", "C: "+b64("user=anna\x01auth=Bearer secret\x01\x01"), "S: 235 ..."),
			logins: []string{"anna secret"},
		},
		"again after a wrong password": {
			secure: true,
			script: append(short, "C: AUTH PLAIN "+plain("", "anna", "x"), "S: 535 5.7.8 No", "C: AUTH PLAIN "+plain("", "anna", "secret"), "S: 235 ..."),
			logins: []string{"anna x", "anna secret"},
		},
		"cancelled": {
			secure: true,
			script: append(short, "C: AUTH PLAIN", "S: 334 ", "C: *", "S: 501 5.7.0 ...", "C: NOOP", "S: 250 ...", "C: QUIT", "S: 221 ..."),
			wants:  login.ErrQuit,
		},
		"another identity is for the core to judge": {
			secure: true,
			script: append(short, "C: AUTH PLAIN "+plain("bert", "anna", "secret"), "S: 235 ..."),
			logins: []string{"anna secret as bert"},
		},
		"malformed messages": {
			front: login.Front{Errors: 20}, secure: true,
			script: append(short,
				"C: AUTH PLAIN "+b64("anna\x00secret"), "S: 501 5.5.2 ...",
				"C: AUTH PLAIN "+b64("anna secret"), "S: 501 5.5.2 ...",
				"C: AUTH PLAIN "+b64("\x00anna\x00sec\x00ret"), "S: 501 5.5.2 ...",
				"C: AUTH PLAIN "+b64("\x00anna\x00"), "S: 501 5.5.2 ...",
				"C: AUTH PLAIN =", "S: 501 5.5.2 ...",
				"C: AUTH PLAIN AGFubmE\tAc2VjcmV0", "S: 501 5.5.2 ...",
				"C: AUTH PLAIN AGFubmE Ac2VjcmV0", "S: 501 5.5.4 ...",
				"C: AUTH PLAIN AGFubmEAc2VjcmV0=", "S: 501 5.5.2 ...",
				"C: AUTH PLAIN "+strings.Repeat("A", 12296), "S: 500 5.5.2 ...",
			),
			wants: login.ErrLineTooLong,
		},
		"a message at the bound": {
			secure: true,
			script: append(short, "C: AUTH PLAIN", "S: 334 ", "C: "+strings.Repeat("A", 12288), "S: 501 5.5.2 ...", "C: QUIT", "S: 221 ..."),
			wants:  login.ErrQuit,
		},
		"mechanisms that aren't ours": {
			front: login.Front{Errors: 20}, secure: true,
			script: append(short, "C: AUTH CRAM-MD5", "S: 504 5.5.4 ...", "C: AUTH", "S: 501 5.5.4 ...", "C: AUTH PLAIN a b", "S: 501 5.5.4 ...", "C: QUIT", "S: 221 ..."),
			wants:  login.ErrQuit,
		},
		"AUTH without EHLO": {
			secure: true,
			script: []string{greeting, "C: AUTH PLAIN " + plain("", "anna", "secret"), "S: 503 5.5.1 ...",
				"C: HELO x", "S: 250 mx.example", "C: AUTH PLAIN " + plain("", "anna", "secret"), "S: 503 5.5.1 ...", "C: QUIT", "S: 221 ..."},
			wants: login.ErrQuit,
		},
		"no credentials before TLS": {
			front: login.Front{TLS: true, RequireTLS: true},
			script: append(ehlo("250 STARTTLS"),
				"C: AUTH PLAIN "+plain("", "anna", "secret"), "S: 538 5.7.11 ...", "C: MAIL FROM:<a@example>", "S: 530 5.7.0 Must issue a STARTTLS command first", "C: QUIT", "S: 221 ..."),
			wants: login.ErrQuit,
		},
		"mail before AUTH": {
			front: login.Front{Errors: 20}, secure: true,
			script: append(short, "C: MAIL FROM:<a@example>", "S: 530 5.7.0 Authentication required", "C: RCPT TO:<a@example>", "S: 530 5.7.0 ...", "C: DATA", "S: 530 5.7.0 ...",
				"C: BDAT 6 LAST", "C: QUIT", "S: 530 5.7.0 ...", "C: NOOP", "S: 250 2.0.0 OK", "C: RSET", "S: 250 2.0.0 OK", "C: VRFY anna", "S: 252 ...", "C: HELP", "S: 214 ...",
				"C: EXPN anna", "S: 530 5.7.0 ...", "C: XCLIENT ADDR=1.2.3.4", "S: 502 5.5.1 ...", "C: ETRN x", "S: 502 5.5.1 ...", "C: nonsense", "S: 500 5.5.1 ...", "C: ", "S: 500 5.5.1 ...",
				"C: STARTTLS", "S: 502 5.5.1 ...", "C: QUIT now", "S: 501 5.5.4 ...", "C: QUIT", "S: 221 ..."),
			wants: login.ErrQuit,
		},
		"a chunk without a size": {
			secure: true,
			script: append(short, "C: BDAT x", "S: 501 5.5.4 ..."),
			wants:  &login.Refusal{},
		},
		"a chunk without bounds": {
			secure: true,
			script: append(short, "C: BDAT 9223372036854775807", "S: 530 5.7.0 ..."),
			wants:  &login.Refusal{},
		},
		"names that are none": {
			front: login.Front{Errors: 20}, secure: true,
			script: []string{greeting, "C: EHLO", "S: 501 5.5.4 ...", "C: EHLO a b", "S: 501 5.5.4 ...", "C: EHLO a\x0b", "S: 501 5.5.4 ...",
				"C: HELO " + strings.Repeat("x", 256), "S: 501 5.5.4 ...", "C: HELO [IPv6:::1]", "S: 250 mx.example", "C: QUIT", "S: 221 ..."},
			wants: login.ErrQuit,
		},
		"too many errors": {
			front: login.Front{Errors: 2}, secure: true,
			script: append(short, "C: x", "S: 500 ...", "C: y", "S: 500 ...", "S: 421 4.7.0 ..."),
			wants:  &login.Refusal{},
		},
		"a long line that isn't AUTH": {
			front: login.Front{LineBytes: 100}, secure: true,
			script: append(short, "C: NOOP "+strings.Repeat("x", 94), "S: 500 5.5.2 ...", "C: NOOP "+strings.Repeat("x", 93), "S: 250 ...", "C: QUIT", "S: 221 ..."),
			wants:  login.ErrQuit,
		},
		"NUL within a line": {
			secure: true,
			script: append(short, "C: NOOP \x00", "S: 500 5.5.2 ..."),
			wants:  login.ErrBareLineEnd,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Front: test.front, Secure: test.secure, Login: anna})
			if !s.Talk(test.script...) {
				return
			}
			session, _, err := s.Result()
			var refused *login.Refusal
			switch {
			case test.wants == nil:
				if session == nil || err != nil {
					t.Errorf("got %v, %v, want a session", session, err)
				}
			case session != nil, !errors.Is(err, test.wants) && (!errors.As(test.wants, &refused) || !errors.As(err, &refused)):
				t.Errorf("got %v, %v, want %v", session, err, test.wants)
			}
			var logins []string
			for _, a := range s.Attempts() {
				as := ""
				if a.Authorize != "" {
					as = " as " + a.Authorize
				}
				logins = append(logins, a.Name+" "+string(a.Secret)+as)
			}
			if got, want := strings.Join(logins, ","), strings.Join(test.logins, ","); got != want {
				t.Errorf("logins %q, want %q", got, want)
			}
			if !s.Wiped() {
				t.Error("a secret is still in memory")
			}
		})
	}
}

// What a client pipelined behind AUTH.
func TestPipelined(t *testing.T) {
	message := "MAIL FROM:<anna@example>\r\nRCPT TO:<bert@example>\r\nDATA\r\n"
	for _, password := range []string{"secret", "wrong"} {
		s := logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Secure: true, Login: anna})
		s.Talk(short...)
		s.Send("AUTH PLAIN " + plain("", "anna", password) + "\r\n" + message)
		if password == "secret" {
			s.Talk("S: 235 ...")
			if session, rest, err := s.Result(); session == nil || err != nil || string(rest) != message {
				t.Errorf("got %v, %q, %v, want all that stood behind", session, rest, err)
			}
			continue
		}
		s.Talk("S: 535 ...", "S: 530 ...", "S: 530 ...", "S: 530 ...", "C: QUIT", "S: 221 ...")
		if session, _, err := s.Result(); session != nil || !errors.Is(err, login.ErrQuit) {
			t.Errorf("got %v, %v", session, err)
		}
	}
}

// A chunk behind an AUTH that failed is no command, whatever is in it.
func TestPipelinedChunk(t *testing.T) {
	evil := "AUTH PLAIN " + plain("", "anna", "secret") + "\r\n"
	s := logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Secure: true, Login: anna})
	s.Talk(short...)
	s.Send("AUTH PLAIN " + plain("", "anna", "wrong") + "\r\nBDAT " + strconv.Itoa(len(evil)) + " LAST\r\n" + evil)
	s.Talk("S: 535 ...", "S: 530 ...", "C: QUIT", "S: 221 ...")
	if n := len(s.Attempts()); n != 1 {
		t.Errorf("%d logins", n)
	}
}

func TestStartTLS(t *testing.T) {
	front := login.Front{TLS: true, RequireTLS: true}
	s := logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Front: front, Login: anna})
	s.Talk(append(ehlo("250 STARTTLS"), "C: STARTTLS x", "S: 501 ...", "C: STARTTLS", "S: 220 ...")...)
	s.StartTLS()
	s.Talk("C: AUTH PLAIN "+plain("", "anna", "secret"), "S: 503 5.5.1 ...", // EHLO is forgotten
		"C: STARTTLS", "S: 503 5.5.1 ...",
		"C: EHLO c.example", "S: 250-mx.example", "S: 250 AUTH ...",
		"C: AUTH PLAIN "+plain("", "anna", "secret"), "S: 235 ...")
	if session, _, err := s.Result(); session == nil || err != nil {
		t.Errorf("got %v, %v", session, err)
	}
	if a := s.Attempts(); len(a) != 1 || a[0].Helo != "c.example" || a[0].Offered == nil {
		t.Errorf("attempts %+v", a)
	}

	s = logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Front: front, Login: anna})
	s.Talk(ehlo("250 STARTTLS")...)
	s.Send("STARTTLS\r\nMAIL FROM:<inj@x>\r\n")
	s.Talk("S: 554 5.5.0 ...")
	if _, _, err := s.Result(); !errors.Is(err, login.ErrInjected) {
		t.Errorf("got %v", err)
	}
	s.WantEnd()
}

func TestEndlessLine(t *testing.T) {
	s := logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Secure: true, Login: anna})
	s.Talk(greeting)
	s.Offer(strings.Repeat("x", 1<<20))
	s.Talk("S: 500 5.5.2 ...")
	if _, _, err := s.Result(); !errors.Is(err, login.ErrLineTooLong) {
		t.Errorf("got %v", err)
	}
}

func TestBareLineEnds(t *testing.T) {
	for _, line := range []string{"EHLO x\nAUTH PLAIN x\n", "EHLO x\rNOOP\r\n", "NOOP\r\r\n", "NOOP \x00\r\n"} {
		s := logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Secure: true, Login: anna})
		s.Talk(greeting)
		s.Send(line)
		s.Talk("S: 500 5.5.2 ...")
		if _, _, err := s.Result(); !errors.Is(err, login.ErrBareLineEnd) {
			t.Errorf("%q: got %v", line, err)
		}
	}
}

// Each cause has its answer; none but the platform's own word looks like a wrong password.
func TestRefusals(t *testing.T) {
	tests := map[login.Cause]struct {
		reply string
		end   bool
	}{
		login.CauseUnknown:      {"454 4.7.0 Temporary", false},
		login.CauseWrong:        {"535 5.7.139 Off", false},
		login.CauseName:         {"501 5.5.4", false},
		login.CauseNoSuchName:   {"454 4.7.0", false},
		login.CauseClosed:       {"454 4.7.0 The mailbox", false},
		login.CauseLocked:       {"454 4.7.0 The mailbox", false},
		login.CauseTable:        {"454 4.7.0", false},
		login.CausePlatform:     {"454 4.7.0", false},
		login.CauseLimit:        {"421 4.7.0", true},
		login.CausePrivacy:      {"538 5.7.11", false},
		login.CauseIdle:         {"454 4.7.0", false},
		login.CauseErrors:       {"454 4.7.0", false},
		login.CauseDrain:        {"421 4.3.2", true},
		login.CauseMoved:        {"454 4.7.0", false},
		login.CauseOperator:     {"454 4.7.0", false},
		login.CauseOperator + 1: {"454 4.7.0", false},
	}
	for cause := login.CauseUnknown; cause <= login.CauseOperator+1; cause++ {
		test, ok := tests[cause]
		if !ok {
			t.Fatalf("no case for %v", cause)
		}
		s := logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Secure: true, Login: func(*login.Attempt) (login.Welcome, error) {
			return login.Welcome{}, &login.Refusal{Cause: cause, Err: errors.New("secret of ours"), Answer: []byte("535 5.7.139 Off")}
		}})
		s.Talk(append(short, "C: AUTH PLAIN "+plain("", "anna", "secret"), "S: "+test.reply+"...")...)
		if test.end {
			s.WantEnd()
		} else {
			s.Talk("C: QUIT", "S: 221 ...")
		}
		for _, logged := range []bool{true, false} {
			if got := string((Dialogue{}).Farewell(cause, logged)); !strings.HasPrefix(got, "421 4.") || !strings.HasSuffix(got, "\r\n") || strings.Count(got, "\n") != 1 {
				t.Errorf("farewell for %v: %q", cause, got)
			}
		}
	}
}

func TestTracker(t *testing.T) {
	tests := map[string]bool{
		"":                                  true,
		"250 OK\r\n":                        true,
		"250\r\n":                           true,
		"250 OK\r":                          false,
		"250 O":                             false,
		"2":                                 false,
		"250":                               false,
		"250-a\r\n":                         false,
		"250-a\r\n250-b\r\n250 c\r\n":       true,
		"250-a\r\n2":                        false,
		"250-a\r\n250 c\r\n354 go\r\n":      true,
		"220 go\r\n\x16\x03\x03\r\n":        false,
		"250 a\n":                           false,
		"250 a\n250 b\r\n":                  false,
		"250 a\rb\r\n":                      false,
		"hello\r\n":                         false,
		"25x a\r\n":                         false,
		"250_a\r\n":                         false,
		"\r\n":                              false,
		"250 " + strings.Repeat("x", 70000): false,
	}
	for stream, want := range tests {
		for _, step := range []int{1, 2, 3, len(stream) + 1} {
			tr := (Dialogue{}).Tracker()
			for rest := stream; rest != ""; {
				n := min(step, len(rest))
				tr.Observe([]byte(rest[:n]))
				rest = rest[n:]
			}
			if got := tr.AtStart(); got != want {
				t.Errorf("%.40q in steps of %d: %v, want %v", stream, step, got, want)
			}
		}
	}
}
