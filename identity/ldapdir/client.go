package ldapdir

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// Options are a directory's settings.
type Options struct {
	Name    string
	Servers []string // ldaps://HOST:PORT or ldap://HOST:PORT, the preferred one first
	// StartTLS encrypts connections to ldap:// servers; they are not used without.
	StartTLS bool
	TLS      *tls.Config // roots and name, and a client certificate; nil: the system's roots

	// BindDN and Password log in by a simple bind; External by the client's certificate (RFC
	// 4422 appendix A). Neither: anonymously.
	BindDN   string
	Password func() (string, error)
	External bool

	Base   string // DN below which everything is
	Domain string // NetBIOS domain of its accounts; empty: not known
	Map    Map
	Extra  []string // further attributes, for the model

	Page    int           // entries of a page; 0 is 500
	Timeout time.Duration // for each page, look-up, and for connecting; 0 is 10 s

	Logger *slog.Logger // nil: none
	// Now is the clock of back-off; nil is time.Now.
	Now func() time.Time
}

const (
	defaultPage    = 500
	defaultTimeout = 10 * time.Second
	maxIdle        = 4               // connections kept for look-ups, and as many for passwords
	idleTime       = time.Minute     // that one is kept
	leftAlone      = 5 * time.Second // a server after a failure
)

// ErrUnavailable is wrapped by errors that say nothing about the directory's content: it
// couldn't be asked.
var ErrUnavailable = errors.New("the directory can't be reached")

// Client is a directory's client. Use [New].
type Client struct {
	o   Options
	log *slog.Logger
	now func() time.Time

	proofs chan struct{} // a place for each connection that checks a password

	mu   sync.Mutex
	idle [purposes][]*connection
	down []time.Time // for each server, until when it is left alone
}

// purpose is what a connection is for. It decides as whom it is bound.
type purpose uint8

const (
	asking   purpose = iota // as ourselves
	proving                 // as whoever proved a password on it last; nothing is asked
	purposes = iota
)

// connection is a connection that is bound.
type connection struct {
	*ldap.Conn
	server string
	of     purpose
	used   time.Time // zero: it is new
}

// New returns a client; it connects when it is asked something. The error names all that is
// wrong with the settings.
func New(o Options) (*Client, error) {
	if o.Page == 0 {
		o.Page = defaultPage
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	c := &Client{o: o, log: o.Logger, now: o.Now, down: make([]time.Time, len(o.Servers)), proofs: make(chan struct{}, maxProofs)}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.now == nil {
		c.now = time.Now
	}
	if err := c.o.check(); err != nil {
		return nil, fmt.Errorf("directory %s: %w", o.Name, err)
	}
	return c, nil
}

func (o *Options) check() error {
	errs := []error{o.Map.check()}
	if len(o.Servers) == 0 {
		errs = append(errs, errors.New("servers: want at least one, such as ldaps://dc1.example.org"))
	}
	if _, err := ldap.ParseDN(o.Base); err != nil || o.Base == "" {
		errs = append(errs, fmt.Errorf("base %q: want a DN, such as dc=example,dc=org", o.Base))
	}
	if o.Map.Filter != "" {
		if _, err := ldap.CompileFilter(o.Map.Filter); err != nil {
			errs = append(errs, fmt.Errorf("filter %q: %w", o.Map.Filter, err))
		}
	}
	if o.Page < 1 || o.Page > 1000 {
		errs = append(errs, fmt.Errorf("page %d: want 1 to 1000, which is what Active Directory gives at most", o.Page))
	}
	if o.BindDN != "" && o.Password == nil {
		errs = append(errs, errors.New("bind: a DN wants a password"))
	}
	for _, s := range o.Servers {
		u, err := url.Parse(s)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "ldap" && u.Scheme != "ldaps" || strings.Trim(u.Path, "/") != "":
			errs = append(errs, fmt.Errorf("server %q: want ldaps://HOST:PORT or ldap://HOST:PORT", s))
		case u.Scheme == "ldap" && !o.StartTLS && (o.BindDN != "" || o.External) && !loopback(u.Hostname()):
			errs = append(errs, fmt.Errorf("server %q: credentials would go in plain text: want ldaps:// or StartTLS", s))
		}
	}
	return errors.Join(errs...)
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback() || strings.EqualFold(host, "localhost")
}

// Name implements directory.Directory.
func (c *Client) Name() string { return c.o.Name }

// Close closes the connections that are kept. It may be used again afterwards.
func (c *Client) Close() {
	c.mu.Lock()
	idle := c.idle
	c.idle = [purposes][]*connection{}
	c.mu.Unlock()
	for _, conns := range idle {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}
}

// take returns a connection: one that is kept, or a new one to the first server that works.
func (c *Client) take(ctx context.Context, of purpose) (*connection, error) {
	c.mu.Lock()
	for kept := &c.idle[of]; len(*kept) > 0; {
		conn := (*kept)[len(*kept)-1]
		*kept = (*kept)[:len(*kept)-1]
		if c.now().Sub(conn.used) < idleTime && !conn.IsClosing() {
			c.mu.Unlock()
			return conn, nil
		}
		_ = conn.Close()
	}
	c.mu.Unlock()
	return c.connect(ctx, of)
}

// give keeps a connection on which everything went well.
func (c *Client) give(conn *connection) {
	conn.used = c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if kept := &c.idle[conn.of]; len(*kept) < maxIdle && !conn.IsClosing() {
		*kept = append(*kept, conn)
		return
	}
	_ = conn.Close()
}

// connect tries the servers in turn, those that failed lately only if no other is left.
func (c *Client) connect(ctx context.Context, of purpose) (*connection, error) {
	var errs []error
	for _, desperate := range []bool{false, true} {
		for i, server := range c.o.Servers {
			c.mu.Lock()
			down := c.now().Before(c.down[i])
			c.mu.Unlock()
			if down != desperate {
				continue
			}
			conn, err := c.dial(ctx, server, of)
			if err == nil {
				c.mu.Lock()
				c.down[i] = time.Time{}
				c.mu.Unlock()
				return conn, nil
			}
			if ctx.Err() != nil {
				return nil, fmt.Errorf("%w: %s: %w", ErrUnavailable, c.o.Name, context.Cause(ctx))
			}
			errs = append(errs, err)
			c.failed(i, err)
		}
	}
	return nil, fmt.Errorf("%w: %s: %w", ErrUnavailable, c.o.Name, errors.Join(errs...))
}

// failed leaves a server alone for a while.
func (c *Client) failed(i int, err error) {
	c.mu.Lock()
	c.down[i] = c.now().Add(leftAlone)
	c.mu.Unlock()
	c.log.Warn("directory server left alone", "directory", c.o.Name, "peer", c.o.Servers[i], "error", err)
}

// failedServer is failed for a server by its URL.
func (c *Client) failedServer(server string, err error) {
	for i := range c.o.Servers {
		if c.o.Servers[i] == server {
			c.failed(i, err)
		}
	}
}

func (c *Client) dial(ctx context.Context, server string, of purpose) (_ *connection, err error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	settings := c.tls(u.Hostname())
	dialer := &deadlineDialer{Dialer: net.Dialer{Timeout: c.o.Timeout}, ctx: ctx}
	nc, err := dialer.dial(u, settings)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", server, err)
	}
	conn := ldap.NewConn(nc, u.Scheme == "ldaps")
	conn.SetTimeout(c.o.Timeout)
	conn.Start()
	// The library waits without a context; closing the connection ends that.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			_ = conn.Close()
		}
	}()
	if u.Scheme == "ldap" && c.o.StartTLS {
		if err := conn.StartTLS(settings); err != nil {
			return nil, fmt.Errorf("StartTLS with %s: %w", server, err)
		}
	}
	if of == asking {
		if err := c.bind(conn); err != nil {
			return nil, fmt.Errorf("bind at %s: %w", server, err)
		}
	}
	return &connection{Conn: conn, server: server, of: of}, nil
}

// deadlineDialer connects within a context, with TLS from the first byte on where the URL
// says so.
type deadlineDialer struct {
	net.Dialer
	ctx context.Context
}

func (d *deadlineDialer) dial(u *url.URL, settings *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, d.Timeout)
	defer cancel()
	port := u.Port()
	if port == "" {
		port = map[string]string{"ldap": "389", "ldaps": "636"}[u.Scheme]
	}
	hostport := net.JoinHostPort(u.Hostname(), port)
	if u.Scheme == "ldaps" {
		return (&tls.Dialer{NetDialer: &d.Dialer, Config: settings}).DialContext(ctx, "tcp", hostport)
	}
	return d.DialContext(ctx, "tcp", hostport)
}

func (c *Client) tls(host string) *tls.Config {
	settings := &tls.Config{}
	if c.o.TLS != nil {
		settings = c.o.TLS.Clone()
	}
	settings.MinVersion = max(settings.MinVersion, tls.VersionTLS12)
	if settings.ServerName == "" {
		settings.ServerName = host
	}
	return settings
}

func (c *Client) bind(conn *ldap.Conn) error {
	switch {
	case c.o.External:
		return conn.ExternalBind()
	case c.o.BindDN == "":
		return nil
	}
	password, err := c.o.Password()
	if err != nil {
		return err
	}
	if password == "" {
		// The server would take it for an anonymous bind and say that all is well (RFC 4513
		// section 5.1.2).
		return errors.New("the password is empty")
	}
	return conn.Bind(c.o.BindDN, password)
}
