package config

import (
	"net/netip"
	"time"
)

// Logins is the proxy for logins. Without listeners there is none.
type Logins struct {
	Listeners []LoginListener `config:"listeners"`

	Wait    time.Duration `config:"wait" restart:"yes"`    // how long a login waits for a closed agency to open
	Waiters int           `config:"waiters" restart:"yes"` // logins that wait at once; those beyond are told to come back
	Spread  time.Duration `config:"spread" restart:"yes"`  // within which the sessions of an agency that closes are told
	Suspend time.Duration `config:"suspend" restart:"yes"` // how long a session stands still while this node may not decide

	SessionsPerMailbox int `config:"sessions_per_mailbox" restart:"yes"` // on this node; 0: no limit
	SessionsPerAddress int `config:"sessions_per_address" restart:"yes"` // of one client address; 0: no limit

	Failures         Failures      `config:"failures" restart:"yes"`
	Domains          []LoginDomain `config:"domains" restart:"yes"`
	MasterSeparators string        `config:"master_separators" restart:"yes"` // a name with one of these characters is refused
	Verify           Verify        `config:"verify"`

	Autoconfig Autoconfig `config:"autoconfig" restart:"yes"`
}

// Failures bounds how passwords can be guessed.
type Failures struct {
	Delay    time.Duration `config:"delay"`     // of the answer to the first failure; doubled with each
	MaxDelay time.Duration `config:"max_delay"` // the longest
	PerName  int           `config:"per_name"`  // failures of a name, from one net, in Window; beyond it every try is refused; 0: no limit
	PerNet   int           `config:"per_net"`   // of a net (IPv4 /24, IPv6 /64), all names together; 0: no limit
	Window   time.Duration `config:"window"`
}

// Verify is who says whether a client's password is right, where a platform is told a master user's.
type Verify struct {
	Directory string `config:"directory"` // one of identity.directories; empty: nobody
}

// LoginDomain is a name as in DOMAIN\user that the table doesn't list itself.
type LoginDomain struct {
	Name   string `config:"name"`
	Suffix string `config:"suffix"` // the user is looked up as user@suffix; empty: as user
}

// LoginProtocol is a protocol in which clients log in.
type LoginProtocol string

const (
	LoginIMAP       LoginProtocol = "imap"
	LoginSubmission LoginProtocol = "submission"
	LoginPOP3       LoginProtocol = "pop3"
	LoginSieve      LoginProtocol = "sieve" // ManageSieve
)

// LoginProtocols are all of them, in the order of a platform's keys.
var LoginProtocols = []LoginProtocol{LoginIMAP, LoginSubmission, LoginPOP3, LoginSieve}

func (LoginProtocol) words() []string { return []string{"imap", "submission", "pop3", "sieve"} }

// LoginListener takes logins.
type LoginListener struct {
	ID          string              `config:"id" restart:"yes"`
	Protocol    LoginProtocol       `config:"protocol" restart:"yes"`
	Address     string              `config:"address" restart:"yes"` // host:port; the host may be missing: all
	TLS         LoginListenerTLS    `config:"tls"`
	ProxyNets   []netip.Prefix      `config:"proxy_nets" restart:"yes"`   // peers that must send a PROXY header
	TrustedNets []netip.Prefix      `config:"trusted_nets" restart:"yes"` // clients whose failures are neither counted nor delayed
	Limits      LoginListenerLimits `config:"limits" restart:"yes"`
}

// LoginListenerTLS is the TLS of a listener for logins. The files are read again at each reload.
type LoginListenerTLS struct {
	Mode     ListenerTLSMode `config:"mode" restart:"yes"`
	Required bool            `config:"required" restart:"yes"` // no credentials without TLS
	CertFile string          `config:"cert_file" path:"yes"`
	KeyFile  string          `config:"key_file" path:"yes"`
}

// LoginListenerLimits bound what a client can take of us. 0 means "no limit" for counts, and
// for Idle.
type LoginListenerLimits struct {
	Connections           int           `config:"connections"`
	ConnectionsPerAddress int           `config:"connections_per_address"`
	Idle                  time.Duration `config:"idle"`  // after the login, with no byte in either direction
	Login                 time.Duration `config:"login"` // from the connection to the login
	Write                 time.Duration `config:"write"`
	Handshake             time.Duration `config:"handshake"`
	LineBytes             Size          `config:"line_bytes"`
	TokenBytes            Size          `config:"token_bytes"`
	Errors                int           `config:"errors"`
}

// LoginEndpoint is where a platform takes logins of one protocol.
type LoginEndpoint struct {
	Hosts          []string      `config:"hosts"` // host:port; connections go round among those that work
	TLS            LoginTLS      `config:"tls"`
	Auth           LoginAuth     `config:"auth"`
	ClientIdentity LoginIdentity `config:"client_identity"`
	Delegate       string        `config:"delegate"` // between a user and the mailbox that it has access to; empty: there are none

	// ConnectionLimit is after how long the platform itself ends a session whatever happens in
	// it; 0: not known. Sessions of a node that doesn't answer are over by then.
	ConnectionLimit time.Duration `config:"connection_limit"`
	Timeouts        LoginTimeouts `config:"timeouts"`
}

// LoginTLSPolicy says how far TLS is insisted on before credentials are sent.
type LoginTLSPolicy string

const (
	LoginTLSNone     LoginTLSPolicy = "none"     // never: on this host only
	LoginTLSRequired LoginTLSPolicy = "required" // always, whatever the certificate
	LoginTLSVerified LoginTLSPolicy = "verified" // always, with the right certificate
)

func (LoginTLSPolicy) words() []string { return []string{"none", "required", "verified"} }

// LoginTLS is the TLS towards a platform's endpoint for logins.
type LoginTLS struct {
	Policy     LoginTLSPolicy `config:"policy"`
	Implicit   bool           `config:"implicit"`           // from the first byte on, without STARTTLS
	ServerName string         `config:"server_name"`        // empty: the host's name
	CAFile     string         `config:"ca_file" path:"yes"` // empty: the system's
	Pins       []Pin          `config:"pins"`               // instead of a CA: the certificate's key is one of these
}

// AuthMode says with whose credentials a client is logged in at the platform.
type AuthMode string

const (
	AuthPass   AuthMode = "pass"   // the client's own are passed on
	AuthMaster AuthMode = "master" // those of a master user, after Logins.Verify has found the client's right
)

func (AuthMode) words() []string { return []string{"pass", "master"} }

// LoginAuth is how clients are logged in at a platform.
type LoginAuth struct {
	Mode AuthMode `config:"mode"`

	// Of the master user.
	User      string `config:"user"`
	Password  Secret `config:"password"`
	Separator string `config:"separator"` // LOGIN*USER is told, with this for *; empty: SASL PLAIN with authzid
}

// LoginIdentity is how a platform is told who the client is.
type LoginIdentity string

const (
	LoginIdentityNone    LoginIdentity = "none"
	LoginIdentityID      LoginIdentity = "id"      // IMAP's ID command
	LoginIdentityXClient LoginIdentity = "xclient" // the other protocols
	LoginIdentityProxyV2 LoginIdentity = "proxy-v2"
)

func (LoginIdentity) words() []string { return []string{"none", "id", "xclient", "proxy-v2"} }

// LoginTimeouts are how long a platform may take until a client is logged in there.
type LoginTimeouts struct {
	Dial     time.Duration `config:"dial"`
	Greeting time.Duration `config:"greeting"`
	Command  time.Duration `config:"command"` // for each answer but that to the login
	Login    time.Duration `config:"login"`   // platforms delay the answer to a wrong password
}

// Autoconfig tells mail programs which servers to use (Thunderbird's autoconfiguration).
type Autoconfig struct {
	Address     string             `config:"address"` // host:port; empty: off
	CertFile    string             `config:"cert_file" path:"yes"`
	KeyFile     string             `config:"key_file" path:"yes"`
	Name        string             `config:"name"` // of the service, as users read it; empty: the domain
	Servers     []AutoconfigServer `config:"servers"`
	ProxyNets   []netip.Prefix     `config:"proxy_nets"`  // whose X-Forwarded-For is believed
	Connections int                `config:"connections"` // at once
	Requests    int                `config:"requests"`    // of one client net in a minute; 0: no limit
}

// AutoconfigServer is a server that mail programs are told of.
type AutoconfigServer struct {
	Listener string `config:"listener"` // id of the one of logins.listeners that it leads to
	Host     string `config:"host"`     // name for clients
	Port     int    `config:"port"`
}

// Login returns the platform's endpoint for logins of a protocol; nil: it takes none.
func (p *Platform) Login(protocol LoginProtocol) *LoginEndpoint {
	switch protocol {
	case LoginIMAP:
		return p.IMAP
	case LoginSubmission:
		return p.Submission
	case LoginPOP3:
		return p.POP3
	case LoginSieve:
		return p.Sieve
	default:
		return nil
	}
}
