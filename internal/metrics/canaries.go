package metrics

import (
	"sync"
	"time"

	"mailcutover/rollback/canary"
	"mailcutover/routing"
)

// Canaries counts what canaries found. Its labels are agencies that have a canary in the configuration, and
// the names of parts. It is safe for concurrent use.
type Canaries struct {
	mu    sync.Mutex
	found map[canaryKey]*canaryCounts
}

type canaryKey struct {
	agency routing.AgencyID
	part   string
}

type canaryCounts struct {
	well, failed uint64
	last         time.Time // when it was well; zero: never
}

// Tried counts one trial, part by part.
func (c *Canaries) Tried(agency routing.AgencyID, parts []canary.Part, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.found == nil {
		c.found = make(map[canaryKey]*canaryCounts)
	}
	for _, p := range parts {
		key := canaryKey{agency, p.Name}
		if c.found[key] == nil {
			c.found[key] = new(canaryCounts)
		}
		n := c.found[key]
		if !p.OK {
			n.failed++
			continue
		}
		n.well++
		n.last = at
	}
}

// collect sends what was counted of agencies that still have a canary: what stands still for ever would be an alert.
func (c *Canaries) collect(has func(routing.AgencyID) bool, send sendFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, n := range c.found {
		if has != nil && !has(key.agency) {
			delete(c.found, key)
			continue
		}
		send(canaryTries, float64(n.well), string(key.agency), key.part, "well")
		send(canaryTries, float64(n.failed), string(key.agency), key.part, "failed")
		if !n.last.IsZero() {
			send(canarySuccess, float64(n.last.Unix()), string(key.agency), key.part)
		}
	}
}

// Canaries returns the observer of canaries.
func (m *Metrics) Canaries() *Canaries { return &m.canaries }

// NoticeChannel is a webhook or mail about events, on this node.
type NoticeChannel struct {
	Name    string
	Waiting int           // events that it hasn't got yet
	Oldest  time.Duration // the age of the oldest of them; 0: none waits

	// Since its settings were taken over.
	Sent, Lost uint64 // events: taken by the receiver; given up, or dropped since too many waited
	Missed     uint64 // attempts that failed
}

func collectNotices(all []NoticeChannel, send sendFunc) {
	for i := range all {
		c := &all[i]
		send(noticeWaiting, float64(c.Waiting), c.Name)
		send(noticeOldest, c.Oldest.Seconds(), c.Name)
		send(noticeEvents, float64(c.Sent), c.Name, "sent")
		send(noticeEvents, float64(c.Lost), c.Name, "lost")
		send(noticeMissed, float64(c.Missed), c.Name)
	}
}
