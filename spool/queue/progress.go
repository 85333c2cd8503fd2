package queue

import (
	"math"
	"time"

	"mailcutover/routing"
	"mailcutover/spool"
)

// Progress is how far the replay of an agency is.
type Progress struct {
	Held    int     // recipients whose mail is held
	Waiting int     // recipients whose mail waits
	Bytes   int64   // of their messages
	Rate    float64 // recipients a second that were delivered, over the last half minute or so
	// Left is how long the held mail still takes at that rate; 0: it isn't known, or
	// nothing is held.
	Left time.Duration
}

// Progress returns how far the replay of an agency is; the empty id is that of fixed
// addresses and notices.
func (q *Queue) Progress(id routing.AgencyID) Progress {
	_, agencies := q.o.Store.Counts()
	c := agencies[id]
	p := Progress{Held: c.Of(spool.StateHeld), Waiting: c.Of(spool.StateWaiting), Bytes: c.Bytes}
	q.mu.Lock()
	if m := q.rates[id]; m != nil {
		p.Rate = m.rate(time.Now())
	}
	q.mu.Unlock()
	if p.Held > 0 && p.Rate > 0.001 {
		p.Left = time.Duration(float64(p.Held) / p.Rate * float64(time.Second))
	}
	return p
}

// rateMeter measures events a second, older ones counting less and less.
type rateMeter struct {
	begun, last time.Time
	value       float64 // at last
}

// rateWindow is the time after which an event counts a third of a new one.
const rateWindow = 15 * time.Second

func (q *Queue) meter(id routing.AgencyID) *rateMeter {
	m := q.rates[id]
	if m == nil {
		m = new(rateMeter)
		q.rates[id] = m
	}
	return m
}

func (m *rateMeter) add(now time.Time) {
	if m.begun.IsZero() || now.Sub(m.last) > 10*rateWindow {
		*m = rateMeter{begun: now, last: now}
	}
	m.value = m.value*math.Exp(-now.Sub(m.last).Seconds()/rateWindow.Seconds()) + 1/rateWindow.Seconds()
	m.last = now
}

func (m *rateMeter) rate(now time.Time) float64 {
	age := now.Sub(m.begun).Seconds()
	if age <= 0 {
		return 0
	}
	decayed := m.value * math.Exp(-now.Sub(m.last).Seconds()/rateWindow.Seconds())
	return decayed / (1 - math.Exp(-max(age, 0.1)/rateWindow.Seconds()))
}
