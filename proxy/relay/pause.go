package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A client may take minutes between its RCPT and its DATA, and twenty of them that do would
// keep a whole platform to themselves. So between these calls a transaction is paused: when
// others wait, the pool takes the connection of the one that paused longest, once that is
// MaxPause in all, and the transaction asks for another, and for its recipients again, when its
// client goes on.
//
// A connection has one owner all the time: that of its transaction, or, from the moment at
// which the transaction is taken off Pool.paused under Pool.mu, the waiter that gets it. The
// owner of a transaction takes it off first whenever it does anything with it.

// errChanged is for a platform that has another answer for a recipient than before.
var errChanged = errors.New("the platform took all recipients before the client's pause, and now does not")

// pause lets the pool take the connection away until the next call.
func (t *Transaction) pause() {
	p := t.pool
	now := time.Now()
	p.mu.Lock()
	t.pausing, t.pausedSince, t.place = true, now.Add(-t.paused), len(p.paused)
	p.paused = append(p.paused, t)
	p.mu.Unlock()
}

// unpause ends the pause, if there is one, and reports whether the connection is gone.
func (t *Transaction) unpause() (gone bool) {
	if !t.pausing {
		return false
	}
	t.pausing = false
	p := t.pool
	p.mu.Lock()
	if gone = t.place < 0; !gone {
		p.unlist(t)
	}
	p.mu.Unlock()
	t.paused = time.Since(t.pausedSince)
	if gone {
		t.conn, t.paused = nil, 0
	}
	return gone
}

// unlist takes t off the paused ones. p.mu is held.
func (p *Pool) unlist(t *Transaction) {
	last := len(p.paused) - 1
	moved := p.paused[last]
	p.paused[t.place], moved.place = moved, t.place
	p.paused[last] = nil
	p.paused = p.paused[:last]
	t.place = -1
}

// reclaim gives connections of transactions that paused too long to those who wait, first
// come, first served. p.mu is held.
func (p *Pool) reclaim(now time.Time) {
	for len(p.waiting) > 0 && len(p.paused) > 0 {
		t := slices.MinFunc(p.paused, func(a, b *Transaction) int { return a.pausedSince.Compare(b.pausedSince) })
		if now.Sub(t.pausedSince) < p.ep.Limits.MaxPause {
			return
		}
		p.unlist(t)
		w := p.waiting[0]
		p.waiting = p.waiting[1:]
		w.conn, w.midway = t.conn, true
		close(w.ready)
	}
}

// resetFor ends the transaction of another that c is in the midst of. It returns why c can't
// be used for id, or nothing.
func (p *Pool) resetFor(ctx context.Context, c *conn, id identity) string {
	if c.identity != id {
		return "other client"
	}
	if c.watch(ctx) != nil { // also if the context of the other has ended
		return "abort"
	}
	if code, err := c.command("RSET", p.ep.Timeouts.Reset); err != nil || code/100 != 2 {
		return "abort"
	}
	c.idleSince = time.Time{}
	reason := p.expired(c, time.Now())
	c.idleSince = time.Now()
	return reason
}

// keep notes the recipients that the platform took, to ask for them again if need be.
func (t *Transaction) keep(rcpts []Recipient, errs []error) {
	before := len(t.kept)
	if before == 0 && t.accepted == len(rcpts) {
		t.kept = slices.Clip(rcpts)
	} else {
		for i, err := range errs {
			if err == nil {
				t.kept = append(t.kept, rcpts[i])
			}
		}
	}
	if t.names != nil {
		for i := before; i < len(t.kept); i++ {
			t.names[t.kept[i].To.String()] = i
		}
	}
}

// repeat brings the transaction, whose connection is gone, to where it was, on another one.
// On an error the transaction has ended.
func (t *Transaction) repeat(ctx context.Context) error {
	if err := t.take(ctx); err != nil {
		t.stage, t.failure = stageEnded, err
		return err
	}
	t.stage, t.accepted = stageOpened, 0
	errs := make([]error, len(t.kept))
	if err := t.ask(ctx, t.kept, errs); err != nil {
		return err
	}
	i := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if i < 0 {
		return nil
	}
	h := t.conn.host
	t.Abort()
	t.failure = t.pool.connectionError(h, "repeat RCPT", fmt.Errorf("%w: %w", errChanged, errs[i]))
	return t.failure
}
