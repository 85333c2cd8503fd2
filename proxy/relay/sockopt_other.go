//go:build !linux

package relay

import (
	"net"
	"time"
)

// harden sets SO_LINGER to 0; TCP_USER_TIMEOUT exists on Linux only, the product's platform.
func harden(nc net.Conn, _ time.Duration) error {
	if tc, ok := nc.(*net.TCPConn); ok {
		return tc.SetLinger(0)
	}
	return nil
}

// peeker finds nothing: a dead idle connection shows at the first command.
type peeker struct{}

func newPeeker(net.Conn) *peeker { return &peeker{} }

func (*peeker) pending() bool { return false }
