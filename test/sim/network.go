package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// host is a machine, or a process, that production code runs in: it can be paused, cut
// off and killed, and then all of its connections are.
type host struct {
	w      *World
	name   string
	addr   netip.Addr
	dead   bool
	halted func() bool   // it has died at a write to its disk, and nobody has noticed yet
	paused chan struct{} // closed when it goes on; nil: it isn't paused
	eager  bool          // after a pause, what arrived meanwhile is read though its deadline is over
	conns  []*conn
	serial int
}

// pause stops whatever the host sends or receives until resume. mu is held.
func (h *host) pause() {
	if h.paused == nil {
		h.paused, h.eager = make(chan struct{}), h.w.chance(0.5)
	}
}

func (h *host) resume() {
	if h.paused != nil {
		close(h.paused)
		h.paused = nil
	}
}

// running waits until the host isn't paused, and reports whether it was. mu is held, and
// let go meanwhile.
func (h *host) running() (paused bool) {
	for h.paused != nil && !h.dead {
		paused = true
		ch := h.paused
		h.w.mu.Unlock()
		<-ch
		h.w.mu.Lock()
	}
	return paused
}

// fate is what becomes of the segments of a killed process that are on their way.
type fate struct {
	lost bool
	late time.Duration // beyond the usual
}

// kill severs everything: no byte that isn't on its way already leaves any more. mu is
// held.
func (h *host) kill(draw func(*conn) fate) {
	h.dead = true
	h.resume()
	for _, c := range h.conns {
		if c.ended {
			continue
		}
		if c.flying > 0 {
			switch f := draw(c); {
			case f.lost:
				c.out.queue, c.flying = nil, 0
			case f.late > 0:
				h.w.fault("late segment of a killed process")
				c.quickest, c.postpone = time.Now().Add(f.late), true
			}
		}
		c.reset(net.ErrClosed)
		c.finish()
	}
	h.conns = nil
}

// peer is the other end of a connection: a server or client of the world itself. Its
// methods are called by the world, with mu held.
type peer interface {
	receive(c *conn, b []byte)
	ended(c *conn) // by the other side
}

// link says how bytes pass between a host and a peer's machine.
type link struct {
	least, most time.Duration
	outSilent   bool // bytes of the host don't arrive
	inSilent    bool // bytes to the host don't arrive
	stalled     []func()
}

// heal lets everything through again; what TCP kept arrives. mu is held.
func (l *link) heal() {
	l.outSilent, l.inSilent = false, false
	list := l.stalled
	l.stalled = nil
	for _, again := range list {
		again()
	}
}

// conn is a connection between production code, which has its net.Conn, and a peer.
type conn struct {
	w     *World
	host  *host
	peer  peer
	link  *link
	name  string
	local net.Addr
	far   net.Addr

	in       []byte // arrived for the host
	eof      bool
	err      error // that ends reads and writes of the host
	wake     chan struct{}
	rd, wd   deadline
	ended    bool // the host is through with it
	over     bool // the peer is
	flying   int  // segments on the way to the peer
	quickest time.Time
	postpone bool
	out      way // to the peer
	inward   way // to the host
}

// connect makes a connection. mu is held.
func (w *World) connect(h *host, l *link, p peer, name string, local, far netip.AddrPort) *conn {
	h.serial++
	c := &conn{w: w, host: h, peer: p, link: l, name: fmt.Sprintf("%s#%d", name, h.serial),
		local: net.TCPAddrFromAddrPort(local), far: net.TCPAddrFromAddrPort(far), wake: make(chan struct{})}
	c.rd.init(w)
	c.wd.init(w)
	h.conns = append(h.conns, c)
	if len(h.conns) > 64 {
		kept := h.conns[:0]
		for _, c := range h.conns {
			if !c.ended || !c.over {
				kept = append(kept, c)
			}
		}
		h.conns = kept
	}
	return c
}

func (c *conn) signal() {
	close(c.wake)
	c.wake = make(chan struct{})
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	for {
		paused := c.host.running()
		switch {
		case paused && c.host.eager && len(c.in) > 0 && !c.ended && !c.host.dead:
			n := copy(p, c.in)
			c.in = c.in[n:]
			return n, nil
		case c.err != nil:
			return 0, c.failed("read", c.err)
		case c.rd.over():
			return 0, c.failed("read", os.ErrDeadlineExceeded)
		case len(c.in) > 0:
			n := copy(p, c.in)
			c.in = c.in[n:]
			return n, nil
		case c.eof:
			return 0, io.EOF
		}
		wake, expired := c.wake, c.rd.expired
		c.w.mu.Unlock()
		select {
		case <-wake:
		case <-expired:
		}
		c.w.mu.Lock()
	}
}

// Write implements net.Conn. It never waits for the peer. A host that is paused writes
// when it goes on: what was decided before the pause leaves after it.
func (c *conn) Write(p []byte) (int, error) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.err == nil && c.wd.over() {
		return 0, c.failed("write", os.ErrDeadlineExceeded)
	}
	c.host.running()
	if c.err != nil {
		return 0, c.failed("write", c.err)
	}
	if c.host.halted != nil && c.host.halted() {
		return 0, c.failed("write", net.ErrClosed)
	}
	b := append([]byte(nil), p...)
	c.flying++
	c.w.hand(func() { c.send(b) })
	return len(p), nil
}

func (c *conn) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.far, Err: err}
}

// way is one direction of a connection: what is on it arrives in order.
type way struct {
	queue   []passing
	last    time.Time // arrival of the last one
	waiting bool      // the link has it on its list
}

type passing struct {
	at time.Time
	do func()
}

// send puts a segment on its way to the peer. mu is held.
func (c *conn) send(b []byte) {
	c.w.segment(c.host.name, c.name, b)
	c.depart(func() { c.flying--; c.peer.receive(c, b) })
}

// finish puts the end of the connection on its way to the peer. mu is held.
func (c *conn) finish() {
	c.depart(func() {
		if !c.over {
			c.over = true
			c.peer.ended(c)
		}
	})
}

// depart makes something arrive at the peer, in order. mu is held.
func (c *conn) depart(do func()) { c.put(&c.out, 0, do, c.arriveOut) }

func (c *conn) put(y *way, d time.Duration, do, arrive func()) {
	at := time.Now().Add(d + c.w.between(c.link.least, c.link.most))
	if at.Before(y.last) {
		at = y.last
	}
	y.last = at
	y.queue = append(y.queue, passing{at, do})
	c.w.after(time.Until(at), "", arrive)
}

func (c *conn) arriveOut() {
	if c.postpone && time.Now().Before(c.quickest) {
		c.w.after(time.Until(c.quickest), "", c.arriveOut)
		return
	}
	c.arrive(&c.out, &c.link.outSilent, func() bool { return c.over }, c.arriveOut)
}

func (c *conn) arriveIn() {
	c.arrive(&c.inward, &c.link.inSilent, func() bool { return c.ended || c.err != nil }, c.arriveIn)
}

// arrive lets through what is due, unless the link is silent in this direction.
func (c *conn) arrive(y *way, silent *bool, over func() bool, again func()) {
	if *silent {
		if !y.waiting {
			y.waiting = true
			c.link.stalled = append(c.link.stalled, func() { y.waiting = false; again() })
		}
		return
	}
	for len(y.queue) > 0 && !y.queue[0].at.After(time.Now()) {
		do := y.queue[0].do
		y.queue = y.queue[1:]
		if !over() {
			do()
		}
	}
}

// answer makes bytes of the peer arrive at the host, d later than they otherwise would.
// mu is held.
func (c *conn) answer(b []byte, d time.Duration) {
	c.put(&c.inward, d, func() {
		c.in = append(c.in, b...)
		c.signal()
	}, c.arriveIn)
}

// hangUp ends the connection by the peer: with reset, or after what was sent. mu is held.
func (c *conn) hangUp(reset bool) {
	if c.over {
		return
	}
	c.over = true
	c.put(&c.inward, 0, func() {
		if reset {
			c.reset(syscall.ECONNRESET)
		} else {
			c.eof = true
			c.signal()
		}
	}, c.arriveIn)
}

// reset makes everything that the host does with the connection fail. mu is held.
func (c *conn) reset(err error) {
	if c.err == nil {
		c.err = err
		c.signal()
	}
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.ended {
		return c.failed("close", net.ErrClosed)
	}
	c.ended = true
	c.reset(net.ErrClosed)
	c.w.hand(func() { c.finish() })
	return nil
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.far }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error { c.rd.set(t); return nil }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error { c.wd.set(t); return nil }

// deadline ends waits at a moment.
type deadline struct {
	w       *World
	at      time.Time
	timer   *time.Timer
	expired chan struct{} // closed when it is over
	closed  bool
}

func (d *deadline) init(w *World) { d.w, d.expired = w, make(chan struct{}) }

func (d *deadline) over() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) set(t time.Time) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	if d.closed {
		d.expired, d.closed = make(chan struct{}), false
	}
	if t.IsZero() {
		return
	}
	if left := time.Until(t); left <= 0 {
		d.closed = true
		close(d.expired)
	} else {
		expired := d.expired
		d.timer = time.AfterFunc(left, func() {
			d.w.mu.Lock()
			defer d.w.mu.Unlock()
			if d.expired == expired && !d.closed && d.over() {
				d.closed = true
				close(expired)
			}
		})
	}
}

// dial makes a connection for production code: it takes the way there and back, or, if
// the way is silent, until ctx ends. open returns the peer, or why there is none.
func (w *World) dial(ctx context.Context, h *host, l *link, name string, far netip.AddrPort, open func() (peer, error)) (net.Conn, error) {
	type result struct {
		c   *conn
		err error
	}
	done := make(chan result, 1)
	w.mu.Lock()
	h.running()
	if h.dead {
		w.mu.Unlock()
		return nil, net.ErrClosed
	}
	w.hand(func() {
		w.after(w.between(l.least, l.most)+w.between(l.least, l.most), "", func() {
			switch {
			case h.dead:
				done <- result{err: net.ErrClosed}
			case l.outSilent || l.inSilent:
				// Nobody answers.
			default:
				p, err := open()
				if err != nil {
					done <- result{err: &net.OpError{Op: "dial", Net: "tcp", Err: err}}
					return
				}
				h.serial++
				c := w.connect(h, l, p, name, netip.AddrPortFrom(h.addr, uint16(10000+h.serial%50000)), far)
				if g, is := p.(greeter); is {
					g.greet(c)
				}
				done <- result{c: c}
			}
		})
	})
	w.mu.Unlock()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, r.err
		}
		return r.c, nil
	case <-ctx.Done():
		w.mu.Lock()
		defer w.mu.Unlock()
		select {
		case r := <-done:
			if r.c != nil {
				r.c.ended = true
				r.c.finish()
			}
		default:
		}
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: context.Cause(ctx)}
	}
}

// greeter is a peer that speaks first.
type greeter interface{ greet(c *conn) }

// listener is where production code accepts connections of the world's clients.
type listener struct {
	w      *World
	host   *host
	addr   net.Addr
	queue  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newListener(w *World, h *host) *listener {
	return &listener{w: w, host: h, addr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(h.addr, 25)), queue: make(chan net.Conn, 256), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: net.ErrClosed}
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.addr }

// open connects a client of the world; nil if nobody listens. mu is held.
func (l *listener) open(k *link, p peer, from netip.AddrPort) *conn {
	select {
	case <-l.closed:
		return nil
	default:
	}
	if l.host.dead {
		return nil
	}
	c := l.w.connect(l.host, k, p, "smtp-in", netip.AddrPortFrom(l.host.addr, 25), from)
	l.queue <- c
	return c
}
