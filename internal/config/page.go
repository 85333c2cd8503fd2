package config

import "net"

// Page is the web page for the people in charge.
type Page struct {
	Address        string   `config:"address" restart:"yes"` // host:port; empty: there is none
	AllowPlaintext bool     `config:"allow_plaintext" restart:"yes"`
	TLS            AdminTLS `config:"tls"`

	// ProgressKey makes the links of the progress pages that an agency's staff gets; another one
	// makes other links. None: there are no such pages.
	ProgressKey Secret `config:"progress_key"`
}

// minProgressKey is how long the key must be that nobody is to guess.
const minProgressKey = 16

// page checks where people look and act.
func (c *checker) page(p *Page) {
	if p.Address == "" {
		if p.TLS.CertFile != "" || p.TLS.KeyFile != "" || p.ProgressKey.Reveal() != "" {
			c.add(Problem{Key: "page.address", Want: "host:port, or nothing else under page", Hint: "without an address there is no page"})
		}
		return
	}
	if !isListenAddress(p.Address) {
		c.add(Problem{Key: "page.address", Value: show(p.Address), Want: "an IP address or localhost, and a port, such as 127.0.0.1:8026"})
	}
	tls := p.TLS.CertFile != "" || p.TLS.KeyFile != ""
	if tls {
		c.keyPair("page.tls", p.TLS.CertFile, p.TLS.KeyFile)
	}
	host, _, _ := net.SplitHostPort(p.Address)
	switch {
	case tls && p.AllowPlaintext:
		c.add(Problem{Key: "page.allow_plaintext", Value: "true", Want: "false, or no page.tls", Hint: "with a certificate the page speaks only TLS"}, "page.tls")
	case !tls && !p.AllowPlaintext && !isLoopback(host):
		c.add(Problem{Key: "page.address", Value: show(p.Address), Want: "an address of this host, such as 127.0.0.1:8026, or page.tls",
			Hint: "tokens and sessions would cross the network in plain text; page.allow_plaintext: true takes that risk"}, "page.tls", "page.tls.cert_file", "page.tls.key_file", "page.allow_plaintext")
	}
	if k := p.ProgressKey.Reveal(); k != "" && len(k) < minProgressKey {
		c.add(Problem{Key: "page.progress_key", Want: "at least 16 characters", Hint: "openssl rand -hex 16"})
	}
}
