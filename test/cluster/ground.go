package cluster

import (
	"crypto/tls"
	"net"

	"mailcutover/internal/platformtest"
	"mailcutover/test/peers"
)

// Ground is where the parts of a cluster are, if not all at 127.0.0.1: each in a network
// namespace of its own, say, and with a disk of its own. There are no wires then: what is cut
// off or slow is up to whoever laid the ground.
type Ground struct {
	Nodes     []peers.Host
	Data      []string     // directory of each node's files
	Servers   []peers.Host // of Redis, the primary first, each with a Sentinel
	Platforms map[string]string
}

func (g *Ground) node(i int) peers.Host {
	if g == nil {
		return peers.Host{}
	}
	return g.Nodes[i]
}

func (g *Ground) server(i int) peers.Host {
	if g == nil {
		return peers.Host{}
	}
	return g.Servers[i]
}

// sentinels are the hosts of the Sentinels.
func (g *Ground) sentinels() []peers.Host {
	if g == nil {
		return nil
	}
	return g.Servers
}

// listen is where a platform listens.
func (g *Ground) listen(platform string) string {
	if g == nil {
		return "127.0.0.1:0"
	}
	return net.JoinHostPort(g.Platforms[platform], "0")
}

// tls is what platforms take logins with: across a network passwords want TLS.
func (g *Ground) tls() (*tls.Config, error) {
	if g == nil {
		return nil, nil
	}
	ca, err := platformtest.NewCA()
	if err != nil {
		return nil, err
	}
	return ca.ServerConfig("platform.test")
}

// loginTLS is the nodes' setting for it.
func (g *Ground) loginTLS() string {
	if g == nil {
		return "{policy: none}"
	}
	return "{policy: required, implicit: true}"
}
