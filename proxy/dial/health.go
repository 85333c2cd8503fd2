package dial

import (
	"math/rand/v2"
	"time"
)

// Backoff is for how long a host that failed is left alone: First, doubled with each failure
// in a row up to Max, a quarter more or less by chance.
type Backoff struct {
	First time.Duration // more than 0
	Max   time.Duration // at least First
}

// Health is what is known of one host. The zero value is a host that hasn't failed. It is not
// safe for concurrent use.
type Health struct {
	failures int       // in a row
	retryAt  time.Time // not dialled before
	last     error     // of the last failure
}

// Eligible reports whether the host may be dialled, as far as its failures go.
func (h *Health) Eligible(now time.Time) bool { return h.failures == 0 || !now.Before(h.retryAt) }

// Failures returns how often the host has failed in a row; 0: it is healthy.
func (h *Health) Failures() int { return h.failures }

// RetryAt returns when the next attempt may be made; the zero time if the host is healthy.
func (h *Health) RetryAt() time.Time { return h.retryAt }

// Last returns the last failure; nil if the host is healthy.
func (h *Health) Last() error { return h.last }

// Fail notes a failure and sets the time until the next attempt. Many connections that
// break at one moment are one failure: what comes while the host is left alone anyway doesn't
// make that longer, and Fail reports false.
func (h *Health) Fail(err error, now time.Time, b Backoff) bool {
	h.last = err
	if h.failures > 0 && now.Before(h.retryAt) {
		return false
	}
	d := b.First
	for range min(h.failures, 20) {
		d = min(2*d, b.Max)
	}
	h.failures++
	h.retryAt = now.Add(d + time.Duration((rand.Float64()-0.5)/2*float64(d)))
	return true
}

// Succeed ends the back-off, and returns how many failures in a row came before.
func (h *Health) Succeed() int {
	was := h.failures
	*h = Health{}
	return was
}

// HostStats is one host's health.
type HostStats struct {
	Host     string
	Healthy  bool      // not failed since its last success
	Failures int       // in a row
	RetryAt  time.Time // next attempt; zero if healthy
	Error    string    // last failure; empty if healthy
}

// Stats returns h as that of the host with this name.
func (h *Health) Stats(host string) HostStats {
	s := HostStats{Host: host, Healthy: h.failures == 0, Failures: h.failures}
	if !s.Healthy {
		s.RetryAt, s.Error = h.retryAt, h.last.Error()
	}
	return s
}
