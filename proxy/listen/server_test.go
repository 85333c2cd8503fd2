package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
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
	if err := nc.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
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

// loopback are the peers that a test's are among.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// counts is an observer.
type counts struct {
	mu             sync.Mutex
	opened, closed int
	refused        map[string]int
}

func (c *counts) ConnectionOpened() { c.mu.Lock(); defer c.mu.Unlock(); c.opened++ }
func (c *counts) ConnectionClosed() { c.mu.Lock(); defer c.mu.Unlock(); c.closed++ }
func (c *counts) ConnectionRefused(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		c.refused = make(map[string]int)
	}
	c.refused[reason]++
}

// TestLimits wants what is beyond a limit to be told so, and its place to be free again as
// soon as a connection has left, whether or not a goroutine served it to the end.
func TestLimits(t *testing.T) {
	for _, c := range []struct {
		name    string
		options Options
		reason  string
	}{
		{"in all", Options{Connections: 2}, RefusedLimit},
		{"per address", Options{ConnectionsPerAddress: 2}, RefusedAddress},
		{"with others", Options{Quota: NewQuota(2)}, RefusedLimit},
		{"per address, with others", Options{ConnectionsPerAddress: 2, Quota: NewQuota(3)}, RefusedAddress},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := &counts{}
			c.options.Observer = o
			c.options.Refusal = func(reason string) []byte { return []byte("no: " + reason) }
			conns := make(chan *Conn, 3)
			s, addr := start(t, c.options, func(c *Conn) bool {
				conns <- c
				io.WriteString(c.NetConn(), "hello")
				return true
			})
			hello := func(want string) {
				t.Helper()
				b := make([]byte, 64)
				if n, err := dial(t, addr).Read(b); string(b[:n]) != want {
					t.Fatalf("got %q (%v), want %q", b[:n], err, want)
				}
			}
			hello("hello")
			hello("hello")
			hello("no: " + c.reason)
			first, second := <-conns, <-conns
			first.NetConn().Close()
			first.Leave()
			if n := s.Connections(); n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
			hello("hello")
			hello("no: " + c.reason)
			for _, left := range []*Conn{second, <-conns} {
				left.NetConn().Close()
				left.Leave()
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			if o.opened != 3 || o.closed != 3 || o.refused[c.reason] != 2 {
				t.Errorf("counted %d, %d, %v", o.opened, o.closed, o.refused)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.addresses) > 0 {
				t.Errorf("addresses are kept: %v", s.addresses)
			}
		})
	}
}

// TestContextEndsKeptConnections wants the end of Serve's context to cut, and Serve to wait.
func TestContextEndsKeptConnections(t *testing.T) {
	conns := make(chan *Conn, 1)
	stages := make(chan Stage, 4)
	s, err := New(Options{ID: "test"}, func(c *Conn) bool {
		c.Notify(func(at Stage) { stages <- at })
		conns <- c
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	dial(t, ln.Addr().String())
	c := <-conns
	cancel()
	if at := <-stages; at != Cut {
		t.Fatalf("stage %v, want a cut", at)
	}
	c.Notify(func(at Stage) { stages <- at }) // whoever comes late is told, too
	if at := <-stages; at != Cut {
		t.Fatalf("stage %v, want a cut", at)
	}
	select {
	case err := <-done:
		t.Fatalf("Serve returned %v before the connection left", err)
	default:
	}
	c.NetConn().Close()
	c.Leave()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve returned %v", err)
	}
	if err := s.Shutdown(t.Context()); err != nil || len(stages) > 0 {
		t.Errorf("Shutdown after it returned %v, with %d more calls", err, len(stages))
	}
}

// TestDrainEndsWaiting has peers that wait in a header, in a handshake and in a read.
func TestDrainEndsWaiting(t *testing.T) {
	config := &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	for name, o := range map[string]Options{"header": {ProxyNets: loopback, HeaderTime: time.Hour}, "handshake": {}, "read": {}} {
		t.Run(name, func(t *testing.T) {
			s, addr := start(t, o, func(c *Conn) bool {
				c.NetConn().SetReadDeadline(time.Now().Add(time.Hour))
				if name == "handshake" && c.Stage() == Serving {
					tls.Server(c.NetConn(), config).Handshake()
				}
				for b := make([]byte, 1); c.Stage() == Serving; {
					c.NetConn().Read(b)
				}
				return false
			})
			nc := dial(t, addr)
			for deadline := time.Now().Add(30 * time.Second); s.Connections() == 0 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if b, err := io.ReadAll(nc); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %q, %v", b, err)
			}
		})
	}
}

// TestOptionsAreChecked wants each mistake to be named.
func TestOptionsAreChecked(t *testing.T) {
	handler := func(*Conn) bool { return false }
	for want, c := range map[string]struct {
		o Options
		h Handler
	}{
		"without id": {Options{}, handler},
		"no handler": {Options{ID: "x"}, nil},
		"negative":   {Options{ID: "x", Connections: -1}, handler},
		"header":     {Options{ID: "x", ProxyNets: loopback}, handler},
	} {
		if _, err := New(c.o, c.h); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// TestGoroutinesServeAgain has more connections at once than goroutines wait for, then none, and
// then one that panics: those that stay are few, and serve.
func TestGoroutinesServeAgain(t *testing.T) {
	const many = 3 * maxResting
	var begun sync.WaitGroup
	begun.Add(many)
	release := make(chan struct{})
	s, addr := start(t, Options{}, func(c *Conn) bool {
		p := make([]byte, 1)
		if _, err := io.ReadFull(c.NetConn(), p); err != nil {
			return false
		}
		switch p[0] {
		case 'w':
			begun.Done()
			<-release
		case 'p':
			panic("as told")
		}
		_, _ = c.NetConn().Write(p)
		return false
	})
	say := func(word string) net.Conn {
		nc := dial(t, addr)
		if _, err := io.WriteString(nc, word); err != nil {
			t.Error(err)
		}
		return nc
	}
	conns := make([]net.Conn, many)
	for i := range conns {
		conns[i] = say("w")
	}
	begun.Wait()
	close(release)
	for _, nc := range conns {
		if b, err := io.ReadAll(nc); string(b) != "w" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	}
	for end := time.Now().Add(30 * time.Second); s.resting.Load() != maxResting; time.Sleep(time.Millisecond) {
		if time.Now().After(end) { // who finds its place taken counts for a moment
			t.Fatalf("%d goroutines wait for a connection, want %d", s.resting.Load(), maxResting)
		}
	}
	if b, err := io.ReadAll(say("p")); len(b) > 0 || err != nil {
		t.Errorf("a handler that panics: %q, %v", b, err)
	}
	if b, err := io.ReadAll(say("x")); string(b) != "x" || err != nil {
		t.Errorf("behind it: %q, %v", b, err)
	}
}

// TestQuota has servers whose connections take more and less of one quota.
func TestQuota(t *testing.T) {
	q := NewQuota(3)
	hold := func(c *Conn) bool {
		_, _ = io.Copy(io.Discard, c.NetConn())
		return false
	}
	_, mail := start(t, Options{ID: "mail", Quota: q, Refusal: func(string) []byte { return []byte("no") }}, hold)
	logins, both := start(t, Options{ID: "logins", Quota: q.For(2), Refusal: func(string) []byte { return []byte("no") }}, hold)
	first := dial(t, both)
	for end := time.Now().Add(30 * time.Second); logins.Connections() != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a connection of two isn't served")
		}
	}
	if b, _ := io.ReadAll(dial(t, both)); string(b) != "no" {
		t.Errorf("a second one: %q", b)
	}
	dial(t, mail)
	if b, _ := io.ReadAll(dial(t, mail)); string(b) != "no" {
		t.Errorf("a second one that takes 1: %q", b)
	}
	_ = first.Close()
	if (*Quota)(nil).For(2) != nil {
		t.Error("no limit isn't none")
	}
}
