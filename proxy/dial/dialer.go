package dial

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// ErrTLS is wrapped by errors of handshakes and of what has to be encrypted and isn't: no
// other try cures them as long as nobody changes the platform or the settings.
var ErrTLS = errors.New("TLS as configured can't be had")

// ErrNoHost is wrapped by the error of [Dialer.Dial] when every host is left alone.
var ErrNoHost = errors.New("every host failed lately")

// Options are what a dialer needs from its surroundings. All may be left out.
type Options struct {
	Logger *slog.Logger // nil: nothing is logged

	// Dial makes the connections instead of net.Dialer; its address is one of the
	// endpoint's hosts. For tests.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Dialer makes connections to an endpoint. It is safe for concurrent use, and keeps none.
type Dialer struct {
	ep   Endpoint // with defaults
	log  *slog.Logger
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	own  bool // dial is nobody else's

	mu    sync.Mutex
	hosts []*host
	next  int           // host to be tried first by the next dial
	news  chan struct{} // closed at the next change of a host's health; nil: nobody waits
}

// host is one of an endpoint's servers. All but the first three is under Dialer.mu.
type host struct {
	name   string // host:port as configured
	direct direct // its address, if it is named by that
	tls    *tls.Config
	Health
	trying time.Time // until then the one attempt after a failure is under way
}

// nextTry is when a host that failed may be dialled again.
func (h *host) nextTry() time.Time {
	if h.trying.After(h.RetryAt()) {
		return h.trying
	}
	return h.RetryAt()
}

// New returns a dialer. The error says all that is wrong with ep.
func New(ep Endpoint, o Options) (*Dialer, error) {
	if err := ep.validate(); err != nil {
		return nil, err
	}
	d := &Dialer{ep: ep.withDefaults(), log: o.Logger, dial: o.Dial}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	d.log = d.log.With("platform", ep.Platform)
	if d.dial == nil {
		d.own, d.dial = true, (&net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Count: -1}}).DialContext
	}
	for _, name := range ep.Hosts {
		h := &host{name: name, tls: ep.TLS.Config(name)}
		if to, err := netip.ParseAddrPort(name); err == nil && to.Addr().Zone() == "" && d.own {
			h.direct = direct{name, to, d.ep.Unacknowledged}
		}
		d.hosts = append(d.hosts, h)
	}
	return d, nil
}

// Endpoint returns the configuration, with defaults filled in.
func (d *Dialer) Endpoint() Endpoint { return d.ep }

// Dial connects to the next host that may be dialled, and goes on to the others if that
// fails. It returns a hardened TCP connection, and the host as configured: nothing was sent.
// The caller says by [Dialer.Succeeded], [Dialer.Failed] or [Dialer.Dropped] how the host did
// beyond that.
//
// The error wraps the context's cause, ErrNoHost, or what went wrong with the last host.
func (d *Dialer) Dial(ctx context.Context) (net.Conn, string, error) {
	var last error
	tried := make([]bool, len(d.hosts))
	for {
		h, err := d.pick(tried)
		if h == nil {
			if last == nil {
				last = err
			}
			return nil, "", last
		}
		nc, err := d.connect(ctx, h)
		if err == nil {
			return nc, h.name, nil
		}
		last = fmt.Errorf("platform %s at %s: %w", d.ep.Platform, h.name, err)
		if ctx.Err() != nil {
			d.Dropped(h.name)
			return nil, "", last
		}
		d.Failed(h.name, err)
	}
}

// pick returns the next host in turn that wasn't tried, or nil and why there is none.
func (d *Dialer) pick(tried []bool) (*host, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for i := range d.hosts {
		n := (d.next + i) % len(d.hosts)
		h := d.hosts[n]
		if tried[n] || h.Failures() > 0 && now.Before(h.nextTry()) {
			continue
		}
		tried[n] = true
		h.trying = now.Add(d.ep.DialTimeout + d.ep.AttemptTime)
		d.next = n + 1
		return h, nil
	}
	return nil, d.noHost(now)
}

// noHost describes why no host may be dialled. d.mu is held.
func (d *Dialer) noHost(now time.Time) error {
	var errs []error
	next := d.hosts[0].nextTry()
	for _, h := range d.hosts {
		errs = append(errs, fmt.Errorf("%s: %w", h.name, h.Last()))
		if at := h.nextTry(); at.Before(next) {
			next = at
		}
	}
	return fmt.Errorf("platform %s: %w, next attempt in %s: %w",
		d.ep.Platform, ErrNoHost, max(0, next.Sub(now)).Round(time.Millisecond), errors.Join(errs...))
}

// Reopens returns what may be waited for after ErrNoHost: a channel that is closed when something
// is heard of a host, and when one may be dialled again if nothing is: now, if a host has been heard of
// since. That is the zero time while attempts with all of them are under way.
func (d *Dialer) Reopens() (news <-chan struct{}, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.news == nil {
		d.news = make(chan struct{})
	}
	now := time.Now()
	for _, h := range d.hosts {
		if h.Failures() == 0 {
			return d.news, now
		}
		if h.trying.After(now) {
			continue
		}
		if next := h.nextTry(); at.IsZero() || next.Before(at) {
			at = next
		}
	}
	return d.news, at
}

// tell wakes those who wait for news. d.mu is held.
func (d *Dialer) tell() {
	if d.news != nil {
		close(d.news)
		d.news = nil
	}
}

// connect makes a hardened connection to h.
func (d *Dialer) connect(ctx context.Context, h *host) (net.Conn, error) {
	if h.direct.to.IsValid() {
		nc, err := h.direct.dial(ctx, d.ep.DialTimeout)
		if err != nil {
			return nil, dialError(ctx, err)
		}
		return nc, nil
	}
	dctx, cancel := context.WithTimeout(ctx, d.ep.DialTimeout)
	defer cancel()
	nc, err := d.dial(dctx, "tcp", h.name)
	if err != nil {
		return nil, dialError(ctx, err)
	}
	if err := Harden(nc, d.ep.Unacknowledged); err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("set socket options: %w", err)
	}
	return nc, nil
}

func dialError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("dial: %w", err)
}

// Succeeded ends a host's back-off. Host is what Dial returned; another is ignored.
func (d *Dialer) Succeeded(host string) {
	h := d.host(host)
	if h == nil {
		return
	}
	d.mu.Lock()
	was := h.Succeed()
	h.trying = time.Time{}
	if was > 0 {
		d.tell()
	}
	d.mu.Unlock()
	if was > 0 {
		d.log.Info("platform host answers again", "peer", h.name, "failures", was)
	}
}

// Failed begins or lengthens a host's back-off: for what went wrong before the host could be
// used, and nothing that is about the client. Host is what Dial returned; another is ignored.
func (d *Dialer) Failed(host string, err error) {
	h := d.host(host)
	if h == nil {
		return
	}
	d.mu.Lock()
	longer := h.Fail(err, time.Now(), d.ep.Backoff)
	h.trying = time.Time{}
	n, until := h.Failures(), h.RetryAt()
	d.tell()
	d.mu.Unlock()
	if !longer {
		d.log.Debug("platform host failed again while left alone", "peer", h.name, "error", err)
		return
	}
	d.log.Warn("platform host left alone", "peer", h.name, "failures", n, "until", until, "error", err)
}

// Dropped ends an attempt that tells nothing of its host, such as one that the caller's client
// left: if the host had failed the next attempt may be made. Host is what Dial returned;
// another is ignored.
func (d *Dialer) Dropped(host string) {
	h := d.host(host)
	if h == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	h.trying = time.Time{}
	d.tell()
}

// host returns the host with this name, or nil.
func (d *Dialer) host(name string) *host {
	for _, h := range d.hosts {
		if h.name == name {
			return h
		}
	}
	return nil
}

// Stats returns the health of the hosts, in the order of the configuration.
func (d *Dialer) Stats() []HostStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []HostStats
	for _, h := range d.hosts {
		out = append(out, h.Stats(h.name))
	}
	return out
}

// Handshake puts TLS over nc as the policy asks, for a host that Dial returned. The
// connection that it returns lies directly on nc. At ctx's end nc is closed. An error that is
// not about time or ctx wraps ErrTLS.
func (d *Dialer) Handshake(ctx context.Context, nc net.Conn, host string) (*tls.Conn, error) {
	h := d.host(host)
	if h == nil {
		return nil, fmt.Errorf("TLS handshake with %s: not a host of this endpoint", host)
	}
	hctx, cancel := context.WithTimeout(ctx, d.ep.HandshakeTimeout)
	defer cancel()
	t := tls.Client(nc, h.tls)
	err := t.HandshakeContext(hctx)
	if err == nil {
		return t, nil
	}
	doing := "TLS handshake with " + h.tls.ServerName
	if hctx.Err() != nil {
		return nil, fmt.Errorf("%s: %w", doing, context.Cause(hctx))
	}
	return nil, fmt.Errorf("%w: %s, with the TLS policy %s, by TLS 1.2 or later with ECDHE and AES-GCM or ChaCha20: %w",
		ErrTLS, doing, d.ep.TLS.Policy, err)
}

// MaySend returns nil if credentials may be sent over nc as it is now, else why not: over TLS
// that Handshake made; in plain text only within this machine, if the policy doesn't want more.
func (d *Dialer) MaySend(nc net.Conn) error {
	if t, ok := nc.(*tls.Conn); ok && t.ConnectionState().HandshakeComplete {
		return nil
	}
	switch d.ep.TLS.Policy {
	case TLSNone, TLSOpportunistic:
		if Loopback(nc.RemoteAddr()) {
			return nil
		}
		return fmt.Errorf("%w: credentials don't leave this machine in plain text", ErrTLS)
	default:
		return fmt.Errorf("%w: credentials want TLS, by the policy %s", ErrTLS, d.ep.TLS.Policy)
	}
}
