package login

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"mailcutover/node"
	"mailcutover/proxy/dial"
	"mailcutover/proxy/listen"
	"mailcutover/routing"
)

// Options are what a [Proxy] needs. They don't change while it runs; its endpoints do
// ([Proxy.SetEndpoints]).
type Options struct {
	Gate     *node.Gate
	Hostname string // of this node, for greetings and towards platforms

	// Separator is that of sub-addressing, as for mail; empty: none.
	Separator string
	// Domains are what DOMAIN in DOMAIN\user may be where the table doesn't list the name.
	Domains []Domain
	// MasterSeparators are the characters with which a platform lets a master user log in for
	// others; a name with one of them is refused. Empty: none is.
	MasterSeparators string

	Wait    time.Duration // how long a login waits for a closed agency to open; 0: not at all
	Waiters int           // logins that wait at once, on this node; 0: none
	Spread  time.Duration // within which the clients of an agency that closes are told; 0: at once
	Suspend time.Duration // how long a session stands still without the right to decide; 0: it ends at once

	// Quota is what clients of all servers may take together, sessions included: of descriptors,
	// two each. nil: no limit.
	Quota *listen.Quota

	SessionsPerMailbox int // on this node; 0: no limit
	SessionsPerAddress int // of one client address; 0: no limit

	Failures Failures
	Verifier Verifier // checks clients' credentials where an endpoint has a master user; nil: nobody does

	Alarms   Alarms       // nil: none is raised
	Observer Observer     // nil: nothing is counted
	Logger   *slog.Logger // nil: nothing is logged
}

// Domain is a name as in DOMAIN\user.
type Domain struct {
	Name   string // case doesn't matter
	Suffix string // the user is looked up as user@suffix; empty: as user
}

// Failures bounds how passwords can be guessed. What is counted is forgotten evenly: one of
// PerName, or PerNet, after each PerName-th, or PerNet-th, part of Window.
type Failures struct {
	Delay    time.Duration // of the answer to a name's, or net's, first failure; doubled with each; 0: none
	MaxDelay time.Duration // the longest; 0: Delay
	PerName  int           // failures of one name from one net (IPv4 /24, IPv6 /64) within Window; more are refused; 0: no limit
	PerNet   int           // of one net, all names together; 0: no limit
	Window   time.Duration // 0: 10 minutes
}

// Verifier checks the credentials of a client that an endpoint's master user logs in.
type Verifier interface {
	// Verify returns nil if a's secret is that of the mailbox's user, an error that wraps
	// ErrRefused if the user isn't to get in with it, and any other error if that can't be said.
	// It ends with ctx, and within a time of its own; it doesn't keep the secret.
	Verify(ctx context.Context, mailbox routing.MailboxID, a *Attempt) error
}

// ErrRefused is for a [Verifier] to wrap: whom it asked has refused the credentials.
var ErrRefused = errors.New("credentials refused")

// Alarms takes what a human has to see. *alarm.Set is one.
type Alarms interface {
	Raise(key, text string)
	Clear(key string) bool
}

// Observer counts. Its methods are called from many goroutines at once and must not block.
type Observer interface {
	// LoginEnded tells of each login: cause is "ok", or a [Cause]'s word; platform is empty
	// where none was found.
	LoginEnded(protocol, cause string, platform routing.PlatformID, took time.Duration)
	// SessionOpened and SessionEnded are called in pairs. by says what ended it, in one word.
	SessionOpened(protocol string, platform routing.PlatformID)
	SessionEnded(protocol string, platform routing.PlatformID, by string, toPlatform, toClient int64, lasted time.Duration)
	// SessionSuspended tells of a session that stands still.
	SessionSuspended(protocol string)
}

type silent struct{}

func (silent) LoginEnded(string, string, routing.PlatformID, time.Duration)                 {}
func (silent) SessionOpened(string, routing.PlatformID)                                     {}
func (silent) SessionEnded(string, routing.PlatformID, string, int64, int64, time.Duration) {}
func (silent) SessionSuspended(string)                                                      {}
func (silent) Raise(string, string)                                                         {}
func (silent) Clear(string) bool                                                            { return false }

// Endpoint is where a platform takes logins of one protocol.
type Endpoint struct {
	Platform routing.PlatformID
	Protocol string        // as Dialogue.Protocol
	Way      dial.Endpoint // hosts, TLS, and how long dialling may take; Way.Platform is set to Platform

	Greeting time.Duration // the longest wait for the platform's first bytes; 0: 30 s
	Answer   time.Duration // for each of its answers; 0: 30 s
	Login    time.Duration // for its answer to credentials: platforms delay the wrong ones; 0: 1 min

	Identity Identity

	// Delegate is what the platform has between a user's name and that of another mailbox which
	// the user has access to; empty: it has no such logins.
	Delegate string

	// Master logs clients in instead of their own credentials; it needs Options.Verifier, and
	// allows no Delegate, since the platform couldn't say who may read what. nil: the client's
	// are passed on.
	Master *Master
}

// Listener are the settings of one listener.
type Listener struct {
	ID       string
	Dialogue Dialogue

	TLS        func() *tls.Config // the configuration of the next handshake (listen.NewTLS); nil: no TLS
	Implicit   bool               // TLS from the first byte on (RFC 8314)
	RequireTLS bool               // no credentials are taken without TLS

	ProxyNets   []netip.Prefix // peers that must send a PROXY header
	TrustedNets []netip.Prefix // clients whose failures are neither counted nor delayed

	Connections           int // at once; 0: no limit
	ConnectionsPerAddress int // of one client address; 0: no limit
	LineBytes             int // the longest line of a command, with CRLF; 0: 8192
	TokenBytes            int // the longest literal, initial response or answer to a challenge; 0: 12288
	Errors                int // commands that may be malformed, out of order or unknown; 0: 10

	Login     time.Duration // from the connection to the login; 0: 1 min
	Write     time.Duration // the longest that writing an answer may take; 0: 30 s
	Handshake time.Duration // of TLS, and of a PROXY header; 0: 30 s
	Idle      time.Duration // after the login, with no byte in either direction; 0: no end

	// Offers is what is announced in the name of all platforms; nil: nothing.
	Offers func() Offers

	Observer listen.Observer // of connections; nil: nothing is counted
}

// validate returns all that is wrong with o, joined.
func (o *Options) validate() error {
	var errs []error
	if o.Gate == nil {
		errs = append(errs, errors.New("no gate"))
	}
	if o.Hostname == "" {
		errs = append(errs, errors.New("hostname: empty"))
	}
	for _, d := range []struct {
		key string
		d   time.Duration
	}{
		{"wait", o.Wait}, {"spread", o.Spread}, {"suspend", o.Suspend},
		{"failures delay", o.Failures.Delay}, {"failures max delay", o.Failures.MaxDelay}, {"failures window", o.Failures.Window},
	} {
		if d.d < 0 {
			errs = append(errs, fmt.Errorf("%s %v: negative", d.key, d.d))
		}
	}
	for _, n := range []struct {
		key string
		n   int
	}{
		{"waiters", o.Waiters}, {"sessions per mailbox", o.SessionsPerMailbox}, {"sessions per address", o.SessionsPerAddress},
		{"failures per name", o.Failures.PerName}, {"failures per net", o.Failures.PerNet},
	} {
		if n.n < 0 {
			errs = append(errs, fmt.Errorf("%s %d: negative", n.key, n.n))
		}
	}
	for _, d := range o.Domains {
		if d.Name == "" || strings.ContainsAny(d.Name, `\/@`) {
			errs = append(errs, fmt.Errorf("domain %q: want a name without \\, / and @", d.Name))
		}
	}
	return errors.Join(errs...)
}

// withDefaults returns l with the zero settings replaced.
func (l Listener) withDefaults() Listener {
	for _, n := range []struct {
		set *int
		to  int
	}{{&l.LineBytes, 8192}, {&l.TokenBytes, 12288}, {&l.Errors, 10}} {
		if *n.set == 0 {
			*n.set = n.to
		}
	}
	for _, d := range []struct {
		set *time.Duration
		to  time.Duration
	}{{&l.Login, time.Minute}, {&l.Write, defaultWrite}, {&l.Handshake, defaultWrite}} {
		if *d.set == 0 {
			*d.set = d.to
		}
	}
	if l.Offers == nil {
		l.Offers = func() Offers { return Offers{} }
	}
	return l
}
