package splice

import "golang.org/x/sys/unix"

// sent reports whether the peer's host has acknowledged all that was written, but perhaps
// for the end: SIOCOUTQ, tcp(7).
func sent(fd uintptr) bool {
	n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	return err != nil || n <= 1
}
