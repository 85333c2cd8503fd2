package door

import (
	"container/list"
	"context"
	"net"
	"net/netip"
	"sync"
)

// Listener is a bounded listener. Use [Bound].
type Listener struct {
	net.Listener
	most int

	mu        sync.Mutex
	room      *sync.Cond // something has left, or the listener was closed
	taken     int
	closed    bool
	strangers map[netip.Prefix]*list.List // of *conn, the oldest first; none is empty
}

// Bound returns l with at most this many connections at a time; most is 1 or more.
func Bound(l net.Listener, most int) *Listener {
	b := &Listener{Listener: l, most: most, strangers: make(map[netip.Prefix]*list.List)}
	b.room = sync.NewCond(&b.mu)
	return b
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.admit(nc); c != nil {
			return c, nil
		}
		_ = nc.Close() // so is the listener: its next Accept says it
	}
}

// admit makes room for a connection, or waits for it; nil: the listener was closed.
func (l *Listener) admit(nc net.Conn) *conn {
	c := &conn{Conn: nc, of: l, from: network(nc.RemoteAddr())}
	var cut *conn
	l.mu.Lock()
	defer func() {
		l.mu.Unlock()
		if cut != nil {
			_ = cut.Conn.Close()
		}
	}()
	for l.taken >= l.most && !l.closed {
		if cut = l.longest(); cut != nil {
			l.leave(cut)
			break
		}
		l.room.Wait()
	}
	if l.closed {
		return nil
	}
	l.taken++
	same := l.strangers[c.from]
	if same == nil {
		same = list.New()
		l.strangers[c.from] = same
	}
	c.place = same.PushBack(c)
	return c
}

// longest returns the stranger's connection that has to go; nil: there is none.
func (l *Listener) longest() *conn {
	var most *list.List
	for _, same := range l.strangers {
		if most == nil || same.Len() > most.Len() {
			most = same
		}
	}
	if most == nil {
		return nil
	}
	return most.Front().Value.(*conn)
}

// leave forgets a connection, once. l.mu is held.
func (l *Listener) leave(c *conn) {
	if c.gone {
		return
	}
	c.gone = true
	l.known(c)
	l.taken--
	l.room.Signal()
}

// known takes a connection from among the strangers'. l.mu is held.
func (l *Listener) known(c *conn) {
	if c.place == nil {
		return
	}
	same := l.strangers[c.from]
	same.Remove(c.place)
	if c.place = nil; same.Len() == 0 {
		delete(l.strangers, c.from)
	}
}

// Close implements net.Listener. It ends a wait of Accept.
func (l *Listener) Close() error {
	l.mu.Lock()
	l.closed = true
	l.room.Broadcast()
	l.mu.Unlock()
	return l.Listener.Close()
}

// conn is a connection of a Listener.
type conn struct {
	net.Conn
	of   *Listener
	from netip.Prefix

	place *list.Element // among the strangers' of its address; nil: it isn't a stranger's
	gone  bool
}

// Close implements net.Conn.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.of.leave(c)
	return err
}

// network returns what counts as one address: of IPv6, a net of 64 bits.
func network(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap()
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	prefix, _ := ip.WithZone("").Prefix(bits) // fails for the zero Addr, and is as good then
	return prefix
}

type connKey struct{}

// Context is for http.Server.ConnContext: it notes a connection, of a Listener or of TLS over
// one, for Vouch.
func Context(ctx context.Context, nc net.Conn) context.Context {
	if wrapped, ok := nc.(interface{ NetConn() net.Conn }); ok { // *tls.Conn
		nc = wrapped.NetConn()
	}
	if c, ok := nc.(*conn); ok {
		return context.WithValue(ctx, connKey{}, c)
	}
	return ctx
}

// Vouch says that the connection of a request, whose context this is, belongs to somebody who is
// known, until it ends. It does nothing for a request that came by another way.
func Vouch(ctx context.Context) {
	c, ok := ctx.Value(connKey{}).(*conn)
	if !ok {
		return
	}
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.of.known(c)
}
