package redismodel

import (
	"net"
	"sync"
)

// Listener serves a server over real connections, for tests that hold the model to Redis.
type Listener struct {
	mu     *sync.Mutex // held while the server works
	server *Server
	ln     net.Listener
	conns  sync.WaitGroup
	open   map[net.Conn]struct{} // mu
}

// Listen serves s on a listener until Close. mu is held whenever the server works: the
// caller's Options.After has to take it too, and so has whoever calls s directly.
func Listen(s *Server, ln net.Listener, mu *sync.Mutex) *Listener {
	l := &Listener{mu: mu, server: s, ln: ln, open: map[net.Conn]struct{}{}}
	l.conns.Go(l.accept)
	return l
}

func (l *Listener) accept() {
	for {
		nc, err := l.ln.Accept()
		if err != nil {
			return
		}
		l.mu.Lock()
		l.open[nc] = struct{}{}
		l.mu.Unlock()
		l.conns.Go(func() { l.serve(nc) })
	}
}

func (l *Listener) serve(nc net.Conn) {
	defer nc.Close()
	l.mu.Lock()
	session := l.server.Connect(
		func(b []byte) { _, _ = nc.Write(b) }, // answers are small; the peer reads
		func() { nc.Close() })
	l.mu.Unlock()
	buf := make([]byte, 64<<10)
	for {
		n, err := nc.Read(buf)
		l.mu.Lock()
		session.Feed(buf[:n])
		if err != nil {
			session.Close()
			delete(l.open, nc)
		}
		l.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Close ends the listener and its connections, and waits for them.
func (l *Listener) Close() {
	l.ln.Close()
	l.mu.Lock()
	for nc := range l.open {
		nc.Close()
	}
	l.mu.Unlock()
	l.conns.Wait()
}
