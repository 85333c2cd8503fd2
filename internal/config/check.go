package config

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"mailcutover/mail"
	"mailcutover/routing"
)

// checker looks for what each value alone can't show. It reports nothing that rests on a
// value which is a problem already.
type checker struct {
	*decoder
	cfg *Config
}

// add reports p unless its key, or another that it rests on, is a problem already.
func (c *checker) add(p Problem, restsOn ...string) {
	if c.known(p.Key, restsOn) && !c.inherited(p) {
		c.problem(p)
	}
}

// inherited reports whether p is said already of the endpoint outside, from which the
// one inside has what it doesn't set itself.
func (c *checker) inherited(p Problem) bool {
	outside := p
	outside.Key = strings.Replace(p.Key, "].inside.", "].outside.", 1)
	return outside.Key != p.Key && slices.Contains(c.problems, outside)
}

// warn is add for what doesn't stop the start.
func (c *checker) warn(p Problem, restsOn ...string) {
	if c.known(p.Key, restsOn) {
		c.warnings = append(c.warnings, p)
	}
}

// known reports whether all keys, and the sections they are in, are without problems.
func (c *checker) known(key string, others []string) bool {
	for _, k := range append(others, key) {
		for k != "" {
			if c.bad[k] {
				return false
			}
			k = k[:max(strings.LastIndexByte(k, '.'), 0)]
		}
	}
	return true
}

// missing reports a key that has no default and no value.
func (c *checker) missing(key, value, want string) bool {
	if value == "" {
		c.add(Problem{Key: key, Want: want, Hint: "it is missing, and there is no default"})
	}
	return value == ""
}

func (c *checker) check() {
	cfg := c.cfg
	_, notAddress := netip.ParseAddr(cfg.Node)
	if !c.missing("node", cfg.Node, "this node's host name, such as mx1.example.org") && (!isHostName(cfg.Node) || notAddress == nil) {
		c.add(Problem{Key: "node", Value: show(cfg.Node), Want: "this node's host name, such as mx1.example.org"})
	}
	if !isWord(cfg.Installation) {
		c.add(Problem{Key: "installation", Value: show(cfg.Installation), Want: "1 to 63 characters of a-z, 0-9 and hyphen, not beginning with a hyphen"})
	}
	c.missing("data", cfg.Data, "a directory")
	c.approval(cfg)
	if r := cfg.Table.Redis; r != nil {
		c.redis(r)
	}
	c.lease(cfg.Lease)
	c.spool(cfg)
	c.listeners(cfg.Listeners)
	c.logins(&cfg.Logins)
	c.platforms(cfg.Platforms)
	c.probes(cfg)
	c.mailboxes()
	c.planning()
	c.notices(cfg)
	c.routing(cfg.Routing)
	c.identity(cfg)
	c.admin(cfg.Admin)
	c.audit(&cfg.Audit)
	c.page(&cfg.Page)
	c.tokens(cfg)
	c.signOn(cfg)
	c.addresses()
}

func (c *checker) lease(l Lease) {
	if l.Armed <= l.Margin {
		c.add(Problem{Key: "lease.armed", Value: shortDuration(l.Armed), Want: "more than lease.margin, " + shortDuration(l.Margin)}, "lease.margin")
	}
	if l.Settled < l.Armed {
		c.add(Problem{Key: "lease.settled", Value: shortDuration(l.Settled), Want: "at least lease.armed, " + shortDuration(l.Armed)}, "lease.armed")
	}
	if rest := l.Armed - l.Margin; rest > 0 && l.Renew >= rest {
		c.add(Problem{Key: "lease.renew", Value: shortDuration(l.Renew), Want: "less than lease.armed without lease.margin, " + shortDuration(rest) + "; 0s: a fifth of lease.armed, 2s at most", Hint: "the lease would be over before it is renewed"}, "lease.armed", "lease.margin")
	}
}

// separators are the characters that mail systems use for sub-addressing, and that don't
// make up names.
const separators = "+-=#_~"

func (c *checker) routing(r Routing) {
	if len(r.Separator) > 1 || !strings.Contains(separators, r.Separator) {
		c.add(Problem{Key: "routing.separator", Value: show(r.Separator), Want: "one of + - = # _ ~, or \"\" for none", Hint: "a letter or digit would make other people's addresses of many"})
	}
	const want = "an address, such as postmaster@example.org"
	if !c.missing("routing.postmaster", r.Postmaster, want) {
		if _, err := routing.ParseAddress(r.Postmaster); err != nil {
			c.add(Problem{Key: "routing.postmaster", Value: show(r.Postmaster), Want: want})
		}
	}
	if r.HopLimit < 1 {
		c.add(Problem{Key: "routing.hop_limit", Value: strconv.Itoa(r.HopLimit), Want: "1 or more", Hint: "RFC 5321 section 6.3 asks for 100 or more where loops are found by it alone"})
	}
	if r.OwnLimit < 1 || r.OwnLimit > r.HopLimit {
		c.add(Problem{Key: "routing.own_limit", Value: strconv.Itoa(r.OwnLimit), Want: fmt.Sprintf("1 to routing.hop_limit, %d", r.HopLimit)}, "routing.hop_limit")
	}
}

func (c *checker) admin(a Admin) {
	const want = "an IP address or localhost, and a port, such as 127.0.0.1:8025"
	if !c.missing("admin.address", a.Address, want) && !isListenAddress(a.Address) {
		c.add(Problem{Key: "admin.address", Value: show(a.Address), Want: want})
	}
	tls := a.TLS.CertFile != "" || a.TLS.KeyFile != ""
	if tls {
		c.keyPair("admin.tls", a.TLS.CertFile, a.TLS.KeyFile)
	}
	c.peer(a)
	host, _, _ := net.SplitHostPort(a.Address)
	switch {
	case tls && a.AllowPlaintext:
		c.add(Problem{Key: "admin.allow_plaintext", Value: "true", Want: "false, or no admin.tls", Hint: "with a certificate the API speaks only TLS"}, "admin.tls")
	case !tls && !a.AllowPlaintext && !isLoopback(host):
		c.add(Problem{Key: "admin.address", Value: show(a.Address), Want: "an address of this host, such as 127.0.0.1:8025, or admin.tls",
			Hint: "tokens would cross the network in plain text; admin.allow_plaintext: true takes that risk"}, "admin.tls", "admin.tls.cert_file", "admin.tls.key_file", "admin.allow_plaintext")
	}
}

// peer checks how the nodes call each other.
func (c *checker) peer(a Admin) {
	p := a.Peer
	if p.Address != "" && !isHostPort(p.Address) {
		c.add(Problem{Key: "admin.peer.address", Value: show(p.Address), Want: "host:port by which the other nodes reach this one's API, such as mx1.example.org:8025"})
	}
	if p.CAFile != "" {
		c.roots("admin.peer.ca_file", p.CAFile)
	}
	if !p.Secret.IsSet() {
		return
	}
	if len(p.Secret.Reveal()) < 16 {
		c.add(Problem{Key: "admin.peer.secret", Want: "16 characters at least", Hint: "such as openssl rand -base64 32 prints"}, "admin.peer.secret_file", "admin.peer.secret_env")
	}
	if a.AllowPlaintext && a.TLS.CertFile == "" {
		c.add(Problem{Key: "admin.peer.secret", Want: "admin.tls beside it", Hint: "the nodes call each other by TLS only, except on one host"}, "admin.allow_plaintext", "admin.tls", "admin.tls.cert_file")
	}
}

// id checks the id of a list's item: a word, and no other item's.
func (c *checker) id(key string, ids []string, i int, what string) {
	const want = "1 to 63 characters of a-z, 0-9 and hyphen, not beginning with a hyphen"
	if c.missing(key, ids[i], want) {
		return
	}
	if !isWord(ids[i]) {
		c.add(Problem{Key: key, Value: show(ids[i]), Want: want})
	}
	for _, earlier := range ids[:i] {
		if earlier == ids[i] {
			c.add(Problem{Key: key, Value: show(ids[i]), Want: "a name that no other " + what + " has"})
			return
		}
	}
}

// addresses checks that no two of our own servers want one address, and that no
// platform is ourselves.
func (c *checker) addresses() {
	type server struct{ key, address string }
	var servers []server
	ids := listenerIDs(c.cfg.Listeners)
	for i, l := range c.cfg.Listeners {
		servers = append(servers, server{itemKey("listeners", ids, i) + ".address", l.Address})
	}
	ids = loginListenerIDs(c.cfg.Logins.Listeners)
	for i, l := range c.cfg.Logins.Listeners {
		servers = append(servers, server{itemKey("logins.listeners", ids, i) + ".address", l.Address})
	}
	servers = append(servers, server{"logins.autoconfig.address", c.cfg.Logins.Autoconfig.Address}, server{"admin.address", c.cfg.Admin.Address}, server{"page.address", c.cfg.Page.Address})
	for i, s := range servers {
		for _, earlier := range servers[:i] {
			if sameListenAddress(s.address, earlier.address) {
				c.add(Problem{Key: s.key, Value: show(s.address), Want: "an address of its own", Hint: "it is that of " + earlier.key}, earlier.key)
			}
		}
	}
	notOurs := func(key string, hosts []string, what string) {
		for _, h := range hosts {
			for _, s := range servers {
				if isOurs(h, s.address, c.cfg.Node) {
					c.add(Problem{Key: key + ".hosts", Value: show(h), Want: "the platform's address", Hint: what + " would come back to ourselves: it is " + s.key}, s.key)
				}
			}
		}
	}
	c.eachEndpoint(func(key string, _ *Platform, e *Endpoint) { notOurs(key, e.Hosts, "mail") })
	c.eachLoginEndpoint(func(key string, _ LoginProtocol, e *LoginEndpoint) { notOurs(key, e.Hosts, "logins") })
}

// isOurs reports whether a platform's host:port leads to one of our own servers, as far
// as names alone tell.
func isOurs(hostport, server, node string) bool {
	host, port, err := net.SplitHostPort(hostport)
	sHost, sPort, sErr := net.SplitHostPort(server)
	if err != nil || sErr != nil || port != sPort || port == "0" {
		return false
	}
	if strings.EqualFold(host, node) {
		return true
	}
	if host == sHost {
		return host != ""
	}
	return isLoopback(host) && (isWildcard(sHost) || isLoopback(sHost) && (host == "localhost" || sHost == "localhost"))
}

// sameListenAddress reports whether two servers can't both have their address.
func sameListenAddress(a, b string) bool {
	aHost, aPort, aErr := net.SplitHostPort(a)
	bHost, bPort, bErr := net.SplitHostPort(b)
	if aErr != nil || bErr != nil || aPort != bPort || aPort == "0" {
		return false
	}
	return aHost == bHost || isWildcard(aHost) || isWildcard(bHost)
}

func isWildcard(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "" || err == nil && a.IsUnspecified()
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

func isPort(s string, zero bool) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && (n > 0 || zero)
}

// isListenAddress accepts host:port with an address, localhost or nothing as host. Port 0
// lets the system choose, for tests.
func isListenAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || !isPort(port, true) {
		return false
	}
	_, err = netip.ParseAddr(host)
	return host == "" || host == "localhost" || err == nil
}

// isHostPort accepts host:port with a name or an address.
func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || !isPort(port, false) {
		return false
	}
	_, err = netip.ParseAddr(host)
	return err == nil || isHostName(host)
}

// isHostName accepts a domain name in ASCII.
func isHostName(s string) bool {
	_, err := mail.ParsePath("x@"+s, false)
	return err == nil && s[0] != '['
}

// isWord accepts what names a thing in logs and metrics.
func isWord(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// readable reports a file that can't be read, and returns its bytes.
func (c *checker) readable(key, path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		c.add(Problem{Key: key, Value: show(path), Want: "a file that can be read", Hint: reason(err)})
		return nil
	}
	return b
}
