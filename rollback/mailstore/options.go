package mailstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"mailcutover/routing"
)

// Mode is how we log in at mailboxes that are others'.
type Mode uint8

const (
	ModeUnknown    Mode = iota // refused
	ModeMaster                 // a master user, with the mailbox as authorization identity (Dovecot)
	ModeMasterName             // a master user, with login, separator and master's name as one name
	ModeDelegated              // a service account, with a name made of a form (Exchange: DOMAIN\account\mailbox)
	ModeOAuth                  // a token of a service account (XOAUTH2, OAUTHBEARER)
)

// Token is where the token of ModeOAuth comes from.
type Token interface {
	// Token returns one that is valid now. After a refusal it is called with the refused one,
	// so that it isn't taken from memory again.
	Token(ctx context.Context, refused string) (string, error)
}

// Access is with whose credentials mailboxes are opened.
type Access struct {
	Mode      Mode
	User      string // the master's, or the service account's
	Password  string
	Separator string // of ModeMasterName; empty: *
	// Form makes the name of ModeDelegated: {user} is User, {login} the mailbox's login.
	Form  string
	Token Token // of ModeOAuth
}

// Options are the settings of a platform's mailboxes. Zero values of all but Platform,
// Hosts and Access have a meaning of their own.
type Options struct {
	Platform routing.PlatformID // names it in logs and errors
	Hosts    []string           // host:port; the next one is taken when one can't be reached

	// TLS returns the settings for a host; nil: plain text, on this host only. Implicit
	// speaks TLS from the first byte on, else STARTTLS has to succeed.
	TLS      func(host string) *tls.Config
	Implicit bool

	Access Access

	Connections int           // at once; 0: 8
	Bytes       int64         // a second, of all connections together; 0: no limit
	Command     time.Duration // how long a command may take, besides the time for its bytes; 0: 60 s
	Dial        time.Duration // for the connection; 0: 10 s
	MessageSize int64         // the largest message; 0: what the platform says by APPENDLIMIT (RFC 7889)
	RetryFirst  time.Duration // pause when the platform asks for time, doubled each time; 0: 2 s
	RetryMax    time.Duration // the longest, and how long a command is repeated in all; 0: 2 min

	Installation string            // word that tells our Received lines, as of msgkey.Parse
	Names        map[Role][]string // further names of folders with a role
	NotMail      []string          // folders that hold no mail, such as Calendar, with what is below them

	Logger *slog.Logger // nil: nothing is logged
	// Dialer makes the connections instead of net.Dialer. For tests.
	Dialer func(ctx context.Context, network, address string) (net.Conn, error)
}

// check returns all that is wrong with o.
func (o *Options) check() error {
	var errs []error
	if o.Platform == "" {
		errs = append(errs, errors.New("no platform"))
	}
	if len(o.Hosts) == 0 {
		errs = append(errs, errors.New("no hosts"))
	}
	switch a := o.Access; a.Mode {
	case ModeMaster, ModeMasterName, ModeDelegated:
		if a.User == "" || a.Password == "" {
			errs = append(errs, errors.New("no user, or no password"))
		}
	case ModeOAuth:
		if a.Token == nil {
			errs = append(errs, errors.New("no source of tokens"))
		}
	default:
		errs = append(errs, fmt.Errorf("mode %d: want one of the known", a.Mode))
	}
	if o.Access.Mode == ModeDelegated && o.Access.Form == "" {
		errs = append(errs, errors.New("no form for names"))
	}
	for _, d := range []time.Duration{o.Command, o.Dial, o.RetryFirst, o.RetryMax} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("duration %v: want 0 or more", d))
		}
	}
	if o.Connections < 0 || o.Bytes < 0 || o.MessageSize < 0 {
		errs = append(errs, errors.New("a bound below 0"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("mailboxes of platform %s: %w", o.Platform, err)
	}
	return nil
}

// withDefaults returns o with all zero settings replaced.
func (o Options) withDefaults() Options {
	for _, d := range []struct {
		set *time.Duration
		to  time.Duration
	}{{&o.Command, time.Minute}, {&o.Dial, 10 * time.Second}, {&o.RetryFirst, 2 * time.Second}, {&o.RetryMax, 2 * time.Minute}} {
		if *d.set == 0 {
			*d.set = d.to
		}
	}
	if o.Connections == 0 {
		o.Connections = 8
	}
	if o.Access.Separator == "" {
		o.Access.Separator = "*"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Dialer == nil {
		o.Dialer = (&net.Dialer{}).DialContext
	}
	return o
}
