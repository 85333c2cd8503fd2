package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"mailcutover/routing"
	"mailcutover/spool"
	"mailcutover/spool/dsn"
	"mailcutover/spool/queue"
)

// spoolStates are the states in which a recipient stays in the spool.
var spoolStates = []spool.State{spool.StateHeld, spool.StateWaiting, spool.StateFailed, spool.StateExpired, spool.StateQuarantined}

// Queue counts what is sent from the spool.
type Queue struct {
	attempts    *prometheus.CounterVec
	notices     *prometheus.CounterVec
	quarantined prometheus.Counter
	known       lookup[attempt, prometheus.Counter]
}

type attempt struct {
	platform routing.PlatformID
	replay   bool
	status   queue.Status
}

var _ queue.Observer = (*Queue)(nil)

func newQueue(r *prometheus.Registry) *Queue {
	aside := counter(quarantined)
	q := &Queue{attempts: counter(attempts), notices: counter(notices), quarantined: aside.WithLabelValues()}
	r.MustRegister(q.attempts, q.notices, aside)
	return q
}

// Attempted implements queue.Observer.
func (q *Queue) Attempted(platform routing.PlatformID, replay bool, s queue.Status) {
	q.known.get(attempt{platform, replay, s}, func() prometheus.Counter {
		kind := "retry"
		if replay {
			kind = "replay"
		}
		return q.attempts.WithLabelValues(string(platform), kind, strings.ReplaceAll(s.String(), " ", "-"))
	}).Inc()
}

// Notified implements queue.Observer.
func (q *Queue) Notified(kind dsn.Kind) { q.notices.WithLabelValues(kind.String()).Inc() }

// Quarantined implements queue.Observer.
func (q *Queue) Quarantined() { q.quarantined.Inc() }
