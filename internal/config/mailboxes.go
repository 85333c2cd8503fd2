package config

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"mailcutover/proxy/dial"
	"mailcutover/rollback/mailstore"
)

// Mailboxes is how we read and write a platform's mailboxes, over IMAP. Without it nothing is
// brought back from there or to there, and nothing is compared.
type Mailboxes struct {
	Hosts []string    `config:"hosts"` // host:port; empty: those of the platform's imap, and its TLS
	TLS   LoginTLS    `config:"tls"`
	Auth  MailboxAuth `config:"auth"`

	Connections int           `config:"connections"` // at once, per node
	Rate        Rate          `config:"rate"`        // of all connections of a node; 0: no limit
	Dial        time.Duration `config:"dial"`
	Command     time.Duration `config:"command"` // how long a command may take, besides the time for its bytes
	MessageSize Size          `config:"message_size"`
	Retry       MailboxRetry  `config:"retry"`
	NotMail     []string      `config:"not_mail"` // folders that hold no mail
}

// MailboxMode is with whose credentials mailboxes are opened.
type MailboxMode string

const (
	MailboxMaster    MailboxMode = "master"    // a master user's (Dovecot)
	MailboxDelegated MailboxMode = "delegated" // a service account's, with a name made of a form (Exchange)
	MailboxOAuth     MailboxMode = "oauth"     // a token of a service account
)

func (MailboxMode) words() []string { return []string{"master", "delegated", "oauth"} }

// MailboxAuth is how we log in at mailboxes.
type MailboxAuth struct {
	Mode      MailboxMode  `config:"mode"`
	User      string       `config:"user"`
	Password  Secret       `config:"password"`
	Separator string       `config:"separator"` // of master: LOGIN*USER as one name; empty: SASL's authzid
	Form      string       `config:"form"`      // of delegated: {user} and {login} are filled in
	Token     MailboxToken `config:"token"`     // of oauth
}

// MailboxToken is where a service account's token comes from: a file that somebody else keeps fresh,
// or client credentials (RFC 6749 section 4.4).
type MailboxToken struct {
	File         string `config:"file" path:"yes"`
	URL          string `config:"url"`
	ClientID     string `config:"client_id"`
	ClientSecret Secret `config:"client_secret"`
	Scope        string `config:"scope"`
}

// MailboxRetry is how long a platform that asks for time is given it.
type MailboxRetry struct {
	First time.Duration `config:"first"` // doubled each time
	Max   time.Duration `config:"max"`   // for one command in all
}

// Recall is what brings mail from one platform to the other.
type Recall struct {
	Workers           int           `config:"workers"`             // mailboxes at once, per node
	MessagesPerSecond int           `config:"messages_per_second"` // per run and node; 0: no limit
	Settle            time.Duration `config:"settle"`              // between two passes over a mailbox
	Folders           []RoleFolders `config:"folders"`
}

// FolderRole is what a folder is for.
type FolderRole string

func (FolderRole) words() []string { return []string{"sent", "drafts", "trash", "junk", "archive"} }

// RoleFolders are further names of folders with a role, besides those that are known.
type RoleFolders struct {
	Role  FolderRole `config:"role"`
	Names []string   `config:"names"`
}

// DefaultMailboxes returns the settings of a section that sets none. User and password have no
// default.
func DefaultMailboxes() Mailboxes {
	return Mailboxes{
		TLS: LoginTLS{Policy: LoginTLSVerified}, Auth: MailboxAuth{Mode: MailboxMaster},
		Connections: 8, Dial: 10 * time.Second, Command: time.Minute,
		Retry: MailboxRetry{First: 2 * time.Second, Max: 2 * time.Minute},
	}
}

func (m *Mailboxes) setDefaults() { *m = DefaultMailboxes() }

func defaultRecall() Recall { return Recall{Workers: 8, Settle: 10 * time.Second} }

// mailboxTLS is the TLS towards a platform's mailboxes, and where they are.
func (p *Platform) mailboxHosts() ([]string, LoginTLS) {
	if len(p.Mailboxes.Hosts) == 0 && p.IMAP != nil {
		return p.IMAP.Hosts, p.IMAP.TLS
	}
	return p.Mailboxes.Hosts, p.Mailboxes.TLS
}

// MailboxOptions returns the settings of a platform's mailboxes for package mailstore. It must
// have Mailboxes.
func (c *Config) MailboxOptions(p *Platform, log *slog.Logger) (mailstore.Options, error) {
	m := p.Mailboxes
	hosts, t := p.mailboxHosts()
	o := mailstore.Options{
		Platform: p.ID, Hosts: hosts, Implicit: t.Implicit, Connections: m.Connections, Bytes: int64(m.Rate), Dial: m.Dial, Command: m.Command,
		MessageSize: int64(m.MessageSize), RetryFirst: m.Retry.First, RetryMax: m.Retry.Max, Installation: c.Installation,
		NotMail: m.NotMail, Names: make(map[mailstore.Role][]string), Logger: log,
	}
	for _, f := range c.Recall.Folders {
		if role, ok := mailstore.ParseRole(string(f.Role)); ok {
			o.Names[role] = append(o.Names[role], f.Names...)
		}
	}
	o.Access = mailstore.Access{User: m.Auth.User, Password: m.Auth.Password.Reveal(), Separator: m.Auth.Separator, Form: m.Auth.Form}
	switch m.Auth.Mode {
	case MailboxDelegated:
		o.Access.Mode = mailstore.ModeDelegated
	case MailboxOAuth:
		o.Access.Mode = mailstore.ModeOAuth
		o.Access.Token = m.Auth.Token.source()
	default:
		o.Access.Mode = mailstore.ModeMaster
		if m.Auth.Separator != "" {
			o.Access.Mode = mailstore.ModeMasterName
		}
	}
	if t.Policy == LoginTLSNone {
		return o, nil
	}
	way := dial.TLS{Policy: dial.TLSVerified, Implicit: t.Implicit, ServerName: t.ServerName}
	if t.Policy == LoginTLSRequired {
		way.Policy = dial.TLSRequired
	}
	for _, pin := range t.Pins {
		way.Pins = append(way.Pins, [sha256.Size]byte(pin))
	}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return o, fmt.Errorf("mailboxes of platform %s: %w", p.ID, err)
		}
		way.CA = x509.NewCertPool()
		if !way.CA.AppendCertsFromPEM(pem) {
			return o, fmt.Errorf("mailboxes of platform %s: no certificate in %s", p.ID, t.CAFile)
		}
	}
	o.TLS = func(host string) *tls.Config { return way.Config(host) }
	return o, nil
}

// source returns what gets the tokens.
func (t *MailboxToken) source() mailstore.Token {
	if t.File != "" {
		return mailstore.TokenFile(t.File)
	}
	return mailstore.NewClientCredentials(mailstore.ClientCredentials{URL: t.URL, ClientID: t.ClientID, Secret: t.ClientSecret.Reveal(), Scope: t.Scope})
}

// onNetwork reports whether a host:port isn't this host's.
func onNetwork(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	return err == nil && !isLoopback(host)
}
