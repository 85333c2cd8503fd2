package login

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"mailcutover/node"
	"mailcutover/routing"
)

// errStale is for a decision that doesn't hold any more. It is made anew.
var errStale = errors.New("decision doesn't hold any more")

// login is one login of a client, for [Conn.Login].
func (h *client) login(a *Attempt) (*Session, Welcome, error) {
	t := &try{h: h, p: h.s.p, a: a, since: time.Now()}
	session, welcome, err := t.run()
	var refused *Refusal
	if err != nil && !errors.As(err, &refused) && h.ctx.Err() == nil {
		refused = &Refusal{Cause: CauseUnknown, Err: err}
		err = refused
	}
	t.log(session, err)
	if err != nil {
		if e := t.holdBack(); e != nil {
			return nil, Welcome{}, e
		}
		return nil, Welcome{}, err
	}
	h.session = session
	return session, welcome, nil
}

// try is one login under way.
type try struct {
	h     *client
	p     *Proxy
	a     *Attempt
	since time.Time

	claim claim
	who   identity      // by the last decision
	login string        // what the platform is told, or was last
	ep    *endpoint     // of that platform
	key   string        // under which failures of the name are counted
	delay time.Duration // of the answer, since it is a failure of the client's

	verified routing.MailboxID // whose credentials were found right by the Verifier; zero: nobody's
}

func refuse(cause Cause, err error) error { return &Refusal{Cause: cause, Err: err} }

func (t *try) run() (*Session, Welcome, error) {
	if t.h.ended() != nil || t.p.o.Gate.Resting() {
		return nil, Welcome{}, refuse(CauseDrain, nil)
	}
	if t.h.front.RequireTLS && !t.h.c.Secure() {
		return nil, Welcome{}, refuse(CausePrivacy, nil)
	}
	claim, err := t.p.names.parse(t.a)
	if err != nil {
		t.key = "" // all of them count as one
		if t.refused() {
			return nil, Welcome{}, refuse(CauseLimit, errTooMany)
		}
		t.failed()
		return nil, Welcome{}, refuse(CauseName, err)
	}
	t.claim = claim
	w := wait{t: t}
	for {
		w.look()
		if w.first() {
			t.key = string(claim.name)
			if t.who.known {
				t.key = t.who.user.String() // not the mailbox's: with it, each delegated one would be a new series of guesses
			}
			if t.refused() {
				return nil, Welcome{}, refuse(CauseLimit, errTooMany)
			}
		}
		patient, err := t.judge()
		again := err == nil // whatever comes of it, the same decision may be tried again
		if err == nil && w.tooSoon() {
			patient, err = true, w.last
		} else if err == nil {
			var session *Session
			var welcome Welcome
			session, welcome, err = t.at()
			if err == nil {
				t.p.failures.succeeded(t.key, t.net())
				return session, welcome, nil
			}
			switch {
			case errors.Is(err, errStale):
				patient = true
				w.stale(err)
			case isUnreachable(err):
				patient = w.unreachable(err)
			}
		}
		if !patient {
			return nil, Welcome{}, err
		}
		if err := w.sleep(err, again); err != nil {
			return nil, Welcome{}, err
		}
	}
}

// errTooMany is for tries beyond the limits of failures.
var errTooMany = errors.New("too many failed logins")

// judge says why there is no platform to go to; patient: that may change soon.
func (t *try) judge() (patient bool, err error) {
	d := &t.who.d
	switch d.Reason {
	case routing.ReasonOpen:
		return false, nil
	case routing.ReasonInPhase, routing.ReasonUnpublished:
		return true, refuse(CauseClosed, errors.New(d.Explain()))
	case routing.ReasonLocked:
		return false, refuse(CauseLocked, errors.New(d.Explain()))
	case routing.ReasonBadRecord, routing.ReasonRegressed, routing.ReasonConflict:
		return false, refuse(CauseClosed, errors.New(d.Explain())) // people have to act
	case routing.ReasonTableUnavail:
		if t.p.o.Gate.Resting() {
			return false, refuse(CauseDrain, nil)
		}
		return true, refuse(CauseTable, errors.New(d.Explain()))
	case routing.ReasonNoSuchName:
		t.failed()
		err := t.who.err
		if err == nil {
			err = errors.New(d.Explain())
		}
		return false, refuse(CauseNoSuchName, err)
	default:
		return false, refuse(CauseUnknown, errors.New(d.Explain()))
	}
}

func (t *try) net() netip.Prefix { return netOf(t.h.conn.Client().Addr.Addr()) }

// refused reports whether this client has failed too often.
func (t *try) refused() bool {
	return !t.h.isTrusted() && t.p.failures.refused(t.key, t.net())
}

// failed counts a failure of the client's.
func (t *try) failed() {
	if !t.h.isTrusted() {
		t.delay = t.p.failures.failed(t.key, t.net())
	}
}

// holdBack waits before the answer to a failure. It returns the connection's own error if that
// ends meanwhile.
func (t *try) holdBack() error {
	if t.delay <= 0 {
		return nil
	}
	timer := time.NewTimer(t.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.h.ending: // it is told now
	case <-t.h.ctx.Done():
		return fmt.Errorf("login: %w", t.h.ctx.Err())
	}
	return nil
}

// firstPause is how long a login waits at first, after a stale attempt, if nothing is heard of
// its agency; it doubles up to lastPause.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 2 * time.Second
)

// wait is a login's patience. A decision is made anew after each news of its agency.
type wait struct {
	t     *try
	looks int

	agency routing.AgencyID
	news   <-chan struct{} // of agency, taken before the last look; nil: not taken
	until  time.Time       // when patience is over; zero: it didn't have to wait yet

	// Of the last attempt that was for nothing.
	epoch routing.Epoch
	nonce routing.Nonce
	last  error
	pause time.Duration
	after time.Time       // when the same decision may be tried again
	host  <-chan struct{} // news of its platform's hosts, which end the pause; nil: none are awaited
}

// look decides.
func (w *wait) look() {
	w.looks++
	if !w.until.IsZero() {
		w.news = w.t.p.o.Gate.News(w.agency)
	}
	w.t.who = w.t.p.decide(w.t.claim)
}

func (w *wait) first() bool { return w.looks == 1 }

// stale notes that an attempt under the decision of the last look was for nothing.
func (w *wait) stale(err error) {
	w.host = nil
	w.epoch, w.nonce, w.last = w.t.who.d.Epoch, w.t.who.d.Nonce, err
	w.pause = min(max(2*w.pause, firstPause), lastPause)
	w.after = time.Now().Add(w.pause)
}

// unreachable notes that no host of the platform could be used, and reports whether one may be
// tried again within the wait.
func (w *wait) unreachable(err error) bool {
	news, at := w.t.ep.dialer.Reopens()
	until := w.until
	if until.IsZero() {
		until = time.Now().Add(w.t.p.o.Wait)
	}
	if at.IsZero() {
		at = until // somebody tries already, and it is told what comes of it
	}
	if at.After(until) || w.t.p.o.Wait == 0 {
		return false
	}
	w.epoch, w.nonce, w.last = w.t.who.d.Epoch, w.t.who.d.Nonce, err
	w.after, w.host = at, news
	return true
}

// tooSoon reports whether the decision of the last look is the one that just led nowhere.
func (w *wait) tooSoon() bool {
	return w.last != nil && w.epoch == w.t.who.d.Epoch && w.nonce == w.t.who.d.Nonce && time.Now().Before(w.after)
}

// sleep waits for news, after a look that led nowhere because of err; nil: it is worth
// another look. again: until w.after at most, which may be over by now.
func (w *wait) sleep(err error, again bool) error {
	t := w.t
	if w.until.IsZero() {
		w.until = time.Now().Add(t.p.o.Wait)
	}
	left := time.Until(w.until)
	if left <= 0 {
		return err
	}
	if w.news == nil || w.agency != t.who.d.Agency {
		w.agency = t.who.d.Agency
		return nil // what was missed since the last look shows at the next one
	}
	if t.p.waiting.Add(1) > int64(t.p.o.Waiters) {
		t.p.waiting.Add(-1)
		return refuse(CauseLimit, fmt.Errorf("too many logins wait: %w", err))
	}
	defer t.p.waiting.Add(-1)
	if again || w.tooSoon() {
		left = min(left, max(0, time.Until(w.after)))
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	gone, stop := t.h.leaving()
	defer stop()
	select {
	case <-w.news:
	case <-w.host:
		w.after, w.host = time.Time{}, nil
	case <-timer.C:
	case <-gone:
		return hasLeft(err)
	case <-t.h.ending:
		return refuse(CauseDrain, nil)
	case <-t.h.ctx.Done():
		return fmt.Errorf("login: %w", t.h.ctx.Err())
	}
	return nil
}

// decide says whom a claim means and where it is, by one state of the table.
func (p *Proxy) decide(c claim) identity {
	var who identity
	d := p.o.Gate.Decide(func(s *routing.State) routing.Decision {
		who = p.names.find(s, c)
		return who.d
	})
	who.d = d
	return who
}

// asStale turns what the gate says of a decision into errStale, so that it is made anew.
func asStale(err error) error {
	cause := CauseMoved
	if errors.Is(err, node.ErrLapsed) {
		cause = CauseTable
	}
	return &Refusal{Cause: cause, Err: fmt.Errorf("%w: %w", errStale, err)}
}
