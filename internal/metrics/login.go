package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mailcutover/proxy/login"
	"mailcutover/routing"
)

// Logins counts what the proxy for logins does.
type Logins struct {
	logins, ended, suspended, bytes *prometheus.CounterVec
	seconds                         *prometheus.HistogramVec
	sessions                        *prometheus.GaugeVec

	// What is counted often, without a look at the labels.
	outcomes lookup[loginKey, prometheus.Counter]
	times    lookup[string, prometheus.Observer] // by protocol
	opened   lookup[loginKey, *sessionCounters]
	ends     lookup[loginKey, prometheus.Counter]
	stalls   lookup[string, prometheus.Counter]
}

type loginKey struct {
	protocol string
	platform routing.PlatformID
	word     string // cause, or what ended it
}

type sessionCounters struct {
	open                 prometheus.Gauge
	toPlatform, toClient prometheus.Counter
}

var _ login.Observer = (*Logins)(nil)

func newLogins(r *prometheus.Registry) *Logins {
	l := &Logins{
		logins: counter(logins), ended: counter(loginSessionsEnded), suspended: counter(loginSuspended), bytes: counter(loginBytes),
		seconds: histogram(loginSeconds), sessions: gauge(loginSessions),
	}
	r.MustRegister(l.logins, l.ended, l.suspended, l.bytes, l.seconds, l.sessions)
	return l
}

// LoginEnded implements login.Observer.
func (l *Logins) LoginEnded(protocol, cause string, platform routing.PlatformID, took time.Duration) {
	l.outcomes.get(loginKey{protocol, platform, cause}, func() prometheus.Counter {
		return l.logins.WithLabelValues(protocol, string(platform), cause)
	}).Inc()
	l.times.get(protocol, func() prometheus.Observer { return l.seconds.WithLabelValues(protocol) }).Observe(took.Seconds())
}

// SessionOpened implements login.Observer.
func (l *Logins) SessionOpened(protocol string, platform routing.PlatformID) {
	l.session(protocol, platform).open.Inc()
}

// SessionEnded implements login.Observer.
func (l *Logins) SessionEnded(protocol string, platform routing.PlatformID, by string, toPlatform, toClient int64, _ time.Duration) {
	s := l.session(protocol, platform)
	s.open.Dec()
	s.toPlatform.Add(float64(toPlatform))
	s.toClient.Add(float64(toClient))
	l.ends.get(loginKey{protocol, platform, by}, func() prometheus.Counter {
		return l.ended.WithLabelValues(protocol, string(platform), by)
	}).Inc()
}

// SessionSuspended implements login.Observer.
func (l *Logins) SessionSuspended(protocol string) {
	l.stalls.get(protocol, func() prometheus.Counter { return l.suspended.WithLabelValues(protocol) }).Inc()
}

func (l *Logins) session(protocol string, platform routing.PlatformID) *sessionCounters {
	return l.opened.get(loginKey{protocol: protocol, platform: platform}, func() *sessionCounters {
		p := string(platform)
		return &sessionCounters{
			open:       l.sessions.WithLabelValues(protocol, p),
			toPlatform: l.bytes.WithLabelValues(protocol, p, "to-platform"),
			toClient:   l.bytes.WithLabelValues(protocol, p, "to-client"),
		}
	})
}
