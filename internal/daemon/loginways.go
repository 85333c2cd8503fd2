package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"time"

	"mailcutover/internal/config"
	"mailcutover/proxy/dial"
	"mailcutover/proxy/login"
	"mailcutover/routing"
)

// loginWays are the platforms' endpoints for logins that one configuration asks for. It doesn't
// change; those that a reload finds unchanged are in the next one, too.
type loginWays struct{ list []*loginWay }

// loginWay is one endpoint, as probes see it. The proxy dials on its own.
type loginWay struct {
	endpoint login.Endpoint
	dialogue dialogue
	dialer   *dial.Dialer
	helo     string
	watch    watch

	mu     sync.Mutex
	offers map[string]login.Offers // by host: what was announced last
}

// openLoginWays returns the endpoints of a configuration; ways of old with the same settings are
// taken over.
func (d *Daemon) openLoginWays(cfg *config.Config, old *loginWays) ([]login.Endpoint, *loginWays, error) {
	var endpoints []login.Endpoint
	ways := new(loginWays)
	for i := range cfg.Platforms {
		p := &cfg.Platforms[i]
		for _, protocol := range config.LoginProtocols {
			c := p.Login(protocol)
			if c == nil {
				continue
			}
			e, err := loginEndpoint(p.ID, protocol, c)
			if err != nil {
				return nil, nil, err
			}
			endpoints = append(endpoints, e)
			if w := old.same(&e); w != nil {
				ways.list = append(ways.list, w)
				continue
			}
			dialer, err := dial.New(e.Way, dial.Options{})
			if err != nil {
				return nil, nil, fmt.Errorf("endpoint for %s: %w", protocol, err)
			}
			ways.list = append(ways.list, &loginWay{
				endpoint: e, dialogue: dialogueOf(protocol), dialer: dialer, helo: cfg.Node, watch: newWatch(), offers: make(map[string]login.Offers),
			})
		}
	}
	return endpoints, ways, nil
}

// same returns the way with these settings; nil: there is none. l may be nil.
func (l *loginWays) same(e *login.Endpoint) *loginWay {
	if l == nil {
		return nil
	}
	for _, w := range l.list {
		a, b := w.endpoint, *e
		if (a.Way.TLS.CA == nil) != (b.Way.TLS.CA == nil) || a.Way.TLS.CA != nil && !a.Way.TLS.CA.Equal(b.Way.TLS.CA) {
			continue
		}
		if a.Way.TLS.CA, b.Way.TLS.CA = nil, nil; reflect.DeepEqual(a, b) {
			return w
		}
	}
	return nil
}

// probe asks every endpoint once, all at once.
func (l *loginWays) probe(ctx context.Context) error {
	errs := make([]error, len(l.list))
	var all sync.WaitGroup
	for i, w := range l.list {
		all.Go(func() { errs[i] = w.probe(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// replace ends the probes of ways that are no longer in force, and begins those of new ones.
func (l *loginWays) replace(old *loginWays, d *Daemon) {
	kept := make(map[*loginWay]bool)
	for _, w := range l.list {
		kept[w] = true
	}
	had := make(map[*loginWay]bool)
	for _, w := range old.list {
		if had[w] = true; kept[w] {
			w.watch.ask()
		} else {
			w.watch.end()
		}
	}
	fresh := new(loginWays)
	for _, w := range l.list {
		if !had[w] {
			fresh.list = append(fresh.list, w)
		}
	}
	d.watchLogins(fresh)
}

// watchLogins probes the endpoints from now on.
func (d *Daemon) watchLogins(l *loginWays) {
	for _, w := range l.list {
		d.parts.Go(func() { w.keepProbing(d.ctx) })
	}
}

// keepProbing probes the endpoint until it is no longer in force.
func (w *loginWay) keepProbing(ctx context.Context) {
	for {
		pause := jittered(probePause)
		if w.watch.failure() != nil || w.unknown() {
			pause = probeAgain
		}
		due := time.NewTimer(pause)
		select {
		case <-due.C:
		case <-w.watch.asked:
		case <-w.watch.ended:
			due.Stop()
			return
		case <-ctx.Done():
			due.Stop()
			return
		}
		due.Stop()
		probing, cancel := context.WithTimeout(ctx, probePatience)
		_ = w.probe(probing) // it is kept, for those who ask
		cancel()
	}
}

// probe asks the next host, and keeps what came of it.
func (w *loginWay) probe(ctx context.Context) error {
	host, offers, err := w.ask(ctx)
	switch {
	case err == nil:
		w.dialer.Succeeded(host)
		w.mu.Lock()
		w.offers[host] = offers
		w.mu.Unlock()
		w.watch.failed.Store(nil)
	case errors.Is(err, context.Canceled):
	default:
		err = fmt.Errorf("logins by %s: %w", w.endpoint.Protocol, err)
		w.watch.failed.Store(&err)
	}
	return err
}

func (w *loginWay) ask(ctx context.Context) (string, login.Offers, error) {
	e := &w.endpoint
	raw, host, err := w.dialer.Dial(ctx)
	if err != nil {
		return "", login.Offers{}, err
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })()
	fail := func(err error) (string, login.Offers, error) {
		if ctx.Err() != nil {
			w.dialer.Dropped(host)
			return host, login.Offers{}, errors.Join(fmt.Errorf("platform %s, %s: no answer", e.Platform, host), context.Cause(ctx))
		}
		w.dialer.Failed(host, err)
		return host, login.Offers{}, err
	}
	if e.Identity == login.IdentityProxyV2 {
		if err := raw.SetWriteDeadline(time.Now().Add(e.Answer)); err != nil {
			return fail(err)
		}
		if _, err := raw.Write(dial.AppendProxyV2(nil, netip.AddrPort{}, netip.AddrPort{})); err != nil {
			return fail(fmt.Errorf("platform %s, %s: PROXY header: %w", e.Platform, host, err))
		}
	}
	o := login.LegOptions{
		Net: raw, Greeting: e.Greeting, Answer: e.Answer, Write: e.Answer, Handshake: w.dialer.Endpoint().HandshakeTimeout,
		Ended:  ctx.Err,
		Target: login.Target{Platform: string(e.Platform), Host: host, Helo: w.helo, Identity: login.IdentityNone},
	}
	switch {
	case e.Way.TLS.Implicit:
		t, err := w.dialer.Handshake(ctx, raw, host)
		if err != nil {
			return fail(fmt.Errorf("platform %s, %s: %w", e.Platform, host, err))
		}
		o.Net, o.Encrypted, o.Target.TLS = t, true, login.LegImplicit
	case e.Way.TLS.Policy != dial.TLSNone:
		o.Target.TLS = login.LegStartTLS
		o.TLS = func(nc net.Conn) *tls.Conn { return tls.Client(nc, e.Way.TLS.Config(host)) }
	default:
		o.Target.TLS = login.LegPlain
	}
	offers, err := w.dialogue.Probe(login.NewLeg(o))
	if err != nil {
		return fail(err)
	}
	return host, offers, nil
}

// unknown reports whether no host has said what it offers.
func (w *loginWay) unknown() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.offers) == 0
}

// ready returns nil if no endpoint of the platform is known to fail. l may be nil.
func (l *loginWays) ready(id routing.PlatformID) error {
	if l == nil {
		return nil
	}
	var errs []error
	for _, w := range l.list {
		if w.endpoint.Platform == id {
			errs = append(errs, w.watch.failure())
		}
	}
	return errors.Join(errs...)
}

// offers is what a listener announces in the name of all platforms: what every one of them, by
// every host that was asked, has announced. While one of them was never asked it is nothing.
func (l *loginWays) offers(protocol config.LoginProtocol) login.Offers {
	var all login.Offers
	first := true
	for _, w := range l.list {
		if w.endpoint.Protocol != string(protocol) {
			continue
		}
		w.mu.Lock()
		if len(w.offers) == 0 {
			w.mu.Unlock()
			return login.Offers{}
		}
		for _, o := range w.offers {
			if first {
				all, first = o, false
				continue
			}
			all = common(all, o)
		}
		w.mu.Unlock()
	}
	return all
}

// common returns what both offer.
func common(a, b login.Offers) login.Offers {
	o := login.Offers{
		Pipelining: a.Pipelining && b.Pipelining, EightBitMIME: a.EightBitMIME && b.EightBitMIME, SMTPUTF8: a.SMTPUTF8 && b.SMTPUTF8,
		DSN: a.DSN && b.DSN, Chunking: a.Chunking && b.Chunking, Enhanced: a.Enhanced && b.Enhanced,
	}
	switch o.Size = min(a.Size, b.Size); {
	case a.Size == 0 || b.Size == 0:
		o.Size = 0
	case o.Size < 0: // one has no limit that is known
		o.Size = max(a.Size, b.Size)
	}
	var words []string
	for word := range strings.FieldsSeq(a.Sieve) {
		for other := range strings.FieldsSeq(b.Sieve) {
			if word == other {
				words = append(words, word)
				break
			}
		}
	}
	o.Sieve = strings.Join(words, " ")
	return o
}
