package daemon

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"
	"time"
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

// certificateEnds says when the certificate ends of each listener, of the API, of the page and of
// autoconfiguration.
func (d *Daemon) certificateEnds() map[string]time.Time {
	ends := make(map[string]time.Time)
	for id, c := range d.certificates {
		if settings := c.config.Load(); settings != nil && settings.Certificates[0].Leaf != nil {
			ends[id] = settings.Certificates[0].Leaf.NotAfter
		}
	}
	return ends
}
