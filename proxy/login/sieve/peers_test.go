package sieve

import (
	"net"
	"strings"
	"testing"
	"time"

	"mailcutover/proxy/login"
	"mailcutover/proxy/login/logintest"
	"mailcutover/test/peers"
)

// A client's words go to Dovecot's Pigeonhole, through the dialogue.
func TestPeers(t *testing.T) {
	cert, key, trust := logintest.PlatformFiles(t)
	dovecot := peers.StartDovecot(t, peers.DovecotOptions{Logins: true, Extra: "ssl = yes\nssl_cert = <" + cert + "\nssl_key = <" + key + "\n", Users: map[string]string{"anna@ox.example": "secret"}})
	for _, identity := range []login.Identity{login.IdentityNone, login.IdentityXCLIENT} {
		if identity == login.IdentityXCLIENT {
			trust = nil // and in plain text
		}
		through := logintest.StartThrough(t, Dialogue{}, logintest.ThroughOptions{
			TLS:      trust,
			Platform: dovecot.Sieve,
			Front:    login.Front{TLS: true, RequireTLS: true},
			Target:   login.Target{Identity: identity, Client: login.ClientInfo{Addr: "192.0.2.77", Port: "4711", Session: "s-1"}},
			Login:    func(string) string { return "anna@ox.example" },
		})
		host, port, _ := net.SplitHostPort(through.Addr)
		if out, status := peers.Python(t, python, host, port); status != 0 || strings.TrimSpace(out) != "ok" {
			t.Errorf("python: exit status %d\n%s", status, out)
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
	nc, err := net.Dial("tcp", dovecot.Sieve)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	got, err := Dialogue{}.Probe(login.NewLeg(login.LegOptions{Net: nc}))
	if err != nil || !strings.Contains(got.Sieve, "fileinto") {
		t.Errorf("probe: got %+v, %v, want extensions", got, err)
	}
}

// python is a client of few words, since its library has none.
const python = `
import base64, socket, ssl, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60)
f = s.makefile('rb')
def answer():
    lines = []
    while True:
        line = f.readline()
        assert line, lines
        lines.append(line)
        if line.split()[0] in (b'OK', b'NO', b'BYE'):
            return lines
def say(line):
    s.sendall(line + b'\r\n')
    return answer()
assert b'"STARTTLS"\r\n' in answer()
assert say(b'STARTTLS')[-1].startswith(b'OK')
s = ssl._create_unverified_context().wrap_socket(s)
f = s.makefile('rb')
assert b'"SASL" "PLAIN LOGIN OAUTHBEARER XOAUTH2"\r\n' in answer()
proof = lambda p: base64.b64encode(b'\0anna\0' + p)
got = say(b'AUTHENTICATE "PLAIN" "' + proof(b'wrong') + b'"')
assert got == [b'NO "Authentication failed."\r\n'], got
got = say(b'AUTHENTICATE "PLAIN" {%d+}\r\n%s' % (len(proof(b'secret')), proof(b'secret')))
assert got == [b'OK "Logged in."\r\n'], got
got = say(b'CAPABILITY')
assert any(b'Pigeonhole' in line for line in got), got
script = b'require "fileinto";\r\nfileinto "x";\r\n'
got = say(b'PUTSCRIPT "x" {%d+}\r\n%s' % (len(script), script))
assert got[-1].startswith(b'OK'), got
assert say(b'LISTSCRIPTS')[0] == b'"x"\r\n'
assert say(b'DELETESCRIPT "x"')[-1].startswith(b'OK')
assert say(b'LOGOUT')[-1].startswith(b'OK')
print('ok')
`
