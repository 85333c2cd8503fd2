package cluster

import (
	"bytes"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"mailcutover/test/peers"
)

// Wire is a TCP proxy between a node and one of its peers. It forwards bytes as they come
// until it is told to do otherwise. Its methods are safe for concurrent use.
type Wire struct {
	target   string
	listener net.Listener
	running  sync.WaitGroup
	delay    atomic.Int64 // nanoseconds, of each piece of an answer
	dots     atomic.Int64 // final dots seen

	mu     sync.Mutex
	closed bool
	cut    bool
	silent bool
	wake   *sync.Cond // of silent and closed
	every  int64
	pairs  map[*pair]struct{}
}

// pair is one connection: the node's and the peer's.
type pair struct {
	client, server net.Conn
	dotted         atomic.Bool // the next answer is that to a final dot which is to be dropped
}

// NewWire starts a wire to target (host:port). It ends with the test.
func NewWire(t peers.TB, target string) *Wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("wire to %s: %v", target, err)
	}
	w := &Wire{target: target, listener: listener, pairs: make(map[*pair]struct{})}
	w.wake = sync.NewCond(&w.mu)
	w.running.Go(w.accept)
	t.Cleanup(func() {
		w.mu.Lock()
		w.closed = true
		w.listener.Close()
		w.breakAll()
		w.wake.Broadcast()
		w.mu.Unlock()
		w.running.Wait()
	})
	return w
}

// Addr is where the node connects to.
func (w *Wire) Addr() string { return w.listener.Addr().String() }

// Cut breaks all connections, and new ones at once, until Mend.
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	w.breakAll()
}

// Silence holds all bytes back, in both directions, until Mend: as a network that drops
// packets does.
func (w *Wire) Silence() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent = true
}

// Mend ends Cut and Silence; what was held back goes on.
func (w *Wire) Mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut, w.silent = false, false
	w.wake.Broadcast()
}

// Delay delays each piece of an answer. 0: no longer.
func (w *Wire) Delay(d time.Duration) { w.delay.Store(int64(d)) }

// DropDots breaks the connection in place of the answer to every n-th final dot of SMTP,
// as a platform that took a message and died. 0: no longer.
func (w *Wire) DropDots(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.every = int64(n)
}

func (w *Wire) breakAll() {
	for p := range w.pairs {
		p.client.Close()
		p.server.Close()
	}
}

func (w *Wire) accept() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		w.mu.Lock()
		refused := w.cut || w.closed
		w.mu.Unlock()
		if refused {
			client.Close()
			continue
		}
		w.running.Go(func() { w.serve(client) })
	}
}

func (w *Wire) serve(client net.Conn) {
	defer client.Close()
	server, err := net.DialTimeout("tcp", w.target, 5*time.Second)
	if err != nil {
		return
	}
	defer server.Close()
	// The peer's reset, and the node's, go on as such.
	for _, c := range []net.Conn{client, server} {
		_ = c.(*net.TCPConn).SetLinger(0)
	}
	p := &pair{client: client, server: server}
	w.mu.Lock()
	if w.cut || w.closed {
		w.mu.Unlock()
		return
	}
	w.pairs[p] = struct{}{}
	w.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { w.forward(p, client, server, w.asked) })
	w.forward(p, server, client, w.answered)
	both.Wait()
	w.mu.Lock()
	delete(w.pairs, p)
	w.mu.Unlock()
}

// forward copies until an end; look says whether to go on.
func (w *Wire) forward(p *pair, from, to net.Conn, look func(*pair, []byte) bool) {
	defer func() {
		from.Close()
		to.Close()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !look(p, buf[:n]) || !w.loud() {
				return
			}
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err == io.EOF || err != nil {
			return
		}
	}
}

// loud waits for the end of a silence; false: the wire is closed.
func (w *Wire) loud() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.silent && !w.closed {
		w.wake.Wait()
	}
	return !w.closed
}

var finalDot = []byte("\r\n.\r\n")

func (w *Wire) asked(p *pair, b []byte) bool {
	if bytes.HasSuffix(b, finalDot) {
		n := w.dots.Add(1)
		w.mu.Lock()
		every := w.every
		w.mu.Unlock()
		if every > 0 && n%every == 0 {
			p.dotted.Store(true)
		}
	}
	return true
}

func (w *Wire) answered(p *pair, b []byte) bool {
	if p.dotted.Load() {
		return false
	}
	if d := w.delay.Load(); d > 0 {
		time.Sleep(time.Duration(d))
	}
	return true
}
