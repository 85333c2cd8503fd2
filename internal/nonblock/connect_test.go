package nonblock

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// TestConnect has package net find a connection begun already, by both families, and one that
// nobody takes.
func TestConnect(t *testing.T) {
	for _, host := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		begun := error(nil)
		d := net.Dialer{Timeout: 10 * time.Second, Control: func(_, address string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) { begun = Connect(fd, netip.MustParseAddrPort(address)) })
		}}
		nc, err := d.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if begun != nil && begun != syscall.EINPROGRESS {
			t.Errorf("%s: connect: %v", host, begun)
		}
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := nc.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var shut error
		if err := errors.Join(raw.Control(func(fd uintptr) { shut = Shutdown(fd) }), shut); err != nil {
			t.Errorf("%s: shutdown: %v", host, err)
		}
		_ = peer.SetDeadline(time.Now().Add(10 * time.Second))
		if n, err := peer.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: %d bytes (%v) behind the end", host, n, err)
		}
		_ = nc.Close()
		_ = peer.Close()
		_ = l.Close()
		if nc, err := d.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: nobody listens: %v (%v), want refused", host, nc, err)
		}
	}
}
