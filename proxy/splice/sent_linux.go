package splice

import "golang.org/x/sys/unix"

// stateClosed is a TCP socket's that its peer has reset, among others (TCP_CLOSE in Linux' net/tcp_states.h).
const stateClosed = 7

// sent reports whether the peer's host has acknowledged all that was written, but perhaps
// for the end: SIOCOUTQ, tcp(7). What it has reset is sent as far as it ever will be.
func sent(s socket) bool {
	done := true
	err := s.Control(func(fd uintptr) {
		if n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err != nil || n <= 1 {
			return
		}
		// The number stays what it was when the reset came.
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		done = err == nil && info.State == stateClosed
	})
	return err != nil || done
}
