package listen

import (
	"crypto/tls"
	"errors"
	"sync"
)

// ErrNoCertificate is for a handshake for which [TLS.Config] gave no configuration.
var ErrNoCertificate = errors.New("no certificate")

// TLS hands out the configurations of a listener, made strict. It is safe for concurrent
// use.
type TLS struct {
	source func() *tls.Config

	mu     sync.Mutex
	from   *tls.Config // what strict was made of
	strict *tls.Config
}

// NewTLS returns what makes the configurations of source strict. Source is asked for each
// handshake, so that certificates can change while connections live. It should return the
// same pointer as long as nothing changes, or session tickets don't outlive a call.
func NewTLS(source func() *tls.Config) *TLS { return &TLS{source: source} }

// Config returns the configuration for the next handshake; nil if source gave none. The
// strict copy is kept as long as the source stays the same, and with it the keys of session
// tickets.
func (s *TLS) Config() *tls.Config {
	from := s.source()
	s.mu.Lock()
	defer s.mu.Unlock()
	if from == nil || from != s.from {
		s.from, s.strict = from, nil
		if from != nil {
			s.strict = restrict(from)
		}
	}
	return s.strict
}

// restrict returns a copy of c that speaks only what BSI TR-02102-2 recommends: TLS
// 1.3, or 1.2 with forward secrecy and an AEAD.
func restrict(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	c.CipherSuites = []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
	if inner := c.GetConfigForClient; inner != nil {
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := inner(hello)
			if err != nil || chosen == nil {
				return chosen, err
			}
			return restrict(chosen), nil
		}
	}
	return c
}

// TLSText is how a connection's TLS is shown: protocol and cipher, such as "TLS1.3
// TLS_AES_128_GCM_SHA256".
func TLSText(state tls.ConnectionState) string {
	version := "TLS1.2"
	if state.Version == tls.VersionTLS13 {
		version = "TLS1.3"
	}
	return version + " " + tls.CipherSuiteName(state.CipherSuite)
}
