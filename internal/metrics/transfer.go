package metrics

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"mailcutover/mail"
	"mailcutover/proxy/transfer"
	"mailcutover/routing"
	"mailcutover/spool"
)

// reasonWords are the values of the label reason, by routing.Reason.
var reasonWords = [...]string{
	routing.ReasonUnknown:      "unknown",
	routing.ReasonOpen:         "open",
	routing.ReasonFixed:        "fixed",
	routing.ReasonInPhase:      "in-phase",
	routing.ReasonUnpublished:  "unpublished",
	routing.ReasonLocked:       "locked",
	routing.ReasonBadRecord:    "bad-record",
	routing.ReasonConflict:     "conflict",
	routing.ReasonNoSuchName:   "no-such-name",
	routing.ReasonForeign:      "foreign",
	routing.ReasonRegressed:    "regressed",
	routing.ReasonTableUnavail: "table-unavailable",
}

// Transfer counts decisions and deliveries.
type Transfer struct {
	decisions  [len(reasonWords)]prometheus.Counter
	deliveries *prometheus.CounterVec
	inDoubt    *prometheus.CounterVec
	spooled    map[spool.State]prometheus.Counter
	platforms  lookup[routing.PlatformID, *platformCounters]

	answered, refused atomic.Uint64 // recipients, of all platforms
}

type platformCounters struct {
	inside, outside [len(classes)]prometheus.Counter
	inDoubt         prometheus.Counter
}

var _ transfer.Observer = (*Transfer)(nil)

func newTransfer(r *prometheus.Registry) *Transfer {
	vec := counter(decisions)
	t := &Transfer{deliveries: counter(deliveries), inDoubt: counter(inDoubtTotal)}
	for i, word := range reasonWords {
		t.decisions[i] = vec.WithLabelValues(word)
	}
	kept := counter(spooled)
	t.spooled = make(map[spool.State]prometheus.Counter)
	for _, s := range []spool.State{spool.StateHeld, spool.StateWaiting, spool.StateFailed} {
		t.spooled[s] = kept.WithLabelValues(s.String())
	}
	r.MustRegister(vec, t.deliveries, t.inDoubt, kept)
	return t
}

// Decided implements transfer.Observer.
func (t *Transfer) Decided(reason routing.Reason) {
	if int(reason) >= len(t.decisions) {
		reason = routing.ReasonUnknown
	}
	t.decisions[reason].Inc()
}

// Delivered implements transfer.Observer.
func (t *Transfer) Delivered(platform routing.PlatformID, origin mail.Origin, code int) {
	t.answered.Add(1)
	if code/100 == 4 {
		t.refused.Add(1)
	}
	p := t.platform(platform)
	if origin == mail.OriginInside {
		p.inside[classOf(code)].Inc()
	} else {
		p.outside[classOf(code)].Inc()
	}
}

// Answers returns for how many recipients there was an end since the node's start, and how many
// of those were refused for the moment.
func (t *Transfer) Answers() (refused, all uint64) { return t.refused.Load(), t.answered.Load() }

// Spooled implements transfer.Observer.
func (t *Transfer) Spooled(state spool.State) {
	if c := t.spooled[state]; c != nil {
		c.Inc()
	}
}

// InDoubt implements transfer.Observer.
func (t *Transfer) InDoubt(platform routing.PlatformID) { t.platform(platform).inDoubt.Inc() }

func (t *Transfer) platform(id routing.PlatformID) *platformCounters {
	return t.platforms.get(id, func() *platformCounters {
		p := &platformCounters{inDoubt: t.inDoubt.WithLabelValues(string(id))}
		for i, class := range classes {
			p.inside[i] = t.deliveries.WithLabelValues(string(id), mail.OriginInside.String(), class)
			p.outside[i] = t.deliveries.WithLabelValues(string(id), mail.OriginOutside.String(), class)
		}
		return p
	})
}
