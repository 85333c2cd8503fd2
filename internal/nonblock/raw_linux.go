//go:build !race && !386 && !s390x

package nonblock

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"
)

// Read reads from a socket what is there. It returns no byte and no error at the end,
// and EAGAIN if there is nothing yet.
func Read(fd uintptr, p []byte) (int, error) { return receive(fd, p, syscall.MSG_DONTWAIT) }

// Peek is Read, and leaves what it read.
func Peek(fd uintptr, p []byte) (int, error) {
	return receive(fd, p, syscall.MSG_DONTWAIT|syscall.MSG_PEEK)
}

func receive(fd uintptr, p []byte, flags uintptr) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// Write writes to a socket as much as it takes; EAGAIN if that is nothing.
func Write(fd uintptr, p []byte) (int, error) {
	return send(fd, p, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

// WriteMore is Write of what goes out with what is written next: what doesn't fill a packet
// waits for that in the kernel, 200 ms at most (tcp(7), MSG_MORE).
func WriteMore(fd uintptr, p []byte) (int, error) {
	return send(fd, p, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL|syscall.MSG_MORE)
}

func send(fd uintptr, p []byte, flags uintptr) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// Shutdown ends a TCP connection's sending direction (RFC 9293 section 3.6).
func Shutdown(fd uintptr) error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SHUTDOWN, fd, syscall.SHUT_WR, 0); errno != 0 {
		return errno
	}
	return nil
}

// Connect begins a TCP connection, on a socket of the address's family. EINPROGRESS: it is on
// its way, or there already; to connect again tells (connect(2)).
func Connect(fd uintptr, to netip.AddrPort) error {
	if to.Addr().Is4() {
		sa := syscall.RawSockaddrInet4{Family: syscall.AF_INET, Port: networkOrder(to.Port()), Addr: to.Addr().As4()}
		return connect(fd, unsafe.Pointer(&sa), unsafe.Sizeof(sa))
	}
	sa := syscall.RawSockaddrInet6{Family: syscall.AF_INET6, Port: networkOrder(to.Port()), Addr: to.Addr().As16()}
	return connect(fd, unsafe.Pointer(&sa), unsafe.Sizeof(sa))
}

func connect(fd uintptr, sa unsafe.Pointer, size uintptr) error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CONNECT, fd, uintptr(sa), size); errno != 0 {
		return errno
	}
	return nil
}

func networkOrder(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}
