package submission

import (
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailcutover/proxy/login"
	"mailcutover/proxy/login/logintest"
	"mailcutover/test/peers"
)

// anyone is where a client of the tests comes from, as the platform is told.
var anyone = login.ClientInfo{Addr: "192.0.2.77", Port: "4711", Session: "s-1"}

// Real clients log in at real platforms, through the dialogue.
func TestPeers(t *testing.T) {
	cert, key, trust := logintest.PlatformFiles(t)
	sink := peers.StartSink(t)
	authPort := strconv.Itoa(peers.Port(t))
	dovecot := peers.StartDovecot(t, peers.DovecotOptions{
		Logins: true, Relay: sink.Addr,
		Users: map[string]string{"anna@ox.example": "secret"},
		Extra: "ssl = yes\nssl_cert = <" + cert + "\nssl_key = <" + key + "\nauth_mechanisms = plain login\nservice auth {\n inet_listener {\n  address = 127.0.0.1\n  port = " + authPort + "\n }\n}\n",
	})
	postfix := peers.StartPostfixPlatform(t, peers.PostfixPlatformOptions{Settings: map[string]string{
		"smtpd_tls_security_level":       "may",
		"smtpd_tls_cert_file":            cert,
		"smtpd_tls_key_file":             key,
		"smtpd_sasl_auth_enable":         "yes",
		"smtpd_sasl_type":                "dovecot",
		"smtpd_sasl_path":                "inet:127.0.0.1:" + authPort,
		"smtpd_authorized_xclient_hosts": "127.0.0.1",
		"smtpd_relay_restrictions":       "permit_sasl_authenticated, reject",
	}})
	for _, platform := range []struct {
		name, addr string
		log        func() string
		seen       string // how the log tells of the client
		offers     login.Offers
	}{
		{"Dovecot", dovecot.Submission, dovecot.Output, "rip=192.0.2.77", login.Offers{EightBitMIME: true, Pipelining: true, Chunking: true, Enhanced: true}},
		{"Postfix", postfix.Addr, postfix.Log, "client=unknown[192.0.2.77]", login.Offers{EightBitMIME: true, Pipelining: true, Chunking: true, Enhanced: true, DSN: true, SMTPUTF8: true}},
	} {
		t.Run(platform.name, func(t *testing.T) {
			through := func(identity login.Identity, trust *tls.Config) *logintest.Through {
				return logintest.StartThrough(t, Dialogue{}, logintest.ThroughOptions{
					Platform: platform.addr, TLS: trust,
					Front:  login.Front{TLS: true, Offers: func() login.Offers { return platform.offers }},
					Target: login.Target{Identity: identity, Client: anyone},
					Login:  func(string) string { return "anna@ox.example" },
				})
			}
			if platform.name == "Dovecot" {
				useCurl(t, through(login.IdentityNone, nil).Addr)
			} else {
				// It would let the client say XCLIENT in our name, or begin anew by STARTTLS.
				useless(t, through(login.IdentityNone, trust))
				useless(t, through(login.IdentityNone, nil))
			}
			if strings.Contains(platform.log(), platform.seen) {
				t.Errorf("the platform was told of the client: %s", platform.log())
			}
			useClients(t, through(login.IdentityXCLIENT, trust).Addr)
			peers.WaitFor(t, time.Minute, "log of the client's address", func() bool { return strings.Contains(platform.log(), platform.seen) })
			leg := legTo(t, platform.addr)
			got, err := Dialogue{}.Probe(leg)
			if got.Size = 0; err != nil || got != platform.offers {
				t.Errorf("probe: got %+v, %v, want %+v", got, err, platform.offers)
			}
		})
	}
}

// useless tries a login, which has to be refused by reason of what is possible behind it.
func useless(t *testing.T, through *logintest.Through) {
	t.Helper()
	_, status := peers.Curl(t, "-k", "-u", "anna:secret", "smtp://"+through.Addr)
	if errs := through.Errors(); status != 67 || len(errs) == 0 || !errors.Is(errs[0], login.ErrReauthenticate) {
		t.Errorf("curl: exit status %d; errors %v, want %v", status, errs, login.ErrReauthenticate)
	}
}

// useClients sends a message with each client, and tries a wrong password.
func useClients(t *testing.T, addr string) {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	for _, args := range [][]string{{"--auth", "PLAIN"}, {"--auth", "LOGIN", "--tls"}, {"--auth", "PLAIN", "--pipeline"}} {
		for password, want := range map[string]int{"secret": 0, "wrong": 28} {
			out, status := peers.Swaks(t, append(args, "--server", host, "--port", port, "--from", "anna@ox.example", "--to", "bert@ox.example",
				"--auth-user", "anna", "--auth-password", password)...)
			if status != want || want != 0 && !strings.Contains(out, "535 5.7.8") {
				t.Errorf("swaks %v, password %s: exit status %d, want %d\n%s", args, password, status, want, out)
			}
		}
	}
	useCurl(t, addr)
	if out, status := peers.Python(t, python, host, port); status != 0 || strings.TrimSpace(out) != "ok" {
		t.Errorf("python: exit status %d\n%s", status, out)
	}
}

func useCurl(t *testing.T, addr string) {
	t.Helper()
	out, status := peers.Curl(t, "-k", "--ssl-reqd", "--crlf", "--mail-from", "anna@ox.example", "--mail-rcpt", "bert@ox.example",
		"-u", "anna:secret", "-F", "=hello", "smtp://"+addr)
	if status != 0 {
		t.Errorf("curl: exit status %d\n%s", status, out)
	}
}

const python = `
import smtplib, ssl, sys
context = ssl._create_unverified_context()
s = smtplib.SMTP(sys.argv[1], int(sys.argv[2]), timeout=60)
try:
    s.sendmail('anna@ox.example', ['bert@ox.example'], b'Subject: x\r\n\r\nx\r\n')
    raise SystemExit('mail before AUTH')
except smtplib.SMTPSenderRefused as e:
    assert e.smtp_code == 530, e
s.starttls(context=context)
try:
    s.login('anna', 'wrong')
    raise SystemExit('wrong password')
except smtplib.SMTPAuthenticationError as e:
    assert e.smtp_code == 535, e
s.login('anna', 'secret')
assert s.docmd('XCLIENT', 'ADDR=1.2.3.4 LOGIN=bert@ox.example')[0] >= 500
s.sendmail('anna@ox.example', ['bert@ox.example'], b'Subject: x\r\n\r\n.x\r\n')
assert s.docmd('AUTH', 'PLAIN AGEAYg==')[0] == 503
s.quit()
print('ok')
`

// legTo returns a leg to a platform.
func legTo(t *testing.T, addr string) *login.Leg {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return login.NewLeg(login.LegOptions{Net: nc, Target: login.Target{Platform: "platform", Host: addr, Helo: "mx.example"}})
}
