package dial

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// issue returns a certificate for name and its pool and pin.
func issue(t *testing.T, name string) (tls.Certificate, *x509.CertPool, [sha256.Size]byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool, sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// platform answers handshakes with config, and keeps connections until the test ends. A nil
// config says nothing.
func platform(t *testing.T, config *tls.Config) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			if config != nil {
				s := tls.Server(nc, config)
				s.SetDeadline(time.Now().Add(10 * time.Second))
				if s.Handshake() == nil {
					io.Copy(io.Discard, s)
				}
			} else {
				io.Copy(io.Discard, nc)
			}
			nc.Close()
		}
	}()
	return ln.Addr().String()
}

func TestHandshakes(t *testing.T) {
	good, ca, pin := issue(t, "ox.example")
	_, foreign, foreignPin := issue(t, "ox.example")
	strict := &tls.Config{Certificates: []tls.Certificate{good}}
	old := &tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	cbc := &tls.Config{Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}
	for _, c := range []struct {
		name   string
		tls    TLS
		server *tls.Config
		ok     bool
	}{
		{"required", TLS{Policy: TLSRequired}, strict, true},
		{"required, TLS 1.1", TLS{Policy: TLSRequired}, old, false},
		{"required, CBC", TLS{Policy: TLSRequired}, cbc, false},
		{"verified", TLS{Policy: TLSVerified, ServerName: "ox.example", CA: ca}, strict, true},
		{"verified, another CA", TLS{Policy: TLSVerified, ServerName: "ox.example", CA: foreign}, strict, false},
		{"verified, another name", TLS{Policy: TLSVerified, ServerName: "exchange.example", CA: ca}, strict, false},
		{"verified, the host's name", TLS{Policy: TLSVerified, CA: ca}, strict, false}, // 127.0.0.1
		{"verified, the system's CAs", TLS{Policy: TLSVerified, ServerName: "ox.example"}, strict, false},
		{"pinned", TLS{Policy: TLSVerified, Pins: [][sha256.Size]byte{{1}, pin}}, strict, true},
		{"pinned, another key", TLS{Policy: TLSVerified, Pins: [][sha256.Size]byte{foreignPin}}, strict, false},
		{"CA and pin", TLS{Policy: TLSVerified, ServerName: "ox.example", CA: ca, Pins: [][sha256.Size]byte{pin}}, strict, true},
		{"CA, and another key", TLS{Policy: TLSVerified, ServerName: "ox.example", CA: ca, Pins: [][sha256.Size]byte{foreignPin}}, strict, false},
		{"another CA, and pin", TLS{Policy: TLSVerified, ServerName: "ox.example", CA: foreign, Pins: [][sha256.Size]byte{pin}}, strict, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := New(Endpoint{Platform: "ox", Hosts: []string{platform(t, c.server)}, TLS: c.tls}, Options{})
			if err != nil {
				t.Fatal(err)
			}
			nc, host, err := d.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if err := d.MaySend(nc); err == nil {
				t.Error("credentials may be sent in plain text")
			}
			conn, err := d.Handshake(t.Context(), nc, host)
			if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrTLS) {
				t.Fatalf("handshake: %v, want success %v", err, c.ok)
			}
			if err == nil {
				if conn.NetConn() != nc {
					t.Error("TLS lies on something else")
				}
				if err := d.MaySend(conn); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestHandshakeEnds has a platform that says nothing: the deadline and the caller's end are
// no faults of the policy.
func TestHandshakeEnds(t *testing.T) {
	cut := errors.New("cut")
	for name, c := range map[string]struct {
		timeout time.Duration
		end     bool
		want    error
	}{"deadline": {50 * time.Millisecond, false, context.DeadlineExceeded}, "cut": {time.Minute, true, cut}} {
		d, err := New(Endpoint{Platform: "ox", Hosts: []string{platform(t, nil)}, TLS: TLS{Policy: TLSRequired}, HandshakeTimeout: c.timeout}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		nc, host, err := d.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		if c.end {
			go cancel(cut)
		}
		if _, err := d.Handshake(ctx, nc, host); !errors.Is(err, c.want) || errors.Is(err, ErrTLS) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		cancel(nil)
		nc.Close()
	}
}

// remote is a connection to somewhere.
type remote struct {
	net.Conn
	addr string
}

func (r remote) RemoteAddr() net.Addr {
	a, _ := net.ResolveTCPAddr("tcp", r.addr)
	return a
}

// TestMaySend is about plain text: TLS is TestHandshakes'.
func TestMaySend(t *testing.T) {
	for _, c := range []struct {
		policy TLSPolicy
		to     string
		ok     bool
	}{
		{TLSNone, "127.0.0.1:143", true},
		{TLSNone, "[::1]:143", true},
		{TLSNone, "[::ffff:127.0.0.1]:143", true},
		{TLSNone, "192.0.2.1:143", false},
		{TLSOpportunistic, "127.0.0.1:143", true},
		{TLSOpportunistic, "192.0.2.1:143", false},
		{TLSRequired, "127.0.0.1:143", false},
		{TLSVerified, "127.0.0.1:143", false},
		{TLSVerified, "192.0.2.1:143", false},
	} {
		d, err := New(Endpoint{Platform: "ox", Hosts: []string{"ox.example:143"}, TLS: TLS{Policy: c.policy}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, nc := range []net.Conn{remote{addr: c.to}, tls.Client(remote{addr: c.to}, new(tls.Config))} { // no handshake yet
			if err := d.MaySend(nc); (err == nil) != c.ok {
				t.Errorf("policy %s, to %s: %v, want success %v", c.policy, c.to, err, c.ok)
			}
		}
	}
}

// TestSettingsAreChecked wants all that is wrong at once.
func TestSettingsAreChecked(t *testing.T) {
	pins := [][sha256.Size]byte{{1}}
	for want, ep := range map[string]Endpoint{
		"at least one":    {TLS: TLS{Policy: TLSNone}},
		"host:port":       {Hosts: []string{"ox.example"}, TLS: TLS{Policy: TLSNone}},
		"twice":           {Hosts: []string{"a:1", "a:1"}, TLS: TLS{Policy: TLSNone}},
		"policy unknown":  {Hosts: []string{"a:1"}},
		"implicit":        {Hosts: []string{"a:1"}, TLS: TLS{Policy: TLSOpportunistic, Implicit: true}},
		"pinned keys":     {Hosts: []string{"a:1"}, TLS: TLS{Policy: TLSRequired, Pins: pins}},
		"at least back":   {Hosts: []string{"a:1"}, TLS: TLS{Policy: TLSNone}, Backoff: Backoff{First: time.Minute, Max: time.Second}},
		"handshake timeo": {Hosts: []string{"a:1"}, TLS: TLS{Policy: TLSNone}, HandshakeTimeout: -1},
	} {
		if _, err := New(ep, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
