package relay

import (
	"net"
	"syscall"

	"mailcutover/internal/nonblock"
)

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
