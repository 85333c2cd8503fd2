package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"mailcutover/proxy/listen"
	"mailcutover/proxy/smtp"
)

type listenerVecs struct {
	connections                                                         *prometheus.GaugeVec
	connectionsTotal, refused, commands, replies, messages, bytes, bare *prometheus.CounterVec
}

func newListenerVecs(r *prometheus.Registry) listenerVecs {
	v := listenerVecs{
		connections:      gauge(listenerConnections),
		connectionsTotal: counter(listenerConnectionsTotal),
		refused:          counter(listenerRefused),
		commands:         counter(listenerCommands),
		replies:          counter(listenerReplies),
		messages:         counter(listenerMessages),
		bytes:            counter(listenerBytes),
		bare:             counter(listenerRepaired),
	}
	r.MustRegister(v.connections, v.connectionsTotal, v.refused, v.commands, v.replies, v.messages, v.bytes, v.bare)
	return v
}

// verbs are those that a listener knows, and OTHER.
var verbs = []string{"HELO", "EHLO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "VRFY", "EXPN", "HELP", "QUIT", "STARTTLS", "XFORWARD", "XCLIENT", "AUTH", "OTHER"}

// refusals are the reasons with which a listener refuses connections.
var refusals = []string{"connections", "connections-per-address", "proxy-header", "tls"}

// connections counts those of one listener, whatever it speaks.
type connections struct {
	open     prometheus.Gauge
	opened   prometheus.Counter
	refused  lookup[string, prometheus.Counter] // by reason
	refusals func(reason string) prometheus.Counter
}

var _ listen.Observer = (*connections)(nil)

func newConnections(v *listenerVecs, id string) *connections {
	c := &connections{open: v.connections.WithLabelValues(id), opened: v.connectionsTotal.WithLabelValues(id)}
	c.refusals = func(reason string) prometheus.Counter { return v.refused.WithLabelValues(id, reason) }
	for _, reason := range refusals {
		c.refusal(reason) // so that each is there, at 0, from the start
	}
	return c
}

// ConnectionOpened implements listen.Observer.
func (c *connections) ConnectionOpened() {
	c.opened.Inc()
	c.open.Inc()
}

// ConnectionClosed implements listen.Observer.
func (c *connections) ConnectionClosed() { c.open.Dec() }

// ConnectionRefused implements listen.Observer.
func (c *connections) ConnectionRefused(reason string) { c.refusal(reason).Inc() }

func (c *connections) refusal(reason string) prometheus.Counter {
	return c.refused.get(reason, func() prometheus.Counter { return c.refusals(reason) })
}

// Listener counts what one listener for mail does.
type Listener struct {
	*connections
	complete, cut, octets, bare prometheus.Counter
	commands                    map[string]prometheus.Counter
	replies                     *codeCounters
}

var _ smtp.Observer = (*Listener)(nil)

func newListener(v *listenerVecs, id string) *Listener {
	l := &Listener{
		connections: newConnections(v, id),
		complete:    v.messages.WithLabelValues(id, "complete"),
		cut:         v.messages.WithLabelValues(id, "cut"),
		octets:      v.bytes.WithLabelValues(id),
		bare:        v.bare.WithLabelValues(id),
		commands:    make(map[string]prometheus.Counter),
		replies:     newCodeCounters(v.replies, id),
	}
	for _, verb := range verbs {
		l.commands[verb] = v.commands.WithLabelValues(id, verb)
	}
	return l
}

// Command implements smtp.Observer.
func (l *Listener) Command(verb string) {
	c, ok := l.commands[verb]
	if !ok {
		c = l.commands["OTHER"]
	}
	c.Inc()
}

// Reply implements smtp.Observer.
func (l *Listener) Reply(code int) { l.replies.inc(code) }

// MessageEnded implements smtp.Observer.
func (l *Listener) MessageEnded(bytes int64, repaired int, complete bool) {
	if complete {
		l.complete.Inc()
	} else {
		l.cut.Inc()
	}
	l.octets.Add(float64(bytes))
	if repaired > 0 {
		l.bare.Add(float64(repaired))
	}
}
