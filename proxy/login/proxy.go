package login

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mailcutover/proxy/dial"
	"mailcutover/proxy/listen"
	"mailcutover/routing"
)

// Proxy is the core of the login proxy on a node: what all its listeners share. Use [New], and
// [Proxy.NewServer] for each listener; at last, after all servers, [Proxy.Close]. Its methods
// are safe for concurrent use.
type Proxy struct {
	o         Options
	log       *slog.Logger
	names     *names
	failures  *failures
	endpoints atomic.Pointer[map[endpointKey]*endpoint]
	waiting   atomic.Int64
	quota     *listen.Quota // of all servers' connections
	warden    *warden
	buffers   buffers

	mu        sync.Mutex
	sessions  map[string]*Session // by id; one that is opening has its place already
	mailboxes map[mailboxKey]int  // of sessions that the platform has taken
	addresses map[netip.Addr]int
}

type endpointKey struct {
	platform routing.PlatformID
	protocol string
}

type mailboxKey struct {
	agency  routing.AgencyID
	mailbox routing.MailboxID
}

// endpoint is an Endpoint with its dialer.
type endpoint struct {
	Endpoint
	dialer  *dial.Dialer
	tls     map[string]*tls.Config // by host
	alarmed atomic.Bool            // an alarm about it may stand
}

// New returns a proxy without endpoints: until SetEndpoints every login is put off. The error
// says all that is wrong with o.
func New(o Options) (*Proxy, error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("login proxy: %w", err)
	}
	n, err := newNames(&o)
	if err != nil {
		return nil, fmt.Errorf("login proxy: %w", err)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Observer == nil {
		o.Observer = silent{}
	}
	if o.Alarms == nil {
		o.Alarms = silent{}
	}
	p := &Proxy{
		o: o, log: o.Logger, names: n, failures: newFailures(o.Failures), quota: o.Quota.For(2),
		sessions: make(map[string]*Session), mailboxes: make(map[mailboxKey]int), addresses: make(map[netip.Addr]int),
	}
	p.endpoints.Store(&map[endpointKey]*endpoint{})
	p.warden = newWarden(p)
	return p, nil
}

// Close ends what the proxy does by itself, and waits for it. All servers have been shut down.
func (p *Proxy) Close() { p.warden.close() }

// SetEndpoints puts these endpoints in the place of those that were; at most one for each
// platform and protocol. Sessions, and logins under way, go on with the one they began with. One
// that didn't change keeps what is known of its hosts. The error says all that is wrong; then
// nothing changes.
func (p *Proxy) SetEndpoints(all []Endpoint) error {
	old := *p.endpoints.Load()
	next := make(map[endpointKey]*endpoint, len(all))
	var errs []error
	for _, e := range all {
		key := endpointKey{e.Platform, e.Protocol}
		if _, twice := next[key]; twice {
			errs = append(errs, fmt.Errorf("endpoint of platform %s for %s: is there twice", e.Platform, e.Protocol))
			continue
		}
		if e.Master != nil && p.o.Verifier == nil {
			errs = append(errs, fmt.Errorf("endpoint of platform %s for %s: a master user, and nobody who checks clients' credentials", e.Platform, e.Protocol))
			continue
		}
		if e.Master != nil && e.Delegate != "" {
			errs = append(errs, fmt.Errorf("endpoint of platform %s for %s: a master user may read every mailbox, so logins for another's mailbox can't be left to the platform", e.Platform, e.Protocol))
			continue
		}
		e.Way.Platform = string(e.Platform)
		for _, d := range []struct {
			set *time.Duration
			to  time.Duration
		}{{&e.Greeting, 30 * time.Second}, {&e.Answer, 30 * time.Second}, {&e.Login, time.Minute}} {
			if *d.set <= 0 {
				*d.set = d.to
			}
		}
		if was := old[key]; was != nil && was.same(&e) {
			next[key] = was
			continue
		}
		dialer, err := dial.New(e.Way, dial.Options{Logger: p.log.With("protocol", e.Protocol)})
		if err != nil {
			errs = append(errs, fmt.Errorf("for %s: %w", e.Protocol, err))
			continue
		}
		n := &endpoint{Endpoint: e, dialer: dialer, tls: make(map[string]*tls.Config)}
		for _, h := range e.Way.Hosts {
			n.tls[h] = e.Way.TLS.Config(h)
		}
		next[key] = n
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	p.endpoints.Store(&next)
	return nil
}

// same reports whether e is what n was made of.
func (n *endpoint) same(e *Endpoint) bool {
	a, b := n.Endpoint, *e
	hosts := slices.Equal(a.Way.Hosts, b.Way.Hosts)
	pins := slices.Equal(a.Way.TLS.Pins, b.Way.TLS.Pins)
	a.Way.Hosts, b.Way.Hosts, a.Way.TLS.Pins, b.Way.TLS.Pins = nil, nil, nil, nil
	ca, cb := a.Way.TLS.CA, b.Way.TLS.CA
	a.Way.TLS.CA, b.Way.TLS.CA = nil, nil
	sameCA := ca == cb || ca != nil && cb != nil && ca.Equal(cb)
	return hosts && pins && sameCA && a.Platform == b.Platform && a.Protocol == b.Protocol &&
		a.Greeting == b.Greeting && a.Answer == b.Answer && a.Login == b.Login &&
		a.Identity == b.Identity && a.Delegate == b.Delegate && a.Master.same(b.Master) &&
		a.Way.TLS.Policy == b.Way.TLS.Policy && a.Way.TLS.Implicit == b.Way.TLS.Implicit && a.Way.TLS.ServerName == b.Way.TLS.ServerName &&
		a.Way.DialTimeout == b.Way.DialTimeout && a.Way.HandshakeTimeout == b.Way.HandshakeTimeout &&
		a.Way.AttemptTime == b.Way.AttemptTime && a.Way.Unacknowledged == b.Way.Unacknowledged && a.Way.Backoff == b.Way.Backoff
}

// endpoint returns a platform's endpoint for a protocol; nil: there is none.
func (p *Proxy) endpoint(platform routing.PlatformID, protocol string) *endpoint {
	return (*p.endpoints.Load())[endpointKey{platform, protocol}]
}

// HostStats returns the health of all endpoints' hosts, by platform and protocol.
func (p *Proxy) HostStats() map[routing.PlatformID]map[string][]dial.HostStats {
	all := make(map[routing.PlatformID]map[string][]dial.HostStats)
	for key, e := range *p.endpoints.Load() {
		if all[key.platform] == nil {
			all[key.platform] = make(map[string][]dial.HostStats)
		}
		all[key.platform][key.protocol] = e.dialer.Stats()
	}
	return all
}

// errLimit is for sessions beyond a limit.
var errLimit = errors.New("too many sessions")

// enter gives a session its place, if the limits leave one. It doesn't take one of its mailbox's
// yet: nothing is proven, and who only guesses would lock the user out.
func (p *Proxy) enter(s *Session) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch l := &p.o; {
	case p.sessions[s.id] != nil:
		return fmt.Errorf("session %s is there twice", s.id)
	case l.SessionsPerMailbox > 0 && p.mailboxes[s.key()] >= l.SessionsPerMailbox:
		return errMailboxLimit(l.SessionsPerMailbox)
	case l.SessionsPerAddress > 0 && p.addresses[s.client.Addr()] >= l.SessionsPerAddress:
		return fmt.Errorf("%w of this address: %d", errLimit, l.SessionsPerAddress)
	}
	p.sessions[s.id] = s
	p.addresses[s.client.Addr()]++
	return nil
}

// seat gives a session that the platform has taken one of its mailbox's places, if there is one.
func (p *Proxy) seat(s *Session) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.o.SessionsPerMailbox; l > 0 && p.mailboxes[s.key()] >= l {
		return errMailboxLimit(l)
	}
	p.mailboxes[s.key()]++
	s.seated = true
	return nil
}

func errMailboxLimit(n int) error { return fmt.Errorf("%w of this mailbox: %d", errLimit, n) }

// leave takes its place away.
func (p *Proxy) leave(s *Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sessions[s.id] != s {
		return
	}
	delete(p.sessions, s.id)
	if s.seated {
		if p.mailboxes[s.key()]--; p.mailboxes[s.key()] == 0 {
			delete(p.mailboxes, s.key())
		}
	}
	a := s.client.Addr()
	if p.addresses[a]--; p.addresses[a] == 0 {
		delete(p.addresses, a)
	}
}

// all returns the sessions of the moment that f picks.
func (p *Proxy) all(f *Filter) []*Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.ID != "" {
		if s := p.sessions[f.ID]; s != nil && s.matches(f) {
			return []*Session{s}
		}
		return nil
	}
	var picked []*Session
	for s := range maps.Values(p.sessions) {
		if s.matches(f) {
			picked = append(picked, s)
		}
	}
	return picked
}

// Sessions returns the sessions that f picks, the oldest first; at most limit, if that is above
// 0, of the number that it returns too.
func (p *Proxy) Sessions(f Filter, limit int) (list []SessionInfo, total int) {
	picked := p.all(&f)
	slices.SortFunc(picked, func(a, b *Session) int {
		return cmp.Or(a.since.Compare(b.since), strings.Compare(a.id, b.id))
	})
	total = len(picked)
	if limit > 0 && len(picked) > limit {
		picked = picked[:limit]
	}
	for _, s := range picked {
		list = append(list, s.info())
	}
	return list, total
}

// CloseSessions ends the sessions that f picks: the platform's side at once, the client with a
// word, at once too. A login under way is refused. reason is for the log. It returns how
// many it has ended, without those that were ending already, and doesn't wait until they have.
func (p *Proxy) CloseSessions(f Filter, reason string) int {
	ended := 0
	for _, s := range p.all(&f) {
		if s.end(CauseOperator, reason, 0) {
			ended++
		}
	}
	return ended
}

// Counts returns the numbers of the moment.
func (p *Proxy) Counts() Counts {
	c := Counts{Waiting: int(p.waiting.Load())}
	for _, s := range p.all(&Filter{}) {
		switch s.state() {
		case StateOpening:
			c.Opening++
		case StateJoined:
			c.Joined++
		case StateSuspended:
			c.Suspended++
		case StateEnding:
			c.Ending++
		}
	}
	return c
}
