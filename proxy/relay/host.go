package relay

import (
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// host is one of an endpoint's servers. Its health is guarded by Pool.mu.
type host struct {
	name string // host:port as configured
	tls  *tls.Config
	down atomic.Bool // failures > 0 or broke is set, for a look without the lock

	conns atomic.Int32 // connections, with those being made

	failures int       // in a row
	retryAt  time.Time // not dialled before
	trying   bool      // the one attempt after a failure is under way
	last     error     // of the last failure
	broke    time.Time // when a connection broke that had worked, if none has worked since

	fullUntil time.Time // not dialled before, as long as there are connections
	fullLast  error     // what it said
}

// eligible reports whether h may be dialled now. After a failure one attempt at a time is
// enough to find out.
func (h *host) eligible(now time.Time) bool {
	if now.Before(h.fullUntil) && h.conns.Load() > 0 {
		return false
	}
	return h.failures == 0 || !h.trying && !now.Before(h.retryAt)
}

// nextTry is when h may be dialled, if others don't stand in the way.
func (h *host) nextTry() time.Time {
	if h.failures == 0 {
		return h.fullUntil
	}
	return h.retryAt
}

// fail notes a failure and sets the time until the next attempt. Many connections that
// break at one moment are one failure: what comes while h is left alone anyway doesn't
// make that longer, and fail reports false.
func (h *host) fail(err error, now time.Time, l Limits) bool {
	h.last = err
	if h.failures > 0 && now.Before(h.retryAt) {
		return false
	}
	d := l.Backoff
	for range min(h.failures, 20) {
		d = min(2*d, l.BackoffMax)
	}
	h.failures++
	h.down.Store(true)
	h.retryAt = now.Add(d + time.Duration((rand.Float64()-0.5)/2*float64(d)))
	return true
}

// HostStats is one host's health.
type HostStats struct {
	Host     string
	Healthy  bool      // not failed since its last success
	Failures int       // in a row
	RetryAt  time.Time // next attempt; zero if healthy
	Error    string    // last failure; empty if healthy
}

// Stats is a pool's state at one moment.
type Stats struct {
	Open    int // connections, with those being made
	Idle    int
	InUse   int // Open without Idle
	Paused  int // transactions between RCPT and DATA that have a connection: of InUse
	Waiting int // callers that wait for a connection
	Hosts   []HostStats
}

// succeeded ends a host's back-off.
func (p *Pool) succeeded(h *host) {
	if !h.down.Load() {
		return
	}
	p.mu.Lock()
	was := h.failures
	h.failures, h.last, h.retryAt, h.broke = 0, nil, time.Time{}, time.Time{}
	h.down.Store(false)
	p.mu.Unlock()
	if was > 0 {
		p.log.Info("platform host answers again", "peer", h.name, "failures", was)
	}
}

// failed begins or lengthens a host's back-off.
func (p *Pool) failed(h *host, err error) {
	p.mu.Lock()
	longer := h.fail(err, time.Now(), p.ep.Limits)
	n, until := h.failures, h.retryAt
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
