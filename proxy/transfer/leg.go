package transfer

import (
	"context"
	"fmt"
	"sync"

	"mailcutover/node"
	"mailcutover/proxy/relay"
	"mailcutover/routing"
)

// leg is the way of a streamed message: one transaction on one connection to a platform.
type leg struct {
	platform *relay.Platform
	pool     *relay.Pool
	lmtp     bool
	tx       *relay.Transaction // nil before the first question
	ctx      context.Context    // ends when an agency closes, or with the session
	agency   routing.AgencyID   // of the first recipient
	armed    bool               // that agency is
	broken   error              // why the message can't go this way any more, though no dot was sent

	mu     sync.Mutex
	cancel context.CancelFunc // of ctx; nil once the leg has ended
}

// cutter is the context of a session's legs, one after the other: it is made again only
// after it was cut, since a message costs less without.
type cutter struct {
	ctx    context.Context // nil: not made yet
	cancel context.CancelFunc
}

// leg begins a leg. ctx is the session's.
func (c *cutter) leg(ctx context.Context, platform *relay.Platform, pool *relay.Pool, d *routing.Decision) *leg {
	if c.ctx == nil || c.ctx.Err() != nil {
		c.end()
		c.ctx, c.cancel = context.WithCancel(ctx)
	}
	return &leg{
		platform: platform, pool: pool, lmtp: pool.Endpoint().Protocol == relay.ProtocolLMTP, agency: d.Agency, armed: d.Armed,
		ctx: c.ctx, cancel: c.cancel,
	}
}

// end lets go of the context.
func (c *cutter) end() {
	if c.cancel != nil {
		c.cancel()
	}
}

// cut ends what is under way on the leg. It may come at any time, from the gate: after the
// leg's end it does nothing, as the context is the next one's then.
func (l *leg) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		l.cancel()
	}
}

// takes reports whether one more recipient fits, beside those that the leg has.
func (l *leg) takes(t *transaction, pool *relay.Pool, d *routing.Decision, have int) bool {
	switch {
	case l.pool != pool:
		return false
	case l.lmtp && !t.lmtp && have > 0 && t.Spool == nil:
		return false // several answers, the sender wants one, and there is no place for what one of them refuses
	case (l.armed || d.Armed) && l.agency != d.Agency:
		return false // an armed agency's dot waits for nobody else
	}
	return true
}

// ask opens the platform's transaction, if it isn't yet, and asks it about recipients.
func (l *leg) ask(t *transaction, rcpts []relay.Recipient) []error {
	if l.tx == nil {
		tx, err := l.pool.Open(l.ctx, t.client, t.from, t.opts)
		if err != nil {
			errs := make([]error, len(rcpts))
			for i := range errs {
				errs[i] = l.closedOr(err)
			}
			return errs
		}
		l.tx = tx
	}
	errs := l.tx.Rcpts(l.ctx, rcpts)
	for i, err := range errs {
		if err != nil {
			errs[i] = l.closedOr(err)
		}
	}
	return errs
}

// do takes one step of the message, unless one before it failed; the first error stays.
func (l *leg) do(step func() error) error {
	if l.broken == nil {
		if err := step(); err != nil {
			l.broken = l.closedOr(err)
			l.tx.Abort()
		}
	}
	return l.broken
}

// Write sends a part of the body.
func (l *leg) Write(p []byte) (int, error) {
	err := l.do(func() error { _, err := l.tx.Write(p); return err })
	return len(p), err
}

// closedOr returns that the agency closed, if that is why the leg was cut, or err.
func (l *leg) closedOr(err error) error {
	if l.ctx.Err() != nil {
		return fmt.Errorf("%w: %w", node.ErrClosed, err)
	}
	return err
}

// end gives the connection back to the pool, or closes it if a body was begun.
func (l *leg) end() {
	if l.tx != nil {
		l.tx.Abort()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel = nil
}
