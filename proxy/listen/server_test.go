package listen

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// start serves on a port of its own until the test ends.
func start(t *testing.T, o Options, h Handler) (*Server, string) {
	t.Helper()
	if o.ID == "" {
		o.ID = "test"
	}
	s, err := New(o, h)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s, ln.Addr().String()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return nc
}

// TestKeptConnection has one whose handler returned: it counts, learns of the drain and
// the cut by its callback, and is waited for.
func TestKeptConnection(t *testing.T) {
	stages := make(chan Stage, 4)
	conns := make(chan *Conn, 1)
	s, addr := start(t, Options{}, func(c *Conn) bool {
		c.Notify(func(at Stage) { stages <- at })
		conns <- c
		return true
	})
	dial(t, addr)
	c := <-conns
	if n := s.Connections(); n != 1 {
		t.Fatalf("%d connections, want the kept one", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(ctx) }()
	if at := <-stages; at != Draining {
		t.Fatalf("stage %v, want draining", at)
	}
	cancel()
	if at := <-stages; at != Cut || c.Context().Err() == nil {
		t.Fatalf("stage %v, context %v, want a cut", at, c.Context().Err())
	}
	select {
	case err := <-done:
		t.Fatalf("Shutdown returned %v before the connection left", err)
	default:
	}
	c.NetConn().Close()
	c.Leave()
	c.Leave()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown returned %v", err)
	}
	if n := s.Connections(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// TestPanicEndsOneConnection wants the next to be served.
func TestPanicEndsOneConnection(t *testing.T) {
	first := make(chan bool, 1)
	first <- true
	_, addr := start(t, Options{}, func(c *Conn) bool {
		select {
		case <-first:
			panic("test")
		default:
		}
		io.WriteString(c.NetConn(), "hello")
		return false
	})
	if b, _ := io.ReadAll(dial(t, addr)); len(b) != 0 {
		t.Errorf("got %q of the handler that panicked", b)
	}
	if b, _ := io.ReadAll(dial(t, addr)); string(b) != "hello" {
		t.Errorf("got %q, want the next connection to be served", b)
	}
}
