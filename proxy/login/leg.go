package login

// Leg is the connection to a platform, until the client is logged in there. It belongs to
// the goroutine of the client's connection. Its reads and writes have deadlines, and end
// when the agency closes.
type Leg struct {
	wire
	target Target
	secure bool // TLS, or this host's own loopback
	start  func() error
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

// Target returns the endpoint's settings.
func (l *Leg) Target() Target { return l.target }

// StartTLS flushes and puts TLS on as the endpoint's policy says. ErrInjected if the platform
// has sent more already.
func (l *Leg) StartTLS() error { return l.start() }

// MaySend returns nil if credentials may go over this connection as it is now, else why not.
func (l *Leg) MaySend() error { return nil }
