package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"mailcutover/mail"
)

// ErrClosed is returned by [Server.Serve] after [Server.Shutdown].
var ErrClosed = errors.New("listener was shut down")

// errAddress is why a client that a PROXY header named is cut off.
var errAddress = errors.New("too many connections of this address")

// cutTime is how long a cut connection has for its last words.
const cutTime = 2 * time.Second

// maxResting is how many goroutines wait for a connection, at most.
const maxResting = 32

// refusalTime is how long the word to a refused connection may take. A new socket takes it at once;
// that there is none may only be due to this process, which got no processor for a while.
const refusalTime = 2 * time.Second

// Why a connection was refused.
const (
	RefusedDrain   = "drain"                   // the server ends
	RefusedLimit   = "connections"             // too many at once
	RefusedAddress = "connections-per-address" // too many of one client
	RefusedHeader  = "proxy-header"            // none, or none that is valid, in time
	RefusedTLS     = "tls"                     // the handshake failed
)

// Options are the settings of one listener.
type Options struct {
	ID string // names the listener in logs; not empty

	// ProxyNets are the peers that must send a PROXY header, version 1 or 2, before
	// anything else. One of theirs that doesn't is cut off without an answer.
	ProxyNets []netip.Prefix
	// HeaderTime is the longest time for a PROXY header. More than 0 if there are ProxyNets.
	HeaderTime time.Duration

	Connections           int    // at once; 0: no limit
	ConnectionsPerAddress int    // the same for one client address; 0: no limit
	Quota                 *Quota // of this server and others together; nil: no limit

	// Refusal returns what a connection is told that is refused at once, for the reason
	// RefusedDrain, RefusedLimit or RefusedAddress. Nothing is said to a peer that has to
	// send a PROXY header first, nor if Refusal is nil: with implicit TLS.
	Refusal func(reason string) []byte

	Logger   *slog.Logger // nil: nothing is logged
	Observer Observer     // nil: nothing is counted
}

// Observer counts a listener's connections. Its methods are called from many goroutines at
// once and must not block.
type Observer interface {
	ConnectionOpened()
	ConnectionClosed()
	// ConnectionRefused tells why a connection was not served: RefusedDrain, RefusedLimit
	// and RefusedAddress at once, or, between the two calls above, RefusedHeader, RefusedTLS,
	// and RefusedAddress for a client behind a PROXY header.
	ConnectionRefused(reason string)
}

type silent struct{}

func (silent) ConnectionOpened()        {}
func (silent) ConnectionClosed()        {}
func (silent) ConnectionRefused(string) {}

// Handler serves a connection, in the connection's goroutine. When it returns false the
// connection is closed and leaves. When it returns true the connection goes on without the
// goroutine, and who has it calls [Conn.Leave] at its end; that may be before the handler returns.
// A handler that panics did not keep its connection.
type Handler func(*Conn) (kept bool)

// Server accepts the connections of one listener. It is made by [New], serves, and ends by
// [Server.Shutdown] or with Serve's context; then it can't be used again. Its methods are
// safe for concurrent use.
type Server struct {
	opts    Options
	handle  Handler
	log     *slog.Logger
	observe Observer
	stage   atomic.Int32
	serial  atomic.Uint64
	resting atomic.Int32 // goroutines that wait for a connection
	prefix  string       // tells our session ids from those of another start

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*Conn]struct{}
	addresses map[netip.Addr]int
	empty     chan struct{} // closed when there is no connection left after the serving

	refusals      int // since the last that was logged
	refusalLogged time.Time
}

// New returns a server with these settings, or an error that names what is wrong with them.
func New(opts Options, handle Handler) (*Server, error) {
	switch {
	case opts.ID == "":
		return nil, errors.New("listener without id")
	case handle == nil:
		return nil, fmt.Errorf("listener %s: no handler", opts.ID)
	case opts.Connections < 0 || opts.ConnectionsPerAddress < 0:
		return nil, fmt.Errorf("listener %s: a limit is negative", opts.ID)
	case opts.HeaderTime < 0 || len(opts.ProxyNets) > 0 && opts.HeaderTime == 0:
		return nil, fmt.Errorf("listener %s: time for a PROXY header %v, want more than 0", opts.ID, opts.HeaderTime)
	}
	s := &Server{
		opts: opts, handle: handle, log: opts.Logger, observe: opts.Observer,
		prefix:    string(mail.NewTransactionID()[16:]) + "-", // its random end
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*Conn]struct{}),
		addresses: make(map[netip.Addr]int),
		empty:     make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.log = s.log.With("listener", opts.ID)
	if s.observe == nil {
		s.observe = silent{}
	}
	return s, nil
}

// Serve accepts connections from ln until Shutdown, which makes it return [ErrClosed], or
// until ctx ends: then all connections are cut at once, and it returns ctx's error. It
// closes ln, and returns after its last connection has left and its last handler returned.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	defer ln.Close()
	if !s.enter(ln) {
		return ErrClosed
	}
	defer s.leave(ln)
	var handlers, connections sync.WaitGroup
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		s.begin(Cut)
	})
	defer func() {
		if !stop() {
			<-cut
		}
	}()
	defer connections.Wait()
	defer handlers.Wait()
	pool := make(chan *Conn)
	defer close(pool)
	delay := time.Duration(0)
	for {
		nc, err := ln.Accept()
		if err != nil {
			switch {
			case ctx.Err() != nil:
				return fmt.Errorf("listener %s: %w", s.opts.ID, ctx.Err())
			case s.Stage() >= Draining:
				return ErrClosed
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
		if c := s.admit(ctx, nc, &connections); c != nil {
			select {
			case pool <- c:
			default:
				handlers.Go(func() { s.work(c, pool) })
			}
		}
	}
}

// work serves a connection, and then others from the pool, as long as few goroutines wait there: one
// that has served has the stack that the next one needs, and a new one would grow it step by step.
func (s *Server) work(c *Conn, pool <-chan *Conn) {
	for ok := true; ok; {
		s.run(c)
		if s.resting.Add(1) > maxResting {
			s.resting.Add(-1)
			return
		}
		c, ok = <-pool
		s.resting.Add(-1)
	}
}

// ServeConn serves one connection that was accepted elsewhere, as Serve does, but in the
// caller's goroutine: it returns when the handler has. It reports false for a connection that
// was refused. One that was kept goes on.
func (s *Server) ServeConn(ctx context.Context, nc net.Conn) bool {
	c := s.admit(ctx, nc, new(sync.WaitGroup))
	if c != nil {
		s.run(c)
	}
	return c != nil
}

// run serves one connection. A panic in its handler ends that connection only.
func (s *Server) run(c *Conn) {
	kept := false
	defer func() {
		if !kept {
			_ = c.nc.Close()
			c.Leave()
		}
	}()
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("connection panicked", "session", c.session, "error", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	if c.proxied && !s.introduce(c) {
		return
	}
	kept = s.handle(c)
}

// introduce reads the header that c's peer must send, and believes it.
func (s *Server) introduce(c *Conn) bool {
	start := time.Now()
	h, err := c.readHeader(start.Add(s.opts.HeaderTime))
	reason := RefusedHeader
	if err == nil {
		c.header = &h
		s.mu.Lock()
		ok := s.countAddress(c)
		s.mu.Unlock()
		if ok {
			return true
		}
		err, reason = errAddress, RefusedAddress
	}
	s.observe.ConnectionRefused(reason)
	s.log.Info("connection ended", "session", c.session, "peer", c.peer, "client", c.Addr(),
		"seconds", time.Since(start).Seconds(), "reason", err.Error())
	return false
}

// Shutdown ends the server in order: no new connection, and the others learn that they are
// to end when they can. When ctx ends first, the rest is cut and ctx's error returned. It
// waits until every connection has left.
func (s *Server) Shutdown(ctx context.Context) error {
	s.begin(Draining)
	select {
	case <-s.empty:
		return nil
	case <-ctx.Done():
	}
	s.begin(Cut)
	late := time.NewTimer(cutTime)
	defer late.Stop()
	select {
	case <-s.empty:
	case <-late.C:
		for _, c := range s.all() {
			_ = c.nc.Close()
		}
		<-s.empty
	}
	return fmt.Errorf("listener %s: connections were cut: %w", s.opts.ID, ctx.Err())
}

// Stage returns how far the server's end has come.
func (s *Server) Stage() Stage { return Stage(s.stage.Load()) }

// Connections returns how many connections there are, with those that were kept.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// begin brings the server to a stage, and makes every connection notice.
func (s *Server) begin(to Stage) {
	s.mu.Lock()
	if s.Stage() < to {
		s.stage.Store(int32(to))
	}
	for ln := range s.listeners {
		_ = ln.Close()
	}
	s.mu.Unlock()
	for _, c := range s.all() {
		c.wake()
	}
	s.checkEmpty()
}

// all returns the connections of the moment: what is done to them may take the lock.
func (s *Server) all() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.conns))
}

func (s *Server) enter(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Stage() >= Draining {
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

// admit makes a connection of nc, or refuses it and returns nil. Nothing is written to a peer
// that would wait for something else first: a PROXY header or a handshake.
func (s *Server) admit(ctx context.Context, nc net.Conn, connections *sync.WaitGroup) *Conn {
	c := &Conn{srv: s, nc: nc, base: ctx, account: connections}
	c.session = s.prefix + strconv.FormatUint(s.serial.Add(1), 36)
	c.peer = addrPort(nc.RemoteAddr())
	c.proxied = slices.ContainsFunc(s.opts.ProxyNets, func(n netip.Prefix) bool { return n.Contains(c.peer.Addr()) })
	reason := ""
	s.mu.Lock()
	switch l := s.opts.Connections; {
	case s.Stage() >= Draining:
		reason = RefusedDrain
	case l > 0 && len(s.conns) >= l, !s.opts.Quota.take():
		reason = RefusedLimit
	case !c.proxied && !s.countAddress(c):
		s.opts.Quota.give()
		reason = RefusedAddress
	default:
		s.conns[c] = struct{}{}
		connections.Add(1)
	}
	s.mu.Unlock()
	if reason == "" {
		s.observe.ConnectionOpened()
		return c
	}
	s.refused(c, reason)
	if !c.proxied && s.opts.Refusal != nil {
		_ = nc.SetWriteDeadline(time.Now().Add(refusalTime))
		_, _ = nc.Write(s.opts.Refusal(reason))
	}
	_ = nc.Close()
	return nil
}

// refused counts a connection that was refused, and logs it: once a second at most,
// with the number of those since, because they come by the thousand.
func (s *Server) refused(c *Conn, reason string) {
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
		s.log.Warn("connections refused", "peer", c.peer, "reason", reason, "connections", n)
	}
}

// countAddress counts the connection for its client's address, unless there are too
// many. The lock is held.
func (s *Server) countAddress(c *Conn) bool {
	addr, l := c.Addr().Addr(), s.opts.ConnectionsPerAddress
	if l > 0 && s.addresses[addr] >= l {
		return false
	}
	s.addresses[addr]++
	c.counted = true
	return true
}

// dismiss forgets a connection that ended.
func (s *Server) dismiss(c *Conn) {
	s.mu.Lock()
	delete(s.conns, c)
	if addr := c.Addr().Addr(); c.counted {
		if s.addresses[addr]--; s.addresses[addr] == 0 {
			delete(s.addresses, addr)
		}
	}
	s.mu.Unlock()
	c.life.Load().end()
	s.opts.Quota.give()
	s.observe.ConnectionClosed()
	s.checkEmpty()
	c.account.Done()
}

func (s *Server) checkEmpty() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Stage() < Draining || len(s.conns) > 0 {
		return
	}
	select {
	case <-s.empty:
	default:
		close(s.empty)
	}
}
