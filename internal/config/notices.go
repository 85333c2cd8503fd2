package config

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"mailcutover/mail"
	"mailcutover/notice"
	"mailcutover/notice/letter"
	"mailcutover/notice/webhook"
	"mailcutover/routing"
)

// Webhook is a program that is told of events.
type Webhook struct {
	Name           string             `config:"name"`
	URL            string             `config:"url"`
	Secret         Secret             `config:"secret"`        // that its calls are signed with
	FormerSecret   Secret             `config:"former_secret"` // signed with as well, while secrets are changed; none: only Secret
	Events         []string           `config:"events"`        // patterns of types; empty: all
	Agencies       []routing.AgencyID `config:"agencies"`      // empty: all, and events of none
	Timeout        time.Duration      `config:"timeout"`       // of one attempt
	CAFile         string             `config:"ca_file" path:"yes"`
	AllowPlaintext bool               `config:"allow_plaintext"` // http://
	AllowLoopback  bool               `config:"allow_loopback"`  // a receiver on this host
}

// Letters is mail about events for people.
type Letters struct {
	Name     string             `config:"name"`
	To       []string           `config:"to"`
	Events   []string           `config:"events"`
	Agencies []routing.AgencyID `config:"agencies"`
	Language Language           `config:"language"`
	Relay    string             `config:"relay"`    // host:port; empty: Platform
	TLS      EndpointTLS        `config:"tls"`      // towards Relay
	Platform string             `config:"platform"` // the one of platforms that takes them; empty: Relay
}

// Language is one in which people are told.
type Language string

const (
	LanguageGerman  Language = "de"
	LanguageEnglish Language = "en"
)

func (Language) words() []string { return []string{"de", "en"} }

// DefaultWebhook returns the settings of a webhook that sets none.
func DefaultWebhook() Webhook { return Webhook{Timeout: 10 * time.Second} }

// DefaultLetters returns the settings of mail notices that set none.
func DefaultLetters() Letters {
	return Letters{Language: LanguageEnglish, TLS: EndpointTLS{Policy: TLSVerified}}
}

func (w *Webhook) setDefaults() { *w = DefaultWebhook() }
func (l *Letters) setDefaults() { *l = DefaultLetters() }

const (
	webhooksKey = "notices.webhooks"
	lettersKey  = "notices.mail"

	longestNotice = time.Minute
)

// notices looks at who is told of events.
func (c *checker) notices(cfg *Config) {
	n := &cfg.Notices
	var taken []string
	ids := make([]string, len(n.Webhooks))
	for i := range n.Webhooks {
		ids[i] = n.Webhooks[i].Name
	}
	for i := range n.Webhooks {
		if key := itemKey(webhooksKey, ids, i); !c.bad[key] {
			c.id(key+".name", ids, i, "webhook")
			c.webhook(key, &n.Webhooks[i])
		}
	}
	taken = ids
	ids = make([]string, len(n.Mail))
	for i := range n.Mail {
		ids[i] = n.Mail[i].Name
	}
	for i := range n.Mail {
		key := itemKey(lettersKey, ids, i)
		if c.bad[key] {
			continue
		}
		c.id(key+".name", ids, i, "mail")
		if ids[i] != "" && slices.Contains(taken, ids[i]) {
			c.add(Problem{Key: key + ".name", Value: show(ids[i]), Want: "a name that no webhook has"})
		}
		c.letters(key, &n.Mail[i], cfg)
	}
	c.mailAddress("notices.from", n.From)
	if n.Templates != "" {
		if _, err := letter.ReadTemplates(n.Templates); err != nil {
			c.add(Problem{Key: "notices.templates", Value: show(n.Templates), Want: "a directory with en.txt or de.txt that can be written with", Hint: err.Error()})
		}
	}
}

// told looks at which events somebody wants.
func (c *checker) told(key string, events []string) {
	for i, pattern := range events {
		if !notice.Matches(pattern) {
			c.add(Problem{Key: index(key+".events", i), Value: show(pattern), Want: "a type of events, or a pattern such as operation.*", Hint: "mailcutover notice events lists the types"})
		}
	}
}

func (c *checker) webhook(key string, w *Webhook) {
	c.told(key, w.Events)
	if !c.missing(key+".url", w.URL, "https://HOST/PATH") {
		switch err := webhook.CheckURL(w.URL, w.AllowPlaintext, w.AllowLoopback); {
		case errors.Is(err, webhook.ErrForbidden):
			c.add(Problem{Key: key + ".url", Want: "https://HOST/PATH on another host", Hint: err.Error() + "; allow_plaintext and allow_loopback take that risk"})
		case err != nil:
			c.add(Problem{Key: key + ".url", Want: "https://HOST/PATH", Hint: err.Error()}) // it may itself be a secret
		}
	}
	if !w.Secret.IsSet() {
		c.add(Problem{Key: key + ".secret_file", Want: "the file with the secret that the receiver knows", Hint: "or secret_env; openssl rand -base64 32 | sed s/^/whsec_/ makes one"}, key+".secret", key+".secret_env")
	}
	for name, s := range map[string]Secret{"secret": w.Secret, "former_secret": w.FormerSecret} {
		if !s.IsSet() {
			continue
		}
		if _, err := webhook.ParseSecret(s.Reveal()); err != nil {
			c.add(Problem{Key: key + "." + name, Want: "24 bytes or more, as text or as whsec_ and base64", Hint: err.Error()})
		}
	}
	if w.Timeout <= 0 || w.Timeout > longestNotice {
		c.add(Problem{Key: key + ".timeout", Value: shortDuration(w.Timeout), Want: "more than 0s, and " + shortDuration(longestNotice) + " at most"})
	}
	if w.CAFile != "" {
		c.roots(key+".ca_file", w.CAFile)
	}
}

func (c *checker) letters(key string, l *Letters, cfg *Config) {
	c.told(key, l.Events)
	if len(l.To) == 0 {
		c.add(Problem{Key: key + ".to", Want: "one address or more"})
	}
	for i, to := range l.To {
		if p, err := mail.ParsePath(to, false); err != nil || p.IsNull() {
			c.add(Problem{Key: index(key+".to", i), Value: show(to), Want: "an address, such as night@example.org"})
		}
	}
	switch {
	case (l.Relay == "") == (l.Platform == ""):
		c.add(Problem{Key: key + ".relay", Value: show(l.Relay), Want: "host:port of a relay, or platform, one of them"}, key+".platform")
	case l.Platform != "" && !slices.ContainsFunc(cfg.Platforms, func(p Platform) bool { return string(p.ID) == l.Platform }):
		c.add(Problem{Key: key + ".platform", Value: show(l.Platform), Want: "the id of one of platforms"}, "platforms")
	case l.Relay != "" && !isHostPort(l.Relay):
		c.add(Problem{Key: key + ".relay", Value: show(l.Relay), Want: "host:port, such as relay.example.org:25"})
	}
	host, _, _ := net.SplitHostPort(l.Relay)
	if l.Relay != "" && l.TLS.Policy == TLSVerified && isLoopback(host) && l.TLS.CAFile == "" && len(l.TLS.Pins) == 0 && l.TLS.ServerName == "" {
		c.warn(Problem{Key: key + ".tls.policy", Value: "verified", Want: fmt.Sprintf("none, for a relay at %s without a certificate", host), Hint: "it is on this host"})
	}
	c.endpointTLS(key, &Endpoint{TLS: l.TLS})
}
