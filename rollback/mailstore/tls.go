package mailstore

import (
	"crypto/tls"
	"errors"
	"net"
)

// tlsOver speaks TLS from the first byte on; the handshake is made with it.
func tlsOver(g *guard, settings *tls.Config) net.Conn { return tls.Client(g, settings) }

// onThisHost returns nil if an address is this host's: others' passwords and mail don't leave
// it in plain text.
func onThisHost(addr net.Addr) error {
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsLoopback() {
		return nil
	}
	if _, ok := addr.(*net.TCPAddr); !ok {
		return nil // a pipe within this process
	}
	return errors.New("credentials don't leave this machine in plain text")
}
