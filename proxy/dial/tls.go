package dial

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
)

// TLSPolicy says what an endpoint asks of the transport.
type TLSPolicy uint8

const (
	TLSUnknown TLSPolicy = iota // not set: refused

	// TLSNone never encrypts.
	TLSNone

	// TLSOpportunistic encrypts where the platform offers it, to whoever answers. A
	// handshake that fails is an error, worth an alarm, and not a reason to go on in plain
	// text: whoever can break handshakes could read the mail then, and nobody would see
	// that a platform which is meant to encrypt doesn't. For a platform that offers only
	// what we don't speak (before TLS 1.2, CBC, key exchange by RSA) there is TLSNone.
	TLSOpportunistic

	// TLSRequired sends neither mail nor credentials in plain text, but doesn't look at the certificate.
	TLSRequired

	// TLSVerified is TLSRequired with a certificate for the server's name from one of
	// the CAs, or with one of the pinned keys, or both where both are set.
	TLSVerified
)

// String returns the word used in configuration and logs.
func (p TLSPolicy) String() string {
	switch p {
	case TLSNone:
		return "none"
	case TLSOpportunistic:
		return "opportunistic"
	case TLSRequired:
		return "required"
	case TLSVerified:
		return "verified"
	default:
		return "unknown"
	}
}

// TLS is an endpoint's transport security.
type TLS struct {
	Policy TLSPolicy

	// Implicit begins TLS with the connection instead of by STARTTLS or STLS (RFC 8314).
	Implicit bool

	// ServerName is asked for in the handshake and looked for in the certificate.
	// Empty: the host's name as configured.
	ServerName string

	// CA are the roots for TLSVerified. nil: the system's, unless Pins are set.
	CA *x509.CertPool

	// Pins are SHA-256 digests of the SubjectPublicKeyInfo of the platform's own
	// certificate, one of which has to match. With Pins and no CA, the key is all
	// that counts: name, chain and dates are not looked at (as with DANE-EE, RFC 7671
	// section 5.1).
	Pins [][sha256.Size]byte
}

// Validate returns what contradicts itself in t; nil if nothing does.
func (t TLS) Validate() error {
	switch {
	case t.Policy < TLSNone || t.Policy > TLSVerified:
		return fmt.Errorf("tls policy %v: want none, opportunistic, required or verified", t.Policy)
	case t.Implicit && t.Policy != TLSRequired && t.Policy != TLSVerified:
		return fmt.Errorf("tls policy %v: implicit TLS wants required or verified", t.Policy)
	case t.Policy != TLSVerified && (t.CA != nil || len(t.Pins) > 0):
		return fmt.Errorf("tls policy %v: a CA or pinned keys want verified", t.Policy)
	}
	return nil
}

// Config returns the settings for handshakes with a host, given as host:port. They may be
// used for many.
func (t TLS) Config(hostport string) *tls.Config {
	name := t.ServerName
	if name == "" {
		name, _, _ = net.SplitHostPort(hostport)
	}
	c := &tls.Config{
		ServerName: name,
		RootCAs:    t.CA,
		MinVersion: tls.VersionTLS12,
		// For TLS 1.2 forward secrecy with an AEAD, as BSI TR-02102-2 recommends.
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
	}
	if t.Policy != TLSVerified || t.CA == nil && len(t.Pins) > 0 {
		c.InsecureSkipVerify = true
	}
	if len(t.Pins) > 0 {
		c.VerifyConnection = t.checkPin
	}
	return c
}

func (t TLS) checkPin(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return fmt.Errorf("no certificate to compare with the pinned keys")
	}
	got := sha256.Sum256(s.PeerCertificates[0].RawSubjectPublicKeyInfo)
	for _, pin := range t.Pins {
		if bytes.Equal(got[:], pin[:]) {
			return nil
		}
	}
	return fmt.Errorf("key sha256:%s is not one of the %d pinned keys", base64.StdEncoding.EncodeToString(got[:]), len(t.Pins))
}
