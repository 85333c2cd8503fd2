package attack

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// issuer signs certificates.
type issuer struct {
	cert *x509.Certificate
	der  []byte
	key  *ecdsa.PrivateKey
}

// issue makes a certificate of a template; by nil it signs itself.
func issue(t *testing.T, by *issuer, template x509.Certificate) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(24 * time.Hour)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	parent, signer := &template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{cert: cert, der: der, key: key}
}

// authority is a template of a certificate that may sign others.
func authority(name string) x509.Certificate {
	return x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
}

// server is a template of a server's certificate for this host.
func server() x509.Certificate {
	return x509.Certificate{Subject: pkix.Name{CommonName: "platform"}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
}

// chain is what a server shows: its certificate and those above.
func chain(all ...*issuer) *tls.Config {
	c := tls.Certificate{PrivateKey: all[0].key}
	for _, one := range all {
		c.Certificate = append(c.Certificate, one.der)
	}
	return &tls.Config{Certificates: []tls.Certificate{c}}
}

// L5, I18: a platform whose certificate isn't right gets neither mail nor credentials, whatever is
// wrong with it; senders and clients are told to come back. One whose certificate is right gets
// both, so that the cases can fail.
func TestPlatformCertificates(t *testing.T) {
	t.Parallel()
	trusted, strangers := issue(t, nil, authority("ours")), issue(t, nil, authority("a stranger"))
	right := chain(issue(t, trusted, server()))
	changed := func(change func(*x509.Certificate)) *tls.Config {
		template := server()
		change(&template)
		return chain(issue(t, trusted, template))
	}
	deep := []*issuer{strangers}
	for len(deep) < 100 {
		deep = append(deep, issue(t, deep[len(deep)-1], authority("another")))
	}
	long := chain(issue(t, deep[99], server()))
	for i := range deep {
		long.Certificates[0].Certificate = append(long.Certificates[0].Certificate, deep[99-i].der)
	}
	client := right.Clone()
	client.ClientAuth = tls.RequireAnyClientCert
	old := right.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	weak := right.Clone()
	weak.MaxVersion, weak.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	platforms := map[string]*tls.Config{
		"right":     right,
		"expired":   changed(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }),
		"other":     changed(func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"other.example"} }),
		"stranger":  chain(issue(t, strangers, server()), strangers),
		"selfmade":  chain(issue(t, nil, server())),
		"chain":     long,
		"future":    changed(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }),
		"forclient": changed(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
		"nameless":  changed(func(c *x509.Certificate) { c.IPAddresses, c.Subject.CommonName = nil, "127.0.0.1" }),
		"oldtls":    old, "weak": weak, "wantsours": client,
	}
	f := start(t, setup{trust: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: trusted.der}), platforms: platforms, more: "  wait: 100ms\n  failures: {delay: 1ms, max_delay: 1ms}\n"})
	t.Run("platforms", func(t *testing.T) {
		for _, id := range f.ids {
			t.Run(id, func(t *testing.T) { t.Parallel(); f.passOn(t, id, id == "right") })
		}
	})
	for id, p := range f.platforms {
		if id == "right" {
			continue
		}
		for _, c := range p.mail.Commands() {
			if c.Verb == "MAIL" || c.Verb == "RCPT" {
				t.Errorf("%s has heard %q", id, c.Line)
			}
		}
		for protocol, l := range p.logins {
			if heard := l.heard(); strings.Contains(heard, "AUTH") || strings.Contains(heard, "PASS") || strings.Contains(heard, plain("anna@"+id+".example", "pw")) {
				t.Errorf("%s has heard %q by %s", id, heard, protocol)
			}
		}
	}
}

// passOn sends a message for a platform's mailbox, and logs in to it by each protocol; right says
// whether the platform is as it should be. Otherwise mail may be kept by the node, for later.
func (f *front) passOn(t *testing.T, id string, right bool) {
	address := "anna@" + id + ".example"
	w := f.mustDial(t, "mx")
	err := w.greet(upgrades[4])
	if err == nil {
		err = w.send("MAIL FROM:<canary@out.example>\r\nRCPT TO:<" + address + ">\r\nDATA\r\n")
	}
	var said string
	if err == nil {
		said, err = w.until("354 ")
	}
	if err == nil {
		err = w.send("Subject: canary\r\n\r\n.\r\n")
	}
	if err == nil {
		said, err = w.in.ReadString('\n')
	}
	if err != nil || said[0] != '2' && said[0] != '4' || right && said[0] != '2' {
		t.Errorf("mail is answered %q, %v", said, err)
	}
	for _, u := range upgrades[:4] {
		w := f.upgraded(t, u)
		if err := w.send(strings.Replace(u.login, "%s", plain(address, "pw"), 1)); err != nil {
			t.Fatal(err)
		}
		line, err := w.in.ReadString('\n')
		if right {
			if !strings.Contains(line, u.loggedIn) {
				t.Errorf("a login by %s: %q, %v", u.id, line, err)
			}
		} else if err != nil || strings.Contains(line, "AUTHENTICATIONFAILED") || strings.Contains(line, "[AUTH]") || strings.Contains(line, "535") || strings.HasPrefix(line, u.loggedIn) {
			t.Errorf("a login by %s: %q, %v", u.id, line, err)
		}
	}
}
