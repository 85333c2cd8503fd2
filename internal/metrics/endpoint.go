package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mailcutover/mail"
	"mailcutover/proxy/relay"
	"mailcutover/routing"
)

type platformVecs struct {
	connections                   *prometheus.GaugeVec
	dials, waits, answers, closed *prometheus.CounterVec
	dialSeconds, waitSeconds      *prometheus.HistogramVec
}

func newPlatformVecs(r *prometheus.Registry) platformVecs {
	v := platformVecs{
		connections: gauge(platformConnections),
		dials:       counter(platformDials),
		waits:       counter(platformWaits),
		answers:     counter(platformAnswers),
		closed:      counter(platformClosed),
		dialSeconds: histogram(platformDialSeconds),
		waitSeconds: histogram(platformWaitSeconds),
	}
	r.MustRegister(v.connections, v.dials, v.waits, v.answers, v.closed, v.dialSeconds, v.waitSeconds)
	return v
}

// Endpoint counts what one pool does.
type Endpoint struct {
	vecs             *platformVecs
	platform, origin string

	waitOK, waitFailed prometheus.Counter
	wait, dial         prometheus.Observer
	hosts              lookup[string, *hostCounters]
	closed             lookup[string, prometheus.Counter] // by reason
}

type hostCounters struct {
	open                  prometheus.Gauge
	dialled, failed       prometheus.Counter
	mail, rcpt, data, dot *codeCounters
}

var _ relay.Observer = (*Endpoint)(nil)

func newEndpoint(v *platformVecs, platform routing.PlatformID, origin mail.Origin) *Endpoint {
	p, o := string(platform), origin.String()
	return &Endpoint{
		vecs: v, platform: p, origin: o,
		waitOK:     v.waits.WithLabelValues(p, o, "ok"),
		waitFailed: v.waits.WithLabelValues(p, o, "error"),
		wait:       v.waitSeconds.WithLabelValues(p, o),
		dial:       v.dialSeconds.WithLabelValues(p, o),
	}
}

func (e *Endpoint) host(name string) *hostCounters {
	return e.hosts.get(name, func() *hostCounters {
		v, p, o := e.vecs, e.platform, e.origin
		return &hostCounters{
			open:    v.connections.WithLabelValues(p, o, name),
			dialled: v.dials.WithLabelValues(p, o, name, "ok"),
			failed:  v.dials.WithLabelValues(p, o, name, "error"),
			mail:    newCodeCounters(v.answers, p, o, name, "MAIL"),
			rcpt:    newCodeCounters(v.answers, p, o, name, "RCPT"),
			data:    newCodeCounters(v.answers, p, o, name, "DATA"),
			dot:     newCodeCounters(v.answers, p, o, name, "."),
		}
	})
}

// Dialled implements relay.Observer.
func (e *Endpoint) Dialled(host string, took time.Duration, err error) {
	h := e.host(host)
	e.dial.Observe(took.Seconds())
	if err != nil {
		h.failed.Inc()
		return
	}
	h.dialled.Inc()
	h.open.Inc()
}

// Waited implements relay.Observer.
func (e *Endpoint) Waited(took time.Duration, err error) {
	e.wait.Observe(took.Seconds())
	if err != nil {
		e.waitFailed.Inc()
		return
	}
	e.waitOK.Inc()
}

// Answered implements relay.Observer.
func (e *Endpoint) Answered(host, verb string, code int) {
	h := e.host(host)
	switch verb {
	case "MAIL":
		h.mail.inc(code)
	case "RCPT":
		h.rcpt.inc(code)
	case "DATA":
		h.data.inc(code)
	default:
		h.dot.inc(code)
	}
}

// Closed implements relay.Observer.
func (e *Endpoint) Closed(host, reason string) {
	e.host(host).open.Dec()
	e.closed.get(reason, func() prometheus.Counter {
		return e.vecs.closed.WithLabelValues(e.platform, e.origin, reason)
	}).Inc()
}
