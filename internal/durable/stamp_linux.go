package durable

import (
	"io/fs"
	"syscall"
)

// Stamp implements [Disk]. It makes the system calls itself: package os would also offer
// the file to the poller, which doesn't take it.
func (OS) Stamp(path string) (Stamp, error) {
	fd, err := open(path)
	if err != nil {
		return Stamp{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	var st syscall.Stat_t
	err = syscall.Fstat(fd, &st)
	if closed := syscall.Close(fd); err == nil {
		err = closed
	}
	if err != nil {
		return Stamp{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return Stamp{Device: uint64(st.Dev), File: st.Ino, Size: st.Size, Modified: st.Mtim.Nano(), Changed: st.Ctim.Nano()}, nil
}

func open(path string) (fd int, err error) {
	for {
		if fd, err = syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0); err != syscall.EINTR {
			return fd, err
		}
	}
}
