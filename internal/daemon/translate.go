package daemon

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"mailcutover/internal/config"
	"mailcutover/mail"
	"mailcutover/proxy/dial"
	"mailcutover/proxy/relay"
	"mailcutover/proxy/smtp"
	"mailcutover/routing"
)

// endpoint returns the settings of a platform's endpoint in the terms of proxy/relay.
func endpoint(cfg *config.Config, p *config.Platform, origin mail.Origin) (relay.Endpoint, error) {
	e := p.Endpoint(origin)
	ep := relay.Endpoint{
		Platform: p.ID, Origin: origin, Hosts: e.Hosts, Helo: e.Helo, MaxSize: int64(p.Size),
		Limits: relay.Limits{
			Connections: e.Limits.Connections, MaxAge: e.Limits.MaxAge, MaxIdle: e.Limits.MaxIdle,
			MaxMessages: e.Limits.MaxMessages, PlatformLimit: p.ConnectionLimit, QueueWait: e.Limits.QueueWait, MaxPause: e.Limits.MaxPause,
			Backoff: e.Limits.Backoff, BackoffMax: e.Limits.BackoffMax,
		},
		Timeouts: relay.Timeouts(e.Timeouts),
	}
	if ep.Helo == "" {
		ep.Helo = cfg.Node
	}
	if e.Protocol == config.ProtocolLMTP {
		ep.Protocol = relay.ProtocolLMTP
	} else {
		ep.Protocol = relay.ProtocolSMTP
	}
	switch e.ClientIdentity {
	case config.IdentityXClient:
		ep.Identity = relay.IdentityXCLIENT
	case config.IdentityXForward:
		ep.Identity = relay.IdentityXFORWARD
	case config.IdentityProxyV2:
		ep.Identity = relay.IdentityProxyV2
	default:
		ep.Identity = relay.IdentityNone
	}
	if e.Auth.Mechanism != config.MechanismNone && e.Auth.Mechanism != "" {
		password := e.Auth.Password
		ep.Auth = &relay.Auth{
			Mechanism: strings.ToUpper(string(e.Auth.Mechanism)), Username: e.Auth.Username,
			Password: func() (string, error) { return password.Reveal(), nil },
		}
	}
	var err error
	ep.TLS, err = platformTLS(&e.TLS)
	if err != nil {
		return ep, fmt.Errorf("platform %s: %w", p.ID, err)
	}
	return ep, nil
}

func platformTLS(t *config.EndpointTLS) (dial.TLS, error) {
	out := dial.TLS{Implicit: t.Implicit, ServerName: t.ServerName}
	switch t.Policy {
	case config.TLSOpportunistic:
		out.Policy = dial.TLSOpportunistic
	case config.TLSRequired:
		out.Policy = dial.TLSRequired
	case config.TLSVerified:
		out.Policy = dial.TLSVerified
	default:
		out.Policy = dial.TLSNone
	}
	for _, pin := range t.Pins {
		out.Pins = append(out.Pins, pin)
	}
	if t.CAFile != "" {
		pool, err := certificates(t.CAFile)
		if err != nil {
			return out, err
		}
		out.CA = pool
	}
	return out, nil
}

// certificates reads a PEM file of CA certificates.
func certificates(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read CA certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read CA certificates: %s holds no PEM certificate", path)
	}
	return pool, nil
}

// listenerOptions returns a listener's settings in the terms of proxy/smtp, without what
// the daemon itself puts in: TLS, capabilities, logger and observer.
func listenerOptions(cfg *config.Config, l *config.Listener) smtp.Options {
	o := smtp.Options{
		ID: l.ID, Protocol: smtp.ProtocolSMTP, Hostname: cfg.Node, Origin: l.Origin.Mail(),
		InsideNets: l.InsideNets, XForwardNets: l.XForwardNets, ProxyNets: l.ProxyNets,
		ImplicitTLS: l.TLS.Mode == config.ListenerTLSImplicit, RequireTLS: l.TLS.Required,
		BareLineEnds: smtp.BareRepair,
		Limits: smtp.Limits{
			CommandBytes: int(l.Limits.CommandBytes), Recipients: l.Limits.Recipients, Transactions: l.Limits.Transactions,
			Errors: l.Limits.Errors, Refusals: l.Limits.Refusals, Idles: l.Limits.Idles, MessageBytes: int64(l.Limits.MessageBytes),
			Connections: l.Limits.Connections, ConnectionsPerAddress: l.Limits.ConnectionsPerAddress,
			Idle: l.Limits.Idle, Read: l.Limits.Read, Write: l.Limits.Write, Handshake: l.Limits.Handshake,
			DataRate: int64(l.Limits.DataRate), DataGrace: l.Limits.DataGrace,
		},
	}
	if l.Protocol == config.ProtocolLMTP {
		o.Protocol = smtp.ProtocolLMTP
	}
	if l.BareLineEnds == config.BareRefuse {
		o.BareLineEnds = smtp.BareRefuse
	}
	return o
}

// postmaster returns the configured address in canonical form; empty if none is.
func postmaster(cfg *config.Config) (routing.Address, error) {
	if cfg.Routing.Postmaster == "" {
		return "", nil
	}
	a, err := routing.ParseAddress(cfg.Routing.Postmaster)
	if err != nil {
		return "", errors.Join(errors.New("routing.postmaster"), err)
	}
	return a, nil
}
