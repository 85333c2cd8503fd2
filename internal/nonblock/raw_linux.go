//go:build !race && !386 && !s390x

package nonblock

import (
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
