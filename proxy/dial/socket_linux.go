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
	if err := raw.Control(func(fd uintptr) { set = harden(fd, unacknowledged) }); err != nil {
		return err
	}
	return set
}

func harden(fd uintptr, unacknowledged time.Duration) error {
	if err := unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	return unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledged.Milliseconds()))
}

// keepAlive is package net's, but that TCP_USER_TIMEOUT says when a peer that doesn't answer is
// given up (tcp(7)).
func keepAlive(fd uintptr) error {
	for _, o := range [...]struct{ level, option, value int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
	} {
		if err := unix.SetsockoptInt(int(fd), o.level, o.option, o.value); err != nil {
			return err
		}
	}
	return nil
}
