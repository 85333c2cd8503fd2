//go:build unix && (!linux || race || 386 || s390x)

package nonblock

// The race detector learns from the ordinary calls what one goroutine tells another over
// a socket.

import (
	"net/netip"
	"syscall"
)

// Read reads from a socket what is there. It returns no byte and no error at the end,
// and EAGAIN if there is nothing yet.
func Read(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), p)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// Peek is Read, and leaves what it read.
func Peek(fd uintptr, p []byte) (int, error) {
	for {
		n, _, err := syscall.Recvfrom(int(fd), p, syscall.MSG_PEEK)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// Write writes to a socket as much as it takes; EAGAIN if that is nothing.
func Write(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Write(int(fd), p)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// WriteMore is Write of what goes out with what is written next: where the system has that
// (tcp(7), MSG_MORE), what doesn't fill a packet waits in the kernel, 200 ms at most.
func WriteMore(fd uintptr, p []byte) (int, error) {
	if more == 0 {
		return Write(fd, p)
	}
	for {
		n, err := syscall.SendmsgN(int(fd), p, nil, nil, more)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// Shutdown ends a TCP connection's sending direction (RFC 9293 section 3.6).
func Shutdown(fd uintptr) error { return syscall.Shutdown(int(fd), syscall.SHUT_WR) }

// Connect begins a TCP connection, on a socket of the address's family. EINPROGRESS: it is on
// its way, or there already; to connect again tells (connect(2)).
func Connect(fd uintptr, to netip.AddrPort) error {
	if to.Addr().Is4() {
		return syscall.Connect(int(fd), &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	}
	return syscall.Connect(int(fd), &syscall.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
}
