package smtp

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/mail"
)

// TestIdleConnectionMemory holds many connections that have sent a message and now
// wait, and measures what each adds to the resident memory of the process. The peers
// keep nothing but a descriptor.
func TestIdleConnectionMemory(t *testing.T) {
	for _, c := range []struct {
		name  string
		tls   bool
		bound int // bytes for each connection
	}{
		{"plain", false, 8 << 10},
		{"TLS", true, 20 << 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := 5000
			if raceDetector {
				n = 100 // its shadow memory would be measured, so this only shows that it works
			}
			o := testOptions()
			o.Limits.ConnectionsPerAddress = 0
			o.TLSConfig, o.ImplicitTLS = serverTLS(t), c.tls
			srv, addr := startServer(t, o, discard{})
			idle(t, addr, c.tls, 50) // what is there once, such as pools
			before := resident(t)
			conns := idle(t, addr, c.tls, n)
			defer func() {
				for _, f := range conns {
					f.Close()
				}
			}()
			after := resident(t)
			each := (after - before) / n
			t.Logf("%d idle connections: %d bytes of resident memory each", n, each)
			if open := srv.front.Connections(); open < n {
				t.Fatalf("%d connections are open, want %d", open, n)
			}
			if !raceDetector && each > c.bound {
				t.Errorf("an idle connection takes %d bytes, at most %d are wanted", each, c.bound)
			}
		})
	}
}

// discard is a backend that keeps nothing.
type discard struct{}

func (discard) NewSession(context.Context, mail.Client) (Session, error) { return discard{}, nil }
func (discard) Mail(context.Context, mail.Client, mail.Path, *gosmtp.MailOptions) error {
	return nil
}
func (discard) Rcpts(_ context.Context, rcpts []Recipient) []error { return make([]error, len(rcpts)) }
func (discard) Reset()                                             {}
func (discard) Close()                                             {}

func (discard) Data(_ context.Context, b Body) []error {
	p := make([]byte, 4096)
	for {
		if _, err := b.Read(p); err == io.EOF {
			return []error{nil}
		} else if err != nil {
			return []error{err}
		}
	}
}

// idle opens n connections, sends a message over each, and keeps only descriptors.
func idle(t *testing.T, addr string, secure bool, n int) []*os.File {
	t.Helper()
	files := make([]*os.File, n)
	for i := range files {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		// A duplicate stays open when the connection with all its state is closed.
		if files[i], err = nc.(*net.TCPConn).File(); err != nil {
			t.Fatal(err)
		}
		var conn net.Conn = nc
		if secure {
			conn = tls.Client(nc, anyCertificate)
		}
		if err := oneMessage(conn); err != nil {
			t.Fatal(err)
		}
		nc.Close()
	}
	return files
}

// oneMessage sends a message of some KiB and leaves the connection open.
func oneMessage(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	b := make([]byte, 4096)
	for _, s := range []struct {
		send string
		want string
	}{
		{"", "220 "}, {hello, "250 E"}, {envelope + "DATA\r\n", "354 "},
		{string(bytes.Repeat([]byte("a line of a message\r\n"), 200)) + ".\r\n", "250 "},
	} {
		if _, err := io.WriteString(conn, s.send); err != nil {
			return err
		}
		for n := 0; !bytes.Contains(b[:n], []byte(s.want)); {
			m, err := conn.Read(b[n:])
			if err != nil {
				return errors.Join(errors.New("want "+s.want+", got "+string(b[:n])), err)
			}
			n += m
		}
	}
	return nil
}

// resident returns the resident memory of this process in bytes, after what can be
// given back to the system was.
func resident(t *testing.T) int {
	t.Helper()
	for range 4 { // pools give back at the second; a stack is halved at each
		debug.FreeOSMemory()
	}
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(string(bytes.Fields(b)[1]))
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
