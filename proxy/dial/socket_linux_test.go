package dial

import (
	"context"
	"errors"
	"net"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSocketsAreHardened looks at those that Dial returns.
func TestSocketsAreHardened(t *testing.T) {
	d, err := New(Endpoint{Platform: "ox", Hosts: []string{platform(t, nil)}, TLS: TLS{Policy: TLSNone}, Unacknowledged: 7 * time.Second}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	nc, _, err := d.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		if l, err := unix.GetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER); err != nil || l.Onoff != 1 || l.Linger != 0 {
			t.Errorf("SO_LINGER is %+v (%v), want 0 s", l, err)
		}
		if v, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); err != nil || v != 7000 {
			t.Errorf("TCP_USER_TIMEOUT is %d (%v), want 7000", v, err)
		}
		if v, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE); err != nil || v != 1 {
			t.Errorf("SO_KEEPALIVE is %d (%v), want 1", v, err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// deaf returns the address of a socket that listens and takes nobody: its queue is full, and what
// comes is dropped.
func deaf(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(name.(*unix.SockaddrInet4).Port))
	for range 10 {
		nc, err := net.DialTimeout("tcp", addr, 100*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { _ = nc.Close() })
	}
	t.Fatal("ten connections wait for a queue of none")
	return ""
}

// A host that is named by its address, and that doesn't answer, is given up in time.
func TestDirectDialEnds(t *testing.T) {
	for _, host := range []string{deaf(t), "[::1]:0"} {
		d, err := New(Endpoint{Platform: "ox", Hosts: []string{host}, TLS: TLS{Policy: TLSNone}, DialTimeout: 200 * time.Millisecond}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, _, err := d.Dial(t.Context()); err == nil || time.Since(began) > 20*time.Second {
			t.Errorf("%s: %v after %s", host, err, time.Since(began))
		}
	}
	d, err := New(Endpoint{Platform: "ox", Hosts: []string{deaf(t)}, TLS: TLS{Policy: TLSNone}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(gone) })
	if _, _, err := d.Dial(ctx); !errors.Is(err, gone) {
		t.Errorf("%v, want why the context ended", err)
	}
}
