package relay

import (
	"crypto/tls"
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

// fail notes a failure and sets the time until the next attempt.
func (h *host) fail(err error, now time.Time, l Limits) {
	d := l.Backoff
	for range min(h.failures, 20) {
		d = min(2*d, l.BackoffMax)
	}
	h.failures++
	h.down.Store(true)
	h.retryAt = now.Add(d + time.Duration((rand.Float64()-0.5)/2*float64(d)))
	h.last = err
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
	Waiting int // callers of Open that wait for a connection
	Hosts   []HostStats
}
