package dial

import (
	"net"
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
