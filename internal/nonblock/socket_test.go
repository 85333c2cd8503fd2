package nonblock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// pair returns both ends of a TCP connection.
func pair(t *testing.T) (*Socket, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	for _, c := range []net.Conn{a, b} {
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return New(a), b
}

// Much more than the kernel's buffers hold goes through, both ways at once.
func TestMuchBothWays(t *testing.T) {
	s, peer := pair(t)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	go io.Copy(peer, peer) // ends with the connection
	sent := make(chan error, 1)
	go func() {
		n, err := s.Write(want)
		if err == nil && n != len(want) {
			err = io.ErrShortWrite
		}
		sent <- err
	}()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(s, got); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("what came back is not what was sent")
	}
}

func TestEndsAndDeadlines(t *testing.T) {
	one := make([]byte, 1)
	for _, c := range []struct {
		name string
		make func(s *Socket, peer net.Conn) error
		do   func(s *Socket) error
		want error
	}{
		{"the peer's end", func(_ *Socket, peer net.Conn) error { return peer.Close() },
			func(s *Socket) error { _, err := s.Read(one); return err }, io.EOF},
		{"a reset", func(_ *Socket, peer net.Conn) error {
			return errors.Join(peer.(*net.TCPConn).SetLinger(0), peer.Close())
		}, func(s *Socket) error { _, err := s.Read(one); return err }, syscall.ECONNRESET},
		{"a write behind our end", func(s *Socket, _ net.Conn) error { return s.Conn.(*net.TCPConn).CloseWrite() },
			func(s *Socket) error { _, err := s.Write(one); return err }, syscall.EPIPE},
		{"the read deadline", func(s *Socket, _ net.Conn) error { return s.SetReadDeadline(time.Now().Add(10 * time.Millisecond)) },
			func(s *Socket) error { _, err := s.Read(one); return err }, os.ErrDeadlineExceeded},
		{"the write deadline", func(s *Socket, _ net.Conn) error { return s.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)) },
			func(s *Socket) error { _, err := s.Write(make([]byte, 64<<20)); return err }, os.ErrDeadlineExceeded},
		{"a closed one", func(s *Socket, _ net.Conn) error { return s.Close() },
			func(s *Socket) error { _, err := s.Read(one); return err }, net.ErrClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, peer := pair(t)
			if err := c.make(s, peer); err != nil {
				t.Fatal(err)
			}
			if err := c.do(s); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// How much was written before an error is told: the relay counts on it.
func TestWrittenBeforeTheDeadline(t *testing.T) {
	s, peer := pair(t)
	if err := s.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := s.Write(make([]byte, 64<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == 64<<20 {
		t.Fatalf("wrote %d bytes, %v; want some, and the deadline", n, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.Copy(io.Discard, peer); err != nil || got != int64(n) {
		t.Errorf("the peer read %d bytes, %v; %d were said to be written", got, err, n)
	}
}

func TestPeekLeavesWhatItSaw(t *testing.T) {
	s, peer := pair(t)
	peek := func() (n int, err error) {
		if cerr := s.raw.Control(func(fd uintptr) { n, err = Peek(fd, make([]byte, 8)) }); cerr != nil {
			t.Fatal(cerr)
		}
		return n, err
	}
	if _, err := peek(); err != syscall.EAGAIN {
		t.Errorf("peek at nothing: %v, want EAGAIN", err)
	}
	if _, err := peer.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3)
	if _, err := io.ReadFull(s, got[:1]); err != nil {
		t.Fatal(err)
	}
	if n, err := peek(); n != 2 || err != nil {
		t.Errorf("peek saw %d bytes, %v, want 2", n, err)
	}
	if _, err := io.ReadFull(s, got[1:]); err != nil || string(got) != "abc" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestNotASocket(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if New(a) != nil {
		t.Error("a pipe was taken for a socket")
	}
}

// What WriteMore wrote goes out with what is written next, and by itself if nothing is.
func TestWriteMore(t *testing.T) {
	s, peer := pair(t)
	got := make([]byte, 16)
	for try := 0; ; try++ {
		if _, err := s.WriteMore([]byte("body")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("dot")); err != nil {
			t.Fatal(err)
		}
		n, err := io.ReadAtLeast(peer, got, 4)
		if err != nil {
			t.Fatal(err)
		}
		if string(got[:n]) == "bodydot" {
			break
		}
		if try == 20 || string(got[:n]) != "body" { // this machine may stand still for 200 ms
			t.Fatalf("try %d: %q came", try, got[:n])
		}
		if _, err := io.ReadFull(peer, got[:3]); err != nil || string(got[:3]) != "dot" {
			t.Fatalf("%q came, %v", got[:3], err)
		}
	}
	if _, err := s.WriteMore([]byte("alone")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(peer, got[:5]); err != nil || string(got[:5]) != "alone" {
		t.Errorf("%q came, %v", got[:5], err)
	}
}

// WriteNow neither waits nor looks at the deadline.
func TestWriteNow(t *testing.T) {
	s, peer := pair(t)
	if err := s.SetWriteDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if n, err := s.WriteNow([]byte("now")); n != 3 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	p := make([]byte, 3)
	if _, err := io.ReadFull(peer, p); err != nil || string(p) != "now" {
		t.Fatalf("%q, %v", p, err)
	}
	big, sent := make([]byte, 1<<20), 0
	for {
		n, err := s.WriteNow(big)
		if err != nil {
			t.Fatal(err)
		}
		if sent += n; n < len(big) {
			break
		}
	}
	if n, err := s.WriteNow(big); n != 0 || err != nil {
		t.Errorf("a full socket: %d, %v", n, err)
	}
	if _, err := s.Write(big); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write: %v", err)
	}
	_ = peer.Close()
}
