package peer

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"
)

const (
	// DefaultTimeout is how long a node is waited for.
	DefaultTimeout = time.Second

	// maxAnswer bounds what a node answers, in bytes.
	maxAnswer = 16 << 20
)

var (
	// ErrNoSecret is why no node is called: this one has no secret.
	ErrNoSecret = errors.New("admin.peer.secret_file is not set here")
	// ErrPlain is why a node isn't called: the secret would cross the network in plain text.
	ErrPlain = errors.New("it is on another host, and admin.tls is not set here")
	// ErrNoAddress is why a node isn't called: the table doesn't know where.
	ErrNoAddress = errors.New("the table doesn't have its address")
)

// Member is a node that may be called.
type Member struct {
	Node    string
	Address string // host:port of its API
}

// Settings are what calls need; they may change while the node runs.
type Settings struct {
	Secret string         // that all nodes share; empty: nobody is called
	TLS    bool           // the nodes' APIs speak TLS
	Roots  *x509.CertPool // of their certificates; nil: the system's
}

// Options are what a Group works with.
type Options struct {
	Settings func() Settings // asked for each call
	Timeout  time.Duration   // for each node; 0: DefaultTimeout
}

// Group calls the other nodes. It is safe for concurrent use. Use [New].
type Group struct {
	opts Options

	mu      sync.Mutex
	clients map[clientKey]*http.Client // by what they check certificates against
}

// clientKey is what a client's connections may be shared by.
type clientKey struct {
	roots  *x509.CertPool
	verify bool
}

// New returns a Group.
func New(o Options) *Group {
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	return &Group{opts: o, clients: make(map[clientKey]*http.Client)}
}

// Answer is what one node answered.
type Answer struct {
	Node   string
	Status int    // of HTTP; 0 with an Err
	Body   []byte // as it came
	Err    error  // it did not answer, and why
}

// Call is what is said to all nodes alike.
type Call struct {
	Method string
	Path   string
	Query  url.Values
	Body   any // sent as JSON; nil: none

	Timeout time.Duration // for each node; 0: the Group's
}

// Call calls all of them at once, and returns their answers by name.
func (g *Group) Call(ctx context.Context, members []Member, b Behalf, c Call) []Answer {
	answers := make([]Answer, len(members))
	set := g.opts.Settings()
	var all sync.WaitGroup
	for i, m := range members {
		all.Go(func() {
			answers[i] = Answer{Node: m.Node}
			ctx, cancel := context.WithTimeout(ctx, cmp.Or(c.Timeout, g.opts.Timeout))
			defer cancel()
			answers[i].Status, answers[i].Body, answers[i].Err = g.one(ctx, &set, m, &b, &c)
		})
	}
	all.Wait()
	slices.SortFunc(answers, func(a, b Answer) int { return cmp.Compare(a.Node, b.Node) })
	return answers
}

// Close ends connections that wait for the next call.
func (g *Group) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, c := range g.clients {
		c.CloseIdleConnections()
		delete(g.clients, key)
	}
}

func (g *Group) one(ctx context.Context, set *Settings, m Member, b *Behalf, c *Call) (int, []byte, error) {
	if set.Secret == "" {
		return 0, nil, ErrNoSecret
	}
	if m.Address == "" {
		return 0, nil, ErrNoAddress
	}
	host, _, err := net.SplitHostPort(m.Address)
	if err != nil {
		return 0, nil, fmt.Errorf("its address in the table: %w", err)
	}
	local := isLoopback(host)
	u := url.URL{Scheme: "https", Host: m.Address, Path: c.Path, RawQuery: c.Query.Encode()}
	if !set.TLS {
		if !local {
			return 0, nil, ErrPlain
		}
		u.Scheme = "http"
	}
	var body io.Reader
	if c.Body != nil {
		raw, err := json.Marshal(c.Body)
		if err != nil {
			return 0, nil, fmt.Errorf("encode the call %s: %w", c.Path, err)
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, c.Method, u.String(), body)
	if err != nil {
		return 0, nil, fmt.Errorf("call %s: %w", m.Address, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if err := seal(req.Header, set.Secret, b); err != nil {
		return 0, nil, err
	}
	res, err := g.client(set, local).Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err // without the address and its query
		}
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer within %s", cmp.Or(c.Timeout, g.opts.Timeout))
		}
		return 0, nil, fmt.Errorf("call %s: %w", m.Address, err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return 0, nil, fmt.Errorf("read the answer of %s: %w", m.Address, err)
	}
	if len(raw) > maxAnswer {
		return 0, nil, fmt.Errorf("the answer of %s is longer than %d bytes", m.Address, maxAnswer)
	}
	return res.StatusCode, raw, nil
}

// client returns the one whose connections were checked as they have to be now.
func (g *Group) client(set *Settings, local bool) *http.Client {
	key := clientKey{roots: set.Roots, verify: !local}
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.clients[key]; c != nil {
		return c
	}
	if !local {
		for old, c := range g.clients { // of certificates that a reload has replaced
			if old.verify {
				c.CloseIdleConnections()
				delete(g.clients, old)
			}
		}
	}
	c := &http.Client{
		Transport: &http.Transport{
			Proxy: nil, // between our own nodes nobody stands
			// On this host's own loopback nobody else can answer, and a certificate has a
			// name of the network.
			TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: set.Roots, InsecureSkipVerify: local},
			MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	g.clients[key] = c
	return c
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}
