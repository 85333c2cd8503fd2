package login

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"mailcutover/mail"
	"mailcutover/proxy/listen"
)

// Conn is a client's connection before its login is through. It belongs to the goroutine
// that runs Serve. Its reads wait as long as the listener's limits allow, and end when the
// node stops; its errors are for Serve to return.
type Conn struct {
	wire
	o      ConnOptions
	secure bool
}

// ConnOptions are what a [Conn] is made of.
type ConnOptions struct {
	Net    net.Conn    // PROXY header and implicit TLS are done
	Client mail.Client // with the session's id
	Front  Front
	Secure bool // Net is encrypted, or what is in front of this node said so

	Idle      time.Duration // the longest wait for the client's next bytes; 0: no end
	Until     time.Time     // when the login must be through; zero: no end
	Write     time.Duration // the longest that a flush may take; 0: 30 s
	Handshake time.Duration // the longest that a TLS handshake may take; 0: 30 s

	// Ended says why the connection is to end though the client did nothing; nil while it
	// isn't. It is asked before each wait. Who makes it say so then sets a read deadline that
	// has passed. nil: never.
	Ended func() error

	// Strangers has a PROXY header refused that nobody may send: the connection ends without
	// a word (ErrProxyHeader).
	Strangers bool

	// TLS makes the server's side of a handshake; nil: STARTTLS isn't offered.
	TLS func(net.Conn) *tls.Conn

	// Login does what [Conn.Login] says.
	Login func(*Attempt) (*Session, Welcome, error)

	pool *buffers // nil: none
}

// NewConn returns a connection for a dialogue. It is for the core, and for tests of
// dialogues (logintest).
func NewConn(o ConnOptions) *Conn {
	c := &Conn{o: o, secure: o.Secure, wire: wire{
		nc: o.Net, pool: o.pool, write: orDefault(o.Write), ended: o.Ended, deadline: waitFor(o.Idle, o.Until),
	}}
	if o.Strangers {
		c.first = noProxyHeader
	}
	return c
}

// noProxyHeader refuses the beginning of a PROXY header, of version 1 or 2: it is no command of
// any protocol.
func noProxyHeader(p []byte) error {
	if bytes.HasPrefix(p, []byte("PROXY ")) || bytes.HasPrefix(p, []byte(listen.SignatureV2)) {
		return ErrProxyHeader
	}
	return nil
}

// defaultWrite is how long a flush or a handshake may take where nothing is said.
const defaultWrite = 30 * time.Second

func orDefault(d time.Duration) time.Duration {
	if d <= 0 {
		return defaultWrite
	}
	return d
}

// waitFor returns how long a read may wait: idle, and not beyond until.
func waitFor(idle time.Duration, until time.Time) func() time.Time {
	return func() time.Time {
		if idle <= 0 {
			return until
		}
		next := time.Now().Add(idle)
		if !until.IsZero() && until.Before(next) {
			return until
		}
		return next
	}
}

// Front is what a dialogue may know of its listener. It doesn't change.
type Front struct {
	ID         string // of the listener, for logs
	Hostname   string // of this node, for greetings
	TLS        bool   // STARTTLS can be offered
	RequireTLS bool   // no credentials are taken without TLS
	LineBytes  int    // the longest line of a command, with CRLF
	TokenBytes int    // the longest literal, initial response or answer to a challenge
	Errors     int    // commands that may be malformed, out of order or unknown
	Offers     func() Offers
}

// Offers is what this node announces in the name of all platforms before it knows which one
// a client is for: what all of them can do. Submission, POP3 and ManageSieve need it, since a
// client need not ask again after its login (RFC 4954 section 4). What isn't known of a platform
// is left out; the dialogues' Probe finds it out.
type Offers struct {
	Size         int64 // RFC 1870; 0: not at all; negative: without a number
	Pipelining   bool  // submission and POP3
	EightBitMIME bool
	SMTPUTF8     bool
	DSN          bool
	Chunking     bool
	Enhanced     bool   // enhanced status codes (RFC 2034)
	Sieve        string // ManageSieve: the Sieve extensions, separated by blanks (RFC 5804 section 1.7)
}

// Front returns the listener's settings.
func (c *Conn) Front() Front { return c.o.Front }

// Client returns who the client is: its addresses, and the session's id.
func (c *Conn) Client() mail.Client { return c.o.Client }

// Secure reports whether the client's side is encrypted, by TLS here or by what is in front
// of this node and said so.
func (c *Conn) Secure() bool { return c.secure }

// StartTLS flushes what the dialogue answered and puts TLS on. ErrInjected if the client
// has sent more already. After it the dialogue forgets all it knew of the client.
func (c *Conn) StartTLS() error {
	if c.o.TLS == nil {
		return errors.New("STARTTLS: this listener has no certificate")
	}
	t, err := c.upgrade(c.o.TLS, orDefault(c.o.Handshake))
	if err != nil {
		return err
	}
	c.secure = true
	c.o.Client.TLS = listen.TLSText(t.ConnectionState())
	return nil
}

// Login finds the mailbox's platform and logs in there. It takes its time: a closed agency is
// waited for, a failure delayed. The error is a *Refusal, or one of c's own for Serve to
// return. It wipes a's secret.
func (c *Conn) Login(a *Attempt) (*Session, Welcome, error) {
	if err := c.Flush(); err != nil {
		clear(a.Secret)
		return nil, Welcome{}, err
	}
	session, welcome, err := c.o.Login(a)
	clear(a.Secret)
	return session, welcome, err
}
