package pop3

import (
	"net"
	"strings"
	"testing"
	"time"

	"mailcutover/proxy/login"
	"mailcutover/proxy/login/logintest"
	"mailcutover/test/peers"
)

// Real clients log in at Dovecot, through the dialogue.
func TestPeers(t *testing.T) {
	cert, key, trust := logintest.PlatformFiles(t)
	dovecot := peers.StartDovecot(t, peers.DovecotOptions{Logins: true, Extra: "ssl = yes\nssl_cert = <" + cert + "\nssl_key = <" + key + "\n", Users: map[string]string{"anna@ox.example": "se cret"}})
	for _, identity := range []login.Identity{login.IdentityNone, login.IdentityXCLIENT} {
		if identity == login.IdentityXCLIENT {
			trust = nil // and in plain text
		}
		through := logintest.StartThrough(t, Dialogue{}, logintest.ThroughOptions{
			TLS:      trust,
			Platform: dovecot.POP3,
			Front:    login.Front{TLS: true},
			Target:   login.Target{Identity: identity, Client: login.ClientInfo{Addr: "192.0.2.77", Port: "4711", Session: "s-1"}},
			Login:    func(string) string { return "anna@ox.example" },
		})
		host, port, _ := net.SplitHostPort(through.Addr)
		if out, status := peers.Python(t, python, host, port); status != 0 || strings.TrimSpace(out) != "ok" {
			t.Errorf("python: exit status %d\n%s", status, out)
		}
		for password, want := range map[string]int{"se cret": 0, "wrong": 67} {
			if identity != login.IdentityNone {
				break
			}
			for _, more := range [][]string{{}, {"--sasl-ir"}, {"--login-options", "AUTH=LOGIN"}} {
				out, status := peers.Curl(t, append(more, "-k", "--ssl-reqd", "-u", "anna:"+password, "pop3://"+through.Addr)...)
				if status != want {
					t.Errorf("curl %v, password %s: exit status %d, want %d\n%s", more, password, status, want, out)
				}
			}
		}
		told := func() bool {
			return strings.Contains(dovecot.Output(), "rip=192.0.2.77") && strings.Contains(dovecot.Output(), "session=<s-1>")
		}
		if identity == login.IdentityXCLIENT {
			peers.WaitFor(t, time.Minute, "log of the client's address", told)
		} else if told() {
			t.Errorf("Dovecot was told of the client: %s", dovecot.Output())
		}
	}
	nc, err := net.Dial("tcp", dovecot.POP3)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	got, err := Dialogue{}.Probe(login.NewLeg(login.LegOptions{Net: nc}))
	if err != nil || !got.Pipelining {
		t.Errorf("probe: got %+v, %v, want PIPELINING", got, err)
	}
}

const python = `
import poplib, ssl, sys
context = ssl._create_unverified_context()
p = poplib.POP3(sys.argv[1], int(sys.argv[2]), timeout=60)
assert 'STLS' in p.capa(), p.capa()
p.stls(context=context)
p.user('anna')
try:
    p.pass_('wrong')
    raise SystemExit('wrong password')
except poplib.error_proto as e:
    assert b'[AUTH]' in e.args[0], e
p.user('anna')
p.pass_('se cret')
p.stat(), p.list(), p.uidl(), p.quit()
print('ok')
`
