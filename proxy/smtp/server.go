package smtp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"mailcutover/mail"
)

// ErrServerClosed is returned by [Server.Serve] after [Server.Shutdown].
var ErrServerClosed = errors.New("listener was shut down")

// stage is how far a server's end has come.
type stage int32

const (
	stageServing  stage = iota
	stageDraining       // transactions may end, nothing begins
	stageCut            // everything ends now
)

// cutTime is how long a cut connection has for its last words.
const cutTime = 2 * time.Second

// Server is a listener's engine. It is made by [NewServer], serves, and ends by
// [Server.Shutdown] or with Serve's context; then it can't be used again. Its methods
// are safe for concurrent use.
type Server struct {
	opts    Options
	backend Backend
	log     *slog.Logger
	observe Observer
	tls     *strictTLS // nil: no TLS
	pool    *bufferPool
	stage   atomic.Int32
	serial  atomic.Uint64
	prefix  string // tells our session ids from those of another start

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	addresses map[netip.Addr]int
	empty     chan struct{} // closed when there is no connection left after the serving

	refusals      int // since the last that was logged
	refusalLogged time.Time
}

// NewServer returns a server with these settings, or an error that names all that is
// wrong with them.
func NewServer(opts Options, backend Backend) (*Server, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	s := &Server{
		opts: opts, backend: backend, log: opts.Logger, observe: opts.Observer,
		pool:      newBufferPool(),
		prefix:    string(mail.NewTransactionID()[16:]) + "-", // its random end
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*conn]struct{}),
		addresses: make(map[netip.Addr]int),
		empty:     make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.log = s.log.With("listener", opts.ID)
	if s.observe == nil {
		s.observe = noObserver{}
	}
	if opts.TLSConfig != nil {
		s.tls = &strictTLS{source: opts.TLSConfig}
	}
	return s, nil
}

// Serve accepts connections from ln until Shutdown, which makes it return
// [ErrServerClosed], or until ctx ends: then all connections are cut at once, and it
// returns ctx's error. It closes ln, and returns after its last connection ended.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	defer ln.Close()
	if !s.enter(ln) {
		return ErrServerClosed
	}
	defer s.leave(ln)
	var connections sync.WaitGroup
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		s.begin(stageCut)
	})
	defer func() {
		if !stop() {
			<-cut
		}
	}()
	defer connections.Wait()
	delay := time.Duration(0)
	for {
		nc, err := ln.Accept()
		if err != nil {
			switch {
			case ctx.Err() != nil:
				return fmt.Errorf("listener %s: %w", s.opts.ID, ctx.Err())
			case s.at(stageDraining):
				return ErrServerClosed
			}
			var ne net.Error
			if errors.Is(err, net.ErrClosed) || !errors.As(err, &ne) {
				return fmt.Errorf("accept on %s: %w", ln.Addr(), err)
			}
			// No descriptors or no memory: that passes, and giving up would not help.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.log.Error("accept failed, trying again", "error", err, "after", delay)
			select {
			case <-time.After(delay):
			case <-ctx.Done():
			}
			continue
		}
		delay = 0
		c, ok := s.admit(ctx, nc)
		if !ok {
			continue
		}
		connections.Go(func() { s.run(c) })
	}
}

// run serves one connection. A panic in a session ends that connection only.
func (s *Server) run(c *conn) {
	defer s.dismiss(c)
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("connection panicked", "session", c.client.Session, "error", fmt.Sprint(p), "stack", string(debug.Stack()))
			c.abandon()
		}
	}()
	c.serve()
}

// Shutdown ends the server in order: no new connection, 421 for idle ones at once, and
// for the others when their transaction ends. When ctx ends first, the rest is cut and
// ctx's error returned. It waits until every connection is closed and its session, too.
func (s *Server) Shutdown(ctx context.Context) error {
	s.begin(stageDraining)
	select {
	case <-s.empty:
		return nil
	case <-ctx.Done():
	}
	s.begin(stageCut)
	late := time.NewTimer(cutTime)
	defer late.Stop()
	select {
	case <-s.empty:
	case <-late.C:
		s.each(func(c *conn) { _ = c.nc.Close() })
		<-s.empty
	}
	return fmt.Errorf("listener %s: connections were cut: %w", s.opts.ID, ctx.Err())
}

// begin brings the server to a stage, and makes every connection notice.
func (s *Server) begin(to stage) {
	s.mu.Lock()
	if stage(s.stage.Load()) < to {
		s.stage.Store(int32(to))
	}
	for ln := range s.listeners {
		_ = ln.Close()
	}
	s.mu.Unlock()
	s.each(func(c *conn) {
		if to == stageCut {
			c.cancel()
		}
		// Wakes the connection if it waits; if it is about to, it looks at the stage
		// after it has set a deadline of its own.
		_ = c.nc.SetReadDeadline(time.Unix(1, 0))
	})
	s.checkEmpty()
}

// at reports whether the server's end has come as far as to.
func (s *Server) at(to stage) bool { return stage(s.stage.Load()) >= to }

func (s *Server) each(f func(*conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		f(c)
	}
}

func (s *Server) enter(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at(stageDraining) {
		return false
	}
	s.listeners[ln] = struct{}{}
	return true
}

func (s *Server) leave(ln net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, ln)
}

// admit makes a connection of nc, or refuses it. Nothing is written to a peer that
// would wait for something else first: a PROXY header or a handshake.
func (s *Server) admit(ctx context.Context, nc net.Conn) (*conn, bool) {
	c := &conn{srv: s}
	c.client.Listener = s.opts.ID
	c.client.Session = s.prefix + strconv.FormatUint(s.serial.Add(1), 36)
	c.client.Peer = addrPort(nc.RemoteAddr())
	c.client.Addr = c.client.Peer
	c.client.Local = addrPort(nc.LocalAddr())
	c.proxied = contains(s.opts.ProxyNets, c.client.Peer.Addr())
	if err := c.init(nc, s.pool, s.opts.Limits.Write); err != nil {
		s.log.Error("connection can't be served", "peer", c.client.Peer, "error", err)
		_ = nc.Close()
		return nil, false
	}
	reply, reason := replyDrain, "drain"
	s.mu.Lock()
	ok := !s.at(stageDraining)
	if l := s.opts.Limits.Connections; ok && l > 0 && len(s.conns) >= l {
		ok, reply, reason = false, replyFull, "connections"
	}
	if ok && !c.proxied && !s.countAddress(c) {
		ok, reply, reason = false, replyFullAddress, "connections-per-address"
	}
	if ok {
		// The context is made under the lock: what cuts finds both or neither.
		c.ctx, c.cancel = context.WithCancel(ctx)
		s.conns[c] = struct{}{}
	}
	s.mu.Unlock()
	if ok {
		s.observe.ConnectionOpened()
		return c, true
	}
	s.refused(c, reason)
	if !c.proxied && !s.opts.ImplicitTLS {
		_ = nc.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, _ = nc.Write(appendReply(nil, reply))
		s.observe.Reply(reply.Code)
	}
	_ = nc.Close()
	return nil, false
}

// refused counts a connection that was refused, and logs it: once a second at most,
// with the number of those since, because they come by the thousand.
func (s *Server) refused(c *conn, reason string) {
	s.observe.ConnectionRefused(reason)
	s.mu.Lock()
	s.refusals++
	n := s.refusals
	due := time.Since(s.refusalLogged) >= time.Second
	if due {
		s.refusals, s.refusalLogged = 0, time.Now()
	}
	s.mu.Unlock()
	if due {
		s.log.Warn("connections refused", "peer", c.client.Peer, "reason", reason, "connections", n)
	}
}

// countAddress counts the connection for its client's address, unless there are too
// many. The lock is held.
func (s *Server) countAddress(c *conn) bool {
	addr, l := c.client.Addr.Addr(), s.opts.Limits.ConnectionsPerAddress
	if l > 0 && s.addresses[addr] >= l {
		return false
	}
	s.addresses[addr]++
	c.counted = addr
	return true
}

// dismiss forgets a connection that ended.
func (s *Server) dismiss(c *conn) {
	c.cancel()
	s.mu.Lock()
	delete(s.conns, c)
	if c.counted.IsValid() {
		if s.addresses[c.counted]--; s.addresses[c.counted] == 0 {
			delete(s.addresses, c.counted)
		}
	}
	s.mu.Unlock()
	s.observe.ConnectionClosed()
	s.checkEmpty()
}

func (s *Server) checkEmpty() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.at(stageDraining) || len(s.conns) > 0 {
		return
	}
	select {
	case <-s.empty:
	default:
		close(s.empty)
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

func contains(nets []netip.Prefix, addr netip.Addr) bool {
	for _, n := range nets {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}
