package login

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Leg is the connection to a platform, until the client is logged in there. It belongs to
// the goroutine of the client's connection. Its reads and writes have deadlines, and end
// when the agency closes.
type Leg struct {
	wire
	o         LegOptions
	encrypted bool
	proving   bool // MaySend has said yes
}

// LegOptions are what a [Leg] is made of.
type LegOptions struct {
	Net       net.Conn // PROXY header and implicit TLS are done
	Target    Target
	Encrypted bool // Net is TLS

	Greeting  time.Duration // the longest wait for the platform's first bytes; 0: as Answer
	Answer    time.Duration // for its next ones; 0: 30 s
	Login     time.Duration // the same after credentials may be sent; 0: as Answer
	Until     time.Time     // when the login must be through; zero: no end
	Write     time.Duration // the longest that a flush may take; 0: 30 s
	Handshake time.Duration // the longest that a TLS handshake may take; 0: 30 s

	// Ended is as in [ConnOptions].
	Ended func() error

	// TLS makes the client's side of a handshake, as the endpoint's policy says.
	TLS func(net.Conn) *tls.Conn

	// MaySend says whether credentials may go over a connection that is encrypted by TLS,
	// or isn't. nil: they may.
	MaySend func(encrypted bool) error

	pool *buffers // nil: none
}

// NewLeg returns a leg for a dialogue. It is for the core, for whoever logs in as a client
// does, and for tests of dialogues (logintest).
func NewLeg(o LegOptions) *Leg {
	l := &Leg{o: o, encrypted: o.Encrypted, wire: wire{nc: o.Net, pool: o.pool, write: orDefault(o.Write), ended: o.Ended}}
	l.deadline = func() time.Time {
		wait := orDefault(o.Answer)
		switch {
		case !l.heard && o.Greeting > 0:
			wait = o.Greeting
		case l.proving && o.Login > 0:
			wait = o.Login
		}
		return waitFor(wait, o.Until)()
	}
	return l
}

// Target is what a dialogue may know of the platform's endpoint.
type Target struct {
	Platform string // for errors
	Host     string // host:port, for errors
	Helo     string // our own name (submission)
	TLS      LegTLS
	Identity Identity
	Client   ClientInfo
}

// LegTLS says what is due before credentials are sent.
type LegTLS uint8

const (
	LegPlain    LegTLS = iota // no STARTTLS
	LegStartTLS               // STARTTLS must be offered, and succeed
	LegImplicit               // TLS is on already
)

// Identity says how the platform is told of the client.
type Identity uint8

const (
	IdentityNone    Identity = iota // it sees this node
	IdentityID                      // IMAP's ID with x-originating-ip, x-originating-port, x-session-id (Dovecot, RFC 2971)
	IdentityXCLIENT                 // submission (Postfix), POP3 and ManageSieve (Dovecot's XCLIENT)
	IdentityProxyV2                 // a PROXY header; was sent already
)

// ClientInfo is what a platform may be told of a client.
type ClientInfo struct {
	Addr, Port    string // of the client
	Local         string // the address that it connected to; empty: not known
	LocalPort     string
	Session       string // the session's id
	Helo          string
	EncryptedLine string // "TLS1.3 TLS_AES_128_GCM_SHA256"; empty: plain text
}

// XCLIENT returns the attributes of the command as Dovecot 2.3 takes them in POP3 and
// ManageSieve, which know no encoding. Empty: the client's address isn't known.
func (i ClientInfo) XCLIENT() string {
	addr, err := netip.ParseAddr(i.Addr)
	if err != nil {
		return ""
	}
	line := "ADDR=" + addr.Unmap().WithZone("").String()
	if port, err := strconv.ParseUint(i.Port, 10, 16); err == nil && port > 0 {
		line += " PORT=" + i.Port
	}
	if i.Session != "" && !strings.ContainsFunc(i.Session, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"\\(){}", r) }) {
		line += " SESSION=" + i.Session
	}
	return line
}

// Target returns the endpoint's settings.
func (l *Leg) Target() Target { return l.o.Target }

// StartTLS flushes and puts TLS on as the endpoint's policy says. ErrInjected if the platform
// has sent more already.
func (l *Leg) StartTLS() error {
	if l.o.TLS == nil {
		return errors.New("STARTTLS: the endpoint's policy has no TLS")
	}
	if _, err := l.upgrade(l.o.TLS, orDefault(l.o.Handshake)); err != nil {
		return err
	}
	l.encrypted = true
	return nil
}

// MaySend returns nil if credentials may go over this connection as it is now, else why not.
func (l *Leg) MaySend() error {
	if l.o.MaySend != nil {
		if err := l.o.MaySend(l.encrypted); err != nil {
			return err
		}
	}
	l.proving = true
	return nil
}
