package redismodel

import (
	"strings"
	"time"
)

// Link is how a replica is attached to a primary. While it is cut, nothing passes.
type Link struct {
	From, To *Server

	delay func() time.Duration
	up    bool
	cut   bool
	queue []item    // on the way, in order
	heard time.Time // last acknowledgement at the primary, by real time
	acked int64
	stop  func()
}

// item is a group of writes, or all data.
type item struct {
	at     time.Time
	group  []effect
	whole  data // unless nil
	offset int64
	replID string
	second string
}

// heartbeat is how often a replica tells how far it is, as Redis does.
const heartbeat = time.Second

// Attach makes to a replica of from: it takes over all data, and then each write, later
// by delay. What it had before is gone when the copy arrives.
func Attach(from, to *Server, delay func() time.Duration) *Link {
	if to.primary != nil {
		to.primary.break_()
	}
	for _, l := range to.links {
		l.break_()
	}
	l := &Link{From: from, To: to, delay: delay}
	to.primary = l
	to.links = nil
	for _, c := range sortedSessions(to.sessions) {
		c.unblocked()
	}
	if !from.backlog {
		// As Redis does where no replica ever was: what came before is no history to go on from.
		from.backlog, from.replID, from.replID2 = true, from.o.Token(40), noReplID
	}
	to.backlog = true
	from.links = append(from.links, l)
	l.sync()
	return l
}

// sync sends all data.
func (l *Link) sync() {
	l.up, l.queue, l.heard = true, nil, l.From.o.Now()
	l.push(item{whole: l.From.data.clone(), offset: l.From.offset, replID: l.From.replID, second: l.From.replID2})
	l.beat()
}

func (l *Link) beat() {
	if l.stop != nil {
		l.stop()
	}
	l.stop = l.From.o.After(heartbeat, func() {
		if l.up {
			l.acknowledge()
			l.beat()
		}
	})
}

func (l *Link) send(group []effect) {
	if l.up && !l.cut {
		l.push(item{group: group, offset: l.From.offset})
	}
}

func (l *Link) push(it item) {
	it.at = l.From.o.Now().Add(l.delay())
	if n := len(l.queue); n > 0 && it.at.Before(l.queue[n-1].at) {
		it.at = l.queue[n-1].at
	}
	l.queue = append(l.queue, it)
	l.From.o.After(it.at.Sub(l.From.o.Now()), l.deliver)
}

// deliver applies what has arrived.
func (l *Link) deliver() {
	if l.To.hung || l.To.down || l.cut || !l.up || l.To.primary != l {
		return
	}
	now := l.From.o.Now()
	arrived := false
	for len(l.queue) > 0 && !l.queue[0].at.After(now) {
		it := l.queue[0]
		l.queue = l.queue[1:]
		arrived = true
		if it.whole != nil {
			l.To.data, l.To.offset, l.To.replID, l.To.replID2 = it.whole, it.offset, it.replID, it.second
			continue
		}
		l.To.apply(it.group)
		l.To.offset = it.offset
	}
	if arrived {
		l.acknowledge()
	}
}

// acknowledge tells the primary how far the replica is.
func (l *Link) acknowledge() {
	if l.To.hung || l.To.down || l.cut || !l.up || l.To.primary != l {
		return
	}
	if len(l.queue) > 0 && l.queue[0].whole != nil {
		return // it is still loading
	}
	at := l.To.offset
	l.From.o.After(l.delay(), func() {
		if l.From.hung || l.From.down || l.cut || !l.up {
			return
		}
		l.heard, l.acked = l.From.o.Now(), max(l.acked, at)
		for _, c := range sortedSessions(l.From.sessions) {
			c.counted()
		}
	})
}

// break_ ends the link for good.
func (l *Link) break_() {
	l.up = false
	if l.stop != nil {
		l.stop()
	}
	for i, other := range l.From.links {
		if other == l {
			l.From.links = append(l.From.links[:i:i], l.From.links[i+1:]...)
			break
		}
	}
}

// Cut stops everything on the link until Mend; then the replica takes over all data again.
func (l *Link) Cut() { l.cut = true }

// Mend ends a Cut, and takes the link up again after a restart.
func (l *Link) Mend() {
	if !l.cut || !l.up {
		return
	}
	l.cut = false
	l.sync()
}

// Promote makes a replica a primary, as Sentinel does. The other servers have to be
// attached to it.
func (s *Server) Promote() {
	if s.primary == nil {
		return
	}
	s.primary.break_()
	s.primary = nil
	s.replID2, s.replID = s.replID, s.o.Token(40)
	for _, c := range sortedSessions(s.sessions) {
		c.unblocked()
	}
}

// acknowledged counts the replicas that have everything up to offset.
func (s *Server) acknowledged(offset int64) (n int64) {
	for _, l := range s.links {
		if l.up && l.acked >= offset {
			n++
		}
	}
	return n
}

func (s *Server) role() any {
	if s.primary != nil {
		return []any{"slave", s.primary.From.o.Name, int64(6379), "connected", s.offset}
	}
	replicas := []any{}
	for _, l := range s.links {
		replicas = append(replicas, []any{l.To.o.Name, "6379", "0"})
	}
	return []any{"master", s.offset, replicas}
}

var noReplID = strings.Repeat("0", 40)
