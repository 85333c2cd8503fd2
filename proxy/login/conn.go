package login

import (
	"context"

	"mailcutover/mail"
)

// Conn is a client's connection before its login is through. It belongs to the goroutine
// that runs Serve. Its reads wait as long as the listener's limits allow, and end when the
// node stops; its errors are for Serve to return.
type Conn struct {
	wire
	ctx    context.Context // ends with the connection, or when it is cut
	client mail.Client
	front  Front
	secure bool
	login  func(*Attempt) (*Session, Welcome, error)
	start  func() error
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
// a client is for: what all of them can do. Submission needs it, since a client need not ask
// again after its login (RFC 4954 section 4).
type Offers struct {
	Size         int64 // RFC 1870; 0: without a number
	Pipelining   bool
	EightBitMIME bool
	SMTPUTF8     bool
	DSN          bool
	Chunking     bool
}

// Front returns the listener's settings.
func (c *Conn) Front() Front { return c.front }

// Client returns who the client is: its addresses, and the session's id.
func (c *Conn) Client() mail.Client { return c.client }

// Secure reports whether the client's side is encrypted, by TLS here or by what is in front
// of this node and said so.
func (c *Conn) Secure() bool { return c.secure }

// StartTLS flushes what the dialogue answered and puts TLS on. ErrInjected if the client
// has sent more already. After it the dialogue forgets all it knew of the client.
func (c *Conn) StartTLS() error { return c.start() }

// Login finds the mailbox's platform and logs in there. It takes its time: a closed agency is
// waited for, a failure delayed. The error is a *Refusal, or one of c's own for Serve to
// return. It wipes a's secret.
func (c *Conn) Login(a *Attempt) (*Session, Welcome, error) { return c.login(a) }
