package config

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

func loginListenerIDs(ls []LoginListener) []string {
	ids := make([]string, len(ls))
	for i := range ls {
		ids[i] = ls[i].ID
	}
	return ids
}

// logins looks at the proxy for logins.
func (c *checker) logins(l *Logins) {
	ids := loginListenerIDs(l.Listeners)
	for i := range l.Listeners {
		key := itemKey("logins.listeners", ids, i)
		if c.bad[key] {
			continue
		}
		c.id(key+".id", ids, i, "listener for logins")
		if slices.Contains(listenerIDs(c.cfg.Listeners), ids[i]) && ids[i] != "" {
			c.add(Problem{Key: key + ".id", Value: show(ids[i]), Want: "a name that no other listener has", Hint: "one of listeners has it: the names stand side by side in logs and metrics"})
		}
		c.loginListener(key, &l.Listeners[i])
	}
	if l.Waiters > 0 && l.Wait > 2*time.Minute {
		c.add(Problem{Key: "logins.wait", Value: shortDuration(l.Wait), Want: "2m or less", Hint: "mail programs give up earlier, and try again"})
	}
	if l.Spread > 10*time.Minute {
		c.add(Problem{Key: "logins.spread", Value: shortDuration(l.Spread), Want: "10m or less"})
	}
	if l.Suspend > time.Hour {
		c.add(Problem{Key: "logins.suspend", Value: shortDuration(l.Suspend), Want: "1h or less", Hint: "a session that stands still looks dead to its user"})
	}
	f := l.Failures
	if f.MaxDelay < f.Delay {
		c.add(Problem{Key: "logins.failures.max_delay", Value: shortDuration(f.MaxDelay), Want: "at least logins.failures.delay, " + shortDuration(f.Delay)}, "logins.failures.delay")
	}
	if f.MaxDelay > time.Minute {
		c.add(Problem{Key: "logins.failures.max_delay", Value: shortDuration(f.MaxDelay), Want: "1m or less", Hint: "each delayed answer keeps a connection"}, "logins.failures.delay")
	}
	c.positive("logins.failures.window", f.Window)
	if strings.ContainsFunc(l.MasterSeparators, func(r rune) bool { return r <= ' ' || r > '~' || unicode.IsLetter(r) || unicode.IsDigit(r) }) ||
		strings.ContainsAny(l.MasterSeparators, `@.\/-_`) {
		c.add(Problem{Key: "logins.master_separators", Value: show(l.MasterSeparators), Want: "signs that no login has in it, such as *%"})
	}
	if s := c.cfg.Routing.Separator; s != "" && strings.Contains(l.MasterSeparators, s) {
		c.add(Problem{Key: "logins.master_separators", Value: show(l.MasterSeparators), Want: "signs without routing.separator, " + s}, "routing.separator")
	}
	c.loginDomains(l.Domains)
	c.autoconfig(l)
	c.verify(l.Verify.Directory)
}

func (c *checker) loginListener(key string, l *LoginListener) {
	const want = "an IP address and a port, such as 192.0.2.1:993, or :993 for all addresses"
	if !c.missing(key+".address", l.Address, want) && !isListenAddress(l.Address) {
		c.add(Problem{Key: key + ".address", Value: show(l.Address), Want: want})
	}
	c.missing(key+".protocol", string(l.Protocol), oneOf(LoginProtocol("").words()))
	c.nets(key+".proxy_nets", l.ProxyNets)
	c.nets(key+".trusted_nets", l.TrustedNets)

	t := l.TLS
	c.listenerFiles(key, t.Mode, t.CertFile, t.KeyFile)
	host, _, _ := net.SplitHostPort(l.Address)
	switch {
	case t.Mode == ListenerTLSNone && t.Required:
		c.add(Problem{Key: key + ".tls.required", Value: "true", Want: "tls.mode starttls or implicit, or required: false", Hint: "without TLS nobody could log in"}, key+".tls.mode")
	case !t.Required && t.Mode != ListenerTLSImplicit && !isLoopback(host):
		c.warn(Problem{Key: key + ".tls.required", Value: "false", Want: "true", Hint: "passwords may cross the network in plain text"}, key+".tls.mode", key+".address")
	}
	if l.Protocol == LoginSieve && t.Mode == ListenerTLSImplicit {
		c.add(Problem{Key: key + ".tls.mode", Value: show("implicit"), Want: "starttls", Hint: "ManageSieve has no port with TLS from the first byte on (RFC 5804 section 1.8)"}, key+".protocol")
	}

	n, k := &l.Limits, key+".limits."
	if n.Login < time.Minute || n.Login > 3*time.Minute {
		c.add(Problem{Key: k + "login", Value: shortDuration(n.Login), Want: "1m to 3m"})
	}
	if n.Idle > 0 && n.Idle < 30*time.Minute {
		c.add(Problem{Key: k + "idle", Value: shortDuration(n.Idle), Want: "30m or more, or 0s for no limit", Hint: "RFC 9051 section 5.4; the platform ends silent sessions itself"})
	}
	c.positive(k+"write", n.Write)
	c.positive(k+"handshake", n.Handshake)
	if n.LineBytes < 1<<10 || n.LineBytes > 64<<10 {
		c.add(Problem{Key: k + "line_bytes", Value: n.LineBytes.String(), Want: "1KiB to 64KiB"})
	}
	if n.TokenBytes < 1<<10 || n.TokenBytes > 64<<10 {
		c.add(Problem{Key: k + "token_bytes", Value: n.TokenBytes.String(), Want: "1KiB to 64KiB", Hint: "OAuth tokens of Microsoft have 2KiB and more"})
	}
	c.atLeast(k+"errors", n.Errors, 1, "")
	if n.Connections > 0 && n.ConnectionsPerAddress > n.Connections {
		c.add(Problem{Key: k + "connections_per_address", Value: strconv.Itoa(n.ConnectionsPerAddress), Want: fmt.Sprintf("at most connections, %d", n.Connections)}, k+"connections")
	}
}

func (c *checker) loginDomains(domains []LoginDomain) {
	names := make([]string, len(domains))
	for i := range domains {
		names[i] = domains[i].Name
	}
	for i, d := range domains {
		key := itemKey("logins.domains", names, i)
		const want = `the name before the backslash, as in MAIL\anna`
		if !c.missing(key+".name", d.Name, want) && strings.ContainsAny(d.Name, "@\\/ \t") {
			c.add(Problem{Key: key + ".name", Value: show(d.Name), Want: want})
		}
		for _, earlier := range names[:i] {
			if d.Name != "" && strings.EqualFold(d.Name, earlier) {
				c.add(Problem{Key: key + ".name", Value: show(d.Name), Want: "each name once"})
			}
		}
		if d.Suffix != "" && !isHostName(d.Suffix) {
			c.add(Problem{Key: key + ".suffix", Value: show(d.Suffix), Want: "a domain without @, such as agency.example, or nothing"})
		}
	}
}

// autoconfig looks at what mail programs are told.
func (c *checker) autoconfig(l *Logins) {
	a := &l.Autoconfig
	const key = "logins.autoconfig"
	if a.CertFile != "" || a.KeyFile != "" {
		c.keyPair(key, a.CertFile, a.KeyFile)
	}
	c.nets(key+".proxy_nets", a.ProxyNets)
	c.atLeast(key+".connections", a.Connections, 1, "")
	if strings.ContainsFunc(a.Name, unicode.IsControl) {
		c.add(Problem{Key: key + ".name", Value: show(a.Name), Want: "text without control characters"})
	}
	if a.Address == "" {
		if len(a.Servers) > 0 {
			c.add(Problem{Key: key + ".address", Want: "host:port, or no servers", Hint: "without an address nobody is told of them"})
		}
		return
	}
	if !isListenAddress(a.Address) {
		c.add(Problem{Key: key + ".address", Value: show(a.Address), Want: "an IP address or localhost, and a port, such as 127.0.0.1:8080"})
	}
	if len(a.Servers) == 0 {
		c.add(Problem{Key: key + ".servers", Want: "at least one server", Hint: "such as - {listener: imaps, host: mail.example.org, port: 993}"}, key+".address")
	}
	ids := loginListenerIDs(l.Listeners)
	for i, s := range a.Servers {
		k := index(key+".servers", i)
		if c.bad[k] {
			continue
		}
		at := slices.Index(ids, s.Listener)
		switch {
		case at < 0:
			c.add(Problem{Key: k + ".listener", Value: show(s.Listener), Want: "the id of one of logins.listeners"}, "logins.listeners")
		case l.Listeners[at].Protocol == LoginSieve:
			c.add(Problem{Key: k + ".listener", Value: show(s.Listener), Want: "a listener for imap, pop3 or submission", Hint: "autoconfiguration knows no ManageSieve"})
		case l.Listeners[at].TLS.Mode == ListenerTLSNone:
			c.add(Problem{Key: k + ".listener", Value: show(s.Listener), Want: "a listener with TLS", Hint: "mail programs would be told to send passwords in plain text"}, itemKey("logins.listeners", ids, at)+".tls.mode")
		}
		if !c.missing(k+".host", s.Host, "the name by which clients reach the listener") && !isHostName(s.Host) {
			c.add(Problem{Key: k + ".host", Value: show(s.Host), Want: "a host name"})
		}
		if s.Port < 1 || s.Port > 65535 {
			c.add(Problem{Key: k + ".port", Value: strconv.Itoa(s.Port), Want: "1 to 65535"})
		}
	}
}

// eachLoginEndpoint calls f for each endpoint for logins.
func (c *checker) eachLoginEndpoint(f func(key string, protocol LoginProtocol, e *LoginEndpoint)) {
	ids := platformIDs(c.cfg.Platforms)
	for i := range c.cfg.Platforms {
		p, key := &c.cfg.Platforms[i], itemKey("platforms", ids, i)
		if c.bad[key] {
			continue
		}
		for _, protocol := range LoginProtocols {
			if e := p.Login(protocol); e != nil {
				f(key+"."+string(protocol), protocol, e)
			}
		}
	}
}

func (c *checker) loginEndpoint(key string, protocol LoginProtocol, e *LoginEndpoint) {
	c.hosts(key, e.Hosts, "imap.example.org:143")
	t := e.TLS
	policy := key + ".tls.policy"
	if t.Policy == LoginTLSNone {
		for _, h := range e.Hosts {
			if host, _, err := net.SplitHostPort(h); err == nil && !isLoopback(host) {
				c.add(Problem{Key: policy, Value: show("none"), Want: "verified or required", Hint: "passwords would cross the network to " + h + " in plain text; none is for this host alone"}, key+".hosts")
				break
			}
		}
		if t.Implicit {
			c.add(Problem{Key: key + ".tls.implicit", Value: "true", Want: "tls.policy required or verified beside it"}, policy)
		}
	}
	if t.Policy == LoginTLSRequired {
		for _, h := range e.Hosts {
			if host, _, err := net.SplitHostPort(h); err == nil && !isLoopback(host) {
				c.warn(Problem{Key: policy, Value: show("required"), Want: "verified", Hint: "whoever stands between us and " + h + " could read passwords"}, key+".hosts")
				break
			}
		}
	}
	if protocol == LoginSieve && t.Implicit {
		c.add(Problem{Key: key + ".tls.implicit", Value: "true", Want: "false", Hint: "ManageSieve has no port with TLS from the first byte on (RFC 5804 section 1.8)"})
	}
	c.verifiedTLS(key, string(t.Policy), t.Policy == LoginTLSVerified, t.CAFile, t.Pins)
	if t.ServerName != "" {
		if t.Policy == LoginTLSNone {
			c.add(Problem{Key: key + ".tls.server_name", Value: show(t.ServerName), Want: "another tls.policy than none beside it"}, policy)
		}
		if !isHostName(t.ServerName) {
			c.add(Problem{Key: key + ".tls.server_name", Value: show(t.ServerName), Want: "a host name"})
		}
	}
	c.loginAuth(key, e)
	switch {
	case e.ClientIdentity == LoginIdentityID && protocol != LoginIMAP:
		c.add(Problem{Key: key + ".client_identity", Value: show("id"), Want: "none, xclient or proxy-v2", Hint: "ID is a command of IMAP"})
	case e.ClientIdentity == LoginIdentityXClient && protocol == LoginIMAP:
		c.add(Problem{Key: key + ".client_identity", Value: show("xclient"), Want: "none, id or proxy-v2", Hint: "in IMAP it is said by ID"})
	}
	if e.Delegate != "" && e.Delegate != "/" && e.Delegate != `\` {
		c.add(Problem{Key: key + ".delegate", Value: show(e.Delegate), Want: `"/", "\\" or "" for none`})
	}
	for _, d := range []struct {
		key string
		d   time.Duration
	}{
		{".timeouts.dial", e.Timeouts.Dial}, {".timeouts.greeting", e.Timeouts.Greeting},
		{".timeouts.command", e.Timeouts.Command}, {".timeouts.login", e.Timeouts.Login},
	} {
		c.positive(key+d.key, d.d)
	}
}

// loginAuth looks at how clients are logged in at a platform.
func (c *checker) loginAuth(key string, e *LoginEndpoint) {
	a, k, l := &e.Auth, key+".auth.", &c.cfg.Logins
	if a.Mode != AuthMaster {
		if a.User != "" || a.Password.IsSet() || a.Separator != "" {
			c.add(Problem{Key: k + "user", Value: show(a.User), Want: "mode master beside it, or no user, password and separator"}, k+"mode", k+"password")
		}
		return
	}
	if l.Verify.Directory == "" {
		c.add(Problem{Key: "logins.verify.directory", Want: "the one of identity.directories that says whether a client's password is right",
			Hint: "it is missing, and " + k + "mode is master: whoever knows a name would be let in"}, k+"mode")
	}
	if !c.missing(k+"user", a.User, "the master user's name at the platform") && strings.ContainsFunc(a.User, unicode.IsControl) {
		c.add(Problem{Key: k + "user", Value: show(a.User), Want: "a name without control characters"})
	}
	c.missing(k+"password", a.Password.Reveal(), "password_file or password_env")
	switch {
	case a.Separator == "":
	case len(a.Separator) > 1 || !strings.Contains(l.MasterSeparators, a.Separator):
		c.add(Problem{Key: k + "separator", Value: show(a.Separator), Want: `one character of logins.master_separators, or "" for SASL's authzid`, Hint: "else a client could name a master user itself"}, "logins.master_separators")
	case strings.Contains(a.User, a.Separator):
		c.add(Problem{Key: k + "user", Value: show(a.User), Want: "a name without the separator"}, k+"separator")
	}
	if e.Delegate != "" {
		c.add(Problem{Key: key + ".delegate", Value: show(e.Delegate), Want: `"" with auth.mode master`, Hint: "a master user may read every mailbox: nobody would ask whether the user may read another's"}, k+"mode")
	}
}

// verify looks at who says whether a client's password is right.
func (c *checker) verify(name string) {
	const key = "logins.verify.directory"
	if name == "" {
		return
	}
	all := c.cfg.Identity.Directories
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].Name
	}
	at := slices.Index(names, name)
	if at < 0 {
		c.add(Problem{Key: key, Value: show(name), Want: "the name of one of identity.directories"}, "identity.directories")
		return
	}
	d := &all[at]
	for _, server := range d.Servers {
		u, err := url.Parse(server)
		if err == nil && u.Scheme == "ldap" && !d.TLS.StartTLS && !isLoopback(u.Hostname()) {
			c.add(Problem{Key: key, Value: show(name), Want: "a directory whose servers are all ldaps://, or with tls.starttls", Hint: "passwords would cross the network to " + u.Host + " in plain text"},
				itemKey("identity.directories", names, at)+".servers")
			return
		}
	}
}

// loginsServed looks for platforms on which an agency's users could not log in: after a
// switch to one of them a protocol that is served would be gone. A platform without any
// endpoint for logins is taken for a relay, where there are others to move between.
func (c *checker) loginsServed() {
	served := make(map[LoginProtocol]string) // the first listener
	ids := loginListenerIDs(c.cfg.Logins.Listeners)
	for i := range c.cfg.Logins.Listeners {
		if l := &c.cfg.Logins.Listeners[i]; served[l.Protocol] == "" {
			served[l.Protocol] = itemKey("logins.listeners", ids, i)
		}
	}
	delete(served, "")
	if len(served) == 0 {
		return
	}
	takes := func(p *Platform) (any bool) {
		return p.IMAP != nil || p.Submission != nil || p.POP3 != nil || p.Sieve != nil
	}
	able := 0
	for i := range c.cfg.Platforms {
		if takes(&c.cfg.Platforms[i]) {
			able++
		}
	}
	names := platformIDs(c.cfg.Platforms)
	for i := range c.cfg.Platforms {
		p, key := &c.cfg.Platforms[i], itemKey("platforms", names, i)
		if !takes(p) && able >= 2 {
			if string(p.ID) != c.cfg.Notices.Platform {
				c.warn(Problem{Key: key, Want: "endpoints for logins, if mailboxes are ever to be on it", Hint: "an agency that is switched to it could not log in"})
			}
			continue
		}
		for _, protocol := range LoginProtocols {
			if listener := served[protocol]; listener != "" && p.Login(protocol) == nil {
				c.add(Problem{Key: key + "." + string(protocol), Want: "where the platform takes logins by " + string(protocol),
					Hint: "it is missing, and " + listener + " serves it: an agency that is switched to this platform could not log in"}, key, listener+".protocol")
			}
		}
	}
}
