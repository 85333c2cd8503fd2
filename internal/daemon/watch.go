package daemon

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"mailcutover/proxy/relay"
)

const (
	// probePause is how often an endpoint that is well is probed, give or take a quarter.
	probePause = 30 * time.Second

	// probeAgain is when one is probed again that didn't answer in time.
	probeAgain = 5 * time.Second

	// probePatience is how long a probe may take. Some platforms delay their greeting.
	probePatience = 30 * time.Second

	// probeLook is how often it is looked whether a probe is due.
	probeLook = 250 * time.Millisecond
)

// watch is how one endpoint is probed while it is in force.
type watch struct {
	asked  chan struct{} // one probe, now
	ended  chan struct{}
	once   *sync.Once
	failed *atomic.Pointer[error] // of the last probe, unless its hosts have it, too
}

func newWatch() watch {
	return watch{asked: make(chan struct{}, 1), ended: make(chan struct{}), once: new(sync.Once), failed: new(atomic.Pointer[error])}
}

// ask makes the next probe due.
func (w *watch) ask() {
	select {
	case w.asked <- struct{}{}:
	default:
	}
}

// end ends the watching.
func (w *watch) end() { w.once.Do(func() { close(w.ended) }) }

func (w *watch) failure() error {
	if err := w.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// watchPlatforms probes the endpoints at once, unless they just were, and from then on.
func (d *Daemon) watchPlatforms(p *platforms) {
	for _, w := range p.ways {
		d.parts.Go(func() { w.keepProbing(d.ctx) })
	}
}

// keepProbing probes the endpoint until it is no longer in force.
func (w *way) keepProbing(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	look := time.NewTicker(probeLook)
	defer look.Stop()
	var next time.Time
	if w.pool.Capabilities().Known && w.ready() == nil {
		next = time.Now().Add(jittered(probePause))
	}
	for asked := false; ; {
		if (asked || w.due(time.Now(), next)) && w.hasRoom() {
			asked = false
			next = time.Now().Add(w.probe(ctx))
		}
		select {
		case <-look.C:
		case <-w.watch.asked:
			asked = true
		case <-w.watch.ended:
			return
		case <-ctx.Done():
			return
		}
	}
}

// due reports whether it is time for a probe: at next, or if no host answers, when one of
// them may be dialled again. While one of several answers, messages find out about the rest.
func (w *way) due(now, next time.Time) bool {
	if !now.Before(next) {
		return true
	}
	var retry time.Time
	for _, h := range w.pool.Stats().Hosts {
		if h.Healthy {
			return false
		}
		if retry.IsZero() || h.RetryAt.Before(retry) {
			retry = h.RetryAt
		}
	}
	return !now.Before(retry)
}

// hasRoom reports whether a probe is in nobody's way: half of the connections are free, or
// all, and nobody waits for one. On a busy endpoint the messages show how it is.
func (w *way) hasRoom() bool {
	s := w.pool.Stats()
	return s.Waiting == 0 && (s.InUse == 0 || 2*s.InUse < w.pool.Endpoint().Limits.Connections)
}

// probe probes once, and returns after which time it is due again.
func (w *way) probe(ctx context.Context) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	switch err := w.pool.Probe(ctx); {
	case err == nil:
		w.watch.failed.Store(nil)
	case errors.Is(err, relay.ErrBusy), errors.Is(err, relay.ErrClosed), errors.Is(err, context.Canceled):
		// Says nothing about the platform.
	case ctx.Err() != nil:
		w.watch.failed.Store(&err)
		return probeAgain
	default:
		w.watch.failed.Store(nil) // the host has it
	}
	return jittered(probePause)
}

func jittered(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2) }
