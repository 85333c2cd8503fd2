package relay

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"mailcutover/mail"
	"mailcutover/proxy/dial"
	"mailcutover/routing"
)

// Protocol is what an endpoint speaks.
type Protocol uint8

const (
	ProtocolUnknown Protocol = iota // not set: refused
	ProtocolSMTP                    // RFC 5321; one answer for a message
	ProtocolLMTP                    // RFC 2033; one answer for each recipient
)

// String returns the word used in configuration and logs.
func (p Protocol) String() string {
	switch p {
	case ProtocolSMTP:
		return "smtp"
	case ProtocolLMTP:
		return "lmtp"
	default:
		return "unknown"
	}
}

// ClientIdentity says how the platform is told of the client that brought a message.
type ClientIdentity uint8

const (
	// IdentityNone tells the platform nothing: it sees this node.
	IdentityNone ClientIdentity = iota

	// IdentityXCLIENT makes the platform treat the client as its own peer, with all
	// consequences for access (Postfix XCLIENT_README). A platform that does not
	// announce it gets no mail: it would take the client's mail for ours. A connection
	// then belongs to one client connection and is never used for another.
	IdentityXCLIENT

	// IdentityXFORWARD names the client for the platform's logs only (Postfix
	// XFORWARD_README). Where it is not announced or is refused, mail flows without it.
	IdentityXFORWARD

	// IdentityProxyV2 begins each connection with a PROXY v2 header; it then belongs to
	// one client connection, as with XCLIENT.
	IdentityProxyV2
)

// String returns the word used in configuration and logs.
func (i ClientIdentity) String() string {
	switch i {
	case IdentityNone:
		return "none"
	case IdentityXCLIENT:
		return "xclient"
	case IdentityXFORWARD:
		return "xforward"
	case IdentityProxyV2:
		return "proxy-v2"
	default:
		return "unknown"
	}
}

// Endpoint is the configuration of one platform's endpoint for one origin of mail.
type Endpoint struct {
	Platform routing.PlatformID
	Origin   mail.Origin
	Protocol Protocol

	// Hosts are host:port, at least one. New connections go round among those that
	// are not backing off.
	Hosts []string

	// Helo is our name in EHLO and LHLO: a domain or an address literal.
	Helo string

	// MaxSize is the largest message that the platform takes, in octets as RFC 1870 section
	// 5 counts them: CRLFs included, the final dot and doubled dots not, our own Received
	// line with the rest. 0: what it announces. What it announces counts if that is less.
	MaxSize int64

	TLS      dial.TLS
	Auth     *Auth // nil: no authentication
	Identity ClientIdentity
	Limits   Limits
	Timeouts Timeouts
}

// Limits bound an endpoint's connections. A zero value means the default.
type Limits struct {
	// Connections is how many may be open at once, all hosts together. Default 20,
	// Exchange's MaxInboundConnectionPerSource, which counts for each of its servers
	// and over all endpoints of this node that lead there.
	Connections int

	// MaxAge is how old a connection may be when a transaction begins on it. It has to
	// be below PlatformLimit. Default 5 min, or half of PlatformLimit if that is less.
	MaxAge time.Duration

	// MaxIdle is how long an unused connection is kept. Default 30 s, or a quarter of
	// PlatformLimit if that is less.
	MaxIdle time.Duration

	// MaxMessages is the number of transactions on one connection. Default 1000.
	MaxMessages int

	// PlatformLimit is the time after which the platform closes any connection, as set
	// there (Exchange ConnectionTimeout, 10 min by default). No read or write of ours
	// lasts longer than it after the connection was made; a message in doubt stays so until
	// it has passed (docs/architecture/switch.md, node rule 5). 0: not known.
	PlatformLimit time.Duration

	// QueueWait is how long Open waits for a free connection before ErrBusy.
	// Default 30 s.
	QueueWait time.Duration

	// MaxPause is how long a transaction that has its answers to RCPT may, all in all,
	// leave its connection unused while others wait for one. After that the pool takes
	// the connection for them. Default 2 s.
	MaxPause time.Duration

	// Backoff is how long a host is left alone after its first failure; it doubles up
	// to BackoffMax, each time with up to a quarter of it added or taken away by
	// chance. Default 1 s and 30 s.
	Backoff, BackoffMax time.Duration
}

// Timeouts are how long the platform may take for each answer. The defaults are those
// of RFC 5321 section 4.5.3.2 where it has one. 0 means the default.
type Timeouts struct {
	Dial     time.Duration // TCP connection; default 30 s
	Greeting time.Duration // 220; default 5 min
	Command  time.Duration // EHLO, STARTTLS and the handshake, AUTH, XCLIENT, NOOP; default 5 min
	Mail     time.Duration // MAIL; default 5 min
	Rcpt     time.Duration // each RCPT; default 5 min
	Data     time.Duration // 354; default 2 min
	Block    time.Duration // each write, also of up to 32 KiB of the body; default 3 min
	Dot      time.Duration // each answer to the final dot; default 10 min
	Reset    time.Duration // RSET in Abort, and an answer that comes before its question; default 2 s

	// Unacknowledged is how long sent bytes may stay without the peer's
	// acknowledgement before the kernel gives the connection up (TCP_USER_TIMEOUT,
	// RFC 5482). Linux only. Default 30 s.
	Unacknowledged time.Duration
}

// withDefaults returns e with all zero settings replaced.
func (e Endpoint) withDefaults() Endpoint {
	l, t := &e.Limits, &e.Timeouts
	for _, d := range []struct {
		set *time.Duration
		to  time.Duration
	}{
		{&l.MaxAge, within(5*time.Minute, l.PlatformLimit/2)},
		{&l.MaxIdle, within(30*time.Second, l.PlatformLimit/4)},
		{&l.QueueWait, 30 * time.Second},
		{&l.MaxPause, 2 * time.Second},
		{&l.Backoff, time.Second},
		{&l.BackoffMax, max(30*time.Second, l.Backoff)},
		{&t.Dial, 30 * time.Second},
		{&t.Greeting, 5 * time.Minute},
		{&t.Command, 5 * time.Minute},
		{&t.Mail, 5 * time.Minute},
		{&t.Rcpt, 5 * time.Minute},
		{&t.Data, 2 * time.Minute},
		{&t.Block, 3 * time.Minute},
		{&t.Dot, 10 * time.Minute},
		{&t.Reset, 2 * time.Second},
		{&t.Unacknowledged, 30 * time.Second},
	} {
		if *d.set == 0 {
			*d.set = d.to
		}
	}
	if l.Connections == 0 {
		l.Connections = 20
	}
	if l.MaxMessages == 0 {
		l.MaxMessages = 1000
	}
	return e
}

// within returns d, or limit if that is set and less.
func within(d, limit time.Duration) time.Duration {
	if limit > 0 && limit < d {
		return limit
	}
	return d
}

// Validate returns everything that is wrong with e, joined; nil if nothing is.
func (e Endpoint) Validate() error {
	var errs []error
	bad := func(key string, value any, right string) {
		errs = append(errs, fmt.Errorf("%s %v: %s", key, value, right))
	}
	if e.Platform == "" {
		bad("platform", `""`, "want the platform's id")
	}
	if e.Origin != mail.OriginInside && e.Origin != mail.OriginOutside {
		bad("origin", e.Origin, "want inside or outside")
	}
	if e.Protocol != ProtocolSMTP && e.Protocol != ProtocolLMTP {
		bad("protocol", e.Protocol, "want smtp or lmtp")
	}
	if e.Identity > IdentityProxyV2 {
		bad("identity", e.Identity, "want none, xclient, xforward or proxy-v2")
	}
	if e.MaxSize < 0 {
		bad("size", e.MaxSize, "want a number of octets, or 0 for what the platform announces")
	}
	if err := dial.ValidateHosts(e.Hosts); err != nil {
		errs = append(errs, err)
	}
	if _, err := mail.ParsePath("x@"+e.Helo, false); err != nil {
		bad("helo", fmt.Sprintf("%q", e.Helo), "want this node's domain or an address literal")
	}
	if err := e.TLS.Validate(); err != nil {
		errs = append(errs, err)
	}
	if e.Auth != nil {
		e.Auth.validate(bad)
		if e.TLS.Policy != dial.TLSVerified && slices.ContainsFunc(e.Hosts, func(h string) bool { return !dial.LoopbackHost(h) }) {
			bad("auth", "set", "credentials are sent only with the tls policy verified, or to hosts on loopback addresses")
		}
	}
	e.Limits.validate(bad)
	e.Timeouts.validate(bad)
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("endpoint of platform %s for %s mail: %w", e.Platform, e.Origin, errors.Join(errs...))
}

func (l Limits) validate(bad func(key string, value any, right string)) {
	if l.Connections < 0 || l.Connections > 10000 {
		bad("connections", l.Connections, "want 1 to 10000, or 0 for the default of 20")
	}
	if l.MaxMessages < 0 {
		bad("max-messages", l.MaxMessages, "want 1 or more, or 0 for the default of 1000")
	}
	for _, d := range []struct {
		key string
		d   time.Duration
	}{
		{"max-age", l.MaxAge}, {"max-idle", l.MaxIdle}, {"platform-limit", l.PlatformLimit},
		{"queue-wait", l.QueueWait}, {"max-pause", l.MaxPause}, {"backoff", l.Backoff}, {"backoff-max", l.BackoffMax},
	} {
		if d.d < 0 {
			bad(d.key, d.d, "want a positive duration, or 0 for the default")
		}
	}
	if l.PlatformLimit > 0 && l.MaxAge >= l.PlatformLimit {
		bad("max-age", l.MaxAge, fmt.Sprintf("want less than platform-limit, %s", l.PlatformLimit))
	}
	if l.BackoffMax > 0 && l.BackoffMax < l.Backoff {
		bad("backoff-max", l.BackoffMax, fmt.Sprintf("want at least backoff, %s", l.Backoff))
	}
}

func (t Timeouts) validate(bad func(key string, value any, right string)) {
	for _, d := range []struct {
		key string
		d   time.Duration
	}{
		{"timeout dial", t.Dial}, {"timeout greeting", t.Greeting}, {"timeout command", t.Command},
		{"timeout mail", t.Mail}, {"timeout rcpt", t.Rcpt}, {"timeout data", t.Data},
		{"timeout block", t.Block}, {"timeout dot", t.Dot}, {"timeout reset", t.Reset},
		{"timeout unacknowledged", t.Unacknowledged},
	} {
		if d.d < 0 {
			bad(d.key, d.d, "want a positive duration, or 0 for the default")
		}
	}
}

// Capabilities are what a platform announced in its last EHLO or LHLO.
type Capabilities struct {
	Known        bool  // false until a connection was made
	Size         int64 // largest message in octets (RFC 1870), at most Endpoint.MaxSize; 0: no limit known
	SizeKeyword  bool  // SIZE is announced, with or without a limit
	Pipelining   bool  // RFC 2920
	EightBitMIME bool  // RFC 6152
	SMTPUTF8     bool  // RFC 6531
	DSN          bool  // RFC 3461
	RequireTLS   bool  // RFC 8689
	StartTLS     bool  // RFC 3207; not announced once TLS is on
	TLS          bool  // the connection is encrypted

	auth     []string // mechanisms, capitals
	xclient  []string // attributes, capitals; nil: not announced
	xforward []string
}
