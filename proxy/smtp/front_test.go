package smtp

import (
	"crypto/tls"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/mail"
	"mailcutover/proxy/listen/listentest"
)

// TestXforwardFromTrustedNets wants it to be taken from those, for one transaction.
func TestXforwardFromTrustedNets(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.XForwardNets = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	r := &recorder{}
	_, addr := startServer(t, o, r)
	p := dial(t, addr)
	p.expect("220 ")
	if got := p.command("EHLO relay.example", "250"); !strings.Contains(got, "XFORWARD NAME ADDR PORT PROTO HELO SOURCE") {
		t.Errorf("XFORWARD is not announced: %s", got)
	}
	p.command("XFORWARD NAME=client.example ADDR=192.0.2.1", "250 ")
	p.command("XFORWARD PORT=1025 HELO=helo.example", "250 ")
	p.command("XFORWARD NAME=a+0Ab", "501 ")
	p.envelope()
	p.command("XFORWARD NAME=late", "503 ")
	p.command("RSET", "250 ")
	p.envelope()
	r.mu.Lock()
	defer r.mu.Unlock()
	first, second := r.clients[0], r.clients[1]
	if first.Addr.String() != "192.0.2.1:1025" || first.Name != "client.example" || first.Helo != "helo.example" {
		t.Errorf("client is %+v", first)
	}
	if second.Addr != second.Peer || second.Name != "" || second.Helo != "relay.example" || first.Peer != second.Peer {
		t.Errorf("second transaction's client is %+v", second)
	}
}

// TestOriginByNet wants the nets to outrank the listener, by the address that the
// PROXY header names.
func TestOriginByNet(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.InsideNets = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	o.ProxyNets = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for header, want := range map[string]mail.Origin{
		"PROXY TCP4 192.0.2.1 192.0.2.2 1025 25\r\n":    mail.OriginInside,
		"PROXY TCP4 198.51.100.1 192.0.2.2 1025 25\r\n": mail.OriginOutside,
		"PROXY UNKNOWN\r\n":                             mail.OriginOutside,
	} {
		r := &recorder{}
		_, addr := startServer(t, o, r)
		p := dial(t, addr)
		p.send(header)
		p.hello().envelope()
		r.mu.Lock()
		if c := r.clients[0]; c.Origin != want {
			t.Errorf("%q: origin is %s, want %s", header, c.Origin, want)
		}
		r.mu.Unlock()
	}
}

// TestProxyHeaderIsRequiredOrRefused is L7.
func TestProxyHeaderIsRequiredOrRefused(t *testing.T) {
	t.Parallel()
	listed := testOptions()
	listed.ProxyNets = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	_, patient := startServer(t, listed, &recorder{})
	listed.Limits.Handshake = 600 * time.Millisecond // which a header that comes whole may need on a busy machine
	_, hasty := startServer(t, listed, &recorder{})
	for _, c := range listentest.Headers() {
		addr := hasty
		if c.Kind == listentest.Valid {
			addr = patient
		}
		p := dial(t, addr)
		p.send(c.Bytes)
		if c.Kind == listentest.Valid {
			p.hello()
		} else {
			p.expectEnd()
		}
	}
	_, addr := startServer(t, testOptions(), &recorder{})
	for _, header := range []string{"PROXY TCP4 192.0.2.1 192.0.2.2 1025 25\r\n", listentest.V2(0x20, 0)} {
		p := dial(t, addr)
		p.expect("220 ")
		p.send(header)
		p.expectEnd()
	}
}

// TestFront holds the listener to what holds for all protocols.
func TestFront(t *testing.T) {
	certificates := serverTLS(t)
	listentest.Run(t, func(t *testing.T, s listentest.Settings) string {
		o := testOptions()
		o.ProxyNets, o.Limits.ConnectionsPerAddress = s.ProxyNets, s.ConnectionsPerAddress
		o.TLSConfig, o.ImplicitTLS = certificates, s.Implicit
		if s.HeaderTime > 0 {
			o.Limits.Handshake = s.HeaderTime
		}
		_, addr := startServer(t, o, &recorder{})
		return addr
	})
}

// TestProxyHeaderBeforeTLS has a header and the handshake in one segment, and one that
// comes within TLS.
func TestProxyHeaderBeforeTLS(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.ProxyNets = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	o.TLSConfig, o.ImplicitTLS = serverTLS(t), true
	r := &recorder{}
	_, addr := startServer(t, o, r)
	p := dial(t, addr)
	p.conn = &prefixed{Conn: p.conn, prefix: "PROXY TCP4 192.0.2.1 192.0.2.2 1025 465\r\n"}
	if err := p.startTLS(anyCertificate); err != nil {
		t.Fatal(err)
	}
	p.hello().envelope()
	r.mu.Lock()
	if c := r.clients[0]; c.Addr.String() != "192.0.2.1:1025" || c.Local.String() != "192.0.2.2:465" || c.With != "ESMTPS" || !strings.HasPrefix(c.TLS, "TLS1.3 TLS_") {
		t.Errorf("client is %+v", c)
	}
	r.mu.Unlock()
	p.send("PROXY TCP4 192.0.2.9 192.0.2.2 1025 465\r\n")
	p.expectEnd()
}

// TestTLSIsStrict is L5: old protocols, and ciphers without forward secrecy or AEAD.
func TestTLSIsStrict(t *testing.T) {
	t.Parallel()
	o := testOptions()
	loose := &tls.Config{Certificates: []tls.Certificate{certificate(t, "mx.example")}, MinVersion: tls.VersionTLS10}
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		loose.CipherSuites = append(loose.CipherSuites, suite.ID)
	}
	o.TLSConfig = func() *tls.Config { return loose }
	r := &recorder{}
	_, addr := startServer(t, o, r)
	for _, c := range []struct {
		name   string
		config *tls.Config
		ok     bool
	}{
		{"TLS 1.3", &tls.Config{MinVersion: tls.VersionTLS13}, true},
		{"TLS 1.2 AEAD", &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		{"TLS 1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		{"TLS 1.0", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}, false},
		{"CBC", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA}}, false},
		{"RC4", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA}}, false},
		{"no forward secrecy", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}}, false},
	} {
		p := dial(t, addr).hello()
		p.command("STARTTLS", "220 ")
		c.config.InsecureSkipVerify = true
		if err := p.startTLS(c.config); (err == nil) != c.ok {
			t.Errorf("%s: handshake gives %v", c.name, err)
		} else if err == nil {
			p.command("EHLO x", "250")
			p.envelope()
		} else {
			p.expectEnd()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.clients {
		if c.With != "ESMTPS" || c.TLS == "" {
			t.Errorf("client is %+v", c)
		}
	}
}

// TestCertificateReload changes the certificate while a connection lives.
func TestCertificateReload(t *testing.T) {
	t.Parallel()
	o := testOptions()
	var config atomic.Pointer[tls.Config]
	config.Store(&tls.Config{Certificates: []tls.Certificate{certificate(t, "old.example")}})
	o.TLSConfig = config.Load
	_, addr := startServer(t, o, &recorder{})
	secure := func() (*peer, string) {
		p := dial(t, addr).hello()
		p.command("STARTTLS", "220 ")
		if err := p.startTLS(anyCertificate); err != nil {
			t.Fatal(err)
		}
		p.command("EHLO x", "250")
		return p, p.conn.(*tls.Conn).ConnectionState().PeerCertificates[0].DNSNames[0]
	}
	first, name := secure()
	if name != "old.example" {
		t.Errorf("certificate is for %s", name)
	}
	config.Store(&tls.Config{Certificates: []tls.Certificate{certificate(t, "new.example")}})
	if _, name = secure(); name != "new.example" {
		t.Errorf("certificate after the change is for %s", name)
	}
	first.envelope()
}

// TestRequireTLS wants no transaction in the clear.
func TestRequireTLS(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.TLSConfig, o.RequireTLS = serverTLS(t), true
	_, addr := startServer(t, o, &recorder{})
	p := dial(t, addr).hello()
	p.command("MAIL FROM:<a@out.example>", "530 5.7.0")
	p.command("STARTTLS", "220 ")
	if err := p.startTLS(anyCertificate); err != nil {
		t.Fatal(err)
	}
	if got := p.command("EHLO x", "250"); strings.Contains(got, "STARTTLS") {
		t.Errorf("STARTTLS is announced within TLS: %s", got)
	}
	p.envelope()
}

// TestMessageOverTLS sends many messages, each command in a record of its own and all
// in one write.
func TestMessageOverTLS(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.TLSConfig, o.ImplicitTLS = serverTLS(t), true
	r := &recorder{}
	_, addr := startServer(t, o, r)
	p := dial(t, addr)
	if err := p.startTLS(anyCertificate); err != nil {
		t.Fatal(err)
	}
	p.hello()
	content := strings.Repeat("a line of the message\r\n", 5000)
	for range 20 {
		p.envelope().command("DATA", "354 ")
		p.command(content+".", "250 ")
		for _, line := range strings.SplitAfter(envelope, "\n") {
			p.send(line)
		}
		p.expect("250 ")
		p.expect("250 ")
		p.send("BDAT 3 LAST\r\nx\r\n")
		p.expect("250 ")
	}
	if len(r.messages) != 40 || r.messages[0] != accepted+content {
		t.Errorf("%d messages arrived", len(r.messages))
	}
}
