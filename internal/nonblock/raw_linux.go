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
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
