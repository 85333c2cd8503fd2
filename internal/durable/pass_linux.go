package durable

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// LetPass asks the kernel to write a part of a file, n bytes from a place on, to the disk, and to
// take out of memory what of it is there already. It waits for no disk, promises nothing, and does nothing
// for a [File] that isn't the machine's. It is for what is written once and hardly ever read.
func LetPass(f File, from, n int64) {
	file, ok := f.(syscall.Conn)
	if !ok {
		return
	}
	conn, err := file.SyscallConn()
	if err != nil {
		return // it is closed
	}
	// After a refusal the kernel writes it in its own time.
	_ = conn.Control(func(fd uintptr) { _ = unix.Fadvise(int(fd), from, n, unix.FADV_DONTNEED) })
}
