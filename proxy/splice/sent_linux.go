package splice

import "golang.org/x/sys/unix"

// sent reports whether the peer's host has acknowledged all that was written, but perhaps
// for the end: SIOCOUTQ, tcp(7).
func sent(s socket) bool {
	n := 0
	err := s.Control(func(fd uintptr) {
		var err error
		if n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err != nil {
			n = 0
		}
	})
	return err != nil || n <= 1
}
