package relay

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mailcutover/internal/nonblock"
)

// harden sets what docs/architecture/switch.md, node rule 7, asks of platform sockets: a closed
// or killed connection sends a reset instead of what is left in its buffer, which might have
// the dot in it, and unacknowledged bytes don't linger in the kernel.
func harden(nc net.Conn, unacknowledged time.Duration) error {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil // not a socket
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

// peeker looks, without blocking, whether an idle socket has something to read.
type peeker struct {
	raw  syscall.RawConn // nil: not a socket, never anything pending
	look func(fd uintptr)
	err  error
}

func newPeeker(nc net.Conn) *peeker {
	p := new(peeker)
	p.look = func(fd uintptr) {
		var b [1]byte
		_, p.err = nonblock.Peek(fd, b[:])
	}
	if sc, ok := nc.(syscall.Conn); ok {
		p.raw, _ = sc.SyscallConn()
	}
	return p
}

// pending reports whether bytes, the end or an error wait to be read.
func (p *peeker) pending() bool {
	if p.raw == nil {
		return false
	}
	return p.raw.Control(p.look) != nil || p.err != syscall.EAGAIN
}
