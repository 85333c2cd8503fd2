package config

import (
	"net/netip"
	"time"

	"mailcutover/mail"
	"mailcutover/routing"
)

// Platform is a mail system between which agencies move.
type Platform struct {
	ID           routing.PlatformID `config:"id"`
	Nets         []netip.Prefix     `config:"nets"`          // from which the platform itself sends us mail
	RelaysInside bool               `config:"relays_inside"` // its own internal mail comes through us too

	// ConnectionLimit is after how long the platform itself ends a connection whatever
	// happens on it. A message whose answer was lost is in doubt for that long.
	ConnectionLimit time.Duration `config:"connection_limit"`

	Size    Size      `config:"size"` // largest message that it takes; 0: what it announces
	Outside Endpoint  `config:"outside"`
	Inside  *Endpoint `config:"inside" like:"outside"` // nil: Outside

	// Where it takes logins; nil: it doesn't.
	IMAP       *LoginEndpoint `config:"imap"`
	Submission *LoginEndpoint `config:"submission" as:"imap"`
	POP3       *LoginEndpoint `config:"pop3" as:"imap"`
	Sieve      *LoginEndpoint `config:"sieve" as:"imap"`

	Mailboxes *Mailboxes `config:"mailboxes"` // nil: its mailboxes can't be read

	Hooks Hooks  `config:"hooks"`
	Probe *Probe `config:"probe"` // nil: none of its own
}

// Hooks are what is called on a platform when an agency leaves it or comes to it; nil: nothing.
type Hooks struct {
	Close      *Hook `config:"close"`                  // logins, sessions and delivery end
	Open       *Hook `config:"open" as:"close"`        // and are allowed again
	ForwardOn  *Hook `config:"forward_on" as:"close"`  // mail that the platform delivers itself goes to the other one
	ForwardOff *Hook `config:"forward_off" as:"close"` // it no longer does
}

// Hook is a command or a URL; package rollback/hook says how it is called.
type Hook struct {
	Command  []string      `config:"command"` // the program by its whole path, and its arguments
	URL      string        `config:"url"`
	Token    Secret        `config:"token"` // sent to the URL
	Timeout  time.Duration `config:"timeout"`
	Attempts int           `config:"attempts"` // in all
	Pause    time.Duration `config:"pause"`    // before the second attempt, doubled for each later one
}

// Endpoint returns the endpoint for mail of an origin.
func (p *Platform) Endpoint(o mail.Origin) *Endpoint {
	if o == mail.OriginInside && p.Inside != nil {
		return p.Inside
	}
	return &p.Outside
}

// Endpoint is where a platform takes mail of one origin.
type Endpoint struct {
	Protocol       Protocol       `config:"protocol"`
	Hosts          []string       `config:"hosts"` // host:port; connections go round among those that work
	Helo           string         `config:"helo"`  // empty: Node
	TLS            EndpointTLS    `config:"tls"`
	Auth           Auth           `config:"auth"`
	ClientIdentity ClientIdentity `config:"client_identity"`
	Limits         EndpointLimits `config:"limits"`
	Timeouts       Timeouts       `config:"timeouts"`
}

// TLSPolicy says how far a platform's TLS is insisted on.
type TLSPolicy string

const (
	TLSNone          TLSPolicy = "none"          // never
	TLSOpportunistic TLSPolicy = "opportunistic" // if offered, whatever the certificate
	TLSRequired      TLSPolicy = "required"      // always, whatever the certificate
	TLSVerified      TLSPolicy = "verified"      // always, with the right certificate
)

func (TLSPolicy) words() []string {
	return []string{"none", "opportunistic", "required", "verified"}
}

// EndpointTLS is the TLS towards a platform.
type EndpointTLS struct {
	Policy     TLSPolicy `config:"policy"`
	Implicit   bool      `config:"implicit"`           // from the first byte on, without STARTTLS
	ServerName string    `config:"server_name"`        // empty: the host's name
	CAFile     string    `config:"ca_file" path:"yes"` // empty: the system's
	Pins       []Pin     `config:"pins"`               // instead of a CA: the certificate's key is one of these
}

// Mechanism is a way to log in (RFC 4954).
type Mechanism string

const (
	MechanismNone  Mechanism = "none"
	MechanismPlain Mechanism = "plain"
	MechanismLogin Mechanism = "login"
)

func (Mechanism) words() []string { return []string{"none", "plain", "login"} }

// Auth is how we log in at a platform.
type Auth struct {
	Mechanism Mechanism `config:"mechanism"`
	Username  string    `config:"username"`
	Password  Secret    `config:"password"`
}

// ClientIdentity is how a platform is told for whom we speak.
type ClientIdentity string

const (
	IdentityNone     ClientIdentity = "none"
	IdentityXClient  ClientIdentity = "xclient"
	IdentityXForward ClientIdentity = "xforward"
	IdentityProxyV2  ClientIdentity = "proxy-v2"
)

func (ClientIdentity) words() []string { return []string{"none", "xclient", "xforward", "proxy-v2"} }

// EndpointLimits bound an endpoint's connections; they are proxy/relay's Limits, name by
// name. 0 is replaced there by what that page says.
type EndpointLimits struct {
	Connections int           `config:"connections"`
	MaxAge      time.Duration `config:"max_age"`
	MaxIdle     time.Duration `config:"max_idle"`
	MaxMessages int           `config:"max_messages"`
	QueueWait   time.Duration `config:"queue_wait"`
	MaxPause    time.Duration `config:"max_pause"`
	Backoff     time.Duration `config:"backoff"`
	BackoffMax  time.Duration `config:"backoff_max"`
}

// Timeouts are how long a platform may take for each answer; they are proxy/relay's
// Timeouts, name by name.
type Timeouts struct {
	Dial           time.Duration `config:"dial"`
	Greeting       time.Duration `config:"greeting"`
	Command        time.Duration `config:"command"`
	Mail           time.Duration `config:"mail"`
	Rcpt           time.Duration `config:"rcpt"`
	Data           time.Duration `config:"data"`
	Block          time.Duration `config:"block"`
	Dot            time.Duration `config:"dot"`
	Reset          time.Duration `config:"reset"`
	Unacknowledged time.Duration `config:"unacknowledged"`
}
