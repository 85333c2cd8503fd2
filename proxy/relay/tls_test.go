package relay

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"mailcutover/mail"
	"mailcutover/proxy/dial"

	gosmtp "github.com/emersion/go-smtp"
)

// authority issues certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	a := new(authority)
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool = x509.NewCertPool()
	a.pool.AddCert(a.cert)
	return a
}

// issue returns a server certificate for name and the digest of its key.
func (a *authority) issue(t testing.TB, name string, ends time.Duration) (*tls.Config, [32]byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(ends),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
}

func TestTLSPolicies(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	good, pin := ca.issue(t, "ox.example", time.Hour)
	wrongName, _ := ca.issue(t, "other.example", time.Hour)
	expired, expiredPin := ca.issue(t, "ox.example", -time.Hour)
	foreign, foreignPin := stranger.issue(t, "ox.example", time.Hour)
	old := good.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	cbc := good.Clone()
	cbc.MaxVersion, cbc.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}

	verified := dial.TLS{Policy: dial.TLSVerified, ServerName: "ox.example", CA: ca.pool}
	pinned := dial.TLS{Policy: dial.TLSVerified, ServerName: "ox.example", Pins: [][32]byte{{1}, pin}}
	both := dial.TLS{Policy: dial.TLSVerified, ServerName: "ox.example", CA: ca.pool, Pins: [][32]byte{pin}}
	offer := []string{"STARTTLS", "PIPELINING"}
	for _, c := range []struct {
		name   string
		tls    dial.TLS
		server *tls.Config
		ehlo   []string
		answer string // to STARTTLS
		err    string // part of it; empty: the mail arrives
		on     bool   // encrypted
	}{
		{"none, offered", dial.TLS{Policy: dial.TLSNone}, good, offer, "", "", false},
		{"opportunistic, offered", dial.TLS{Policy: dial.TLSOpportunistic}, foreign, offer, "", "", true},
		{"opportunistic, not offered", dial.TLS{Policy: dial.TLSOpportunistic}, good, []string{"PIPELINING"}, "", "", false},
		{"opportunistic, refused", dial.TLS{Policy: dial.TLSOpportunistic}, good, offer, "454 4.7.0 not now", "", false},
		{"opportunistic, 421", dial.TLS{Policy: dial.TLSOpportunistic}, good, offer, "421 4.7.0 not now", "421", false},
		{"opportunistic, handshake fails", dial.TLS{Policy: dial.TLSOpportunistic}, old, offer, "", "TLS handshake", false},
		{"opportunistic, CBC only", dial.TLS{Policy: dial.TLSOpportunistic}, cbc, offer, "", "does not go on in plain text", false},
		{"required, offered", dial.TLS{Policy: dial.TLSRequired}, expired, offer, "", "", true},
		{"required, stripped", dial.TLS{Policy: dial.TLSRequired}, good, []string{"PIPELINING"}, "", "not announced", false},
		{"required, refused", dial.TLS{Policy: dial.TLSRequired}, good, offer, "454 4.7.0 not now", "454", false},
		{"required, TLS 1.1", dial.TLS{Policy: dial.TLSRequired}, old, offer, "", "protocol version", false},
		{"required, CBC only", dial.TLS{Policy: dial.TLSRequired}, cbc, offer, "", "handshake failure", false},
		{"verified", verified, good, offer, "", "", true},
		{"verified, stripped", verified, good, []string{"PIPELINING"}, "", "not announced", false},
		{"verified, wrong name", verified, wrongName, offer, "", "certificate is valid for other.example, not ox.example", false},
		{"verified, expired", verified, expired, offer, "", "certificate has expired", false},
		{"verified, foreign CA", verified, foreign, offer, "", "certificate signed by unknown authority", false},
		{"pinned", pinned, good, offer, "", "", true},
		{"pinned, foreign key", pinned, foreign, offer, "", "is not one of the 2 pinned keys", false},
		{"pinned, no CA, expired", dial.TLS{Policy: dial.TLSVerified, Pins: [][32]byte{expiredPin}}, expired, offer, "", "", true},
		{"pinned and CA", both, good, offer, "", "", true},
		{"pinned and CA, foreign", dial.TLS{Policy: dial.TLSVerified, ServerName: "ox.example", CA: ca.pool, Pins: [][32]byte{foreignPin}}, foreign, offer, "", "unknown authority", false},
		{"implicit", dial.TLS{Policy: dial.TLSVerified, ServerName: "ox.example", CA: ca.pool, Implicit: true}, good, []string{"PIPELINING"}, "", "", true},
		{"implicit, wrong name", dial.TLS{Policy: dial.TLSVerified, ServerName: "ox.example", CA: ca.pool, Implicit: true}, wrongName, []string{"PIPELINING"}, "", "not ox.example", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			peer := startPeer(t, &peer{ehlo: c.ehlo, tls: c.server, implicit: c.tls.Implicit, answer: func(_ *session, v, _ string) string {
				return map[string]string{"STARTTLS": c.answer}[v]
			}})
			ep := endpoint(peer.addr)
			ep.TLS = c.tls
			p := newPool(t, ep, Options{})
			out := deliver(testContext(t), t, p, strings.Repeat("x\r\n", 20000), "b@x.example")
			err := out.err()
			if c.err == "" {
				if err != nil || p.Capabilities().TLS != c.on {
					t.Errorf("TLS %t, want %t; %v", p.Capabilities().TLS, c.on, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.err) || mail.AsReply(err).Code != 451 {
				t.Errorf("got %v, want %q", err, c.err)
			}
			if want := c.answer == ""; errors.Is(err, ErrNeedsOperator) != want {
				t.Errorf("worth an alarm: %t: %v", !want, err)
			}
			if strings.Contains(peer.commands(), "MAIL") || p.Stats().Open != 0 {
				t.Errorf("commands %s", peer.commands())
			}
		})
	}
}

// Bytes that somebody puts behind the 220 in plain text have no effect.
func TestSTARTTLSInjection(t *testing.T) {
	ca := newAuthority(t)
	server, _ := ca.issue(t, "ox.example", time.Hour)
	peer := startPeer(t, &peer{ehlo: []string{"STARTTLS"}, tls: server, answer: func(_ *session, v, _ string) string {
		return map[string]string{"STARTTLS": "220 go on\r\n250-evil\r\n250 AUTH PLAIN"}[v]
	}})
	ep := endpoint(peer.addr)
	ep.TLS = dial.TLS{Policy: dial.TLSVerified, ServerName: "ox.example", CA: ca.pool}
	p := newPool(t, ep, Options{})
	_, err := p.Open(testContext(t), mail.Client{}, mail.Path{}, nil)
	if !errors.Is(err, ErrProtocol) || p.Stats().Open != 0 {
		t.Errorf("got %v", err)
	}
}

// What was announced before TLS is forgotten.
func TestCapabilitiesAfterSTARTTLS(t *testing.T) {
	ca := newAuthority(t)
	server, _ := ca.issue(t, "ox.example", time.Hour)
	peer := startPeer(t, &peer{tls: server, answer: func(s *session, v, _ string) string {
		if v != "EHLO" {
			return ""
		}
		if _, on := s.nc.(*tls.Conn); on {
			return "250-peer\r\n250-SIZE 77\r\n250 REQUIRETLS"
		}
		return "250-peer\r\n250-STARTTLS\r\n250-PIPELINING\r\n250 DSN"
	}})
	ep := endpoint(peer.addr)
	ep.TLS = dial.TLS{Policy: dial.TLSVerified, ServerName: "ox.example", CA: ca.pool}
	p := newPool(t, ep, Options{})
	out := deliverFrom(testContext(t), t, p, mail.Client{}, &gosmtp.MailOptions{RequireTLS: true}, "x\r\n", "b@x.example")
	if err := out.err(); err != nil {
		t.Fatal(err)
	}
	if c := p.Capabilities(); c.Pipelining || c.DSN || c.Size != 77 || !c.RequireTLS || !c.TLS {
		t.Errorf("%+v", c)
	}
	if !strings.Contains(peer.commands(), "MAIL FROM:<a@out.example> REQUIRETLS;") {
		t.Errorf("commands %s", peer.commands())
	}
}

// An answer too many is seen before the dot, whether it waits in the socket, in TLS or in our
// own buffer: it must never be taken for the answer to the dot.
func TestAnswerTooManyIsNotTakenForTheDots(t *testing.T) {
	ca := newAuthority(t)
	server, _ := ca.issue(t, "ox.example", time.Hour)
	for _, policy := range []dial.TLSPolicy{dial.TLSNone, dial.TLSRequired} {
		for _, gap := range []string{"one write", "one segment", "two writes", "later"} {
			t.Run(policy.String()+", "+gap, func(t *testing.T) {
				peer := startPeer(t, &peer{ehlo: []string{"STARTTLS"}, tls: server, answer: func(s *session, v, _ string) string {
					switch {
					case v == "DATA" && gap == "one segment":
						s.inData = true
						if s.cork != nil {
							s.cork.join = 2
						}
						s.say("354 go on")
						return "250 2.0.0 queued"
					case v == "DATA" && gap == "one write":
						return "354 go on\r\n250 2.0.0 queued"
					case v == "DATA" && gap == "two writes":
						s.inData = true
						s.say("354 go on")
						return "250 2.0.0 queued"
					case v == "body" && gap == "later":
						return "250 2.0.0 queued"
					}
					return ""
				}})
				ep := endpoint(peer.addr)
				ep.TLS = dial.TLS{Policy: policy}
				p := newPool(t, ep, Options{})
				err := slowBody(testContext(t), t, p, peer)
				if err == nil || errors.Is(err, ErrInDoubt) || mail.AsReply(err).Code != 451 || len(peer.bodies()) != 0 {
					t.Errorf("got %v, platform has %q", err, peer.bodies())
				}
			})
		}
	}
}

// The dot is in doubt under TLS by the same rule: if a byte of its record may have gone out.
func TestInDoubtUnderTLS(t *testing.T) {
	ca := newAuthority(t)
	server, _ := ca.issue(t, "ox.example", time.Hour)
	for _, verb := range []string{"DATA", "."} {
		peer := startPeer(t, &peer{ehlo: []string{"STARTTLS"}, tls: server, answer: func(_ *session, v, _ string) string {
			return map[string]string{verb: cut}[v]
		}})
		ep := endpoint(peer.addr)
		ep.TLS = dial.TLS{Policy: dial.TLSRequired}
		err := deliver(testContext(t), t, newPool(t, ep, Options{}), "x\r\n", "b@x.example").err()
		if err == nil || errors.Is(err, ErrInDoubt) != (verb == ".") {
			t.Errorf("cut at %s: %v", verb, err)
		}
	}
}

func TestAuth(t *testing.T) {
	const secret = "geheim-7531"
	plain := "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00relay\x00"+secret))
	login := "AUTH LOGIN;" + base64.StdEncoding.EncodeToString([]byte("relay")) + ";" + base64.StdEncoding.EncodeToString([]byte(secret))
	for _, c := range []struct {
		name, mechanism, keyword string
		answers                  []string // to AUTH and its continuations
		want                     string   // commands between EHLO and MAIL
		err                      string
	}{
		{"PLAIN", "", "AUTH LOGIN PLAIN", []string{"235 2.7.0 ok"}, plain, ""},
		{"LOGIN", "", "AUTH LOGIN", []string{"334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235 2.7.0 ok"}, login, ""},
		{"LOGIN as configured", "LOGIN", "AUTH PLAIN LOGIN", []string{"334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235 2.7.0 ok"}, login, ""},
		{"not announced", "", "HELP", nil, "", "no mechanism in common"},
		{"only others", "", "AUTH GSSAPI NTLM", nil, "", "no mechanism in common"},
		{"wrong password", "", "AUTH PLAIN", []string{"535 5.7.8 bad credentials"}, plain, "535 5.7.8 bad credentials"},
		{"text repeats the password", "", "AUTH PLAIN", []string{"535 5.7.8 no such password " + secret}, plain, "text withheld"},
		{"text repeats the line", "", "AUTH PLAIN", []string{"500 unknown command " + plain}, plain, "text withheld"},
		{"text repeats the response", "", "AUTH PLAIN", []string{"500 unknown " + plain[11:]}, plain, "text withheld"},
		{"endless challenges", "", "AUTH LOGIN", []string{"334 x", "334 x", "334 x"}, login, "334"},
		{"success too early", "", "AUTH LOGIN", []string{"235 2.7.0 ok"}, "AUTH LOGIN", "235"},
	} {
		t.Run(c.name, func(t *testing.T) {
			step := 0
			peer := startPeer(t, &peer{ehlo: []string{c.keyword}, answer: func(_ *session, v, line string) string {
				if strings.HasPrefix(c.want, line) || strings.HasSuffix(c.want, line) || strings.Contains(c.want, ";"+line+";") {
					if v != "EHLO" && v != "MAIL" && line != "" {
						step++
						return c.answers[step-1]
					}
				}
				return ""
			}})
			ep := endpoint(peer.addr)
			ep.Auth = &Auth{Mechanism: c.mechanism, Username: "relay", Password: func() (string, error) { return secret, nil }}
			var log strings.Builder
			p := newPool(t, ep, Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
			err := deliver(testContext(t), t, p, "x\r\n", "b@x.example").err()
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Fatalf("got %v, want %q", err, c.err)
			}
			if err != nil && mail.AsReply(err).Code != 451 {
				t.Errorf("passed on as %v", mail.AsReply(err))
			}
			got := strings.TrimPrefix(strings.TrimPrefix(peer.commands(), "EHLO node.example"), ";")
			got, _, _ = strings.Cut(got, ";MAIL")
			if got != c.want {
				t.Errorf("commands %s, want %s", got, c.want)
			}
			p.Close()
			for _, hidden := range []string{secret, plain[11:]} {
				if strings.Contains(log.String()+fmt.Sprint(err), hidden) {
					t.Errorf("%s in %s %v", hidden, log.String(), err)
				}
			}
		})
	}
}

func TestNoCredentialsWithoutVerifiedTLS(t *testing.T) {
	ep := endpoint("192.0.2.1:25")
	ep.Auth = &Auth{Username: "relay", Password: func() (string, error) { return "x", nil }}
	for _, policy := range []dial.TLSPolicy{dial.TLSNone, dial.TLSOpportunistic, dial.TLSRequired} {
		ep.TLS.Policy = policy
		if err := ep.Validate(); err == nil || !strings.Contains(err.Error(), "verified") {
			t.Errorf("%s: %v", policy, err)
		}
	}
	// And not either if the name of a loopback host leads elsewhere.
	c := newConn(elsewhere{}, new(host), time.Second, 0)
	c.caps.auth = []string{"PLAIN"}
	p := newPool(t, endpoint("localhost:25"), Options{})
	p.ep.Auth = ep.Auth
	if err := p.authenticate(c); err == nil || !strings.Contains(err.Error(), "refusing") {
		t.Errorf("got %v", err)
	}
}

// elsewhere is a connection to another machine.
type elsewhere struct{ net.Conn }

func (elsewhere) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 25} }

func TestPasswordIsAskedForEachConnection(t *testing.T) {
	n := 0
	fail := errors.New("no such file")
	peer := startPeer(t, &peer{ehlo: []string{"AUTH PLAIN"}, answer: func(_ *session, v, _ string) string {
		return map[string]string{"AUTH": "235 ok"}[v]
	}})
	ep := endpoint(peer.addr)
	ep.Limits.MaxMessages = 1
	ep.Auth = &Auth{Username: "relay", Password: func() (string, error) {
		if n++; n == 3 {
			return "", fail
		}
		return fmt.Sprint("password", n), nil
	}}
	p := newPool(t, ep, Options{})
	for range 2 {
		if err := deliver(testContext(t), t, p, "x\r\n", "b@x.example").err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := deliver(testContext(t), t, p, "x\r\n", "b@x.example").err(); !errors.Is(err, fail) || n != 3 {
		t.Errorf("asked %d times, %v", n, err)
	}
}
