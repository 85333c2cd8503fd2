package dial

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Harden sets what docs/architecture/switch.md, node rule 7, asks of platform sockets: a closed
// or killed connection sends a reset instead of what is left in its buffer (SO_LINGER of 0),
// and bytes that the peer doesn't acknowledge for so long end the connection (TCP_USER_TIMEOUT,
// RFC 5482; Linux only). What is no socket is left as it is.
func Harden(nc net.Conn, unacknowledged time.Duration) error {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		if set == nil {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledged.Milliseconds()))
		}
	})
	if err != nil {
		return err
	}
	return set
}
