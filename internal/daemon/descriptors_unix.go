//go:build unix

package daemon

import "syscall"

// descriptors returns how many descriptors this process may have; the runtime has raised it to
// what it may raise it to. ok is false if that isn't known.
func descriptors() (n uint64, ok bool) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, false
	}
	return uint64(l.Cur), true // an int64 on some systems
}
