package redistable

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"mailcutover/routing/table"
)

// askEvery is how often the Sentinels are asked for the primary. A primary that was
// deposed may go on answering: only this takes our connections away from it.
const askEvery = time.Second

// Sentinel says how to find the primary of a Redis that Sentinels watch. Sentinels are
// reached as the URL says of Redis: by TLS for rediss://, otherwise in plain text.
type Sentinel struct {
	Master    string   // name of the primary, as in the Sentinels' configuration
	Addresses []string // HOST:PORT of the Sentinels, all of them; empty: there are none
	Username  string   // of the Sentinels' own ACL; empty: their default user
	Password  string   // of the Sentinels themselves, never logged; empty: none
}

// primary finds the primary and keeps our connections at it.
type primary struct {
	o         *Options
	tls       *tls.Config // of Redis and Sentinel; nil: none
	dial      func(ctx context.Context, network, address string) (net.Conn, error)
	sentinels []*redis.SentinelClient

	stop context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex
	address string                  // of the primary as we know it; mu
	conns   map[*primaryConn]string // open ones, and the address of each; mu
}

// findPrimary makes r's connections go to the primary that the Sentinels name.
func findPrimary(o *Options, r *redis.Options) *primary {
	p := &primary{o: o, tls: r.TLSConfig, dial: o.Dialer, conns: make(map[*primaryConn]string)}
	if p.dial == nil {
		p.dial = (&net.Dialer{KeepAlive: time.Minute}).DialContext
	}
	for _, address := range o.Sentinel.Addresses {
		p.sentinels = append(p.sentinels, redis.NewSentinelClient(&redis.Options{
			Addr: address, Username: o.Sentinel.Username, Password: o.Sentinel.Password,
			Dialer: p.dialSentinel, Protocol: 2, DisableIdentity: true, ContextTimeoutEnabled: true, MaxRetries: -1, DialerRetries: 1,
			DialTimeout: o.Timeout, ReadTimeout: o.Timeout, WriteTimeout: o.Timeout, PoolTimeout: o.Timeout, PoolSize: 2,
			MaintNotificationsConfig: r.MaintNotificationsConfig,
		}))
	}
	r.Dialer = p.dialPrimary
	// A server that isn't the primary (any more) is not spoken to at all.
	r.OnConnect = func(ctx context.Context, conn *redis.Conn) error { return checkRole(conn.Do(ctx, "ROLE")) }
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	p.done.Go(func() { p.watch(ctx) })
	return p
}

// close ends the watch and closes what is left open.
func (p *primary) close() {
	p.stop()
	p.done.Wait()
	for _, s := range p.sentinels {
		s.Close()
	}
	p.moveTo("")
}

// watch asks again and again who is the primary.
func (p *primary) watch(ctx context.Context) {
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		short, cancel := context.WithTimeout(ctx, p.o.Timeout)
		address, err := p.ask(short)
		cancel()
		if err == nil {
			p.moveTo(address)
		}
	}
}

// moveTo closes the connections to all other servers.
func (p *primary) moveTo(address string) {
	var left []net.Conn
	p.mu.Lock()
	p.address = address
	for conn, at := range p.conns {
		if at != address {
			left = append(left, conn.Conn)
			delete(p.conns, conn)
		}
	}
	p.mu.Unlock()
	for _, conn := range left {
		conn.Close()
	}
}

// ask returns the address that most of the Sentinels name, or the only one that those name
// who answer in a third of the time for a call. Some that are cut off may name the primary
// of before: it refuses writes without its replicas, and another server is known by its
// run id.
func (p *primary) ask(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, p.o.Timeout/3)
	defer cancel()
	type answer struct {
		address string
		err     error
	}
	answers := make(chan answer, len(p.sentinels))
	var asked sync.WaitGroup
	defer asked.Wait()
	defer cancel()
	for i, s := range p.sentinels {
		asked.Go(func() {
			v, err := s.GetMasterAddrByName(ctx, p.o.Sentinel.Master).Result()
			switch {
			case err == redis.Nil:
				answers <- answer{err: fmt.Errorf("%s doesn't know the primary %q", p.o.Sentinel.Addresses[i], p.o.Sentinel.Master)}
			case err != nil:
				answers <- answer{err: fmt.Errorf("%s: %w", p.o.Sentinel.Addresses[i], err)}
			case len(v) != 2:
				answers <- answer{err: fmt.Errorf("%s: %d words in its answer", p.o.Sentinel.Addresses[i], len(v))}
			default:
				answers <- answer{address: net.JoinHostPort(v[0], v[1])}
			}
		})
	}
	votes := map[string]int{}
	var failures []error
	for range p.sentinels {
		a := <-answers
		if a.err != nil {
			failures = append(failures, a.err)
			continue
		}
		if votes[a.address]++; 2*votes[a.address] > len(p.sentinels) {
			return a.address, nil
		}
	}
	if len(votes) == 1 {
		for address := range votes {
			return address, nil
		}
	}
	// A plain error, so that nothing of the library's is taken for an answer of Redis.
	return "", fmt.Errorf("%w: the Sentinels name no primary, or several: %v: %v", table.ErrUnavailable, votes, errors.Join(failures...))
}

// dialSentinel connects to a Sentinel.
func (p *primary) dialSentinel(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := p.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return p.secure(ctx, conn)
}

// dialPrimary connects to the primary; the address that it is called with is a name only.
func (p *primary) dialPrimary(ctx context.Context, _, _ string) (net.Conn, error) {
	address, err := p.ask(ctx)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if p.tls == nil && !loopback(host) && !p.o.AllowPlaintext {
		return nil, fmt.Errorf("%w: the Sentinels name %s: plain TCP to another host: use rediss://, or set table.redis.allow_plaintext: true", table.ErrUnavailable, address)
	}
	p.moveTo(address)
	conn, err := p.dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if conn, err = p.secure(ctx, conn); err != nil {
		return nil, err
	}
	tracked := &primaryConn{Conn: conn, of: p}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.address != address {
		conn.Close()
		return nil, fmt.Errorf("%w: %s is no longer the primary", table.ErrUnavailable, address)
	}
	p.conns[tracked] = address
	return tracked, nil
}

// secure does TLS where the URL asks for it; o.Dialer brings its own.
func (p *primary) secure(ctx context.Context, conn net.Conn) (net.Conn, error) {
	if p.tls == nil || p.o.Dialer != nil {
		return conn, nil
	}
	secured := tls.Client(conn, p.tls)
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}

// primaryConn is a connection that is known to be open.
type primaryConn struct {
	net.Conn
	of *primary
}

// SyscallConn implements syscall.Conn: the client's pool looks by it whether a connection
// is still open before it is used again.
func (c *primaryConn) SyscallConn() (syscall.RawConn, error) {
	c.of.mu.Lock()
	_, open := c.of.conns[c]
	c.of.mu.Unlock()
	if !open {
		return nil, net.ErrClosed
	}
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return unseen{}, nil
}

// unseen is a connection, as of TLS, into which nobody can look without reading from it.
type unseen struct{}

func (unseen) Control(func(fd uintptr)) error    { return nil }
func (unseen) Read(func(fd uintptr) bool) error  { return nil }
func (unseen) Write(func(fd uintptr) bool) error { return nil }

// Close implements net.Conn.
func (c *primaryConn) Close() error {
	c.of.mu.Lock()
	_, open := c.of.conns[c]
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	if !open {
		return nil // the primary moved, and its end was no error
	}
	return c.Conn.Close()
}

// check says what is wrong with the settings of Sentinels, and completes them.
func (s *Sentinel) check(scheme string) error {
	switch {
	case len(s.Addresses) == 0:
		if s.Master+s.Username+s.Password != "" {
			return errors.New("table.redis.sentinel: no addresses")
		}
		return nil
	case s.Master == "":
		return errors.New("table.redis.sentinel.master: want the name of the primary, as the Sentinels know it")
	case scheme == "unix":
		return errors.New("table.redis.sentinel: want redis:// or rediss:// in table.redis.url")
	case s.Username != "" && s.Password == "":
		return errors.New("table.redis.sentinel.username: no password")
	}
	for i, a := range s.Addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return fmt.Errorf("table.redis.sentinel.addresses: %q: want HOST:PORT", a)
		}
		if slices.Contains(s.Addresses[:i], a) {
			return fmt.Errorf("table.redis.sentinel.addresses: %q stands there twice", a)
		}
	}
	return nil
}
