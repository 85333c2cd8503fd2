package pop3

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

// anna is the login of the only mailbox: anna, with the password "se cret".
func anna(a *login.Attempt) (login.Welcome, error) {
	if a.Name == "anna" && string(a.Secret) == "se cret" {
		return login.Welcome{Final: []byte("+OK Hello Anna")}, nil
	}
	return login.Welcome{}, &login.Refusal{Cause: login.CauseWrong, Answer: []byte("-ERR [AUTH] No")}
}

const greeting = "S: +OK mx.example mailcutover"

var plain = b64("\x00anna\x00se cret")

func TestServe(t *testing.T) {
	capa := []string{"S: +OK", "S: TOP", "S: UIDL", "S: RESP-CODES", "S: AUTH-RESP-CODE"}
	tests := map[string]struct {
		front  login.Front
		plain  bool
		script []string
		wants  error // nil: a session
		logins string
	}{
		"CAPA": {
			script: append(append([]string{"C: CAPA"}, capa...), "S: USER", "S: SASL PLAIN LOGIN OAUTHBEARER XOAUTH2", "S: .", "C: quit", "S: +OK Bye"),
			wants:  login.ErrQuit,
		},
		"CAPA before TLS": {
			front: login.Front{TLS: true, RequireTLS: true, Offers: func() login.Offers { return login.Offers{Pipelining: true} }}, plain: true,
			script: append(append([]string{"C: CAPA"}, capa...), "S: PIPELINING", "S: STLS", "S: .",
				"C: USER anna", "S: -ERR STLS ...", "C: PASS se cret", "S: -ERR STLS ...", "C: AUTH PLAIN "+plain, "S: -ERR STLS ...", "C: QUIT", "S: +OK Bye"),
			wants: login.ErrQuit,
		},
		"USER and PASS":                          {script: []string{"C: USER anna", "S: +OK ...", "C: pass se cret", "S: +OK Hello Anna"}, logins: "anna/se cret"},
		"wrong password":                         {script: []string{"C: USER anna", "S: +OK ...", "C: PASS x", "S: -ERR [AUTH] No", "C: PASS se cret", "S: -ERR USER ...", "C: USER anna", "S: +OK ...", "C: PASS se cret", "S: +OK Hello Anna"}, logins: "anna/x,anna/se cret"},
		"AUTH PLAIN":                             {script: []string{"C: AUTH PLAIN " + plain, "S: +OK Hello Anna"}, logins: "anna/se cret"},
		"AUTH PLAIN without an initial response": {script: []string{"C: AUTH plain", "S: + ", "C: " + plain, "S: +OK Hello Anna"}, logins: "anna/se cret"},
		"AUTH LOGIN":                             {script: []string{"C: AUTH LOGIN", "S: + VXNlcm5hbWU6", "C: " + b64("anna"), "S: + UGFzc3dvcmQ6", "C: " + b64("se cret"), "S: +OK Hello Anna"}, logins: "anna/se cret"},
		"cancelled":                              {script: []string{"C: AUTH PLAIN", "S: + ", "C: *", "S: -ERR ...", "C: QUIT", "S: +OK Bye"}, wants: login.ErrQuit},
		"mistakes": {
			front: login.Front{Errors: 50},
			script: []string{"C: AUTH", "S: +OK", "S: PLAIN", "S: LOGIN", "S: OAUTHBEARER", "S: XOAUTH2", "S: .", "C: NOOP", "S: +OK",
				"C: STAT", "S: -ERR Log ...", "C: RETR 1", "S: -ERR Log ...", "C: APOP anna x", "S: -ERR Unknown ...", "C: ", "S: -ERR Unknown ...", "C: PASS", "S: -ERR USER ...", "C: USER", "S: -ERR Malformed ...",
				"C: USER anna", "S: +OK ...", "C: PASS", "S: -ERR Malformed ...",
				"C: AUTH CRAM-MD5", "S: -ERR Unknown ...", "C: AUTH PLAIN a b", "S: -ERR Malformed ...", "C: AUTH PLAIN =", "S: -ERR Malformed ...", "C: AUTH PLAIN " + b64("a\x00b"), "S: -ERR Malformed ...", "C: AUTH PLAIN " + strings.Replace(plain, "c", "\t", 1), "S: -ERR Malformed ...",
				"C: STLS", "S: -ERR ...", "C: UTF8", "S: -ERR ...", "C: USER " + strings.Repeat("x", 10000), "S: -ERR Line ...", "C: QUIT", "S: +OK Bye"},
			wants: login.ErrQuit,
		},
		"too many errors":      {front: login.Front{Errors: 2}, script: []string{"C: x", "S: -ERR ...", "C: y", "S: -ERR ..."}, wants: &login.Refusal{}},
		"a line that is wrong": {script: []string{"C: USER a\x00", "S: -ERR Lines ..."}, wants: login.ErrBareLineEnd},
		"a line too long":      {script: []string{"C: AUTH PLAIN " + strings.Repeat("A", 13000), "S: -ERR Line ..."}, wants: login.ErrLineTooLong},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Front: test.front, Secure: !test.plain, Login: anna})
			if !s.Talk(greeting) || !s.Talk(test.script...) {
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
	for _, password := range []string{"se cret", "wrong"} {
		s := logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Secure: true, Login: anna})
		s.Send("USER anna\r\nPASS " + password + "\r\nSTAT\r\nLIST\r\n")
		s.Talk(greeting, "S: +OK Send PASS")
		if password == "se cret" {
			s.Talk("S: +OK Hello Anna")
			if session, rest, err := s.Result(); session == nil || err != nil || string(rest) != "STAT\r\nLIST\r\n" {
				t.Errorf("got %v, %q, %v", session, rest, err)
			}
			continue
		}
		s.Talk("S: -ERR [AUTH] No", "S: -ERR Log ...", "S: -ERR Log ...", "C: QUIT", "S: +OK Bye")
	}
}

func TestStartTLS(t *testing.T) {
	front := login.Front{TLS: true, RequireTLS: true}
	s := logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Front: front, Login: anna})
	s.Talk(greeting, "C: STLS x", "S: -ERR ...", "C: STLS", "S: +OK ...")
	s.StartTLS()
	s.Talk("C: STLS", "S: -ERR ...", "C: USER anna", "S: +OK ...", "C: PASS se cret", "S: +OK Hello Anna")

	// What was said before is forgotten.
	s = logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Front: login.Front{TLS: true}, Login: anna})
	s.Talk(greeting, "C: USER anna", "S: +OK ...", "C: STLS", "S: +OK ...")
	s.StartTLS()
	s.Talk("C: PASS se cret", "S: -ERR USER ...", "C: QUIT", "S: +OK Bye")

	s = logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Front: front, Login: anna})
	s.Talk(greeting)
	s.Send("STLS\r\nUSER anna\r\nPASS se cret\r\n")
	s.Talk("S: -ERR Bytes behind STLS")
	s.WantEnd()
	if _, _, err := s.Result(); !errors.Is(err, login.ErrInjected) || len(s.Attempts()) > 0 {
		t.Errorf("got %v", err)
	}
}

func TestRefusals(t *testing.T) {
	off := &putOff{answer: "-ERR [IN-USE] Locked", code: "IN-USE"}
	tests := map[login.Cause]string{
		login.CauseUnknown: "-ERR [SYS/TEMP]", login.CauseWrong: "-ERR [AUTH] No", login.CauseName: "-ERR This", login.CauseNoSuchName: "-ERR [SYS/TEMP]",
		login.CauseClosed: "-ERR [SYS/TEMP] The", login.CauseLocked: "-ERR [SYS/TEMP] The", login.CauseTable: "-ERR [SYS/TEMP]", login.CausePlatform: "-ERR [IN-USE] Locked",
		login.CauseLimit: "-ERR [SYS/TEMP] Too", login.CausePrivacy: "-ERR STLS", login.CauseIdle: "-ERR [SYS/TEMP]", login.CauseErrors: "-ERR [SYS/TEMP]",
		login.CauseDrain: "-ERR [SYS/TEMP] Service", login.CauseMoved: "-ERR [SYS/TEMP] The", login.CauseOperator: "-ERR [SYS/TEMP]",
	}
	for cause := login.CauseUnknown; cause <= login.CauseOperator; cause++ {
		want, ok := tests[cause]
		if !ok {
			t.Fatalf("no case for %v", cause)
		}
		s := logintest.Serve(t, Dialogue{}, logintest.ServeOptions{Secure: true, Login: func(*login.Attempt) (login.Welcome, error) {
			return login.Welcome{}, &login.Refusal{Cause: cause, Err: fmt.Errorf("POP3: %w", off), Answer: []byte("-ERR [AUTH] No")}
		}})
		s.Talk(greeting, "C: AUTH PLAIN "+plain, "S: "+want+"...")
		if cause != login.CauseWrong && strings.Contains(want, "AUTH") {
			t.Errorf("%v looks like a wrong password", cause)
		}
		if got := (Dialogue{}).Farewell(cause, true); got != nil {
			t.Errorf("farewell %q", got)
		}
		if got := string((Dialogue{}).Farewell(cause, false)); !strings.HasPrefix(got, "-ERR ") || !strings.HasSuffix(got, "\r\n") {
			t.Errorf("farewell %q", got)
		}
		s.Close()
	}
}

func attempt() *login.Attempt {
	return &login.Attempt{Name: "anna", Mechanism: login.MechanismPassword, Secret: []byte("secret"), Login: "anna@ox.example"}
}

// open is a platform up to the credentials.
func open(capabilities ...string) []string {
	script := []string{"S: +OK POP3 ready <x@y>", "C: CAPA", "S: +OK"}
	for _, c := range capabilities {
		script = append(script, "S: "+c)
	}
	return append(script, "S: .")
}

func TestAuthenticate(t *testing.T) {
	proof := b64("\x00anna@ox.example\x00secret")
	sasl := open("SASL PLAIN LOGIN", "AUTH-RESP-CODE")
	older := []string{"S: +OK", "C: CAPA", "S: -ERR what?", "C: USER anna@ox.example", "S: +OK", "C: PASS secret"}
	client := login.ClientInfo{Addr: "2001:db8::7", Port: "4711", Session: "s-1"}
	token := &login.Attempt{Mechanism: login.MechanismXOAuth2, Secret: []byte("tok"), Login: "anna@ox.example"}
	master := func(separator string) *login.Attempt {
		return &login.Attempt{Login: "anna@ox.example", Master: &login.Master{User: "m", Separator: separator, Password: "mp"}}
	}
	long := attempt()
	long.Secret = []byte(strings.Repeat("x", 300))
	breaks := attempt()
	breaks.Secret = []byte("a\r\nDELE 1")
	tests := map[string]struct {
		attempt *login.Attempt
		target  login.Target
		script  []string
		want    string // as in checkResult
		silent  bool   // no credentials were sent: Last wasn't asked
	}{
		"PLAIN":                       {script: append(sasl, "C: AUTH PLAIN "+proof, "S: +OK Logged in."), want: "welcome +OK Logged in."},
		"LOGIN":                       {script: append(open("SASL LOGIN"), "C: AUTH LOGIN", "S: + VXNlcm5hbWU6", "C: "+b64("anna@ox.example"), "S: + UGFzc3dvcmQ6", "C: "+b64("secret"), "S: +OK"), want: "welcome +OK"},
		"PLAIN, long":                 {attempt: long, script: append(sasl, "C: AUTH PLAIN", "S: + ", "C: "+b64("\x00anna@ox.example\x00"+string(long.Secret)), "S: +OK x"), want: "welcome +OK x"},
		"USER and PASS":               {script: append(older, "S: +OK 2 messages"), want: "welcome +OK 2 messages"},
		"a line in a password":        {attempt: breaks, script: []string{"S: +OK", "C: CAPA", "S: -ERR what?"}, want: "can't carry", silent: true},
		"a token":                     {attempt: token, script: append(open("SASL XOAUTH2"), "C: AUTH XOAUTH2 "+b64("user=anna@ox.example\x01auth=Bearer tok\x01\x01"), "S: + e30=", "C: ", "S: -ERR [AUTH] No"), want: "rejected -ERR [AUTH] No"},
		"a token, and no mechanism":   {attempt: token, script: sasl, want: "no mechanism", silent: true},
		"a master user":               {attempt: master(""), script: append(sasl, "C: AUTH PLAIN "+b64("anna@ox.example\x00m\x00mp"), "S: +OK"), want: "welcome +OK"},
		"a master user by USER":       {attempt: master("*"), script: []string{"S: +OK", "C: CAPA", "S: -ERR", "C: USER anna@ox.example*m", "S: +OK", "C: PASS mp", "S: -ERR No"}, want: "not by reason"},
		"a master user without PLAIN": {attempt: master(""), script: open("USER"), want: "can't carry", silent: true},
		"wrong password":              {script: append(sasl, "C: AUTH PLAIN "+proof, "S: -ERR [AUTH] Authentication failed."), want: "rejected -ERR [AUTH] Authentication failed."},
		"refused without a code, where one is due":  {script: append(sasl, "C: AUTH PLAIN "+proof, "S: -ERR Some trouble"), want: "not by reason of the credentials"},
		"refused without a code, where none is due": {script: append(older, "S: -ERR Logon failure: unknown user name or bad password."), want: "rejected -ERR Logon failure: unknown user name or bad password."},
		"Exchange without its mailboxes":            {script: append(older, "S: -ERR Server Unavailable. 21"), want: "not by reason"},
		"no such user":                              {script: append(older[:4:4], "S: -ERR No such user"), want: "not by reason", silent: true},
		"OK too early":                              {attempt: long, script: append(sasl, "C: AUTH PLAIN", "S: +OK"), want: "malformed answer", silent: true},
		"AUTH too early":                            {attempt: long, script: append(sasl, "C: AUTH PLAIN", "S: -ERR [AUTH] No"), want: "refused with [AUTH]", silent: true},
		"in use":                                    {script: append(older, "S: -ERR [in-use] Locked"), want: "put off -ERR [in-use] Locked"},
		"too soon":                                  {script: append(older, "S: -ERR [LOGIN-DELAY] 5 s"), want: "put off -ERR [LOGIN-DELAY] 5 s"},
		"temporary":                                 {script: append(sasl, "C: AUTH PLAIN "+proof, "S: -ERR [SYS/TEMP] Later"), want: "put off -ERR [SYS/TEMP] Later"},
		"permanent, but not the client":             {script: append(sasl, "C: AUTH PLAIN "+proof, "S: -ERR [SYS/PERM] Disk is gone"), want: "refused with [SYS/PERM]"},
		"unforeseen":                                {script: append(sasl, "C: AUTH PLAIN "+proof, "S: * OK"), want: "malformed answer"},
		"asks for ever":                             {script: append(sasl, "C: AUTH PLAIN "+proof, "S: + "), want: "goes on asking"},
		"closed in AUTH":                            {script: append(sasl, "C: AUTH PLAIN "+proof), want: "EOF"},

		"closed at once":     {want: "EOF", silent: true},
		"refused at once":    {script: []string{"S: -ERR [SYS/TEMP] Busy"}, want: "greeting: answered -ERR [SYS/TEMP] Busy", silent: true},
		"no POP3":            {script: []string{"S: 220 smtp"}, want: "malformed answer", silent: true},
		"a greeting of 1 MB": {script: []string{"S: +OK " + strings.Repeat("x", 1<<20)}, want: "too long", silent: true},
		"a list without end": {script: append([]string{"S: +OK", "C: CAPA", "S: +OK"}, "S: "+strings.Repeat("X\r\n", 1000)), want: "more than 128 lines", silent: true},
		"closed in CAPA":     {script: []string{"S: +OK", "C: CAPA", "S: +OK", "S: SASL PLAIN"}, want: "EOF", silent: true},
		"STLS stripped":      {target: login.Target{TLS: login.LegStartTLS}, script: sasl, want: "not announced", silent: true},
		"STLS refused":       {target: login.Target{TLS: login.LegStartTLS}, script: append(open("STLS"), "C: STLS", "S: -ERR No"), want: "STLS: answered", silent: true},
		"answers before TLS": {target: login.Target{TLS: login.LegStartTLS}, script: append(open("STLS"), "C: STLS", "S: +OK\r\n+OK"), want: login.ErrInjected.Error(), silent: true},
		"XCLIENT": {
			target: login.Target{Identity: login.IdentityXCLIENT, Client: client}, script: append(open("XCLIENT", "SASL PLAIN"), "C: XCLIENT ADDR=2001:db8::7 PORT=4711 SESSION=s-1", "S: +OK Updated", "C: AUTH PLAIN "+proof, "S: +OK"),
			want: "welcome +OK",
		},
		"XCLIENT, in the greeting": {
			target: login.Target{Identity: login.IdentityXCLIENT, Client: client},
			script: []string{"S: +OK [XCLIENT] Dovecot ready.", "C: CAPA", "S: -ERR", "C: XCLIENT ADDR=2001:db8::7 PORT=4711 SESSION=s-1", "S: +OK Updated", "C: USER anna@ox.example", "S: +OK", "C: PASS secret", "S: +OK"},
			want:   "welcome +OK",
		},
		"XCLIENT of nobody": {target: login.Target{Identity: login.IdentityXCLIENT}, script: append(open("XCLIENT", "SASL PLAIN"), "C: AUTH PLAIN "+proof, "S: +OK"), want: "welcome +OK"},
		"XCLIENT with a zone": {
			target: login.Target{Identity: login.IdentityXCLIENT, Client: login.ClientInfo{Addr: "fe80::1%eth0", Port: "0", Session: "s 1"}}, script: append(open("XCLIENT"), "C: XCLIENT ADDR=fe80::1", "S: -ERR No"),
			want: "XCLIENT: answered", silent: true,
		},
		"XCLIENT not offered": {target: login.Target{Identity: login.IdentityXCLIENT, Client: client}, script: sasl, want: "XCLIENT: not announced", silent: true},
		"XCLIENT refused":     {target: login.Target{Identity: login.IdentityXCLIENT, Client: client}, script: append(open("XCLIENT"), "C: XCLIENT ADDR=2001:db8::7 PORT=4711 SESSION=s-1", "S: -ERR You are not trusted"), want: "XCLIENT: answered", silent: true},
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

// checkResult compares with "welcome ANSWER", "rejected ANSWER", "put off ANSWER", or a part of
// another error's text.
func checkResult(t *testing.T, got logintest.Authenticated, want string) {
	t.Helper()
	var rejected *login.Rejection
	var off *putOff
	was := "none"
	switch {
	case got.Err == nil:
		was = "welcome " + string(got.Welcome.Final)
	case errors.As(got.Err, &rejected):
		was = "rejected " + string(rejected.Answer)
	case errors.As(got.Err, &off):
		was = "put off " + string(off.answer)
	case strings.Contains(got.Err.Error(), want):
		return
	}
	if was != want {
		t.Errorf("got %s (%v), want %s", was, got.Err, want)
	}
}

func TestAuthenticateTLS(t *testing.T) {
	got := logintest.Authenticate(t, Dialogue{}, logintest.AuthenticateOptions{Target: login.Target{TLS: login.LegStartTLS}}, attempt(), func(p *logintest.Peer) {
		p.Talk(append(open("STLS", "SASL NTLM"), "C: STLS", "S: +OK")...)
		p.StartTLS()
		p.Talk("C: CAPA", "S: +OK", "S: SASL PLAIN", "S: .", "C: AUTH PLAIN "+b64("\x00anna@ox.example\x00secret"), "S: +OK")
	})
	checkResult(t, got, "welcome +OK")
}

// Nothing is sent once the decision doesn't hold, or where it may not go.
func TestNotSent(t *testing.T) {
	moved := errors.New("moved")
	for name, o := range map[string]logintest.AuthenticateOptions{
		"last":  {Last: func() error { return moved }},
		"plain": {MaySend: func(bool) error { return moved }},
	} {
		for _, script := range [][]string{open("SASL PLAIN"), open("USER")} {
			got := logintest.Authenticate(t, Dialogue{}, o, attempt(), func(p *logintest.Peer) {
				p.Talk(script...)
				if name == "last" && len(script) > 0 && strings.Contains(strings.Join(script, " "), "USER") {
					p.Talk("C: USER anna@ox.example", "S: +OK")
				}
				p.WantEnd()
			})
			if !errors.Is(got.Err, moved) {
				t.Errorf("%s: got %v", name, got.Err)
			}
		}
	}
}

func TestSilentPlatform(t *testing.T) {
	got := logintest.Authenticate(t, Dialogue{}, logintest.AuthenticateOptions{Answer: 50 * time.Millisecond}, attempt(), func(p *logintest.Peer) { p.All() })
	checkResult(t, got, "timeout")
}
