package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"mailcutover/internal/config"
	"mailcutover/mail"
	"mailcutover/proxy/relay"
	"mailcutover/proxy/transfer"
	"mailcutover/routing"
)

// platforms are the ways to the platforms that one configuration asks for.
type platforms struct {
	list  []transfer.Platform
	pools []*relay.Pool // each once
}

// openPlatforms makes the pools; they dial when the first message comes.
func openPlatforms(cfg *config.Config, logger *slog.Logger, observe func(routing.PlatformID, mail.Origin) relay.Observer) (*platforms, error) {
	p := new(platforms)
	for i := range cfg.Platforms {
		c := &cfg.Platforms[i]
		one := transfer.Platform{ID: c.ID, Nets: c.Nets, RelaysInside: c.RelaysInside, ConnectionLimit: c.ConnectionLimit}
		for _, origin := range []mail.Origin{mail.OriginOutside, mail.OriginInside} {
			if origin == mail.OriginInside && c.Inside == nil {
				one.Inside = one.Outside
				continue
			}
			ep, err := endpoint(cfg, c, origin)
			if err == nil {
				var pool *relay.Pool
				if pool, err = relay.NewPool(ep, relay.Options{Logger: logger, Observer: observe(c.ID, origin)}); err == nil {
					p.pools = append(p.pools, pool)
					if origin == mail.OriginInside {
						one.Inside = pool
					} else {
						one.Outside = pool
					}
					continue
				}
			}
			p.close()
			return nil, err
		}
		p.list = append(p.list, one)
	}
	return p, nil
}

// close ends the pools; transactions under way end first.
func (p *platforms) close() {
	for _, pool := range p.pools {
		pool.Close()
	}
}

// probe asks every endpoint once for its greeting and capabilities.
func (p *platforms) probe(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	errs := make([]error, len(p.pools))
	var wg sync.WaitGroup
	for i, pool := range p.pools {
		wg.Go(func() { errs[i] = pool.Probe(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// poolReady returns nil if a host of the pool is not known to fail.
func poolReady(pool *relay.Pool) error {
	var errs []error
	ep := pool.Endpoint()
	for _, h := range pool.Stats().Hosts {
		if h.Healthy {
			return nil
		}
		errs = append(errs, fmt.Errorf("platform %s, %s endpoint, host %s: %s", ep.Platform, ep.Origin, h.Host, h.Error))
	}
	return errors.Join(errs...)
}

// announced is what the listeners say in EHLO: the most that any platform takes, since
// what one doesn't take is refused for its recipients. What is not known yet is said to
// be taken.
func (p *platforms) announced() (size int64, eightBit, utf8 bool) {
	sizes := true
	for _, pool := range p.pools {
		c := pool.Capabilities()
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
