package config

import (
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// mailboxes looks at how the platforms' mailboxes are read.
func (c *checker) mailboxes() {
	ids := platformIDs(c.cfg.Platforms)
	for i := range c.cfg.Platforms {
		p, key := &c.cfg.Platforms[i], itemKey("platforms", ids, i)+".mailboxes"
		if p.Mailboxes == nil || c.bad[itemKey("platforms", ids, i)] || c.bad[key] {
			continue
		}
		c.mailboxHosts(key, p)
		c.mailboxAuth(key+".auth.", p)
		m := p.Mailboxes
		c.atLeast(key+".connections", m.Connections, 1, "")
		c.positive(key+".dial", m.Dial)
		c.positive(key+".command", m.Command)
		c.positive(key+".retry.first", m.Retry.First)
		if m.Retry.Max < m.Retry.First {
			c.add(Problem{Key: key + ".retry.max", Value: shortDuration(m.Retry.Max), Want: "at least retry.first, " + shortDuration(m.Retry.First)}, key+".retry.first")
		}
	}
	c.recall()
	c.comparing()
}

func (c *checker) mailboxHosts(key string, p *Platform) {
	m := p.Mailboxes
	if len(m.Hosts) == 0 {
		if p.IMAP == nil {
			c.add(Problem{Key: key + ".hosts", Want: "host:port, such as imap.example.org:993", Hint: "it is missing, and the platform has no imap to take it from"})
		}
		return
	}
	c.hosts(key, m.Hosts, "imap.example.org:993")
	t := m.TLS
	if t.Policy == LoginTLSNone && t.Implicit {
		c.add(Problem{Key: key + ".tls.implicit", Value: "true", Want: "tls.policy required or verified beside it"}, key+".tls.policy")
	}
	if i := slices.IndexFunc(m.Hosts, onNetwork); i >= 0 {
		switch t.Policy {
		case LoginTLSNone:
			c.add(Problem{Key: key + ".tls.policy", Value: show("none"), Want: "verified or required", Hint: "a password for all mailboxes would cross the network to " + m.Hosts[i] + " in plain text"}, key+".hosts")
		case LoginTLSRequired:
			c.warn(Problem{Key: key + ".tls.policy", Value: show("required"), Want: "verified", Hint: "whoever stands between us and " + m.Hosts[i] + " could read a password for all mailboxes"}, key+".hosts")
		}
	}
	c.verifiedTLS(key, string(t.Policy), t.Policy == LoginTLSVerified, t.CAFile, t.Pins)
	if n := t.ServerName; n != "" && !isHostName(n) {
		c.add(Problem{Key: key + ".tls.server_name", Value: show(n), Want: "a host name"})
	}
}

func (c *checker) mailboxAuth(key string, p *Platform) {
	a := &p.Mailboxes.Auth
	if a.Mode == MailboxOAuth {
		if a.User != "" || a.Password.IsSet() {
			c.add(Problem{Key: key + "user", Value: show(a.User), Want: "mode master or delegated, or neither user nor password"}, key+"mode", key+"password")
		}
		c.mailboxToken(key+"token.", &a.Token)
	} else {
		if !c.missing(key+"user", a.User, "the account that may open all mailboxes") && strings.ContainsFunc(a.User, unicode.IsControl) {
			c.add(Problem{Key: key + "user", Value: show(a.User), Want: "a name without control characters"})
		}
		c.missing(key+"password", a.Password.Reveal(), "password_file or password_env")
		if a.Token.File != "" || a.Token.URL != "" {
			c.add(Problem{Key: key + "token", Want: "mode oauth beside it"}, key+"mode")
		}
	}
	if a.Mode == MailboxDelegated {
		if !c.missing(key+"form", a.Form, `how a login is made of the account and the mailbox, such as EXAMPLE\{user}\{login}`) && !strings.Contains(a.Form, "{login}") {
			c.add(Problem{Key: key + "form", Value: show(a.Form), Want: "a form with {login} in it", Hint: "else one mailbox would be opened for all"})
		}
	} else if a.Form != "" {
		c.add(Problem{Key: key + "form", Value: show(a.Form), Want: "mode delegated beside it"}, key+"mode")
	}
	if a.Separator != "" && (a.Mode != MailboxMaster || len(a.Separator) > 1) {
		c.add(Problem{Key: key + "separator", Value: show(a.Separator), Want: "one character, with mode master; or empty"}, key+"mode")
	}
}

func (c *checker) mailboxToken(key string, t *MailboxToken) {
	switch {
	case t.File != "" && t.URL != "":
		c.add(Problem{Key: key + "url", Value: show(t.URL), Want: "either file or url"})
	case t.File != "":
		c.readable(key+"file", t.File)
	case !c.missing(key+"url", t.URL, "a file with a token, or https://HOST/PATH that gives one"):
		u, err := url.Parse(t.URL)
		if err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(u.Hostname())) {
			c.add(Problem{Key: key + "url", Value: show(t.URL), Want: "https://HOST/PATH"})
		}
		c.missing(key+"client_id", t.ClientID, "the id of our client at the url")
		c.missing(key+"client_secret", t.ClientSecret.Reveal(), "client_secret_file or client_secret_env")
	}
}

// recall looks at what brings mail over.
func (c *checker) recall() {
	r := &c.cfg.Recall
	c.atLeast("recall.workers", r.Workers, 1, "")
	c.positive("recall.settle", r.Settle)
	roles := make([]string, len(r.Folders))
	for i := range r.Folders {
		roles[i] = string(r.Folders[i].Role)
	}
	for i := range r.Folders {
		key := itemKey("recall.folders", roles, i)
		if c.bad[key] {
			continue
		}
		c.missing(key+".role", roles[i], oneOf(FolderRole("").words()))
		if slices.Contains(roles[:i], roles[i]) && roles[i] != "" {
			c.add(Problem{Key: key + ".role", Value: show(roles[i]), Want: "each role once"})
		}
		if len(r.Folders[i].Names) == 0 {
			c.add(Problem{Key: key + ".names", Want: "names of folders"})
		}
	}
}
