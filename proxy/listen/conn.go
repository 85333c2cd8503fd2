package listen

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"mailcutover/mail"
)

// Stage is how far a server's end has come.
type Stage int32

const (
	Serving  Stage = iota
	Draining       // what is under way may end, nothing begins
	Cut            // everything ends now
)

// errEnding is for what is not begun any more, since the server ends.
var errEnding = errors.New("listener ends")

// longAgo is a deadline that ends every read at once.
var longAgo = time.Unix(1, 0)

// Conn is a connection that was admitted. It counts for the server's limits, and Shutdown
// waits for it, until it leaves. Its methods are safe for concurrent use.
type Conn struct {
	srv     *Server
	nc      net.Conn
	base    context.Context // Serve's
	account *sync.WaitGroup // of Serve, which waits for it
	session string
	peer    netip.AddrPort
	header  *header // nil: none was read
	proxied bool
	left    atomic.Bool

	life atomic.Pointer[life]
	// Under the server's lock.
	counted bool  // for its client's address
	told    Stage // what notify was called for
	notify  func(Stage)
}

// NetConn returns the connection as it was accepted: a [*net.TCPConn], from TCP sockets. A
// PROXY header has been read from it, and no byte more. The handler reads, writes and closes
// it; a drain sets read deadlines in the past (see Notify).
func (c *Conn) NetConn() net.Conn { return c.nc }

// Context ends when the connection has left, when it is cut, or with Serve's context.
func (c *Conn) Context() context.Context {
	if l := c.life.Load(); l != nil {
		return l.ctx
	}
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	l := c.life.Load()
	if l == nil {
		l = new(life)
		l.ctx, l.cancel = context.WithCancel(c.base)
		c.life.Store(l)
		if c.left.Load() || c.Stage() == Cut {
			l.cancel()
		}
	}
	return l.ctx
}

// life is a connection's context, made when somebody asks for it: under the server's lock, so
// that what ends the connection finds it, or is seen.
type life struct {
	ctx    context.Context
	cancel context.CancelFunc
}

// end ends the context, if there is one.
func (l *life) end() {
	if l != nil {
		l.cancel()
	}
}

// Stage returns how far the server's end has come.
func (c *Conn) Stage() Stage { return Stage(c.srv.stage.Load()) }

// Session returns the connection's id in logs. It is not used again, also by a later start.
func (c *Conn) Session() string { return c.session }

// Client returns what is known of the client: Session, Listener, Peer, Source, Addr and Local.
func (c *Conn) Client() mail.Client {
	addr := c.Addr()
	m := mail.Client{Session: c.session, Listener: c.srv.opts.ID, Peer: c.peer, Source: addr, Addr: addr}
	if c.header != nil && c.header.Local.IsValid() {
		m.Local = c.header.Local
	} else {
		m.Local = addrPort(c.nc.LocalAddr())
	}
	return m
}

// Peer returns who is connected to us: a load balancer, where PROXY is used.
func (c *Conn) Peer() netip.AddrPort { return c.peer }

// Addr returns the client's address: the peer's, or that of whom its PROXY header named.
func (c *Conn) Addr() netip.AddrPort {
	if c.header != nil && c.header.Client.IsValid() {
		return c.header.Client
	}
	return c.peer
}

// Proxied reports whether the peer is one that has to send a PROXY header, and did.
func (c *Conn) Proxied() bool { return c.proxied }

// Secure reports whether the PROXY header said that the client speaks TLS with the peer
// (proxy-protocol.txt section 2.2.6, PP2_CLIENT_SSL).
func (c *Conn) Secure() bool { return c.header != nil && c.header.Secure }

// Notify sets what is called, in place of a wake-up, when the server's end reaches a stage:
// at most once for each of Draining and Cut, from the goroutine that ends the server, or, for
// a stage that is there already, from this call. f must not block; it may call Leave. It may
// still be called while the connection leaves. A nil f brings the wake-up back.
//
// The wake-up, which is there from the start, is a read deadline in the past. Who is about
// to read sets a deadline of its own first and looks at Stage then; so none is missed.
func (c *Conn) Notify(f func(Stage)) {
	c.srv.mu.Lock()
	at := c.Stage()
	c.notify, c.told = f, at
	c.srv.mu.Unlock()
	if f != nil && at > Serving {
		f(at)
	}
}

// Leave ends the account of a connection that its handler kept; all that belongs to it has
// to be closed before. Calls after the first do nothing.
func (c *Conn) Leave() {
	if c.left.CompareAndSwap(false, true) {
		c.srv.dismiss(c)
	}
}

// wake makes the connection notice the stage. The lock is not held.
func (c *Conn) wake() {
	c.srv.mu.Lock()
	at := c.Stage()
	notify, told := c.notify, c.told
	c.told = at
	c.srv.mu.Unlock()
	if at == Cut {
		c.life.Load().end()
	}
	switch {
	case notify == nil:
		// Who waits wakes; who is about to looks at the stage after it has set a
		// deadline of its own.
		_ = c.nc.SetReadDeadline(longAgo)
	case told < at:
		notify(at)
	}
}

// addrPort returns a's address and port; zero if it has none, such as a pipe.
func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
