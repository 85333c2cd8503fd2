package relay

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"mailcutover/mail"

	gosmtp "github.com/emersion/go-smtp"
)

// Observer is told of what a pool does, for metrics. Its methods are called from the
// goroutines that use the pool and must not block.
type Observer interface {
	// Dialled reports an attempt to make a connection, up to its EHLO and AUTH.
	Dialled(host string, took time.Duration, err error)

	// Waited reports how long a transaction waited for a connection, dialling included, and what came of it.
	Waited(took time.Duration, err error)

	// Answered reports an answer to MAIL, RCPT, DATA or "." by its code; 0 if none came.
	Answered(host, verb string, code int)

	// Closed reports the end of a connection: age, idle, messages, stale, error,
	// abort or shutdown.
	Closed(host, reason string)
}

// Options are what a pool needs from its surroundings. All may be left out.
type Options struct {
	Logger   *slog.Logger // nil: nothing is logged
	Observer Observer

	// Dial makes the connections instead of net.Dialer; its address is one of the
	// endpoint's hosts. For tests.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Pool keeps the connections to one endpoint. It is safe for concurrent use.
type Pool struct {
	ep   Endpoint // with defaults
	log  *slog.Logger
	obs  Observer
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	caps atomic.Pointer[Capabilities]

	mu      sync.Mutex
	hosts   []*host
	next    int       // host to be tried first by the next dial
	open    int       // connections, with those being made: slots in use
	idle    []*conn   // longest unused first
	waiting []*waiter // longest first
	paused  []*Transaction
	retired bool // no idle connection is kept
	closed  bool

	stop    chan struct{}
	janitor sync.WaitGroup
}

// NewPool returns a pool without connections. The error is Endpoint.Validate's.
func NewPool(ep Endpoint, o Options) (*Pool, error) {
	if err := ep.Validate(); err != nil {
		return nil, err
	}
	p := &Pool{ep: ep.withDefaults(), log: o.Logger, obs: o.Observer, dial: o.Dial, stop: make(chan struct{})}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.log = p.log.With("platform", ep.Platform, "origin", ep.Origin.String())
	if p.obs == nil {
		p.obs = silent{}
	}
	if p.dial == nil {
		p.dial = new(net.Dialer).DialContext
	}
	for _, h := range ep.Hosts {
		p.hosts = append(p.hosts, &host{name: h, tls: ep.TLS.Config(h)})
	}
	p.janitor.Go(p.closeIdle)
	return p, nil
}

type silent struct{}

func (silent) Dialled(string, time.Duration, error) {}
func (silent) Waited(time.Duration, error)          {}
func (silent) Answered(string, string, int)         {}
func (silent) Closed(string, string)                {}

// Endpoint returns the configuration, with defaults filled in.
func (p *Pool) Endpoint() Endpoint { return p.ep }

// Capabilities returns what the platform announced last, on any host. Known is false
// until the first connection was made; then only Size is set, if it is configured.
func (p *Pool) Capabilities() Capabilities {
	if c := p.caps.Load(); c != nil {
		return *c
	}
	return Capabilities{Size: p.ep.MaxSize}
}

// Stats returns the state of connections and hosts.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{Open: p.open, Idle: len(p.idle), InUse: p.open - len(p.idle), Paused: len(p.paused), Waiting: len(p.waiting)}
	for _, h := range p.hosts {
		s.Hosts = append(s.Hosts, h.Health.Stats(h.name))
	}
	return s
}

// Open takes a connection for a transaction, or makes one. Nothing of the transaction is
// sent; the platform sees it with the first Rcpts. The caller has to end the
// transaction with Dot, Finish or Abort. from and opts are kept until then; opts may be nil.
//
// Callers get connections in the order in which they came. Errors are of type
// [ConnectionError]; they wrap [ErrBusy], [ErrClosed], the context's cause, or say why no
// host could be reached.
func (p *Pool) Open(ctx context.Context, client mail.Client, from mail.Path, opts *gosmtp.MailOptions) (*Transaction, error) {
	if opts == nil {
		opts = new(gosmtp.MailOptions)
	}
	t := &Transaction{pool: p, client: client, from: from, opts: opts}
	t.given = t.one.given[:0]
	if err := t.take(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// Probe makes a connection as Open would, with all that belongs to it, and sends NOOP.
// It doesn't wait for a host's back-off to end if all are backing off. If all
// connections are in use it waits for one of them.
func (p *Pool) Probe(ctx context.Context) error {
	c, err := p.acquire(ctx, identity{}, true)
	if err != nil {
		return err
	}
	code, err := 0, c.watch(ctx)
	if err == nil {
		code, err = c.command("NOOP", p.ep.Timeouts.Command)
	}
	if err == nil && code/100 != 2 {
		err = p.refused(c, "NOOP", code)
	}
	if err != nil {
		err = p.connectionError(c.host, "NOOP", err)
		p.lost(c, err)
		return err
	}
	p.put(c)
	return nil
}

// Close refuses new transactions, closes idle connections with QUIT and returns when they
// are closed. Transactions under way go on; their connections are closed as they end.
// Whoever wants them to end ends their contexts. Calls after the first do nothing.
func (p *Pool) Close() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.janitor.Wait()
		return
	}
	p.closed = true
	close(p.stop)
	idle := p.idle
	p.idle = nil
	p.open -= len(idle)
	for _, w := range p.waiting {
		w.err = ErrClosed
		close(w.ready)
	}
	p.waiting = nil
	p.mu.Unlock()
	p.quit(idle, "shutdown")
	p.janitor.Wait()
}

func (p *Pool) connectionError(h *host, doing string, err error) *ConnectionError {
	e := &ConnectionError{Platform: p.ep.Platform, Doing: doing, Err: err}
	if h != nil {
		e.Host = h.name
	}
	return e
}

// refused makes an error of the answer that c has just read.
func (p *Pool) refused(c *conn, verb string, code int) *PlatformReply {
	r := makeReply(code, c.reply.text)
	return &PlatformReply{Platform: p.ep.Platform, Host: c.host.name, Verb: verb, Reply: r, Ours: ours(verb, r)}
}

// closeIdle closes connections that nobody used for MaxIdle or that are too old, wakes those
// who wait for a host's back-off to end, and takes connections from those who pause too long.
func (p *Pool) closeIdle() {
	l := &p.ep.Limits
	tick := time.NewTicker(max(min(l.MaxIdle/4, l.Backoff, l.MaxPause/2), 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-tick.C:
			p.mu.Lock()
			var old []*conn
			keep := p.idle[:0]
			for _, c := range p.idle {
				if p.expired(c, now) != "" {
					old = append(old, c)
				} else {
					keep = append(keep, c)
				}
			}
			clear(p.idle[len(keep):])
			p.idle = keep
			p.grant(now)
			p.reclaim(now)
			p.mu.Unlock()
			p.quit(old, "idle")
			for range old {
				p.freeSlot()
			}
		}
	}
}

// quit closes connections that nobody uses.
func (p *Pool) quit(conns []*conn, reason string) {
	for _, c := range conns {
		c.quit()
		p.obs.Closed(c.host.name, reason)
	}
}
