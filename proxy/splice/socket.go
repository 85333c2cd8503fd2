package splice

import (
	"io"
	"net"
	"sync"
	"syscall"

	"mailcutover/internal/nonblock"
)

// socket is a TCP connection's descriptor. Each use of it is one by package net's rules, so
// that its number can't be another connection's by then, whoever closed this one.
type socket struct {
	syscall.RawConn
}

func socketOf(nc *net.TCPConn) (socket, error) {
	raw, err := nc.SyscallConn()
	return socket{raw}, err
}

// call is one use. Its functions are made once: one for each use would be garbage.
type call struct {
	read, write func(fd uintptr)
	p           []byte
	n           int
	err         error
}

// calls lends them.
type calls struct{ sync.Pool }

func (l *calls) get(p []byte) *call {
	c, ok := l.Get().(*call)
	if !ok {
		c = new(call)
		c.read = func(fd uintptr) {
			c.n, c.err = nonblock.Read(fd, c.p)
			if c.n == 0 && c.err == nil && len(c.p) > 0 {
				c.err = io.EOF
			}
		}
		c.write = func(fd uintptr) { c.n, c.err = nonblock.Write(fd, c.p) }
	}
	c.p, c.n, c.err = p, 0, nil
	return c
}

func (l *calls) put(c *call, used error) (int, error) {
	n, err := c.n, c.err
	if used != nil {
		n, err = 0, used
	}
	c.p = nil
	l.Put(c)
	return n, err
}

// receive reads what is there. io.EOF: the peer's end; EAGAIN: nothing.
func (s socket) receive(l *calls, p []byte) (int, error) {
	c := l.get(p)
	return l.put(c, s.Control(c.read))
}

// send writes as much as the socket takes; EAGAIN if that is nothing.
func (s socket) send(l *calls, p []byte) (int, error) {
	c := l.get(p)
	return l.put(c, s.Control(c.write))
}

// shut ends the direction to the peer.
func (s socket) shut() error {
	var err error
	if used := s.Control(func(fd uintptr) { err = nonblock.Shutdown(fd) }); used != nil {
		return used
	}
	return err
}
