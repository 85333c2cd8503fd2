package relay

import (
	"crypto/tls"
	"errors"
	"sync/atomic"
	"time"

	"mailcutover/proxy/dial"
)

// host is one of an endpoint's servers. Its health is guarded by Pool.mu.
type host struct {
	name string // host:port as configured
	tls  *tls.Config
	down atomic.Bool // it failed, or broke is set, for a look without the lock

	conns atomic.Int32 // connections, with those being made

	dial.Health
	trying bool      // the one attempt after a failure is under way
	broke  time.Time // when a connection broke that had worked, if none has worked since

	fullUntil time.Time // not dialled before, as long as there are connections
	fullLast  error     // what it said
}

// free reports whether h may be dialled now. After a failure one attempt at a time is
// enough to find out.
func (h *host) free(now time.Time) bool {
	if now.Before(h.fullUntil) && h.conns.Load() > 0 {
		return false
	}
	return h.Failures() == 0 || !h.trying && h.Eligible(now)
}

// nextTry is when h may be dialled, if others don't stand in the way.
func (h *host) nextTry() time.Time {
	if h.Failures() == 0 {
		return h.fullUntil
	}
	return h.RetryAt()
}

// Stats is a pool's state at one moment.
type Stats struct {
	Open    int // connections, with those being made
	Idle    int
	InUse   int // Open without Idle
	Paused  int // transactions between RCPT and DATA that have a connection: of InUse
	Waiting int // callers that wait for a connection
	Hosts   []dial.HostStats
}

// succeeded ends a host's back-off.
func (p *Pool) succeeded(h *host) {
	if !h.down.Load() {
		return
	}
	p.mu.Lock()
	was := h.Succeed()
	h.broke = time.Time{}
	h.down.Store(false)
	p.mu.Unlock()
	if was > 0 {
		p.log.Info("platform host answers again", "peer", h.name, "failures", was)
	}
}

// failed begins or lengthens a host's back-off.
func (p *Pool) failed(h *host, err error) {
	p.mu.Lock()
	longer := h.Fail(err, time.Now(), dial.Backoff{First: p.ep.Limits.Backoff, Max: p.ep.Limits.BackoffMax})
	h.down.Store(true)
	n, until := h.Failures(), h.RetryAt()
	p.mu.Unlock()
	if !longer {
		p.log.Debug("platform host failed again while left alone", "peer", h.name, "error", err)
		return
	}
	p.log.Warn("platform host left alone", "peer", h.name, "failures", n, "until", until, "error", err)
}

// full notes that a host refused one connection more, and reports whether that is all: with
// others to it, it works as ever. They are what there is to have; the next attempt comes
// after the first back-off.
func (p *Pool) full(h *host, err error) bool {
	var r *PlatformReply
	if !errors.As(err, &r) || r.Verb != "connection" || r.Reply.Code != 421 || h.conns.Load() == 0 {
		return false
	}
	now := time.Now()
	p.mu.Lock()
	known := now.Before(h.fullUntil)
	h.fullUntil, h.fullLast = now.Add(p.ep.Limits.Backoff), err
	p.mu.Unlock()
	if !known {
		p.log.Info("platform host takes no more connections for now", "peer", h.name, "open", h.conns.Load(), "error", err)
	}
	return true
}

// lost closes a connection that failed, and notes it with its host, unless the reason
// is another: the end of the caller's context, content that can't be sent, or a message
// so slow that the platform's limit passed.
func (p *Pool) lost(c *conn, err error) {
	if c.interrupted.Load() == nil && !errors.Is(err, ErrBareLineEnd) && !c.outlived() {
		p.broke(c, err)
	}
	p.discard(c, "error")
}

// broke notes a connection that broke. One on which a MAIL was answered says little of its
// host: the next dial tells. Only if a connection that was made since has broken, too, and
// none has worked in between, the host is left alone, as it is after a failed dial.
func (p *Pool) broke(c *conn, err error) {
	h := c.host
	p.mu.Lock()
	if c.worked && (h.broke.IsZero() || !c.born.After(h.broke)) {
		if h.broke.IsZero() {
			h.broke = time.Now()
			h.down.Store(true)
		}
		p.mu.Unlock()
		p.log.Info("connection to the platform broke", "peer", h.name, "error", err)
		return
	}
	p.mu.Unlock()
	p.failed(h, err)
}
