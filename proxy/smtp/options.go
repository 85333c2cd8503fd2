package smtp

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"mailcutover/mail"
	"mailcutover/proxy/listen"
)

// Protocol is what a listener speaks.
type Protocol uint8

const (
	ProtocolUnknown Protocol = iota // not set: refused by NewServer
	ProtocolSMTP                    // RFC 5321: one answer for a message
	ProtocolLMTP                    // RFC 2033: an answer for each recipient
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

// BareLineEnds says what is done with a message that has CR without LF or LF without CR.
type BareLineEnds uint8

const (
	BareUnknown BareLineEnds = iota // not set: refused by NewServer
	BareRepair                      // each is made CRLF, and counted
	BareRefuse                      // the message is answered 550 5.6.0 after its end
)

// String returns the word used in configuration and logs.
func (b BareLineEnds) String() string {
	switch b {
	case BareRepair:
		return "repair"
	case BareRefuse:
		return "refuse"
	default:
		return "unknown"
	}
}

// Options are the settings of one listener. Start from [DefaultOptions]: a zero is
// taken as written, and means "none" or "no limit" only where the field says so.
type Options struct {
	ID       string      // names the listener in logs and metrics
	Protocol Protocol    // SMTP or LMTP
	Hostname string      // our name in the greeting and in EHLO's answer
	Origin   mail.Origin // of the mail that comes in here, but for InsideNets

	// InsideNets are the client nets whose mail has origin inside whatever Origin says.
	// The client is the peer, or whom its PROXY header named.
	InsideNets []netip.Prefix

	// TLSConfig returns the configuration for the next handshake, so that certificates
	// can change while connections live. nil means no TLS. It should return the same
	// pointer as long as nothing changes, or session tickets don't outlive a call.
	// Whatever it says, only TLS 1.3 and TLS 1.2 with ECDHE and an AEAD are spoken.
	TLSConfig   func() *tls.Config
	ImplicitTLS bool // TLS from the first byte on (RFC 8314 section 3)
	RequireTLS  bool // MAIL is answered 530 5.7.0 without TLS

	// XForwardNets are the client nets that may say by XFORWARD for whom they speak.
	XForwardNets []netip.Prefix

	// Quota is what the connections of this server and others may take together, 1 each here; nil:
	// no limit. 421 4.3.2 for more.
	Quota *listen.Quota

	// ProxyNets are the peers that must send a PROXY header, version 1 or 2, before
	// anything else. One of theirs that doesn't, and anyone else who does, is cut off
	// without an answer.
	ProxyNets []netip.Prefix

	// AnnounceSize returns the SIZE to announce, in octets (RFC 1870); 0, or a nil
	// function, announces Limits.MessageBytes. It never raises that limit.
	AnnounceSize func() int64
	// Announce8Bit and AnnounceUTF8 tell whether 8BITMIME and SMTPUTF8 are offered. A
	// nil function means yes. They are asked at each EHLO and LHLO; what was not
	// offered there is refused as a parameter.
	Announce8Bit func() bool
	AnnounceUTF8 func() bool

	// Resting reports whether the node takes no new mail for now: then a new connection is
	// answered 421 4.3.2 in place of the greeting, and one that is there at its next command
	// without a transaction, so that a relay takes another of its hosts (RFC 5321 section 5.1).
	// What was begun may end. Nil means no.
	Resting func() bool

	BareLineEnds BareLineEnds
	Limits       Limits

	Logger   *slog.Logger // nil: nothing is logged
	Observer Observer     // nil: nothing is counted
}

// Limits bound what a peer can take of us.
type Limits struct {
	// CommandBytes is the longest command line, CRLF included; RFC 5321 section
	// 4.5.3.1.4 and the extensions want 512 and more, XFORWARD and ORCPT take the rest.
	// A longer one is answered 500 5.5.2; beyond sixteen times as much the connection ends.
	CommandBytes int
	// Recipients is how many of a transaction may be accepted, and how many refused; 452
	// 4.5.3 for those beyond. RFC 5321 section 4.5.3.1.8 asks for 100 at least.
	Recipients int
	// Transactions is how many a connection may begin; 421 4.7.0 then. 0: no limit.
	Transactions int
	// Errors is how many commands may be malformed, out of order or unknown between two
	// accepted messages; the next is answered 421 4.7.0. What a session refuses is
	// not counted here.
	Errors int
	// Refusals is how many recipients a session may refuse for good (5yz), or because
	// it doesn't know them (451 4.1.1), between two accepted messages; at the next, if
	// its transaction has no accepted recipient, or at the next MAIL, the answer is 421
	// 4.7.0. Recipients that came together are counted together, and those put off for
	// any other reason not at all, unless they go beyond Recipients and nobody was
	// accepted: a big message of a relay is not punished.
	Refusals int
	// Idles is how many commands that move no mail (NOOP, RSET, VRFY, HELP, EHLO,
	// XFORWARD, a MAIL that is refused, an empty chunk) may come between two accepted
	// messages; the next is answered 421 4.7.0.
	Idles int
	// MessageBytes is the largest message taken, in octets as RFC 1870 section 5 counts
	// them: CRLFs included, final dot and doubled dots not. Beyond it 552 5.3.4, after
	// the message's end. 0: no limit.
	MessageBytes int64
	// Connections is how many there may be at once; 421 4.3.2 for more. 0: no limit.
	Connections int
	// ConnectionsPerAddress is the same for one client address; 421 4.7.0. 0: no limit.
	ConnectionsPerAddress int

	// Idle is the longest wait for a whole command (RFC 5321 section 4.5.3.2.7: 5 minutes).
	Idle time.Duration
	// Read is the longest wait for the next bytes of a message (RFC 5321 section
	// 4.5.3.2.5: 3 minutes).
	Read time.Duration
	// Write is the longest time that writing an answer may take.
	Write time.Duration
	// Handshake is the longest time for a PROXY header, and for a TLS handshake.
	Handshake time.Duration
	// DataRate is the least that a peer must send within a message, in bytes for each
	// second that we waited for it, after DataGrace. 0: no minimum.
	DataRate  int64
	DataGrace time.Duration
}

// DefaultOptions returns the settings that are right for most: SMTP from outside, no TLS.
// ID and Hostname are still to be set.
func DefaultOptions() Options {
	return Options{
		Protocol:     ProtocolSMTP,
		Origin:       mail.OriginOutside,
		BareLineEnds: BareRepair,
		Limits: Limits{
			CommandBytes:          4096,
			Recipients:            1000,
			Errors:                20,
			Refusals:              100,
			Idles:                 100,
			MessageBytes:          100 << 20,
			Connections:           10_000,
			ConnectionsPerAddress: 1_000,
			Idle:                  5 * time.Minute,
			Read:                  3 * time.Minute,
			Write:                 time.Minute,
			Handshake:             10 * time.Second,
			DataRate:              500,
			DataGrace:             30 * time.Second,
		},
	}
}

// check returns all that is wrong with o, or nil.
func (o *Options) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.ID == "" {
		bad("no id")
	}
	if o.Protocol != ProtocolSMTP && o.Protocol != ProtocolLMTP {
		bad("protocol is %s, want smtp or lmtp", o.Protocol)
	}
	if o.Hostname == "" || len(o.Hostname) > 255 || strings.ContainsFunc(o.Hostname, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		bad("hostname %q, want a domain name", o.Hostname)
	}
	if o.Origin != mail.OriginInside && o.Origin != mail.OriginOutside {
		bad("origin is %s, want inside or outside", o.Origin)
	}
	if o.BareLineEnds != BareRepair && o.BareLineEnds != BareRefuse {
		bad("bare line ends are %s, want repair or refuse", o.BareLineEnds)
	}
	if o.TLSConfig == nil && (o.ImplicitTLS || o.RequireTLS) {
		bad("TLS is wanted, but there is no certificate")
	}
	l := &o.Limits
	if l.CommandBytes < 512 || l.CommandBytes > bufferBytes/2 {
		bad("command bytes %d, want 512 to %d", l.CommandBytes, bufferBytes/2)
	}
	if l.Recipients < 100 {
		bad("recipients %d, want 100 or more (RFC 5321 section 4.5.3.1.8)", l.Recipients)
	}
	if l.Errors < 1 || l.Refusals < 1 || l.Idles < 1 {
		bad("errors %d, refusals %d and idles %d, want 1 or more", l.Errors, l.Refusals, l.Idles)
	}
	if l.Transactions < 0 || l.MessageBytes < 0 || l.Connections < 0 || l.ConnectionsPerAddress < 0 || l.DataRate < 0 || l.DataGrace < 0 {
		bad("a limit is negative")
	}
	if l.Idle <= 0 || l.Read <= 0 || l.Write <= 0 || l.Handshake <= 0 {
		bad("the idle, read, write and handshake times must be more than 0")
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("listener %q: %w", o.ID, err)
	}
	return nil
}

// Observer counts what a listener does. Its methods are called from the connections'
// goroutines at once and must not block.
type Observer interface {
	listen.Observer // also told of failed handshakes, as refused

	// Command is called for each command; verb is upper-case, or OTHER if unknown.
	Command(verb string)
	// Reply is called for each answer, also for 220, 250 and 354.
	Reply(code int)
	// MessageEnded is called for a message that a session began to read: complete, or
	// given up by either side. bytes are the octets that went to the session, repaired
	// the bare CR and LF among them.
	MessageEnded(bytes int64, repaired int, complete bool)
}

// noObserver counts nothing.
type noObserver struct{}

func (noObserver) ConnectionOpened()             {}
func (noObserver) ConnectionClosed()             {}
func (noObserver) ConnectionRefused(string)      {}
func (noObserver) Command(string)                {}
func (noObserver) Reply(int)                     {}
func (noObserver) MessageEnded(int64, int, bool) {}
