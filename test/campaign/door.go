package campaign

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"

	"mailcutover/test/peers"
)

// Door is a TCP port in front of one of a platform's: it can refuse, reset or stall whoever comes
// through, and ends each connection after a time, as platforms do. Its methods are safe for
// concurrent use.
type Door struct {
	Addr string // host and port

	target   string
	secure   *tls.Config   // nil: what comes is passed on as it is
	lifetime time.Duration // of a connection; 0: no end
	listener net.Listener
	running  sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	refuses bool
	open    chan struct{} // nil: nobody is stalled; closed by the end of a stall
	through map[net.Conn]bool
}

// NewDoor opens one at an address of this network namespace; with secure, TLS ends at it. It ends with
// the test.
func NewDoor(t peers.TB, ip, target string, secure *tls.Config, lifetime time.Duration) *Door {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatalf("door to %s: %v", target, err)
	}
	d := &Door{Addr: l.Addr().String(), target: target, secure: secure, lifetime: lifetime, listener: l, through: make(map[net.Conn]bool)}
	d.running.Go(d.accept)
	t.Cleanup(func() {
		l.Close()
		d.mu.Lock()
		d.closed = true
		d.mu.Unlock()
		d.Stall(false)
		d.Reset()
		d.running.Wait()
	})
	return d
}

// Reset breaks all connections.
func (d *Door) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.through {
		c.Close()
	}
}

// Refuse has each new connection broken at once.
func (d *Door) Refuse(refuses bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refuses = refuses
}

// Stall holds back all that platforms answer, until it is ended.
func (d *Door) Stall(stalls bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case stalls && d.open == nil && !d.closed:
		d.open = make(chan struct{})
	case !stalls && d.open != nil:
		close(d.open)
		d.open = nil
	}
}

func (d *Door) accept() {
	for {
		c, err := d.listener.Accept()
		if err != nil {
			return
		}
		d.running.Go(func() { d.serve(c) })
	}
}

// enter notes a connection; false: it may not come through.
func (d *Door) enter(c net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.refuses {
		return false
	}
	_ = c.(*net.TCPConn).SetLinger(0) // what ends here is reset
	d.through[c] = true
	return true
}

func (d *Door) leave(c net.Conn) {
	c.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.through, c)
}

func (d *Door) serve(client net.Conn) {
	defer d.leave(client)
	if !d.enter(client) {
		return
	}
	server, err := net.DialTimeout("tcp", d.target, 10*time.Second)
	if err != nil {
		return
	}
	defer d.leave(server)
	if !d.enter(server) {
		return
	}
	if d.lifetime > 0 {
		end := time.AfterFunc(d.lifetime, func() {
			client.Close()
			server.Close()
		})
		defer end.Stop()
	}
	inside := client
	if d.secure != nil {
		inside = tls.Server(client, d.secure)
	}
	var asking sync.WaitGroup
	asking.Go(func() {
		_, _ = io.Copy(server, inside)
		server.Close()
	})
	_, _ = io.Copy(held{inside, d}, server)
	client.Close()
	asking.Wait()
}

// held is a client to whom nothing is said while the door stalls.
type held struct {
	net.Conn
	door *Door
}

func (h held) Write(b []byte) (int, error) {
	h.door.mu.Lock()
	open := h.door.open
	h.door.mu.Unlock()
	if open != nil {
		<-open
	}
	return h.Conn.Write(b)
}
