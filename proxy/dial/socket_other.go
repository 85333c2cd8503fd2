//go:build unix && !linux

package dial

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Harden sets SO_LINGER to 0; TCP_USER_TIMEOUT exists on Linux only, the product's platform.
func Harden(nc net.Conn, _ time.Duration) error {
	if tc, ok := nc.(*net.TCPConn); ok {
		return tc.SetLinger(0)
	}
	return nil
}

func harden(fd uintptr, _ time.Duration) error {
	return unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

func keepAlive(fd uintptr) error {
	return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
}
