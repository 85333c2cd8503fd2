package config

import (
	"net/netip"
	"time"

	"mailcutover/mail"
)

// Protocol is a mail protocol.
type Protocol string

const (
	ProtocolSMTP Protocol = "smtp"
	ProtocolLMTP Protocol = "lmtp"
)

func (Protocol) words() []string { return []string{"smtp", "lmtp"} }

// Origin is the side from which a listener's mail comes.
type Origin string

const (
	OriginOutside Origin = "outside"
	OriginInside  Origin = "inside"
)

func (Origin) words() []string { return []string{"outside", "inside"} }

// Mail returns o in the terms of package mail.
func (o Origin) Mail() mail.Origin {
	switch o {
	case OriginOutside:
		return mail.OriginOutside
	case OriginInside:
		return mail.OriginInside
	default:
		return mail.OriginUnknown
	}
}

// Listener takes mail.
type Listener struct {
	ID           string         `config:"id" restart:"yes"`
	Protocol     Protocol       `config:"protocol" restart:"yes"`
	Address      string         `config:"address" restart:"yes"` // host:port; the host may be missing: all
	Origin       Origin         `config:"origin" restart:"yes"`
	InsideNets   []netip.Prefix `config:"inside_nets" restart:"yes"` // clients whose mail is from inside all the same
	TLS          ListenerTLS    `config:"tls"`
	XForwardNets []netip.Prefix `config:"xforward_nets" restart:"yes"` // clients whose XFORWARD is believed
	ProxyNets    []netip.Prefix `config:"proxy_nets" restart:"yes"`    // peers that must send a PROXY header
	BareLineEnds BareLineEnds   `config:"bare_line_ends" restart:"yes"`
	Limits       ListenerLimits `config:"limits" restart:"yes"`
}

// ListenerTLSMode says when a listener speaks TLS.
type ListenerTLSMode string

const (
	ListenerTLSNone     ListenerTLSMode = "none"
	ListenerTLSStartTLS ListenerTLSMode = "starttls"
	ListenerTLSImplicit ListenerTLSMode = "implicit"
)

func (ListenerTLSMode) words() []string { return []string{"none", "starttls", "implicit"} }

// ListenerTLS is a listener's TLS. The files are read again at each reload.
type ListenerTLS struct {
	Mode     ListenerTLSMode `config:"mode" restart:"yes"`
	Required bool            `config:"required" restart:"yes"` // no mail before STARTTLS
	CertFile string          `config:"cert_file" path:"yes"`
	KeyFile  string          `config:"key_file" path:"yes"`
}

// BareLineEnds says what is done with a bare CR or LF in a message.
type BareLineEnds string

const (
	BareRepair BareLineEnds = "repair"
	BareRefuse BareLineEnds = "refuse"
)

func (BareLineEnds) words() []string { return []string{"repair", "refuse"} }

// ListenerLimits bound what a peer can take of us; they are proxy/smtp's Limits, name
// by name. 0 means "no limit" where that page says so.
type ListenerLimits struct {
	CommandBytes          Size          `config:"command_bytes"`
	Recipients            int           `config:"recipients"`
	Transactions          int           `config:"transactions"`
	Errors                int           `config:"errors"`
	Refusals              int           `config:"refusals"`
	Idles                 int           `config:"idles"`
	MessageBytes          Size          `config:"message_bytes"`
	Connections           int           `config:"connections"`
	ConnectionsPerAddress int           `config:"connections_per_address"`
	Idle                  time.Duration `config:"idle"`
	Read                  time.Duration `config:"read"`
	Write                 time.Duration `config:"write"`
	Handshake             time.Duration `config:"handshake"`
	DataRate              Rate          `config:"data_rate"`
	DataGrace             time.Duration `config:"data_grace"`
}
