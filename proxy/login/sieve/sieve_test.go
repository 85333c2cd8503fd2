package sieve

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mailcutover/proxy/login"
	"mailcutover/proxy/login/logintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// anna is the login of the only mailbox: anna, with the password secret.
func anna(a *login.Attempt) (login.Welcome, error) {
	if a.Name == "anna" && string(a.Secret) == "secret" {
		return login.Welcome{Final: []byte(`OK "Hello Anna"`)}, nil
	}
	return login.Welcome{}, &login.Refusal{Cause: login.CauseWrong, Answer: []byte(`NO "No"`)}
}

// list is what is announced, to the final OK.
func list(sasl, extensions string, more ...string) []string {
	script := []string{`S: "IMPLEMENTATION" "mailcutover"`, `S: "SASL" "` + sasl + `"`, `S: "SIEVE" "` + extensions + `"`}
	return append(append(script, more...), `S: "VERSION" "1.0"`, "S: OK ...")
}

const mechanisms = "PLAIN LOGIN OAUTHBEARER XOAUTH2"

var proof = b64("\x00anna\x00secret")

func TestServe(t *testing.T) {
	tests := map[string]struct {
		front  login.Front
		plain  bool
		script []string
		wants  error // nil: a session
		logins string
	}{
		"capabilities": {
			front:  login.Front{Offers: func() login.Offers { return login.Offers{Sieve: "fileinto vacation"} }},
			script: append(append(append(list(mechanisms, "fileinto vacation"), "C: CAPABILITY"), list(mechanisms, "fileinto vacation")...), "C: LOGOUT", "S: OK ..."),
			wants:  login.ErrQuit,
		},
		"no credentials before TLS": {
			front: login.Front{TLS: true, RequireTLS: true}, plain: true,
			script: append(list("", "", `S: "STARTTLS"`), `C: AUTHENTICATE "PLAIN" "`+proof+`"`, "S: NO (ENCRYPT-NEEDED) ...", "C: LOGOUT", "S: OK ..."),
			wants:  login.ErrQuit,
		},
		"PLAIN":                  {script: append(list(mechanisms, ""), `C: authenticate "plain" "`+proof+`"`, `S: OK "Hello Anna"`), logins: "anna/secret"},
		"PLAIN, a literal":       {script: append(list(mechanisms, ""), `C: AUTHENTICATE {5+}`, fmt.Sprintf("C: PLAIN {%d+}", len(proof)), "C: "+proof, `S: OK "Hello Anna"`), logins: "anna/secret"},
		"PLAIN, asked for":       {script: append(list(mechanisms, ""), `C: AUTHENTICATE "PLAIN"`, `S: ""`, `C: "`+proof+`"`, `S: OK "Hello Anna"`), logins: "anna/secret"},
		"an answer in a literal": {script: append(list(mechanisms, ""), `C: AUTHENTICATE "PLAIN"`, `S: ""`, fmt.Sprintf("C: {%d+}", len(proof)), "C: "+proof, `S: OK "Hello Anna"`), logins: "anna/secret"},
		"LOGIN":                  {script: append(list(mechanisms, ""), `C: AUTHENTICATE "LOGIN"`, `S: "VXNlcm5hbWU6"`, `C: "`+b64("anna")+`"`, `S: "UGFzc3dvcmQ6"`, `C: "`+b64("secret")+`"`, `S: OK "Hello Anna"`), logins: "anna/secret"},
		"again":                  {script: append(list(mechanisms, ""), `C: AUTHENTICATE "PLAIN" "`+b64("\x00anna\x00x")+`"`, `S: NO "No"`, `C: AUTHENTICATE "PLAIN" "`+proof+`"`, `S: OK "Hello Anna"`), logins: "anna/x,anna/secret"},
		"cancelled":              {script: append(list(mechanisms, ""), `C: AUTHENTICATE "PLAIN"`, `S: ""`, `C: "*"`, "S: NO ...", "C: LOGOUT", "S: OK ..."), wants: login.ErrQuit},
		"mistakes": {
			front: login.Front{Errors: 50},
			script: append(list(mechanisms, ""), "C: NOOP", "S: OK ...", `C: NOOP "a\"\\b"`, `S: OK (TAG "a\"\\b") "Done"`, "C: NOOP {3+}", "C: a\"b", `S: OK (TAG "a\"b") "Done"`, "C: NOOP a", "S: NO ...", `C: NOOP "a" "b"`, "S: NO ...",
				"C: ", "S: NO ...", `C: "x"`, "S: NO ...", `C: x"`, "S: NO ...", `C: NOOP "\x"`, "S: NO ...", "C: NOOP \x01", "S: NO ...", "C: nonsense", "S: NO \"Unknown ...",
				"C: LISTSCRIPTS", "S: NO \"Authenticate ...", `C: PUTSCRIPT "x" {9+}`, "C: LOGOUT", "C: x", "S: NO \"Authenticate ...", "C: CAPABILITY x", "S: NO ...", "C: STARTTLS", "S: NO ...",
				`C: AUTHENTICATE`, "S: NO ...", `C: AUTHENTICATE PLAIN`, "S: NO ...", `C: AUTHENTICATE "PLAIN" "a" "b"`, "S: NO ...", `C: AUTHENTICATE "CRAM-MD5"`, "S: NO ...", `C: AUTHENTICATE "PLAIN" "="`, "S: NO ...",
				`C: AUTHENTICATE "PLAIN" "`+b64("a\x00b")+`"`, "S: NO ...", `C: AUTHENTICATE "PLAIN"`, `S: ""`, "C: "+proof, "S: NO ...", "C: "+strings.Repeat("a ", 20), "S: NO ...", "C: LOGOUT", "S: OK ..."),
			wants: login.ErrQuit,
		},
		"too many errors":             {front: login.Front{Errors: 2}, script: append(list(mechanisms, ""), "C: x", "S: NO ...", "C: y", "S: NO ...", "S: BYE ..."), wants: &login.Refusal{}},
		"a synchronising literal":     {script: append(list(mechanisms, ""), "C: AUTHENTICATE {5}", "S: BYE ..."), wants: &login.Refusal{}},
		"a literal too long":          {script: append(list(mechanisms, ""), `C: PUTSCRIPT "x" {12289+}`, "S: BYE ..."), wants: &login.Refusal{}},
		"a literal of 2^32":           {script: append(list(mechanisms, ""), `C: PUTSCRIPT "x" {4294967296+}`, "S: BYE ..."), wants: &login.Refusal{}},
		"a literal of a lot":          {script: append(list(mechanisms, ""), `C: PUTSCRIPT "x" {99999999999999999999+}`, "S: BYE ..."), wants: &login.Refusal{}},
		"a literal of less than 0":    {script: append(list(mechanisms, ""), `C: PUTSCRIPT "x" {-1+}`, "S: BYE ..."), wants: &login.Refusal{}},
		"what may be a literal":       {script: append(list(mechanisms, ""), `C: PUTSCRIPT "x {5+}`, "S: BYE ..."), wants: &login.Refusal{}},
		"a literal in a line's midst": {script: append(list(mechanisms, ""), `C: PUTSCRIPT {5+} x`, "S: BYE ..."), wants: &login.Refusal{}},
		"a line too long":             {script: append(list(mechanisms, ""), "C: "+strings.Repeat("A", 13000), "S: BYE ..."), wants: login.ErrLineTooLong},
		"NUL":                         {script: append(list(mechanisms, ""), "C: NOOP \x00", "S: BYE ..."), wants: login.ErrBareLineEnd},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Front: test.front, Secure: !test.plain, Login: anna})
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
				logins = append(logins, a.Name+"/"+string(a.Secret))
			}
			if got := strings.Join(logins, ","); got != test.logins {
				t.Errorf("logins %q, want %q", got, test.logins)
			}
			if !s.Wiped() {
				t.Error("a secret is still in memory")
			}
		})
	}
}

func TestPipelined(t *testing.T) {
	for _, password := range []string{"secret", "wrong"} {
		s := logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Secure: true, Login: anna})
		s.Send(`AUTHENTICATE "PLAIN" "` + b64("\x00anna\x00"+password) + "\"\r\nLISTSCRIPTS\r\n")
		s.Talk(list(mechanisms, "")...)
		if password == "secret" {
			s.Talk(`S: OK "Hello Anna"`)
			if session, rest, err := s.Result(); session == nil || err != nil || string(rest) != "LISTSCRIPTS\r\n" {
				t.Errorf("got %v, %q, %v", session, rest, err)
			}
			continue
		}
		s.Talk(`S: NO "No"`, `S: NO "Authenticate first"`, "C: LOGOUT", "S: OK ...")
	}
}

func TestStartTLS(t *testing.T) {
	front := login.Front{TLS: true, RequireTLS: true}
	s := logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Front: front, Login: anna})
	s.Talk(append(list("", "", `S: "STARTTLS"`), "C: STARTTLS", "S: OK ...")...)
	s.StartTLS()
	s.Talk(append(list(mechanisms, ""), "C: STARTTLS", "S: NO ...", `C: AUTHENTICATE "PLAIN" "`+proof+`"`, `S: OK "Hello Anna"`)...)

	s = logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Front: front, Login: anna})
	s.Talk(list("", "", `S: "STARTTLS"`)...)
	s.Send("STARTTLS\r\nAUTHENTICATE \"PLAIN\" \"" + proof + "\"\r\n")
	s.Talk("S: BYE ...")
	s.WantEnd()
	if _, _, err := s.Result(); !errors.Is(err, login.ErrInjected) || len(s.Attempts()) > 0 {
		t.Errorf("got %v", err)
	}
}

func TestRefusals(t *testing.T) {
	tests := map[login.Cause]string{
		login.CauseUnknown: "NO (TRYLATER)", login.CauseWrong: `NO "No"`, login.CauseName: `NO "This`, login.CauseNoSuchName: "NO (TRYLATER)",
		login.CauseClosed: `NO (TRYLATER) "The`, login.CauseLocked: `NO (TRYLATER) "The`, login.CauseTable: "NO (TRYLATER)", login.CausePlatform: "NO (TRYLATER)",
		login.CauseLimit: "BYE (TRYLATER)", login.CausePrivacy: "NO (ENCRYPT-NEEDED)", login.CauseIdle: "NO (TRYLATER)", login.CauseErrors: "NO (TRYLATER)",
		login.CauseDrain: "BYE (TRYLATER)", login.CauseMoved: "NO (TRYLATER)", login.CauseOperator: "NO (TRYLATER)",
	}
	for cause := login.CauseUnknown; cause <= login.CauseOperator; cause++ {
		want, ok := tests[cause]
		if !ok {
			t.Fatalf("no case for %v", cause)
		}
		s := logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Secure: true, Login: func(*login.Attempt) (login.Welcome, error) {
			return login.Welcome{}, &login.Refusal{Cause: cause, Answer: []byte(`NO "No"`)}
		}})
		s.Talk(append(list(mechanisms, ""), `C: AUTHENTICATE "PLAIN" "`+proof+`"`, "S: "+want+"...")...)
		if strings.HasPrefix(want, "BYE") {
			s.WantEnd()
		}
		if got := string((Dialogue{}).Farewell(cause, true)); !strings.HasPrefix(got, "BYE ") || !strings.HasSuffix(got, "\r\n") {
			t.Errorf("farewell %q", got)
		}
		s.Close()
	}
}

func attempt() *login.Attempt {
	return &login.Attempt{Name: "anna", Mechanism: login.MechanismPassword, Secret: []byte("secret"), Login: "anna@ox.example"}
}

// open is a platform up to the credentials; dovecot announces SASL too.
func open(lines ...string) []string {
	var script []string
	for _, line := range lines {
		script = append(script, "S: "+line)
	}
	return append(script, `S: "VERSION" "1.0"`, `S: OK "ready"`)
}

func TestAuthenticate(t *testing.T) {
	proof := b64("\x00anna@ox.example\x00secret")
	auth := open(`"SIEVE" "fileinto"`, `"SASL" "plain LOGIN"`)
	try := `C: AUTHENTICATE "PLAIN" "` + proof + `"`
	after := []string{"C: CAPABILITY", `S: "SIEVE" {8}`, "S: fileinto", `S: OK`}
	client := login.ClientInfo{Addr: "192.0.2.7", Port: "4711", Session: "s-1"}
	token := &login.Attempt{Mechanism: login.MechanismOAuthBearer, Secret: []byte("tok"), Login: "anna"}
	long := attempt()
	long.Secret = []byte(strings.Repeat("x", 1000))
	message := b64("\x00anna@ox.example\x00" + string(long.Secret))
	with := func(script []string, more ...[]string) []string {
		script = append([]string(nil), script...)
		for _, m := range more {
			script = append(script, m...)
		}
		return script
	}
	ok := []string{try, `S: OK "Logged in."`}
	tests := map[string]struct {
		attempt *login.Attempt
		target  login.Target
		script  []string
		want    string // as in checkResult
		silent  bool   // no credentials were sent: Last wasn't asked
	}{
		"PLAIN":                           {script: with(auth, ok, after), want: `welcome OK "Logged in."`},
		"a text of two lines":             {script: with(auth, []string{try, "S: OK {9}", "S: Logged\r\nx"}, after), want: `welcome OK "Logged??x"`},
		"a code":                          {script: with(auth, []string{try, `S: ok (SASL "x)y") "Hi"`}, after), want: `welcome OK "Hi"`},
		"LOGIN":                           {script: with(open(`"SASL" "LOGIN"`), []string{`C: AUTHENTICATE "LOGIN"`, `S: "VXNlcm5hbWU6"`, `C: "` + b64("anna@ox.example") + `"`, "S: {12}", "S: UGFzc3dvcmQ6", `C: "` + b64("secret") + `"`, "S: OK"}, after), want: "welcome OK"},
		"a long message":                  {attempt: long, script: with(auth, []string{fmt.Sprintf(`C: AUTHENTICATE "PLAIN" {%d+}`, len(message)), "C: " + message, "S: OK"}, after), want: "welcome OK"},
		"a token":                         {attempt: token, script: with(open(`"SASL" "OAUTHBEARER"`), []string{`C: AUTHENTICATE "OAUTHBEARER" "` + b64("n,a=anna,\x01auth=Bearer tok\x01\x01") + `"`, `S: "e30="`, `C: "AQ=="`, `S: NO "No"`}), want: `rejected NO "No"`},
		"no mechanism":                    {attempt: token, script: auth, want: "no mechanism", silent: true},
		"a refused master user":           {attempt: &login.Attempt{Login: "anna", Master: &login.Master{User: "m", Password: "mp"}}, script: with(auth, []string{`C: AUTHENTICATE "PLAIN" "` + b64("anna\x00m\x00mp") + `"`, `S: NO "No"`}), want: "answered NO"},
		"wrong password":                  {script: with(auth, []string{try, `S: NO "Authentication \"failed\"."`}), want: `rejected NO "Authentication \"failed\"."`},
		"wrong password, in a literal":    {script: with(auth, []string{try, "S: NO {3+}", "S: x\ty"}), want: `rejected NO "x?y"`},
		"OK too early":                    {script: with(open(`"SASL" "LOGIN"`), []string{`C: AUTHENTICATE "LOGIN"`, `S: ""`, `C: "` + b64("anna@ox.example") + `"`, "S: OK"}), want: "answered OK", silent: true},
		"NO too early":                    {script: with(open(`"SASL" "LOGIN"`), []string{`C: AUTHENTICATE "LOGIN"`, "S: NO"}), want: "answered NO", silent: true},
		"later":                           {script: with(auth, []string{try, `S: NO (TRYLATER) "Later"`}), want: "answered NO (TRYLATER)"},
		"too weak":                        {script: with(auth, []string{try, `S: NO (AUTH-TOO-WEAK) "x"`}), want: "answered NO (AUTH-TOO-WEAK)"},
		"BYE":                             {script: with(auth, []string{try, `S: BYE (REFERRAL "sieve://x") "x"`}), want: "answered BYE (REFERRAL)"},
		"a broken code":                   {script: with(auth, []string{try, `S: NO (x "y"`}), want: "neither"},
		"asks for ever":                   {script: with(auth, []string{try, `S: ""`}), want: "goes on asking"},
		"closed in AUTHENTICATE":          {script: with(auth, []string{try}), want: "EOF"},
		"UNAUTHENTICATE behind the login": {script: with(auth, ok, []string{"C: CAPABILITY", `S: "UNAUTHENTICATE"`, "S: OK"}), want: "UNAUTHENTICATE"},
		"XCLIENT behind the login":        {script: with(auth, ok, []string{"C: CAPABILITY", `S: "XCLIENT"`, "S: OK"}), want: login.ErrReauthenticate.Error()},
		"closed behind the login":         {script: with(auth, ok, []string{"C: CAPABILITY"}), want: "EOF"},

		"UNAUTHENTICATE at once": {script: open(`"unauthenticate"`), want: "UNAUTHENTICATE", silent: true},
		"closed at once":         {want: "EOF", silent: true},
		"BYE at once":            {script: []string{`S: BYE (TRYLATER) "Busy"`}, want: `greeting: answered BYE "Busy" (TRYLATER)`, silent: true},
		"no ManageSieve":         {script: []string{"S: * OK IMAP"}, want: "neither", silent: true},
		"a greeting of 1 MB":     {script: []string{`S: "X" "` + strings.Repeat("x", 1<<20)}, want: "too long", silent: true},
		"a literal of 1 GB":      {script: []string{`S: "X" {1000000000}`}, want: errLiteral.Error(), silent: true},
		"a list without end":     {script: []string{"S: " + strings.Repeat("\"X\"\r\n", 1000)}, want: "more than 128 lines", silent: true},
		"an empty line":          {script: []string{"S: "}, want: "empty line", silent: true},
		"STARTTLS stripped":      {target: login.Target{TLS: login.LegStartTLS}, script: auth, want: "not announced", silent: true},
		"STARTTLS refused":       {target: login.Target{TLS: login.LegStartTLS}, script: with(open(`"STARTTLS"`), []string{"C: STARTTLS", "S: NO"}), want: "STARTTLS: answered", silent: true},
		"lines before TLS":       {target: login.Target{TLS: login.LegStartTLS}, script: with(open(`"STARTTLS"`), []string{"C: STARTTLS", "S: OK\r\nOK"}), want: login.ErrInjected.Error(), silent: true},
		"XCLIENT": {
			target: login.Target{Identity: login.IdentityXCLIENT, Client: client},
			script: with(open(`"SASL" "PLAIN"`, `"XCLIENT"`), []string{"C: XCLIENT ADDR=192.0.2.7 PORT=4711 SESSION=s-1", `S: OK "Updated"`}, ok, after), want: `welcome OK "Logged in."`,
		},
		"XCLIENT not offered": {target: login.Target{Identity: login.IdentityXCLIENT, Client: client}, script: auth, want: "XCLIENT: not announced", silent: true},
		"XCLIENT refused":     {target: login.Target{Identity: login.IdentityXCLIENT, Client: client}, script: with(open(`"XCLIENT"`), []string{"C: XCLIENT ADDR=192.0.2.7 PORT=4711 SESSION=s-1", `S: NO "You are not trusted"`}), want: "XCLIENT: answered", silent: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := test.attempt
			if a == nil {
				a = attempt()
			}
			got := logintest.Authenticate(t, Dialogue{}, logintest.AuthenticateOptions{Target: test.target}, a, func(p *logintest.Peer) {
				for _, line := range test.script {
					if strings.HasPrefix(line, "S: ") {
						p.Offer(line[3:] + "\r\n")
					} else if !p.Talk(line) {
						return
					}
				}
				p.CloseWrite()
			})
			checkResult(t, got, test.want)
			if sent := got.Asked > 0; sent == test.silent {
				t.Errorf("Last was asked %d times", got.Asked)
			}
		})
	}
}

// checkResult compares with "welcome ANSWER", "rejected ANSWER", or a part of another error's
// text.
func checkResult(t *testing.T, got logintest.Authenticated, want string) {
	t.Helper()
	var rejected *login.Rejection
	was := "none"
	switch {
	case got.Err == nil:
		was = "welcome " + string(got.Welcome.Final)
	case errors.As(got.Err, &rejected):
		was = "rejected " + string(rejected.Answer)
	case strings.Contains(got.Err.Error(), want):
		return
	}
	if was != want {
		t.Errorf("got %s (%v), want %s", was, got.Err, want)
	}
}

func TestAuthenticateTLS(t *testing.T) {
	got := logintest.Authenticate(t, Dialogue{}, logintest.AuthenticateOptions{Target: login.Target{TLS: login.LegStartTLS}}, attempt(), func(p *logintest.Peer) {
		p.Talk(append(open(`"STARTTLS"`, `"SASL" ""`), "C: STARTTLS", "S: OK")...)
		p.StartTLS()
		p.Talk(append(open(`"SASL" "PLAIN"`), `C: AUTHENTICATE "PLAIN" "`+b64("\x00anna@ox.example\x00secret")+`"`, "S: OK", "C: CAPABILITY", "S: OK")...)
	})
	checkResult(t, got, "welcome OK")
}

// Nothing is sent once the decision doesn't hold, or where it may not go.
func TestNotSent(t *testing.T) {
	moved := errors.New("moved")
	for name, o := range map[string]logintest.AuthenticateOptions{
		"last":  {Last: func() error { return moved }},
		"plain": {MaySend: func(bool) error { return moved }},
	} {
		got := logintest.Authenticate(t, Dialogue{}, o, attempt(), func(p *logintest.Peer) {
			p.Talk(open(`"SASL" "PLAIN"`)...)
			p.WantEnd()
		})
		if !errors.Is(got.Err, moved) {
			t.Errorf("%s: got %v", name, got.Err)
		}
	}
}

func TestSilentPlatform(t *testing.T) {
	got := logintest.Authenticate(t, Dialogue{}, logintest.AuthenticateOptions{Answer: 50 * time.Millisecond}, attempt(), func(p *logintest.Peer) { p.All() })
	checkResult(t, got, "timeout")
}

func TestTracker(t *testing.T) {
	tests := map[string]bool{
		"":                                true,
		"OK\r\n":                          true,
		"OK \"x\"\r\n":                    true,
		"OK \"x\r\n":                      false,
		"OK":                              false,
		"OK\r":                            false,
		"\"a\" ACTIVE\r\n\"b\"\r\nOK\r\n": true,
		"\"a\\\"\r\n":                     false,
		"\"a\\\"\"\r\n":                   true,
		"\"a{5}\"\r\n":                    true,
		"{5}\r\n":                         false,
		"{5}\r\nab\r\n":                   false,
		"{5}\r\nab\r\nc":                  false,
		"{5}\r\nab\r\nc\r\n":              true,
		"{0}\r\n\r\n":                     true,
		"{5+}\r\nOK\r\nx\r\nOK\r\n":       true,
		"{}\r\n":                          false,
		"{99999999999999999999}\r\n":      false,
		"\x16\x03\x03\r\n":                false,
		"220 x\r\n":                       false,
		"OK\n":                            false,
		"OK\rx\r\n":                       false,
		"NO (TRYLATER) \"x\"\r\n":         true,
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
				t.Errorf("%q in steps of %d: %v, want %v", stream, step, got, want)
			}
		}
	}
}
