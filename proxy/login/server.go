package login

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"mailcutover/proxy/listen"
	"mailcutover/proxy/splice"
)

// ErrServerClosed is returned by [Server.Serve] after [Server.Shutdown].
var ErrServerClosed = listen.ErrClosed

// Server is one listener of a [Proxy]. Use [Proxy.NewServer]; at last [Server.Shutdown], also
// if it has never served. Its methods are safe for concurrent use.
type Server struct {
	p      *Proxy
	l      Listener
	listen *listen.Server
	engine *splice.Engine
	tls    *listen.TLS // nil: none
}

// NewServer returns a server for a listener. The error says what is wrong with l.
func (p *Proxy) NewServer(l Listener) (*Server, error) {
	if l.Dialogue == nil {
		return nil, fmt.Errorf("listener %s: no dialogue", l.ID)
	}
	if l.Implicit && l.TLS == nil {
		return nil, fmt.Errorf("listener %s: implicit TLS without a certificate", l.ID)
	}
	s := &Server{p: p, l: l.withDefaults()}
	if l.TLS != nil {
		s.tls = listen.NewTLS(l.TLS)
	}
	o := listen.Options{
		ID: l.ID, ProxyNets: l.ProxyNets, HeaderTime: s.l.Handshake,
		Connections: l.Connections, ConnectionsPerAddress: l.ConnectionsPerAddress, Quota: p.quota,
		Logger: p.log, Observer: l.Observer,
	}
	if !l.Implicit {
		o.Refusal = func(reason string) []byte {
			cause := CauseLimit
			if reason == listen.RefusedDrain {
				cause = CauseDrain
			}
			return l.Dialogue.Farewell(cause, false)
		}
	}
	var err error
	if s.listen, err = listen.New(o, s.handle); err != nil {
		return nil, err
	}
	if s.engine, err = splice.New(splice.Options{Idle: l.Idle}); err != nil {
		return nil, fmt.Errorf("listener %s: %w", l.ID, err)
	}
	return s, nil
}

// Serve accepts connections from ln until Shutdown, which makes it return [ErrServerClosed], or
// until ctx ends: then all are cut at once, and it returns ctx's error. It closes ln, and
// returns after its last connection and session ended.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error { return s.listen.Serve(ctx, ln) }

// Shutdown ends the server in order: no new connection, a word to those that haven't logged in,
// and the end of sessions by chance within Options.Spread, or sooner, when ctx ends: then
// the rest is cut and ctx's error returned. It waits until all have left.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.listen.Shutdown(ctx)
	closing, cancel := context.WithTimeout(context.Background(), defaultWrite)
	defer cancel()
	return errors.Join(err, s.engine.Close(closing))
}

// Connections returns how many connections there are, with those of sessions.
func (s *Server) Connections() int { return s.listen.Connections() }

// errDrain is why a connection ends with the listener.
var errDrain = errors.New("listener ends")

// client is a client's connection until it is joined.
type client struct {
	s       *Server
	conn    *listen.Conn
	front   Front
	c       *Conn
	ctx     context.Context
	cancel  context.CancelFunc      // called when the listener is cut, and when the client is joined or gone
	ending  chan struct{}           // closed when the listener ends
	opening atomic.Pointer[Session] // of the last attempt; nil: none yet
	session *Session                // of the login that was taken; nil: none
	since   time.Time
}

// handle serves a connection until it is joined, or over.
func (s *Server) handle(conn *listen.Conn) (kept bool) {
	room()
	h := &client{s: s, conn: conn, ending: make(chan struct{}), since: time.Now()}
	// Not conn's own context: that one lives as long as the session, and would keep what hung
	// from it.
	h.ctx, h.cancel = context.WithCancel(context.Background())
	defer h.cancel()
	nc := splice.Under(conn.NetConn())
	defer func() {
		if !kept && h.session != nil {
			h.session.abandon() // also when a dialogue panicked
		}
	}()
	var once sync.Once
	conn.Notify(func(at listen.Stage) {
		once.Do(func() { close(h.ending) })
		if at == listen.Cut {
			h.cancel()
			if s := h.opening.Load(); s != nil {
				s.end(CauseDrain, "", 0) // what waits for its platform
			}
		}
		_ = conn.NetConn().SetReadDeadline(time.Unix(1, 0))
	})
	o := ConnOptions{
		Net: nc, Client: conn.Client(), Secure: conn.Secure(), Until: h.since.Add(s.l.Login),
		Write: s.l.Write, Handshake: s.l.Handshake, Ended: h.ended, Login: h.login, Strangers: !conn.Proxied(), pool: &s.p.buffers,
	}
	if s.l.Implicit {
		t, err := h.handshake(nc)
		if err != nil {
			s.p.logConnection(h, err)
			return false
		}
		o.Net, o.Secure, o.Client.TLS = t, true, listen.TLSText(t.ConnectionState())
		nc = t
	}
	h.front = Front{
		ID: s.l.ID, Hostname: s.p.o.Hostname, RequireTLS: s.l.RequireTLS,
		LineBytes: s.l.LineBytes, TokenBytes: s.l.TokenBytes, Errors: s.l.Errors, Offers: s.l.Offers,
	}
	if s.tls != nil && !s.l.Implicit && s.tls.Config() != nil {
		h.front.TLS = true
		o.TLS = func(nc net.Conn) *tls.Conn { return tls.Server(nc, s.tls.Config()) }
	}
	o.Front = h.front
	h.c = NewConn(o)
	if s.p.o.Gate.Resting() {
		// In the place of a greeting: who has another node to ask goes there at once.
		h.c.Write(s.l.Dialogue.Farewell(CauseDrain, false))
		_ = h.c.Flush()
		s.p.logConnection(h, errDrain)
		_ = h.c.nc.Close()
		return false
	}
	session, err := s.l.Dialogue.Serve(h.c)
	if err == nil && (session == nil || session != h.session) {
		err = errors.New("the dialogue returned no session of its own")
	}
	if err != nil {
		h.farewell(err)
		if h.session != nil {
			s.p.logSession(h.session, "client", "could not be told of its login", splice.Ended{Err: err}, time.Since(h.session.since))
		} else {
			s.p.logConnection(h, err)
		}
		h.c.Rest() // wipes what was read
		if h.speaks(err) {
			h.c.linger()
		}
		_ = h.c.nc.Close()
		return false
	}
	return h.join()
}

// handshake puts TLS on from the first byte.
func (h *client) handshake(nc net.Conn) (*tls.Conn, error) {
	config := h.s.tls.Config()
	if config == nil {
		return nil, listen.ErrNoCertificate
	}
	if err := nc.SetDeadline(time.Now().Add(h.s.l.Handshake)); err != nil {
		return nil, err
	}
	if err := h.ended(); err != nil {
		return nil, err
	}
	t := tls.Server(nc, config)
	if err := t.Handshake(); err != nil {
		if o := h.s.l.Observer; o != nil {
			o.ConnectionRefused(listen.RefusedTLS)
		}
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return t, nil
}

// ended says why nothing is to be waited for.
func (h *client) ended() error {
	if h.conn.Stage() > listen.Serving {
		return errDrain
	}
	return nil
}

// speaks reports whether the client may have been told why it ends, and may still send.
func (h *client) speaks(err error) bool {
	return h.conn.Stage() < listen.Cut && !errors.Is(err, ErrQuit) && !errors.Is(err, ErrProxyHeader) &&
		!errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed)
}

// farewell says the last words where the dialogue hasn't.
func (h *client) farewell(err error) {
	var cause Cause
	switch {
	case errors.Is(err, errDrain):
		cause = CauseDrain
	case errors.Is(err, os.ErrDeadlineExceeded):
		cause = CauseIdle
	default:
		return
	}
	h.c.Write(h.s.l.Dialogue.Farewell(cause, false))
	_ = h.c.Flush()
}

// join joins the session that was taken, and told of, with the client.
func (h *client) join() (kept bool) {
	nc := h.c.nc
	joined, err := h.session.join(nc, h.c.Rest())
	switch {
	case joined:
		return true
	case err != nil:
		h.s.p.log.Error("session can't be joined", "session", h.session.id, "error", err)
		h.session.abandon()
	default:
		// It was ended since the client was told: it is at the start of a line.
		cause := h.session.causeOf()
		_ = nc.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = nc.Write(h.s.l.Dialogue.Farewell(cause, true))
		h.s.p.logSession(h.session, cause.String(), "ended before it was joined", splice.Ended{}, time.Since(h.session.since))
		h.session.abandon()
	}
	_ = nc.Close()
	return false
}

// isTrusted reports whether the client's failures are not counted.
func (h *client) isTrusted() bool {
	addr := h.conn.Client().Addr.Addr()
	for _, n := range h.s.l.TrustedNets {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}
