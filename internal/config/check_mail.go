package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

func listenerIDs(ls []Listener) []string {
	ids := make([]string, len(ls))
	for i := range ls {
		ids[i] = ls[i].ID
	}
	return ids
}

func platformIDs(ps []Platform) []string {
	ids := make([]string, len(ps))
	for i := range ps {
		ids[i] = string(ps[i].ID)
	}
	return ids
}

func (c *checker) listeners(ls []Listener) {
	if len(ls) == 0 && len(c.cfg.Logins.Listeners) == 0 {
		c.add(Problem{Key: "listeners", Want: "at least one listener", Hint: `such as - {id: mx, address: ":25"}`})
	}
	ids := listenerIDs(ls)
	for i := range ls {
		key := itemKey("listeners", ids, i)
		if c.bad[key] {
			continue
		}
		c.id(key+".id", ids, i, "listener")
		c.listener(key, &ls[i])
	}
}

func (c *checker) listener(key string, l *Listener) {
	const want = "an IP address and a port, such as 192.0.2.1:25, or :25 for all addresses"
	if !c.missing(key+".address", l.Address, want) && !isListenAddress(l.Address) {
		c.add(Problem{Key: key + ".address", Value: show(l.Address), Want: want})
	}
	if l.Origin == OriginInside && len(l.InsideNets) > 0 {
		c.add(Problem{Key: key + ".inside_nets", Want: "origin: outside, or no inside_nets", Hint: "all mail of this listener is from inside"}, key+".origin")
	}
	c.nets(key+".inside_nets", l.InsideNets)
	c.nets(key+".xforward_nets", l.XForwardNets)
	c.nets(key+".proxy_nets", l.ProxyNets)

	t := l.TLS
	c.listenerFiles(key, t.Mode, t.CertFile, t.KeyFile)
	if t.Mode == ListenerTLSNone && t.Required {
		c.add(Problem{Key: key + ".tls.required", Value: "true", Want: "tls.mode starttls or implicit beside it"}, key+".tls.mode")
	}

	n, k := &l.Limits, key+".limits."
	if n.CommandBytes < 512 || n.CommandBytes > 16<<10 {
		c.add(Problem{Key: k + "command_bytes", Value: n.CommandBytes.String(), Want: "512B to 16KiB"})
	}
	c.atLeast(k+"recipients", n.Recipients, 100, "RFC 5321 section 4.5.3.1.8")
	c.atLeast(k+"errors", n.Errors, 1, "")
	c.atLeast(k+"refusals", n.Refusals, 1, "")
	c.atLeast(k+"idles", n.Idles, 1, "")
	c.positive(k+"idle", n.Idle)
	c.positive(k+"read", n.Read)
	c.positive(k+"write", n.Write)
	c.positive(k+"handshake", n.Handshake)
	if n.Connections > 0 && n.ConnectionsPerAddress > n.Connections {
		c.add(Problem{Key: k + "connections_per_address", Value: strconv.Itoa(n.ConnectionsPerAddress), Want: fmt.Sprintf("at most connections, %d", n.Connections)}, k+"connections")
	}
}

// listenerFiles checks that a listener has the files that its TLS needs, and only then.
func (c *checker) listenerFiles(key string, mode ListenerTLSMode, certFile, keyFile string) {
	files := certFile != "" || keyFile != ""
	switch {
	case mode == ListenerTLSNone && files:
		c.add(Problem{Key: key + ".tls.mode", Value: show("none"), Want: "starttls or implicit, or no cert_file and key_file"})
	case mode != ListenerTLSNone && !files:
		c.add(Problem{Key: key + ".tls.cert_file", Want: "the file with the certificate", Hint: "tls.mode is " + string(mode)}, key+".tls.mode")
	case files:
		c.keyPair(key+".tls", certFile, keyFile)
	}
}

// nets refuses a net of everybody: whom we trust is to be named.
func (c *checker) nets(key string, nets []netip.Prefix) {
	for _, n := range nets {
		if n.Bits() == 0 {
			c.add(Problem{Key: key, Value: show(n.String()), Want: "the nets of the peers that are meant", Hint: "this one is everybody"})
		}
	}
}

func (c *checker) atLeast(key string, n, least int, hint string) {
	if n < least {
		c.add(Problem{Key: key, Value: strconv.Itoa(n), Want: fmt.Sprintf("%d or more", least), Hint: hint})
	}
}

func (c *checker) positive(key string, d time.Duration) {
	if d <= 0 {
		c.add(Problem{Key: key, Value: shortDuration(d), Want: "more than 0s", Hint: "a peer that says nothing would be waited for without end"})
	}
}

func (c *checker) platforms(ps []Platform) {
	if len(ps) < 2 {
		c.add(Problem{Key: "platforms", Value: strconv.Itoa(len(ps)) + " of them", Want: "at least two platforms, between which agencies move"})
	}
	ids := platformIDs(ps)
	type ownedNet struct {
		key string
		net netip.Prefix
	}
	var owned []ownedNet
	for i := range ps {
		p, key := &ps[i], itemKey("platforms", ids, i)
		if c.bad[key] {
			continue
		}
		c.id(key+".id", ids, i, "platform")
		c.nets(key+".nets", p.Nets)
		for _, n := range p.Nets {
			for _, o := range owned {
				if o.key != key && o.net.Overlaps(n) {
					c.add(Problem{Key: key + ".nets", Value: show(n.String()), Want: "nets of one platform only", Hint: "it overlaps " + o.net.String() + " of " + o.key})
				}
			}
			owned = append(owned, ownedNet{key, n})
		}
		if p.ConnectionLimit == 0 {
			c.warn(Problem{Key: key + ".connection_limit", Value: "0s", Want: "the time after which the platform ends any connection",
				Hint: "without it a switch can't promise that nothing arrives there late"})
		}
		if p.RelaysInside && len(p.Nets) == 0 {
			c.add(Problem{Key: key + ".relays_inside", Value: "true", Want: "nets beside it", Hint: "without them the platform's own mail can't be told from others'"}, key+".nets")
		}
	}
	c.eachEndpoint(c.endpoint)
	c.eachLoginEndpoint(c.loginEndpoint)
	c.loginsServed()
	c.hooks(ps)
}

// eachEndpoint calls f for each endpoint that was written down, and its platform.
func (c *checker) eachEndpoint(f func(key string, p *Platform, e *Endpoint)) {
	ids := platformIDs(c.cfg.Platforms)
	for i := range c.cfg.Platforms {
		p, key := &c.cfg.Platforms[i], itemKey("platforms", ids, i)
		if c.bad[key] {
			continue
		}
		f(key+".outside", p, &p.Outside)
		if p.Inside != nil {
			f(key+".inside", p, p.Inside)
		}
	}
}

func (c *checker) endpoint(key string, p *Platform, e *Endpoint) {
	c.hosts(key, e.Hosts, "mail.example.org:25")
	if _, literal := netip.ParseAddr(e.Helo); e.Helo != "" && (!isHostName(e.Helo) || literal == nil) {
		c.add(Problem{Key: key + ".helo", Value: show(e.Helo), Want: "a host name, or nothing for the node's"})
	}
	c.endpointTLS(key, e)
	c.auth(key, e)

	l, k := &e.Limits, key+".limits."
	if l.Connections < 1 || l.Connections > 10_000 {
		c.add(Problem{Key: k + "connections", Value: strconv.Itoa(l.Connections), Want: "1 to 10000"})
	}
	if l.BackoffMax < l.Backoff {
		c.add(Problem{Key: k + "backoff_max", Value: shortDuration(l.BackoffMax), Want: "at least backoff, " + shortDuration(l.Backoff)}, k+"backoff")
	}
	if p.ConnectionLimit > 0 && l.MaxAge >= p.ConnectionLimit {
		limit := key[:strings.LastIndexByte(key, '.')] + ".connection_limit"
		c.add(Problem{Key: k + "max_age", Value: shortDuration(l.MaxAge), Want: "less than the platform's connection_limit, " + shortDuration(p.ConnectionLimit)}, limit)
	}
	// A zero would be replaced by the default without a word.
	for _, d := range []struct {
		key string
		d   time.Duration
	}{
		{k + "queue_wait", l.QueueWait}, {k + "max_pause", l.MaxPause}, {k + "backoff", l.Backoff},
		{key + ".timeouts.dial", e.Timeouts.Dial}, {key + ".timeouts.greeting", e.Timeouts.Greeting},
		{key + ".timeouts.command", e.Timeouts.Command}, {key + ".timeouts.mail", e.Timeouts.Mail},
		{key + ".timeouts.rcpt", e.Timeouts.Rcpt}, {key + ".timeouts.data", e.Timeouts.Data},
		{key + ".timeouts.block", e.Timeouts.Block}, {key + ".timeouts.dot", e.Timeouts.Dot},
		{key + ".timeouts.reset", e.Timeouts.Reset}, {key + ".timeouts.unacknowledged", e.Timeouts.Unacknowledged},
	} {
		c.positive(d.key, d.d)
	}
	c.atLeast(k+"max_messages", l.MaxMessages, 1, "")
}

// hosts checks the hosts of an endpoint; example is one as it should be.
func (c *checker) hosts(key string, hosts []string, example string) {
	if len(hosts) == 0 {
		c.add(Problem{Key: key + ".hosts", Want: "at least one host:port, such as [" + example + "]", Hint: "it is missing, and there is no default"}, key)
	}
	seen := make(map[string]bool)
	for _, h := range hosts {
		if !isHostPort(h) {
			c.add(Problem{Key: key + ".hosts", Value: show(h), Want: "host:port, such as " + example})
		} else if seen[h] {
			c.add(Problem{Key: key + ".hosts", Value: show(h), Want: "each host once"})
		}
		seen[h] = true
	}
}

func (c *checker) endpointTLS(key string, e *Endpoint) {
	t := e.TLS
	policy := key + ".tls.policy"
	if t.Implicit && t.Policy != TLSRequired && t.Policy != TLSVerified {
		c.add(Problem{Key: key + ".tls.implicit", Value: "true", Want: "tls.policy required or verified beside it", Hint: "TLS from the first byte on can't be left out"}, policy)
	}
	c.verifiedTLS(key, string(t.Policy), t.Policy == TLSVerified, t.CAFile, t.Pins)
	if t.ServerName != "" {
		if t.Policy == TLSNone {
			c.add(Problem{Key: key + ".tls.server_name", Value: show(t.ServerName), Want: "another tls.policy than none beside it"}, policy)
		}
		if !isHostName(t.ServerName) {
			c.add(Problem{Key: key + ".tls.server_name", Value: show(t.ServerName), Want: "a host name"})
		}
	}
}

// verifiedTLS checks what an endpoint's certificate is checked against: only where it is.
func (c *checker) verifiedTLS(key, policy string, verified bool, caFile string, pins []Pin) {
	if caFile != "" {
		if !verified {
			c.add(Problem{Key: key + ".tls.ca_file", Value: show(caFile), Want: "tls.policy verified beside it", Hint: "with " + policy + " no certificate is checked"}, key+".tls.policy")
		}
		c.roots(key+".tls.ca_file", caFile)
	}
	if len(pins) > 0 && !verified {
		c.add(Problem{Key: key + ".tls.pins", Want: "tls.policy verified beside it", Hint: "with " + policy + " no key is checked"}, key+".tls.policy")
	}
}

func (c *checker) auth(key string, e *Endpoint) {
	a, k := e.Auth, key+".auth."
	if a.Mechanism == MechanismNone {
		if a.Username != "" || a.Password.IsSet() {
			c.add(Problem{Key: k + "mechanism", Value: show("none"), Want: "plain or login, or no username and password"})
		}
		return
	}
	c.missing(k+"username", a.Username, "the name to log in with")
	if !a.Password.IsSet() {
		c.add(Problem{Key: k + "password_file", Want: "the file with the password", Hint: "or password_env; auth.mechanism is " + string(a.Mechanism)}, k+"password", k+"password_env", k+"mechanism")
	}
	if e.TLS.Policy != TLSVerified {
		for _, h := range e.Hosts {
			if host, _, err := net.SplitHostPort(h); err == nil && !isLoopback(host) {
				c.add(Problem{Key: k + "mechanism", Value: show(string(a.Mechanism)), Want: "tls.policy verified beside it",
					Hint: "a password goes only to a host whose certificate was checked"}, key+".tls.policy")
				return
			}
		}
	}
}
