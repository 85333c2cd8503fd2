package login

import (
	"context"
	"errors"
	"sync"
	"time"

	"mailcutover/node"
)

// warden looks after what no connection's goroutine does: it resumes suspended sessions when
// the right to decide is back, or ends them when it took too long, and ends all sessions when
// people take this node out for maintenance.
type warden struct {
	p      *Proxy
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
	kick   chan struct{} // holds one token when there is a suspended session more

	mu        sync.Mutex
	suspended map[*Session]struct{}
}

const (
	// resumers is how many sessions are asked about at once; the gate asks the table for
	// all of them together.
	resumers = 64
	// resumePause is after which time a session is asked about again where the right seems to
	// be there and the table gave no answer.
	resumePause = time.Second
	// roundPause is how often all sessions are looked at: one that is silent doesn't notice
	// that the right has lapsed.
	roundPause = time.Second
)

func newWarden(p *Proxy) *warden {
	w := &warden{p: p, kick: make(chan struct{}, 1), suspended: make(map[*Session]struct{})}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.done.Go(w.run)
	return w
}

func (w *warden) close() {
	w.cancel()
	w.done.Wait()
}

// add takes a suspended session. It doesn't block.
func (w *warden) add(s *Session) {
	w.mu.Lock()
	w.suspended[s] = struct{}{}
	w.mu.Unlock()
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

func (w *warden) remove(s *Session) {
	w.mu.Lock()
	delete(w.suspended, s)
	w.mu.Unlock()
}

func (w *warden) run() {
	resting, last := false, time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		// Taken before the look: what happens since then closes it.
		news := w.p.o.Gate.News("")
		if now := w.p.o.Gate.Resting(); now != resting {
			resting = now
			if now {
				w.rest()
			}
		}
		if time.Since(last) >= roundPause { // news may come by the thousand
			w.round(resting)
			last = time.Now()
		}
		timer.Reset(min(w.look(), roundPause-time.Since(last)))
		select {
		case <-news:
		case <-w.kick:
		case <-timer.C:
		case <-w.ctx.Done():
			return
		}
	}
}

// rest ends all sessions: the node is to have nothing under way.
func (w *warden) rest() {
	all := w.p.all(&Filter{})
	w.p.log.Info("sessions are ended for the maintenance of this node", "sessions", len(all))
	for _, s := range all {
		s.endWithin(CauseDrain, "maintenance", w.p.o.Spread)
	}
}

// round suspends the sessions that have lapsed and are silent. In a maintenance it ends those that
// began while there was none for a moment, shorter than this goroutine looks.
func (w *warden) round(resting bool) {
	for _, s := range w.p.all(&Filter{}) {
		if resting {
			s.endWithin(CauseDrain, "maintenance", w.p.o.Spread) // nothing, if its end is planned
		}
		if s.isJoined() && s.ticket.Flows() == node.ErrLapsed { // bare: it wraps ErrClosed
			s.suspend()
		}
	}
}

// look resumes or ends what is suspended, and returns when it has to be done again if nothing
// happens.
func (w *warden) look() time.Duration {
	w.mu.Lock()
	all := make([]*Session, 0, len(w.suspended))
	for s := range w.suspended {
		all = append(all, s)
	}
	w.mu.Unlock()
	if len(all) == 0 {
		return roundPause
	}
	var group sync.WaitGroup
	work := make(chan *Session)
	for range min(resumers, len(all)) {
		group.Go(func() {
			for s := range work {
				w.decide(s)
			}
		})
	}
	next := resumePause
	for _, s := range all {
		work <- s
		s.mu.Lock()
		left := w.p.o.Suspend - time.Since(s.stalled)
		s.mu.Unlock()
		next = min(next, max(left, time.Millisecond))
	}
	close(work)
	group.Wait()
	return next
}

// decide resumes a session, ends it, or leaves it.
func (w *warden) decide(s *Session) {
	err := s.ticket.Resume(w.ctx)
	switch {
	case err == nil:
		w.remove(s)
		s.resume()
	case !errors.Is(err, node.ErrLapsed):
		w.remove(s)
		s.end(CauseMoved, "", w.p.o.Spread)
	default:
		s.mu.Lock()
		over := !s.stalled.IsZero() && time.Since(s.stalled) >= w.p.o.Suspend
		s.mu.Unlock()
		if over {
			w.remove(s)
			s.end(CauseTable, "suspended for too long", w.p.o.Spread)
		}
	}
}
