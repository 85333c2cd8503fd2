package login

import "golang.org/x/sys/unix"

// hungUp reports whether a socket's peer has ended its side, whatever is unread before that end.
func hungUp(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return n > 0 && err == nil
}
