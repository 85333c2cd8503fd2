package nonblock

import (
	"io"
	"net"
	"os"
	"syscall"
)

// Socket is a net.Conn that reads and writes its descriptor itself. Unlike with other
// ones, Read may be called by one goroutine at a time only, and so may Write; both may
// run at once.
type Socket struct {
	net.Conn
	raw syscall.RawConn
	in  transfer
	out transfer
}

// transfer is one direction. Its function is made once: one for each call would be garbage.
type transfer struct {
	attempt func(fd uintptr) bool
	now     func(fd uintptr) // attempt, once
	p       []byte
	more    bool // of a write: another one follows
	n       int
	err     error
}

// New returns a Socket for nc, or nil if nc is no TCP or Unix connection of package net: what
// wraps one has reads and writes of its own.
func New(nc net.Conn) *Socket {
	var sc syscall.Conn
	switch nc := nc.(type) {
	case *net.TCPConn:
		sc = nc
	case *net.UnixConn:
		sc = nc
	default:
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	s := &Socket{Conn: nc, raw: raw}
	s.in.attempt = s.in.read
	s.out.attempt = s.out.write
	s.out.now = func(fd uintptr) { s.out.write(fd) }
	return s
}

// Read implements io.Reader.
func (s *Socket) Read(p []byte) (int, error) {
	t := &s.in
	t.p, t.n, t.err = p, 0, nil
	err := s.raw.Read(t.attempt)
	t.p = nil
	switch {
	case err != nil:
		return 0, err
	case t.err != nil:
		return 0, os.NewSyscallError("recv", t.err)
	case t.n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return t.n, nil
}

func (t *transfer) read(fd uintptr) bool {
	t.n, t.err = Read(fd, t.p)
	return t.err != syscall.EAGAIN
}

// WriteNow writes what the socket takes at once, whatever its deadline is. Nobody else may write
// meanwhile.
func (s *Socket) WriteNow(p []byte) (int, error) {
	t := &s.out
	t.p, t.n, t.err, t.more = p, 0, nil, false
	err := s.raw.Control(t.now)
	t.p = nil
	if err == nil && t.err != nil {
		err = os.NewSyscallError("send", t.err)
	}
	return t.n, err
}

// Write implements io.Writer.
func (s *Socket) Write(p []byte) (int, error) { return s.write(p, false) }

// WriteMore is Write of what goes out with what is written next, so that both cost a TCP
// connection one packet. If nothing is, it goes out after 200 ms.
func (s *Socket) WriteMore(p []byte) (int, error) { return s.write(p, true) }

func (s *Socket) write(p []byte, more bool) (int, error) {
	t := &s.out
	t.p, t.n, t.err, t.more = p, 0, nil, more
	err := s.raw.Write(t.attempt)
	t.p = nil
	if err == nil && t.err != nil {
		err = os.NewSyscallError("send", t.err)
	}
	return t.n, err
}

func (t *transfer) write(fd uintptr) bool {
	write := Write
	if t.more {
		write = WriteMore
	}
	for t.n < len(t.p) {
		n, err := write(fd, t.p[t.n:])
		t.n += n
		if err != nil {
			t.err = err
			if err == syscall.EAGAIN {
				t.err = nil
				return false
			}
			return true
		}
	}
	return true
}
