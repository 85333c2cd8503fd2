package cluster

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"

	"mailcutover/internal/platformtest"
	"mailcutover/test/peers"
)

// authority certifies the nodes' APIs: across hosts they call each other by TLS only.
type authority struct {
	*platformtest.CA
	file string // of its certificate
}

func newAuthority(t peers.TB) *authority {
	t.Helper()
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatalf("certificates of the nodes: %v", err)
	}
	_, _, file, err := ca.WriteFiles(peers.TempDir(t, "authority"))
	if err != nil {
		t.Fatalf("certificates of the nodes: %v", err)
	}
	return &authority{ca, file}
}

// secureAPI returns how a node's API is spoken with, and the lines of its configuration.
func (c *Cluster) secureAPI(t peers.TB, n *Node) (scheme, settings string) {
	t.Helper()
	if c.apiCA == nil {
		return "http", fmt.Sprintf("  allow_plaintext: %t\n", c.o.Ground != nil)
	}
	cert, key, _, err := c.apiCA.WriteFiles(n.dir, n.host.Address())
	if err == nil {
		err = os.Chmod(key, 0o600)
	}
	if err != nil {
		t.Fatalf("certificate of node %s: %v", n.Name, err)
	}
	return "https", fmt.Sprintf("  tls: {cert_file: %q, key_file: %q}\n", cert, key)
}

// peerCA is the setting by which the nodes know each other's certificates.
func (c *Cluster) peerCA() string {
	if c.apiCA == nil {
		return ""
	}
	return fmt.Sprintf(", ca_file: %q", c.apiCA.file)
}

// transport is what the test calls the nodes' APIs with.
func (c *Cluster) transport() *http.Transport {
	if c.apiCA == nil {
		return &http.Transport{}
	}
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.apiCA.Pool()}}
}
