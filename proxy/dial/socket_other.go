//go:build !linux

package dial

import (
	"net"
	"time"
)

// Harden sets SO_LINGER to 0; TCP_USER_TIMEOUT exists on Linux only, the product's platform.
func Harden(nc net.Conn, _ time.Duration) error {
	if tc, ok := nc.(*net.TCPConn); ok {
		return tc.SetLinger(0)
	}
	return nil
}
