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
	down atomic.Bool // failures > 0, for a look without the lock

	failures int       // in a row
	retryAt  time.Time // not dialled before
	trying   bool      // the one attempt after a failure is under way
	last     error     // of the last failure
}

// eligible reports whether h may be dialled now. After a failure one attempt at a time is
// enough to find out.
func (h *host) eligible(now time.Time) bool {
	return h.failures == 0 || !h.trying && !now.Before(h.retryAt)
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
	longer := h.fail(err, time.Now(), p.ep.Limits)
	n, until := h.failures, h.retryAt
	p.mu.Unlock()
	if !longer {
		p.log.Debug("platform host failed again while left alone", "peer", h.name, "error", err)
		return
	}
	p.log.Warn("platform host left alone", "peer", h.name, "failures", n, "until", until, "error", err)
}

// lost closes a connection that failed, and notes it with its host, unless the reason
// is another: the end of the caller's context, content that can't be sent, or a message
// so slow that the platform's limit passed.
func (p *Pool) lost(c *conn, err error) {
	if c.interrupted.Load() == nil && !errors.Is(err, ErrBareLineEnd) && !c.outlived() {
		p.failed(c.host, err)
	}
	p.discard(c, "error")
}
