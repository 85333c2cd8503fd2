package metrics

import (
	"net/http"
	"runtime"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"mailcutover/mail"
	"mailcutover/proxy/listen"
	"mailcutover/routing"
)

// Metrics is a node's metrics. Use [New].
type Metrics struct {
	registry *prometheus.Registry

	listener listenerVecs
	platform platformVecs
	transfer *Transfer
	queue    *Queue
	logins   *Logins
	canaries Canaries

	mu        sync.Mutex
	listeners map[string]*Listener
	endpoints map[endpointKey]*Endpoint
}

type endpointKey struct {
	platform routing.PlatformID
	origin   mail.Origin
}

// New returns the metrics of a node of this version; from is asked at each scrape.
func New(version string, from Sources) *Metrics {
	m := &Metrics{
		registry:  prometheus.NewRegistry(),
		listeners: make(map[string]*Listener),
		endpoints: make(map[endpointKey]*Endpoint),
	}
	info := gauge(build)
	info.WithLabelValues(version, runtime.Version()).Set(1)
	m.registry.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &sourceCollector{from: from, canaries: &m.canaries})

	m.listener = newListenerVecs(m.registry)
	m.platform = newPlatformVecs(m.registry)
	m.transfer = newTransfer(m.registry)
	m.queue = newQueue(m.registry)
	m.logins = newLogins(m.registry)
	return m
}

// Listener returns the observer of the listener with this id, always the same one.
func (m *Metrics) Listener(id string) *Listener {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.listeners[id]
	if l == nil {
		l = newListener(&m.listener, id)
		m.listeners[id] = l
	}
	return l
}

// Endpoint returns the observer of a platform's pool for an origin, always the same one,
// so that a pool that takes another's place goes on counting where that one ended.
func (m *Metrics) Endpoint(platform routing.PlatformID, origin mail.Origin) *Endpoint {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := endpointKey{platform, origin}
	e := m.endpoints[key]
	if e == nil {
		e = newEndpoint(&m.platform, platform, origin)
		m.endpoints[key] = e
	}
	return e
}

// Transfer returns the observer of the transfer.
func (m *Metrics) Transfer() *Transfer { return m.transfer }

// Queue returns the observer of the spool's queue.
func (m *Metrics) Queue() *Queue { return m.queue }

// Logins returns the observer of the proxy for logins.
func (m *Metrics) Logins() *Logins { return m.logins }

// LoginListener returns the observer of connections of the listener for logins with this id.
func (m *Metrics) LoginListener(id string) listen.Observer { return newConnections(&m.listener, id) }

// Handler serves the metrics to Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Gatherer returns what a program that reads its own metrics asks.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

func counter(d Desc) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: d.Name, Help: d.Help}, d.Labels)
}

func gauge(d Desc) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: d.Name, Help: d.Help}, d.Labels)
}

// histogram has buckets from 1 ms to the minutes that RFC 5321 section 4.5.3.2 allows.
func histogram(d Desc) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: d.Name, Help: d.Help,
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}}, d.Labels)
}
