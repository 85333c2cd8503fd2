package relay

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// waiter is a call of acquire that waits for its turn. Whoever removes it from the queue
// sets one of the fields and closes ready.
type waiter struct {
	ready  chan struct{}
	id     identity
	conn   *conn // a connection
	midway bool  // in the midst of a transaction of another
	slot   bool  // or the right to make one
	err    error // or neither
}

// acquire returns an idle connection, or a new one; always a new one for a probe, if
// there is room.
func (p *Pool) acquire(ctx context.Context, id identity, probe bool) (*conn, error) {
	deadline := time.Now().Add(p.ep.Limits.QueueWait)
	for requeued := false; ; requeued = true {
		c, err := p.slot(ctx, id, probe, requeued, deadline)
		if c != nil || err != nil {
			return c, err
		}
		c, err = p.connect(ctx, id, probe)
		if err == nil {
			return c, nil
		}
		// A platform at its own limit refuses one more connection, but those that we
		// have are as good as ever: wait for one of them.
		if others := p.freeSlotAndOthers(); ctx.Err() != nil || probe || !others {
			return nil, err
		}
	}
}

// slot returns an idle connection, or nil for the right to make one.
func (p *Pool) slot(ctx context.Context, id identity, probe, requeued bool, deadline time.Time) (*conn, error) {
	p.mu.Lock()
	switch {
	case p.closed:
		p.mu.Unlock()
		return nil, p.connectionError(nil, "open a transaction", ErrClosed)
	case len(p.waiting) > 0 && !requeued:
	default:
		if probe && p.open < p.ep.Limits.Connections {
			p.open++
			p.mu.Unlock()
			return nil, nil
		}
		now := time.Now()
		for {
			c := p.takeIdle(id)
			if c == nil {
				break
			}
			p.mu.Unlock()
			reason := p.expired(c, now)
			switch {
			case reason != "":
				c.quit()
			case c.stale():
				reason = "stale"
				c.cut()
			default:
				return c, nil
			}
			p.obs.Closed(c.host.name, reason)
			p.mu.Lock()
			p.open--
		}
		if requeued && p.open == 0 {
			err := p.connectionError(nil, "open a transaction", p.allDown(now))
			p.mu.Unlock()
			return nil, err
		}
		if !requeued && p.open < p.ep.Limits.Connections && (p.canDial(now) || p.open == 0) {
			p.open++
			p.mu.Unlock()
			return nil, nil
		}
		if p.open == p.ep.Limits.Connections && len(p.idle) > 0 {
			// All idle ones belong to other clients: one has to go.
			c := p.idle[0]
			p.idle = append(p.idle[:0], p.idle[1:]...)
			p.mu.Unlock()
			c.quit()
			p.obs.Closed(c.host.name, "other client")
			return nil, nil
		}
	}
	w := &waiter{ready: make(chan struct{}), id: id}
	if requeued {
		p.waiting = append([]*waiter{w}, p.waiting...)
	} else {
		p.waiting = append(p.waiting, w)
	}
	p.reclaim(time.Now())
	p.mu.Unlock()
	return p.wait(ctx, w, deadline)
}

// wait waits for w's turn, until deadline.
func (p *Pool) wait(ctx context.Context, w *waiter, deadline time.Time) (*conn, error) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for {
		var err error
		select {
		case <-w.ready:
			if w.err != nil {
				return nil, p.connectionError(nil, "open a transaction", w.err)
			}
			return p.handedOver(ctx, w), nil
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-timer.C:
			err = fmt.Errorf("%w of %d after %s", ErrBusy, p.ep.Limits.Connections, p.ep.Limits.QueueWait)
		}
		p.mu.Lock()
		for i := range p.waiting {
			if p.waiting[i] == w {
				p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
				p.mu.Unlock()
				return nil, p.connectionError(nil, "wait for a connection", err)
			}
		}
		p.mu.Unlock() // its turn came just now: w.ready is closed
		if ctx.Err() != nil {
			<-w.ready
			switch {
			case w.conn != nil && w.midway:
				p.discard(w.conn, "abort")
			case w.conn != nil:
				p.put(w.conn)
			case w.slot:
				p.freeSlot()
			}
			return nil, p.connectionError(nil, "wait for a connection", err)
		}
	}
}

// handedOver returns the connection that w was given, or nil for the right to make one:
// also if something came in on it meanwhile. What is left of another's dialogue must not
// be taken for answers in ours.
func (p *Pool) handedOver(ctx context.Context, w *waiter) *conn {
	c := w.conn
	if c == nil {
		return nil
	}
	reason := ""
	if w.midway {
		reason = p.resetFor(ctx, c, w.id)
	}
	if reason == "" && c.stale() {
		reason = "stale"
	}
	switch reason {
	case "":
		return c
	case "stale", "abort":
		c.cut()
	default:
		c.quit()
	}
	p.obs.Closed(c.host.name, reason)
	return nil
}

// takeIdle removes the connection of id that was used last. p.mu is held.
func (p *Pool) takeIdle(id identity) *conn {
	for i := len(p.idle) - 1; i >= 0; i-- {
		if c := p.idle[i]; c.identity == id {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			return c
		}
	}
	return nil
}

// expired returns why c may not be used again, or nothing.
func (p *Pool) expired(c *conn, now time.Time) string {
	switch {
	case now.Sub(c.born) >= p.ep.Limits.MaxAge:
		return "age"
	case c.messages >= p.ep.Limits.MaxMessages:
		return "messages"
	case !c.idleSince.IsZero() && now.Sub(c.idleSince) >= p.ep.Limits.MaxIdle:
		return "idle"
	}
	return ""
}

// put gives back a connection on which no transaction is open. That it came so far in good
// order ends its host's back-off.
func (p *Pool) put(c *conn) {
	if !c.release() {
		p.discard(c, "abort")
		return
	}
	p.succeeded(c.host)
	if c.reply.br.Buffered() > 0 { // an answer too many
		p.discard(c, "error")
		return
	}
	now := time.Now()
	c.idleSince = time.Time{}
	reason := p.expired(c, now)
	c.idleSince = now
	p.mu.Lock()
	switch {
	case reason != "":
	case p.closed:
		reason = "shutdown"
	case len(p.waiting) == 0 && p.retired:
		reason = "shutdown"
	case len(p.waiting) == 0:
		p.idle = append(p.idle, c)
		p.mu.Unlock()
		return
	case p.waiting[0].id == c.identity:
		w := p.waiting[0]
		p.waiting = p.waiting[1:]
		w.conn = c
		close(w.ready)
		p.mu.Unlock()
		return
	default: // another client's turn: the place is worth more to him
		reason = "other client"
	}
	p.mu.Unlock()
	c.quit()
	p.obs.Closed(c.host.name, reason)
	p.freeSlot()
}

// discard closes c without a word and passes its place on.
func (p *Pool) discard(c *conn, reason string) {
	c.cut()
	p.obs.Closed(c.host.name, reason)
	p.freeSlot()
}

// freeSlot gives a place back, to the first who waits, if there is a host to dial.
func (p *Pool) freeSlot() {
	p.mu.Lock()
	p.open--
	p.grant(time.Now())
	p.mu.Unlock()
}

// freeSlotAndOthers is freeSlot after a failed dial; it reports whether there are other
// connections to wait for.
func (p *Pool) freeSlotAndOthers() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
	others := p.open > 0 && !p.closed
	p.grant(time.Now())
	return others
}

// grant passes a free place on. If no host may be dialled and no connection is left
// to wait for, nobody waits in vain. p.mu is held.
func (p *Pool) grant(now time.Time) {
	for len(p.waiting) > 0 && p.open < p.ep.Limits.Connections {
		w := p.waiting[0]
		switch {
		case p.canDial(now):
			w.slot = true
			p.open++
		case p.open == 0:
			w.err = p.allDown(now)
		default:
			return
		}
		p.waiting = p.waiting[1:]
		close(w.ready)
	}
}

// canDial reports whether a host may be dialled. p.mu is held.
func (p *Pool) canDial(now time.Time) bool {
	for _, h := range p.hosts {
		if h.free(now) {
			return true
		}
	}
	return false
}

// allDown describes why no host may be dialled. p.mu is held.
func (p *Pool) allDown(now time.Time) error {
	var errs []error
	next := p.hosts[0].nextTry()
	for _, h := range p.hosts {
		switch {
		case errors.Is(h.Last(), ErrInDoubt):
			// That was another message: of the one that isn't sent now there is no doubt.
			errs = append(errs, errors.New(h.Last().Error()))
		case h.Last() != nil:
			errs = append(errs, h.Last())
		case h.fullLast != nil:
			errs = append(errs, h.fullLast)
		}
		if at := h.nextTry(); at.Before(next) {
			next = at
		}
	}
	return fmt.Errorf("every host failed lately, next attempt in %s: %w",
		max(0, next.Sub(now)).Round(time.Millisecond), errors.Join(errs...))
}
