package relay

import (
	"context"
	"errors"
	"fmt"
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

	// Waited reports how long Open waited for a connection, dialling included, and what came of it.
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
	closed  bool

	stop    chan struct{}
	janitor sync.WaitGroup
}

// waiter is a call of acquire that waits for its turn. Whoever removes it from the queue
// sets one of the fields and closes ready.
type waiter struct {
	ready chan struct{}
	id    identity
	conn  *conn // a connection
	slot  bool  // or the right to make one
	err   error // or neither
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
	p.log = p.log.With("platform", ep.Platform, "origin", ep.Origin)
	if p.obs == nil {
		p.obs = silent{}
	}
	if p.dial == nil {
		p.dial = new(net.Dialer).DialContext
	}
	for _, h := range ep.Hosts {
		p.hosts = append(p.hosts, &host{name: h, tls: ep.TLS.config(h)})
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
// until the first connection was made.
func (p *Pool) Capabilities() Capabilities {
	if c := p.caps.Load(); c != nil {
		return *c
	}
	return Capabilities{}
}

// Stats returns the state of connections and hosts.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{Open: p.open, Idle: len(p.idle), InUse: p.open - len(p.idle), Waiting: len(p.waiting)}
	for _, h := range p.hosts {
		hs := HostStats{Host: h.name, Healthy: h.failures == 0, Failures: h.failures}
		if !hs.Healthy {
			hs.RetryAt, hs.Error = h.retryAt, h.last.Error()
		}
		s.Hosts = append(s.Hosts, hs)
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
	start := time.Now()
	c, err := p.acquire(ctx, p.identityOf(client), false)
	p.obs.Waited(time.Since(start), err)
	if err != nil {
		return nil, err
	}
	return &Transaction{pool: p, conn: c, reused: !c.idleSince.IsZero(), host: c.host.name, client: client, from: from, opts: opts}, nil
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

// acquire returns an idle connection, or a new one; always a new one for a probe, if
// there is room.
func (p *Pool) acquire(ctx context.Context, id identity, probe bool) (*conn, error) {
	deadline := time.Now().Add(p.ep.Limits.QueueWait)
	for requeued := false; ; requeued = true {
		c, err := p.slot(ctx, id, probe, requeued, deadline)
		if c != nil || err != nil {
			return c, err
		}
		c, err = p.connect(ctx, id, probe)
		if err == nil {
			return c, nil
		}
		// A platform at its own limit refuses one more connection, but those that we
		// have are as good as ever: wait for one of them.
		if ctx.Err() != nil || probe || !p.freeSlotAndOthers() {
			return nil, err
		}
	}
}

// slot returns an idle connection, or nil for the right to make one.
func (p *Pool) slot(ctx context.Context, id identity, probe, requeued bool, deadline time.Time) (*conn, error) {
	p.mu.Lock()
	switch {
	case p.closed:
		p.mu.Unlock()
		return nil, p.connectionError(nil, "open a transaction", ErrClosed)
	case len(p.waiting) > 0 && !requeued:
	default:
		if probe && p.open < p.ep.Limits.Connections {
			p.open++
			p.mu.Unlock()
			return nil, nil
		}
		now := time.Now()
		for {
			c := p.takeIdle(id)
			if c == nil {
				break
			}
			p.mu.Unlock()
			reason := p.expired(c, now)
			if reason == "" && c.stale() {
				reason = "stale"
			}
			if reason == "" {
				return c, nil
			}
			c.cut()
			p.obs.Closed(c.host.name, reason)
			p.mu.Lock()
			p.open--
		}
		if requeued && p.open == 0 {
			err := p.connectionError(nil, "open a transaction", p.allDown(now))
			p.mu.Unlock()
			return nil, err
		}
		if !requeued && p.open < p.ep.Limits.Connections && (p.canDial(now) || p.open == 0) {
			p.open++
			p.mu.Unlock()
			return nil, nil
		}
		if p.open == p.ep.Limits.Connections && len(p.idle) > 0 {
			// All idle ones belong to other clients: one has to go.
			c := p.idle[0]
			p.idle = append(p.idle[:0], p.idle[1:]...)
			p.mu.Unlock()
			c.cut()
			p.obs.Closed(c.host.name, "other client")
			return nil, nil
		}
	}
	w := &waiter{ready: make(chan struct{}), id: id}
	if requeued {
		p.waiting = append([]*waiter{w}, p.waiting...)
	} else {
		p.waiting = append(p.waiting, w)
	}
	p.mu.Unlock()
	return p.wait(ctx, w, deadline)
}

// wait waits for w's turn, until deadline.
func (p *Pool) wait(ctx context.Context, w *waiter, deadline time.Time) (*conn, error) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for {
		var err error
		select {
		case <-w.ready:
			if w.err != nil {
				return nil, p.connectionError(nil, "open a transaction", w.err)
			}
			return w.conn, nil
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-timer.C:
			err = fmt.Errorf("%w of %d after %s", ErrBusy, p.ep.Limits.Connections, p.ep.Limits.QueueWait)
		}
		p.mu.Lock()
		for i := range p.waiting {
			if p.waiting[i] == w {
				p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
				p.mu.Unlock()
				return nil, p.connectionError(nil, "wait for a connection", err)
			}
		}
		p.mu.Unlock() // its turn came just now: w.ready is closed
		if ctx.Err() != nil {
			<-w.ready
			switch {
			case w.conn != nil:
				p.put(w.conn)
			case w.slot:
				p.freeSlot()
			}
			return nil, p.connectionError(nil, "wait for a connection", err)
		}
	}
}

// takeIdle removes the connection of id that was used last. p.mu is held.
func (p *Pool) takeIdle(id identity) *conn {
	for i := len(p.idle) - 1; i >= 0; i-- {
		if c := p.idle[i]; c.identity == id {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			return c
		}
	}
	return nil
}

// expired returns why c may not be used again, or nothing.
func (p *Pool) expired(c *conn, now time.Time) string {
	switch {
	case now.Sub(c.born) >= p.ep.Limits.MaxAge:
		return "age"
	case c.messages >= p.ep.Limits.MaxMessages:
		return "messages"
	case !c.idleSince.IsZero() && now.Sub(c.idleSince) >= p.ep.Limits.MaxIdle:
		return "idle"
	}
	return ""
}

// put gives back a connection on which no transaction is open. That it came so far in good
// order ends its host's back-off.
func (p *Pool) put(c *conn) {
	ok := c.release()
	if ok {
		p.succeeded(c.host)
	}
	now := time.Now()
	c.idleSince = time.Time{}
	reason := p.expired(c, now)
	switch {
	case !ok:
		reason = "abort"
	case reason == "" && c.reply.br.Buffered() > 0:
		reason = "error" // an answer too many
	}
	if reason != "" {
		p.discard(c, reason)
		return
	}
	c.idleSince = now
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.discard(c, "shutdown")
		return
	}
	for i, w := range p.waiting {
		if w.id == c.identity {
			p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
			w.conn = c
			close(w.ready)
			p.mu.Unlock()
			return
		}
	}
	if len(p.waiting) > 0 { // of other clients: its place is worth more
		p.mu.Unlock()
		p.discard(c, "other client")
		return
	}
	p.idle = append(p.idle, c)
	p.mu.Unlock()
}

// discard closes c and passes its place on.
func (p *Pool) discard(c *conn, reason string) {
	c.cut()
	p.obs.Closed(c.host.name, reason)
	p.freeSlot()
}

// freeSlot gives a place back, to the first who waits, if there is a host to dial.
func (p *Pool) freeSlot() {
	p.mu.Lock()
	p.open--
	p.grant(time.Now())
	p.mu.Unlock()
}

// freeSlotAndOthers is freeSlot after a failed dial; it reports whether there are other
// connections to wait for.
func (p *Pool) freeSlotAndOthers() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
	others := p.open > 0 && !p.closed
	p.grant(time.Now())
	return others
}

// grant passes a free place on. If no host may be dialled and no connection is left
// to wait for, nobody waits in vain. p.mu is held.
func (p *Pool) grant(now time.Time) {
	for len(p.waiting) > 0 && p.open < p.ep.Limits.Connections {
		w := p.waiting[0]
		switch {
		case p.canDial(now):
			w.slot = true
			p.open++
		case p.open == 0:
			w.err = p.allDown(now)
		default:
			return
		}
		p.waiting = p.waiting[1:]
		close(w.ready)
	}
}

// canDial reports whether a host may be dialled. p.mu is held.
func (p *Pool) canDial(now time.Time) bool {
	for _, h := range p.hosts {
		if h.eligible(now) {
			return true
		}
	}
	return false
}

// allDown describes why no host may be dialled. p.mu is held.
func (p *Pool) allDown(now time.Time) error {
	var errs []error
	next := p.hosts[0].retryAt
	for _, h := range p.hosts {
		if h.last != nil {
			errs = append(errs, h.last)
		}
		if h.retryAt.Before(next) {
			next = h.retryAt
		}
	}
	return fmt.Errorf("every host failed lately, next attempt in %s: %w",
		max(0, next.Sub(now)).Round(time.Millisecond), errors.Join(errs...))
}

// succeeded ends a host's back-off.
func (p *Pool) succeeded(h *host) {
	if !h.down.Load() {
		return
	}
	p.mu.Lock()
	was := h.failures
	h.failures, h.last, h.retryAt = 0, nil, time.Time{}
	h.down.Store(false)
	p.mu.Unlock()
	if was > 0 {
		p.log.Info("platform host answers again", "peer", h.name, "failures", was)
	}
}

// failed begins or lengthens a host's back-off.
func (p *Pool) failed(h *host, err error) {
	p.mu.Lock()
	h.fail(err, time.Now(), p.ep.Limits)
	n, until := h.failures, h.retryAt
	p.mu.Unlock()
	p.log.Warn("platform host left alone", "peer", h.name, "failures", n, "until", until, "error", err)
}

// lost closes a connection that failed, and notes it with its host, unless the reason
// is the caller's own: his context's end, or content that can't be sent.
func (p *Pool) lost(c *conn, err error) {
	if c.interrupted.Load() == nil && !errors.Is(err, ErrBareLineEnd) {
		p.failed(c.host, err)
	}
	p.discard(c, "error")
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
	return &PlatformReply{Platform: p.ep.Platform, Host: c.host.name, Verb: verb, Reply: makeReply(code, c.reply.text)}
}

// closeIdle closes connections that nobody used for MaxIdle or that are too old, and
// wakes those who wait for a host's back-off to end.
func (p *Pool) closeIdle() {
	tick := time.NewTicker(max(min(p.ep.Limits.MaxIdle/4, p.ep.Limits.Backoff), 10*time.Millisecond))
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
			p.mu.Unlock()
			p.quit(old, "idle")
			for range old {
				p.freeSlot()
			}
		}
	}
}

// quit says goodbye to all at once, waits a moment for their answers and closes them.
func (p *Pool) quit(conns []*conn, reason string) {
	until := time.Now().Add(p.ep.Timeouts.Reset)
	for _, c := range conns {
		c.raw.SetDeadline(until)
		c.nc.Write([]byte("QUIT\r\n"))
	}
	for _, c := range conns {
		c.reply.read()
		c.cut()
		p.obs.Closed(c.host.name, reason)
	}
}
