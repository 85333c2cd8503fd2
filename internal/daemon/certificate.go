package daemon

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"
)

// certificate is a certificate and its key that can be read anew while connections
// live. The configuration it hands out stays the same pointer until then, so that
// session tickets hold.
type certificate struct {
	config atomic.Pointer[tls.Config]
}

// load reads the files; what was there before stays on an error.
func (c *certificate) load(certFile, keyFile string) error {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return fmt.Errorf("read certificate %s with key %s: %w", certFile, keyFile, err)
	}
	c.config.Store(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	return nil
}
