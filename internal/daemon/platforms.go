package daemon

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"mailcutover/internal/config"
	"mailcutover/mail"
	"mailcutover/proxy/relay"
	"mailcutover/routing"
)

// platforms are the ways to the platforms that one configuration asks for. It doesn't
// change; the ways that a reload finds unchanged are in the next one, too.
type platforms struct {
	list []relay.Platform
	ways []*way // each once
}

// way is one endpoint of a platform.
type way struct {
	settings relay.Endpoint // as configured: the pool's own have its defaults filled in
	pool     *relay.Pool
	watch    watch
}

// openPlatforms makes the pools; they dial when the first message, or probe, comes. Those of
// old whose settings are the same are taken over.
func (d *Daemon) openPlatforms(cfg *config.Config, old *platforms) (*platforms, error) {
	p := new(platforms)
	for i := range cfg.Platforms {
		c := &cfg.Platforms[i]
		one := relay.Platform{ID: c.ID, Nets: c.Nets, RelaysInside: c.RelaysInside, ConnectionLimit: c.ConnectionLimit}
		for _, origin := range []mail.Origin{mail.OriginOutside, mail.OriginInside} {
			if origin == mail.OriginInside && c.Inside == nil {
				one.Inside = one.Outside
				continue
			}
			w, err := d.openWay(cfg, c, origin, old)
			if err != nil {
				p.closeExcept(old)
				return nil, err
			}
			p.ways = append(p.ways, w)
			if origin == mail.OriginInside {
				one.Inside = w.pool
			} else {
				one.Outside = w.pool
			}
		}
		p.list = append(p.list, one)
	}
	return p, nil
}

// openWay makes one way, or takes it over from old.
func (d *Daemon) openWay(cfg *config.Config, c *config.Platform, origin mail.Origin, old *platforms) (*way, error) {
	settings, err := endpoint(cfg, c, origin)
	if err != nil {
		return nil, err
	}
	if old != nil {
		for _, w := range old.ways {
			if sameEndpoint(w.settings, settings) {
				return w, nil
			}
		}
	}
	pool, err := relay.NewPool(settings, relay.Options{Logger: d.logger, Observer: d.metrics.Endpoint(c.ID, origin)})
	if err != nil {
		return nil, err
	}
	return &way{settings: settings, pool: pool, watch: newWatch()}, nil
}

// sameEndpoint reports whether two endpoints are the same in all settings, secrets
// included.
func sameEndpoint(a, b relay.Endpoint) bool {
	if (a.Auth == nil) != (b.Auth == nil) || (a.TLS.CA == nil) != (b.TLS.CA == nil) {
		return false
	}
	if a.TLS.CA != nil && !a.TLS.CA.Equal(b.TLS.CA) {
		return false
	}
	if a.Auth != nil {
		was, errA := a.Auth.Password()
		is, errB := b.Auth.Password()
		if errA != nil || errB != nil || was != is || a.Auth.Mechanism != b.Auth.Mechanism || a.Auth.Username != b.Auth.Username {
			return false
		}
	}
	a.Auth, a.TLS.CA, b.Auth, b.TLS.CA = nil, nil, nil, nil
	return reflect.DeepEqual(a, b)
}

// closeExcept closes the pools that other has not; other may be nil.
func (p *platforms) closeExcept(other *platforms) {
	for _, w := range p.ways {
		if other == nil || !slices.Contains(other.ways, w) {
			w.pool.Close()
		}
	}
}

// replacePlatforms retires the pools that are no longer in force, and probes all that are.
// pause is the longest that a client of ours may be silent within a transaction.
func (d *Daemon) replacePlatforms(old, now *platforms, pause time.Duration) {
	for _, w := range old.ways {
		if slices.Contains(now.ways, w) {
			w.watch.ask()
			continue
		}
		w.watch.end()
		d.parts.Go(func() { w.retire(d.ctx, pause) })
	}
	fresh := &platforms{}
	for _, w := range now.ways {
		if !slices.Contains(old.ways, w) {
			fresh.ways = append(fresh.ways, w)
		}
	}
	d.watchPlatforms(fresh)
}

// retire closes the pool once no transaction can come any more that began while it was in
// force: nothing was under way for longer than a transaction may pause between MAIL and
// its use of the pool.
func (w *way) retire(ctx context.Context, pause time.Duration) {
	defer w.pool.Close()
	w.pool.Retire()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for last := time.Now(); time.Since(last) < pause; {
		if s := w.pool.Stats(); s.InUse+s.Waiting > 0 {
			last = time.Now()
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// longestPause is the longest that a client may be silent, and a minute.
func longestPause(cfg *config.Config) time.Duration {
	var longest time.Duration
	for i := range cfg.Listeners {
		longest = max(longest, cfg.Listeners[i].Limits.Idle)
	}
	return longest + time.Minute
}

// probe asks every endpoint once for its greeting and capabilities.
func (p *platforms) probe(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	errs := make([]error, len(p.ways))
	var wg sync.WaitGroup
	for i, w := range p.ways {
		wg.Go(func() { errs[i] = w.pool.Probe(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// ready returns nil if no endpoint of the platform is known to fail.
func (p *platforms) ready(id routing.PlatformID) error {
	var errs []error
	for _, w := range p.ways {
		if w.settings.Platform == id {
			errs = append(errs, w.ready())
		}
	}
	return errors.Join(errs...)
}

// ready returns nil if a host is not known to fail, and the last probe didn't.
func (w *way) ready() error {
	var errs []error
	for _, h := range w.pool.Stats().Hosts {
		if h.Healthy {
			if err := w.watch.failure(); err != nil {
				return fmt.Errorf("platform %s, %s endpoint: %w", w.settings.Platform, w.settings.Origin, err)
			}
			return nil
		}
		errs = append(errs, fmt.Errorf("platform %s, %s endpoint, host %s: %s", w.settings.Platform, w.settings.Origin, h.Host, h.Error))
	}
	return errors.Join(errs...)
}

// announced is what the listeners say in EHLO: the most that any platform takes, since
// what one doesn't take is refused for its recipients. What is not known yet is said to
// be taken.
func (p *platforms) announced() (size int64, eightBit, utf8 bool) {
	sizes := true
	for _, w := range p.ways {
		c := w.pool.Capabilities()
		if !c.Known {
			return 0, true, true
		}
		eightBit = eightBit || c.EightBitMIME
		utf8 = utf8 || c.SMTPUTF8
		sizes = sizes && c.Size > 0
		size = max(size, c.Size)
	}
	if !sizes {
		size = 0 // one of them has no limit, or doesn't tell it
	}
	return size, eightBit, utf8
}
