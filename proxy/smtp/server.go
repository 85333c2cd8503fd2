package smtp

import (
	"context"
	"log/slog"
	"net"
	"net/netip"

	"mailcutover/proxy/listen"
)

// ErrServerClosed is returned by [Server.Serve] after [Server.Shutdown].
var ErrServerClosed = listen.ErrClosed

// Server is a listener's engine. It is made by [NewServer], serves, and ends by
// [Server.Shutdown] or with Serve's context; then it can't be used again. Its methods
// are safe for concurrent use.
type Server struct {
	opts    Options
	backend Backend
	log     *slog.Logger
	observe Observer
	front   *listen.Server
	tls     *listen.TLS // nil: no TLS
	pool    *bufferPool
}

// NewServer returns a server with these settings, or an error that names all that is
// wrong with them.
func NewServer(opts Options, backend Backend) (*Server, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	s := &Server{opts: opts, backend: backend, log: opts.Logger, observe: opts.Observer, pool: newBufferPool()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.log = s.log.With("listener", opts.ID)
	if s.observe == nil {
		s.observe = noObserver{}
	}
	if opts.TLSConfig != nil {
		s.tls = listen.NewTLS(opts.TLSConfig)
	}
	var err error
	s.front, err = listen.New(s.frontOptions(), s.handle)
	return s, err
}

// frontOptions are the settings of what accepts our connections.
func (s *Server) frontOptions() listen.Options {
	o := listen.Options{
		ID:                    s.opts.ID,
		ProxyNets:             s.opts.ProxyNets,
		HeaderTime:            s.opts.Limits.Handshake,
		Connections:           s.opts.Limits.Connections,
		ConnectionsPerAddress: s.opts.Limits.ConnectionsPerAddress,
		Quota:                 s.opts.Quota,
		Logger:                s.opts.Logger,
		Observer:              s.observe,
	}
	if !s.opts.ImplicitTLS {
		o.Refusal = s.refusal
	}
	return o
}

// Serve accepts connections from ln until Shutdown, which makes it return
// [ErrServerClosed], or until ctx ends: then all connections are cut at once, and it
// returns ctx's error. It closes ln, and returns after its last connection ended.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error { return s.front.Serve(ctx, ln) }

// Shutdown ends the server in order: no new connection, 421 for idle ones at once, and
// for the others when their transaction ends. When ctx ends first, the rest is cut and
// ctx's error returned. It waits until every connection is closed and its session, too.
func (s *Server) Shutdown(ctx context.Context) error { return s.front.Shutdown(ctx) }

// refusal returns what a connection is told that is refused at once.
func (s *Server) refusal(reason string) []byte {
	reply := replyDrain
	switch reason {
	case listen.RefusedLimit:
		reply = replyFull
	case listen.RefusedAddress:
		reply = replyFullAddress
	}
	s.observe.Reply(reply.Code)
	return appendReply(nil, reply)
}

// handle serves one connection to its end.
func (s *Server) handle(in *listen.Conn) (kept bool) {
	c := s.newConn(in)
	if c == nil {
		return false
	}
	ended := false
	defer func() {
		if !ended { // a panic, which ends this connection only
			c.abandon()
		}
	}()
	c.serve()
	ended = true
	return false
}

// newConn makes a connection of in, or returns nil. It is apart from handle, whose frame
// stays for as long as the connection.
//
//go:noinline
func (s *Server) newConn(in *listen.Conn) *conn {
	c := &conn{srv: s, in: in}
	if err := c.init(in.NetConn(), s.pool, s.opts.Limits.Write); err != nil {
		s.log.Error("connection can't be served", "session", c.in.Session(), "peer", c.in.Peer(), "error", err)
		return nil
	}
	return c
}

func contains(nets []netip.Prefix, addr netip.Addr) bool {
	for _, n := range nets {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}
