package relay

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"mailcutover/mail"

	"golang.org/x/sys/unix"
)

func TestSocketOptions(t *testing.T) {
	peer := startPeer(t, new(peer))
	ep := endpoint(peer.addr)
	ep.Timeouts.Unacknowledged = 7 * time.Second
	p := newPool(t, ep, Options{})
	tx := open(testContext(t), t, p)
	defer tx.Abort()
	raw, err := tx.conn.raw.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		for _, c := range []struct {
			name              string
			level, opt, value int
		}{
			{"SO_LINGER", unix.SOL_SOCKET, unix.SO_LINGER, 1},
			{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 7000},
			{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		} {
			if v, err := unix.GetsockoptInt(int(fd), c.level, c.opt); err != nil || v != c.value {
				t.Errorf("%s is %d, want %d (%v)", c.name, v, c.value, err)
			}
		}
	})
}

// An aborted transaction ends in a reset: the platform must not find an orderly end, nor
// anything of what was still in our buffers.
func TestAbortSendsAReset(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ended := make(chan error, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			ended <- err
			return
		}
		defer nc.Close()
		buf := make([]byte, 4096)
		for _, answer := range []string{"220 x\r\n", "250-x\r\n250 PIPELINING\r\n", "250 ok\r\n250 ok\r\n"} {
			io.WriteString(nc, answer)
			nc.Read(buf)
		}
		io.WriteString(nc, "354 go on\r\n")
		_, err = io.Copy(io.Discard, nc)
		ended <- err
	}()
	p := newPool(t, endpoint(l.Addr().String()), Options{})
	ctx := testContext(t)
	tx, err := p.Open(ctx, mail.Client{}, mail.Path{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Rcpts(ctx, []Recipient{{To: path(t, "b@x.example")}})[0]; err != nil {
		t.Fatal(err)
	}
	if err := tx.Data(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(tx, "half a message\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	tx.Abort()
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the platform saw %v, want a reset", err)
	}
}
