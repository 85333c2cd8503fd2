package submission

import (
	"errors"
	"strings"
	"testing"
	"time"

	"mailcutover/proxy/login"
	"mailcutover/proxy/login/logintest"
)

func attempt() *login.Attempt {
	return &login.Attempt{Name: "anna", Mechanism: login.MechanismPassword, Secret: []byte("secret"), Login: "anna@ox.example", Helo: "c.example", Offered: &login.Offers{}}
}

var proof = plain("", "anna@ox.example", "secret")

// open is a platform up to AUTH.
func open(lines ...string) []string {
	script := []string{"S: 220 ox.example", "C: EHLO mx.example", "S: 250-ox.example"}
	for _, line := range lines {
		script = append(script, "S: "+line)
	}
	return script
}

var client = login.ClientInfo{Addr: "192.0.2.7", Port: "4711", Local: "2001:db8::1", LocalPort: "587", Session: "s-1"}

// rejected stands for a *login.Rejection with this answer, welcome for a success with it, and
// everything else for a part of the error's text.
func TestAuthenticate(t *testing.T) {
	auth := open("250-SIZE", "250 AUTH PLAIN LOGIN")
	token := &login.Attempt{Mechanism: login.MechanismOAuthBearer, Secret: []byte("tok"), Login: "anna@ox.example"}
	bearer := b64("n,a=anna@ox.example,\x01auth=Bearer tok\x01\x01")
	long := attempt()
	long.Secret = []byte(strings.Repeat("x", 400))
	tests := map[string]struct {
		attempt *login.Attempt
		target  login.Target
		script  []string
		want    string
		rest    string
		silent  bool // no credentials were sent: Last wasn't asked
	}{
		"PLAIN": {
			script: append(auth, "C: AUTH PLAIN "+proof, "S: 235 2.7.0 Hello"),
			want:   "welcome 235 2.7.0 Hello",
		},
		"an answer without enhanced code, in many lines": {
			script: append(auth, "C: AUTH PLAIN "+proof, "S: 235-Hello", "S: 235-", "S: 235 An\x7fna"),
			want:   "welcome 235 2.7.0 Hello An?na",
		},
		"LOGIN": {
			script: append(open("250-SIZE", "250 AUTH LOGIN"), "C: AUTH LOGIN", "S: 334 VXNlcm5hbWU6", "C: "+b64("anna@ox.example"), "S: 334 UGFzc3dvcmQ6", "C: "+b64("secret"), "S: 235 2.7.0 Hello"),
			want:   "welcome 235 2.7.0 Hello",
		},
		"a token": {
			attempt: token,
			script:  append(open("250-SIZE", "250 AUTH PLAIN OAUTHBEARER"), "C: AUTH OAUTHBEARER "+bearer, "S: 235 2.7.0 Hello"),
			want:    "welcome 235 2.7.0 Hello",
		},
		"a token that is refused": {
			attempt: token,
			script:  append(open("250-SIZE", "250 AUTH PLAIN OAUTHBEARER"), "C: AUTH OAUTHBEARER "+bearer, "S: 334 e30=", "C: AQ==", "S: 535 5.7.8 No"),
			want:    "rejected 535 5.7.8 No",
		},
		"a token where the platform goes on asking": {
			attempt: token,
			script:  append(open("250-SIZE", "250 AUTH PLAIN OAUTHBEARER"), "C: AUTH OAUTHBEARER "+bearer, "S: 334 e30=", "C: AQ==", "S: 334 e30="),
			want:    "goes on asking",
		},
		"a message too long for a command": {
			attempt: long,
			script:  append(auth, "C: AUTH PLAIN", "S: 334 ", "C: "+plain("", "anna@ox.example", string(long.Secret)), "S: 235 2.7.0 Hello"),
			want:    "welcome 235 2.7.0 Hello",
		},
		"a success before the secret": {attempt: long, script: append(auth, "C: AUTH PLAIN", "S: 235 2.7.0 Hello"), want: "answered 235", silent: true},
		"a refusal before the secret": {script: append(open("250-SIZE", "250 AUTH LOGIN"), "C: AUTH LOGIN", "S: 334 VXNlcm5hbWU6", "C: "+b64("anna@ox.example"), "S: 535 5.7.8 No"), want: "answered 535", silent: true},
		"a master user": {
			attempt: &login.Attempt{Login: "anna@ox.example", Mechanism: login.MechanismOAuthBearer, Secret: []byte("x"), Master: &login.Master{User: "m", Password: "mp"}},
			script:  append(auth, "C: AUTH PLAIN "+plain("anna@ox.example", "m", "mp"), "S: 235 2.7.0 Hello"),
			want:    "welcome 235 2.7.0 Hello",
		},
		"a master user that is refused": {
			attempt: &login.Attempt{Login: "anna@ox.example", Master: &login.Master{User: "m", Separator: "*", Password: "mp"}},
			script:  append(auth, "C: AUTH PLAIN "+plain("", "anna@ox.example*m", "mp"), "S: 535 5.7.8 No"),
			want:    "answered 535",
		},
		"wrong password":                        {script: append(auth, "C: AUTH PLAIN "+proof, "S: 535 5.7.3 Authentication unsuccessful"), want: "rejected 535 5.7.3 Authentication unsuccessful"},
		"wrong password, without enhanced code": {script: append(auth, "C: AUTH PLAIN "+proof, "S: 535 No"), want: "rejected 535 5.7.8 No"},
		"an answer that forges lines":           {script: append(auth, "C: AUTH PLAIN "+proof, "S: 535 "+strings.Repeat("x", 390)+"\x01\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc"), want: "rejected 535 5.7.8 " + strings.Repeat("x", 390) + "?\u00fc\u00fc\u00fc\u00fc"},
		"temporary":                             {script: append(auth, "C: AUTH PLAIN "+proof, "S: 454 4.7.0 Later"), want: "answered 454"},
		"going down":                            {script: append(auth, "C: AUTH PLAIN "+proof, "S: 421 4.3.2 Bye"), want: "answered 421"},
		"mechanism too weak":                    {script: append(auth, "C: AUTH PLAIN "+proof, "S: 534 5.7.9 No"), want: "answered 534"},
		"TLS is asked for":                      {script: append(auth, "C: AUTH PLAIN "+proof, "S: 538 5.7.11 No"), want: "answered 538"},
		"unforeseen":                            {script: append(auth, "C: AUTH PLAIN "+proof, "S: 550 5.7.1 "+proof), want: "answered 550"},
		"a success that is none":                {script: append(auth, "C: AUTH PLAIN "+proof, "S: 250 OK"), want: "answered 250"},
		"334 for ever":                          {script: append(auth, "C: AUTH PLAIN "+proof, "S: 334 "), want: "goes on asking"},
		"closed in AUTH":                        {script: append(auth, "C: AUTH PLAIN "+proof), want: "EOF"},
		"bytes beyond":                          {script: append(auth, "C: AUTH PLAIN "+proof, "S: 235 2.7.0 Hello\r\n250 more"), want: "welcome 235 2.7.0 Hello", rest: "250 more\r\n"},

		"refused at once":            {script: []string{"S: 554 5.7.1 Go away"}, want: "greeting: answered 554 5.7.1 Go away", silent: true},
		"busy":                       {script: []string{"S: 421 4.3.2 Busy"}, want: "answered 421", silent: true},
		"closed at once":             {script: nil, want: "EOF", silent: true},
		"no SMTP":                    {script: []string{"S: * OK IMAP"}, want: "malformed reply", silent: true},
		"a greeting of 1 MB":         {script: []string{"S: 220 " + strings.Repeat("x", 1<<20)}, want: "too long", silent: true},
		"a reply without end":        {script: []string{"S: 220 x", "C: EHLO mx.example", "S: 250-" + strings.Repeat("x\r\n250-", 200)}, want: "more than 128 lines", silent: true},
		"a reply of two codes":       {script: []string{"S: 220 x", "C: EHLO mx.example", "S: 250-x", "S: 220 y"}, want: "changes its code", silent: true},
		"EHLO refused":               {script: []string{"S: 220 x", "C: EHLO mx.example", "S: 502 5.5.1 No"}, want: "EHLO: answered 502", silent: true},
		"closed in EHLO":             {script: []string{"S: 220 x", "C: EHLO mx.example", "S: 250-x"}, want: "EOF", silent: true},
		"a line that ends in LF":     {script: []string{"S: 220 x\n220 y"}, want: "CR, LF or NUL", silent: true},
		"no AUTH":                    {script: open("250 SIZE"), want: "no mechanism", silent: true},
		"no mechanism for a token":   {attempt: token, script: auth, want: "no mechanism", silent: true},
		"no mechanism of ours":       {script: open("250-SIZE", "250 AUTH CRAM-MD5 NTLM"), want: "no mechanism", silent: true},
		"less than clients are told": {attempt: &login.Attempt{Login: "a", Offered: &all}, script: open("250-PIPELINING", "250-8BITMIME", "250-SMTPUTF8", "250-ENHANCEDSTATUSCODES", "250 AUTH PLAIN"), want: login.ErrLacks.Error() + ": DSN, CHUNKING, SIZE", silent: true},

		"STARTTLS stripped": {target: login.Target{TLS: login.LegStartTLS}, script: auth, want: "not announced", silent: true},
		"STARTTLS refused":  {target: login.Target{TLS: login.LegStartTLS}, script: append(open("250 STARTTLS"), "C: STARTTLS", "S: 454 4.7.0 Not now"), want: "STARTTLS: answered 454", silent: true},
		"replies before TLS": {
			target: login.Target{TLS: login.LegStartTLS},
			script: append(open("250 STARTTLS"), "C: STARTTLS", "S: 220 go\r\n250 AUTH PLAIN"), want: login.ErrInjected.Error(), silent: true,
		},
		"XCLIENT": {
			target: login.Target{Identity: login.IdentityXCLIENT, Client: client},
			script: append(open("250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT", "250 AUTH PLAIN"),
				"C: XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.7 PORT=4711 PROTO=ESMTP HELO=c.example DESTADDR=IPV6:2001:db8::1 DESTPORT=587",
				"S: 220 ox.example", "C: EHLO c.example", "S: 250-ox.example", "S: 250-SIZE", "S: 250 AUTH PLAIN", "C: AUTH PLAIN "+proof, "S: 235 2.7.0 Hello"),
			want: "welcome 235 2.7.0 Hello",
		},
		"XCLIENT with a name that can't be told": {
			attempt: &login.Attempt{Login: "anna@ox.example", Mechanism: login.MechanismPassword, Secret: []byte("secret"), Helo: "c ADDR=1.2.3.4"},
			target:  login.Target{Identity: login.IdentityXCLIENT, Client: client},
			script: append(open("250-XCLIENT ADDR HELO SESSION", "250 AUTH PLAIN"), "C: XCLIENT ADDR=192.0.2.7 HELO=[UNAVAILABLE] SESSION=s-1",
				"S: 220 ox.example", "C: EHLO mx.example", "S: 250-ox.example", "S: 250-SIZE", "S: 250 AUTH PLAIN", "C: AUTH PLAIN "+proof, "S: 235 2.7.0 Hello"),
			want: "welcome 235 2.7.0 Hello",
		},
		"XCLIENT behind the login": {
			script: append(open("250-SIZE", "250-XCLIENT LOGIN", "250 AUTH PLAIN"), "C: AUTH PLAIN "+proof, "S: 235 2.7.0 Hello", "C: EHLO mx.example", "S: 250-ox.example", "S: 250 XCLIENT LOGIN"),
			want:   login.ErrReauthenticate.Error(),
		},
		"STARTTLS behind the login": {
			script: append(open("250-SIZE", "250-STARTTLS", "250 AUTH PLAIN"), "C: AUTH PLAIN "+proof, "S: 235 2.7.0 Hello", "C: EHLO mx.example", "S: 250-ox.example", "S: 250 STARTTLS"),
			want:   login.ErrReauthenticate.Error(),
		},
		"neither behind the login": {
			script: append(open("250-SIZE", "250-STARTTLS", "250-XCLIENT ADDR", "250 AUTH PLAIN"), "C: AUTH PLAIN "+proof, "S: 235 2.7.0 Hello", "C: EHLO mx.example", "S: 250-ox.example", "S: 250 SIZE"),
			want:   "welcome 235 2.7.0 Hello",
		},
		"XCLIENT not offered": {target: login.Target{Identity: login.IdentityXCLIENT, Client: client}, script: auth, want: "XCLIENT: not announced", silent: true},
		"XCLIENT refused": {
			target: login.Target{Identity: login.IdentityXCLIENT, Client: client}, script: append(open("250-XCLIENT ADDR", "250 AUTH PLAIN"), "C: XCLIENT ADDR=192.0.2.7", "S: 550 5.7.0 No"),
			want: "XCLIENT: answered 550", silent: true,
		},
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
			if string(got.Rest) != test.rest && strings.HasPrefix(test.want, "welcome") {
				t.Errorf("rest %q, want %q", got.Rest, test.rest)
			}
			if sent := got.Asked > 0; sent == test.silent {
				t.Errorf("Last was asked %d times", got.Asked)
			}
			if got.Err != nil && strings.Contains(got.Err.Error(), proof) {
				t.Errorf("the error has the credentials: %v", got.Err)
			}
		})
	}
}

func checkResult(t *testing.T, got logintest.Authenticated, want string) {
	t.Helper()
	var rejected *login.Rejection
	isRejection := errors.As(got.Err, &rejected)
	if answer, ok := strings.CutPrefix(want, "welcome "); ok {
		if got.Err != nil || string(got.Welcome.Final) != answer {
			t.Errorf("got %q, %v, want %q", got.Welcome.Final, got.Err, answer)
		}
		return
	}
	if answer, ok := strings.CutPrefix(want, "rejected "); ok {
		if !isRejection || string(rejected.Answer) != answer {
			t.Errorf("got %v (%q), want the rejection %q", got.Err, rejected, answer)
		}
		return
	}
	if got.Err == nil || isRejection || !strings.Contains(got.Err.Error(), want) {
		t.Errorf("got %v, want an error with %q", got.Err, want)
	}
}

func TestAuthenticateTLS(t *testing.T) {
	for _, mode := range []login.LegTLS{login.LegStartTLS, login.LegImplicit} {
		got := logintest.Authenticate(t, Dialogue{}, logintest.AuthenticateOptions{Target: login.Target{TLS: mode}}, attempt(), func(p *logintest.Peer) {
			if mode == login.LegStartTLS {
				p.Talk(append(open("250-STARTTLS", "250 AUTH PLAIN"), "C: STARTTLS", "S: 220 go")...)
				p.StartTLS()
				p.Talk("C: EHLO mx.example", "S: 250-ox.example")
			} else {
				p.Talk("S: 220 ox.example", "C: EHLO mx.example", "S: 250-ox.example")
			}
			p.Talk("S: 250-SIZE", "S: 250 AUTH PLAIN", "C: AUTH PLAIN "+proof, "S: 235 2.7.0 Hello")
		})
		checkResult(t, got, "welcome 235 2.7.0 Hello")
	}
}

// Nothing is sent once the decision doesn't hold, or where it may not go.
func TestNotSent(t *testing.T) {
	moved := errors.New("moved")
	for name, o := range map[string]logintest.AuthenticateOptions{
		"last":  {Last: func() error { return moved }},
		"plain": {MaySend: func(bool) error { return moved }},
	} {
		got := logintest.Authenticate(t, Dialogue{}, o, attempt(), func(p *logintest.Peer) {
			p.Talk(open("250-SIZE", "250 AUTH PLAIN")...)
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

func TestOffers(t *testing.T) {
	for lines, want := range map[string]login.Offers{
		"ox.example,size 5000,8BITMIME,CHUNKING,x": {Size: 5000, EightBitMIME: true, Chunking: true},
		"ox.example,SIZE,pipelining":               {Size: -1, Pipelining: true},
		"ox.example,SIZE 0":                        {Size: -1},
		"ox.example,DSN":                           {DSN: true},
		"ox.example":                               {},
	} {
		caps := parseCapabilities(strings.Split(lines, ","))
		got := caps.offers()
		if got != want {
			t.Errorf("%s: got %+v, want %+v", lines, got, want)
		}
		if missing := caps.missing(&got); len(missing) > 0 {
			t.Errorf("%s: lacks %v of its own", lines, missing)
		}
	}
}

// A platform that closes within its words has taken no login, and refused none.
func TestClosedAnywhere(t *testing.T) {
	stream := "220 ox.example\r\n250-ox.example\r\n250-SIZE\r\n250 AUTH PLAIN\r\n235 2.7.0 Hello\r\n"
	for n := range len(stream) + 1 {
		got := logintest.Authenticate(t, Dialogue{}, logintest.AuthenticateOptions{}, attempt(), func(p *logintest.Peer) {
			p.Offer(stream[:n])
			p.CloseWrite()
			p.All()
		})
		if n == len(stream) {
			checkResult(t, got, "welcome 235 2.7.0 Hello")
		} else {
			checkResult(t, got, "EOF")
		}
	}
}
