package queue

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"mailcutover/routing"
	"mailcutover/spool"
)

// lane is the way to one platform.
type lane struct {
	platform routing.PlatformID
	number   uint16
	limiter  *rate.Limiter

	boxes  []*box // with held mail, in turn
	items  []item // waiting mail that is due
	window int    // references in the boxes that can be sent to
	turn   bool   // waiting mail is next, if there is any

	running int     // workers
	limit   float64 // how many there may be, 1 at least
	most    int     // connections of the platform
	slowed  time.Time

	asked    bool // since the start
	down     bool
	failures int       // in a row
	until    time.Time // while down: when it is asked again
	last     error
}

// lane returns a platform's lane. q.mu is held.
func (q *Queue) lane(p routing.PlatformID) *lane {
	l := q.lanes[p]
	if l == nil {
		l = &lane{platform: p, number: uint16(len(q.byNumber)), limiter: rate.NewLimiter(rate.Inf, 1)}
		q.lanes[p] = l
		q.byNumber = append(q.byNumber, l)
		l.setRate(q.rateOf(p))
		l.most = max(q.o.Sender.Connections(p), 1)
		l.limit = float64(l.most)
	}
	return l
}

// SetRate sets how many messages a second go to a platform at most; 0: no limit.
func (q *Queue) SetRate(p routing.PlatformID, perSecond float64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.rate[p] = perSecond
	q.lane(p).setRate(perSecond) // so that Lanes shows it, before anything is sent there too
	q.signal()
}

func (q *Queue) rateOf(p routing.PlatformID) float64 {
	if r, ok := q.rate[p]; ok {
		return r
	}
	return q.o.Rate
}

func (l *lane) setRate(perSecond float64) {
	if perSecond <= 0 {
		l.limiter.SetLimit(rate.Inf)
		return
	}
	l.limiter.SetLimit(rate.Limit(perSecond))
}

// ready returns how many deliveries could begin.
func (l *lane) ready() int { return len(l.boxes) + len(l.items) }

// allowed returns how many workers there may be now.
func (l *lane) allowed(now time.Time) int {
	switch {
	case l.down && now.Before(l.until):
		return 0
	case l.down:
		return 1
	default:
		return int(l.limit)
	}
}

// spawn starts workers for what is ready. q.mu is held.
func (q *Queue) spawn(ctx context.Context, l *lane) {
	l.most = max(q.o.Sender.Connections(l.platform), 1)
	l.limit = min(l.limit, float64(l.most))
	for n := min(l.allowed(time.Now())-l.running, l.ready()); n > 0; n-- {
		l.running++
		q.workers.Go(func() { q.worker(ctx, l) })
	}
}

// resumeLanes has platforms asked whose time has come, if nothing is ready for them. q.mu
// is held.
func (q *Queue) resumeLanes(now time.Time) {
	for _, l := range q.lanes {
		if l.down && !now.Before(l.until) && l.running == 0 && l.ready() == 0 {
			q.probe(l)
			if l.ready() == 0 {
				q.up(l) // nobody waits for it
			}
		}
	}
}

// worker makes deliveries until nothing is ready, or there are too many of its kind.
func (q *Queue) worker(ctx context.Context, l *lane) {
	for {
		paced := l.pace(ctx) // before it takes anything, so that nothing waits in its hands
		claims, it, ok := q.take(l, paced)
		switch {
		case !ok:
			return
		case claims != nil:
			q.sendBox(ctx, l, claims[0], claims[1:])
		default:
			q.sendItem(ctx, l, it)
		}
	}
}

// claim is the first mail of a box, in the hands of a worker.
type claim struct {
	box *box
	ref ref
}

// take returns what is next in a lane: the first mail of boxes, all of one message, or an
// item of waiting mail.
func (q *Queue) take(l *lane, paced bool) (claims []claim, it item, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.followMoves()
	for paced && !q.stopping && l.running <= l.allowed(time.Now()) && l.ready() > 0 {
		if len(l.boxes) > 0 && (!l.turn || len(l.items) == 0) {
			l.turn = true
			if b := q.takeBox(l, 0); b != nil {
				return q.takeWith(l, b), it, true
			}
			continue
		}
		l.turn = false
		it = l.items[0]
		if l.items = l.items[1:]; len(l.items) == 0 {
			l.items = nil
		}
		return nil, it, true
	}
	l.running--
	q.signal()
	return nil, it, false
}

// takeBox takes the box at a place in the lane's turn, with its first mail, or returns nil
// if that can't go now. q.mu is held.
func (q *Queue) takeBox(l *lane, at int) *box {
	b := l.boxes[at]
	if at > 0 {
		l.boxes = slices.Delete(l.boxes, at, at+1)
	} else if l.boxes = l.boxes[1:]; len(l.boxes) == 0 {
		l.boxes = nil
	}
	if b.lane != l {
		return nil // it moved to another lane, and is there
	}
	b.queued = false
	if b.state != boxReady || q.boxes[b.key] != b {
		return nil
	}
	if _, busy := q.busy[b.key]; busy {
		b.state = boxBlocked
		return nil
	}
	r := b.refs[0]
	if _, sent := q.sending[r]; sent {
		b.state, q.sending[r] = boxBlocked, b
		return nil
	}
	b.state, b.taken = boxBusy, 1
	q.busy[b.key], q.sending[r] = struct{}{}, nil
	return b
}

// takeWith takes also the boxes, among those whose turn is next, whose first mail is the
// same message. q.mu is held.
func (q *Queue) takeWith(l *lane, first *box) []claim {
	claims := []claim{{first, first.refs[0]}}
	for at := 0; at < len(l.boxes) && at < maxTogether; at++ {
		if b := l.boxes[at]; len(b.refs) == 0 || b.refs[0].seq != first.refs[0].seq {
			continue
		}
		if b := q.takeBox(l, at); b != nil {
			claims = append(claims, claim{b, b.refs[0]})
		}
		at--
	}
	return claims
}

// errNotAsked is why a lane is down whose platform was away before the start.
var errNotAsked = errors.New("away before this node's start, and not asked since")

// await has an item whose delay stood in the journal wait for a lane, and returns for how
// long. Was its platform away, and wasn't asked since the start, then it counts as away:
// one delivery asks it at once, and all goes when it is back. q.mu is held.
func (q *Queue) await(it *item, l *lane, cause spool.Cause, delay time.Duration) time.Duration {
	it.lane = l.number
	switch {
	case cause != spool.CauseUnavailable || l.down:
		return delay
	case l.asked:
		return 0 // it is back
	}
	l.down, l.last = true, errNotAsked
	q.signal()
	return delay
}

// up says that the platform answers. q.mu is held.
func (q *Queue) up(l *lane) {
	l.down, l.failures, l.last = false, 0, nil
	q.starving = true
}

// answered adapts a lane to how an attempt that began at a time went. q.mu is held.
func (q *Queue) answered(l *lane, began time.Time, results []Result) {
	now := time.Now()
	var unavailable error
	slow, told := false, false
	for i := range results {
		r := &results[i]
		switch r.Status {
		case Unavailable:
			unavailable = r.Err
			slow = true
		case Delivered, Refused, Deferred:
			told = true
		}
		slow = slow || r.Slow
	}
	l.asked = l.asked || told || unavailable != nil
	switch {
	case unavailable != nil && !told:
		l.last = unavailable
		if l.down && began.Before(l.slowed) {
			break // it was under way when another found out
		}
		l.failures++
		l.down = true
		l.until = now.Add(q.o.Retry.jittered(q.o.Retry.grown(q.o.Retry.Down, q.o.Retry.DownMax, l.failures)))
		q.log.Warn("platform unavailable", "platform", l.platform, "error", unavailable, "until", l.until)
		for _, it := range l.items {
			q.schedule(it, q.o.Retry.spread())
		}
		l.items = nil
	case told && l.down:
		q.up(l)
		l.limit = max(1, min(l.limit, float64(l.most)/2))
		q.log.Info("platform is back", "platform", l.platform)
		q.wakeLane(l, began) // not what this attempt put off
		q.signal()
	}
	switch {
	case slow && !began.Before(l.slowed):
		l.limit = max(1, math.Floor(l.limit/2))
		l.slowed = now
	case told && !slow && l.limit < float64(l.most):
		if was := int(l.limit); int(min(l.limit+1/l.limit, float64(l.most))) > was {
			q.signal()
		}
		l.limit = min(l.limit+1/l.limit, float64(l.most))
	}
}

// Lane is the state of the way to a platform.
type Lane struct {
	Platform routing.PlatformID
	Running  int       // deliveries under way
	Limit    int       // how many there may be now
	Most     int       // how many there may be at most
	Ready    int       // mailboxes with held mail, and waiting mail, that could go now
	Rate     float64   // messages a second at most; 0: no limit
	Down     bool      // the platform can't be reached
	Until    time.Time // while Down: when it is asked again
	Err      error     // while Down: why
}

// Lanes returns the state of all ways, ordered by platform.
func (q *Queue) Lanes() []Lane {
	q.mu.Lock()
	defer q.mu.Unlock()
	var all []Lane
	for _, l := range q.lanes {
		s := Lane{Platform: l.platform, Running: l.running, Limit: l.allowed(time.Now()), Most: l.most, Ready: l.ready(), Rate: q.rateOf(l.platform)}
		if l.down {
			s.Down, s.Until, s.Err = true, l.until, l.last
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Lane) int { return cmp.Compare(a.Platform, b.Platform) })
	return all
}
