package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"mailcutover/internal/config"
	"mailcutover/ledger"
	"mailcutover/proxy/probe"
	"mailcutover/rollback/canary"
	"mailcutover/routing"
)

// canaries tries the agencies' canaries by the configuration in force. It implements
// operation.Canaries.
type canaries struct{ d *Daemon }

// of are an agency's settings; nil: it has none.
func (c canaries) of(agency routing.AgencyID) *config.Canary {
	cfg := c.d.config.Load()
	for i := range cfg.Operations.Canaries {
		if cfg.Operations.Canaries[i].Agency == agency {
			return &cfg.Operations.Canaries[i]
		}
	}
	return nil
}

// Canary implements operation.Canaries.
func (c canaries) Canary(agency routing.AgencyID) string {
	one := c.of(agency)
	switch {
	case one == nil:
		return ""
	case one.Login == "":
		return fmt.Sprintf("a message to %s", one.Address)
	case one.Address == "":
		return fmt.Sprintf("a login of %s", one.Login)
	default:
		return fmt.Sprintf("a message to %s, and a login of %s", one.Address, one.Login)
	}
}

// TakesBack implements operation.Canaries.
func (c canaries) TakesBack(agency routing.AgencyID) bool {
	return c.of(agency) != nil && c.d.config.Load().Operations.CanaryReact == config.CanaryRollback
}

// Try implements operation.Canaries: the runner's, after a switch. What it finds is for all nodes to
// see.
func (c canaries) Try(ctx context.Context, agency routing.AgencyID, platform routing.PlatformID) canary.Result {
	r := c.try(ctx, agency, platform)
	if ctx.Err() == nil || r.OK {
		if err := c.d.canaries.desk.Note(ctx, &r, platform); err != nil {
			c.d.logger.Warn("what a canary found isn't in the table", "agency", agency, "error", err)
		}
	}
	return r
}

// try sends the message, and logs in.
func (c canaries) try(ctx context.Context, agency routing.AgencyID, platform routing.PlatformID) canary.Result {
	one := c.of(agency)
	if one == nil { // since a moment
		return canary.Result{Agency: agency, Mail: "no canary is configured any more", Ended: time.Now()}
	}
	cfg := c.d.config.Load()
	ctx, cancel := context.WithTimeout(ctx, cfg.Operations.CanaryWait)
	defer cancel()
	began := time.Now()
	t := canary.Trial{Agency: agency, Platform: platform, Node: cfg.Node, Address: one.Address, Login: one.Login, Protocols: canaryProtocols(cfg, one, platform)}
	who := probe.Account{Login: one.Login, Password: one.Password.Reveal()}
	w := canary.Ways{
		Send: func(ctx context.Context, to string, text []byte) error { return c.send(ctx, cfg, to, text) },
		Delivered: func(ctx context.Context, id string) (canary.Delivery, bool, error) {
			return c.delivered(ctx, id, began)
		},
		Login: func(ctx context.Context, protocol, id string) (canary.Visit, error) {
			return c.logIn(ctx, cfg, config.LoginProtocol(protocol), who, id)
		},
	}
	if store := c.d.mailboxes(platform); store != nil {
		w.Look = func(ctx context.Context, id string) (canary.Sight, error) { return c.look(ctx, store, &t, id, began) }
	}
	return canary.Run(ctx, t, w)
}

// errNoListener is about a node that has no listener of the kind.
var errNoListener = errors.New("this node has no listener for it")

// send hands a message to the first listener for mail from outside, or else to the first one.
func (c canaries) send(ctx context.Context, cfg *config.Config, to string, text []byte) error {
	at := slices.IndexFunc(cfg.Listeners, func(l config.Listener) bool { return l.Origin == config.OriginOutside })
	at = max(at, 0)
	if at >= len(cfg.Listeners) {
		return errNoListener
	}
	l := &cfg.Listeners[at]
	e := probe.Entrance{Addr: c.d.Addr(l.ID), Helo: cfg.Node, LMTP: l.Protocol == config.ProtocolLMTP, Implicit: l.TLS.Mode == config.ListenerTLSImplicit}
	if e.Addr == nil {
		return errNoListener
	}
	if e.Implicit { // STARTTLS is for those who come from elsewhere
		e.TLS = c.ours(l.ID)
	}
	e.Header = behind(l.ProxyNets, e.Addr)
	return e.Send(ctx, to, text)
}

// behind reports whether a listener wants a PROXY header from this host itself.
func behind(nets []netip.Prefix, listens net.Addr) bool {
	from := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if a, err := netip.ParseAddrPort(listens.String()); err == nil {
		switch {
		case !a.Addr().IsUnspecified():
			from = a.Addr().Unmap()
		case a.Addr().Is6():
			from = netip.IPv6Loopback()
		}
	}
	return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(from) })
}

// ours are the settings for a handshake with one of our own listeners: its certificate has to
// be the one that it is to have, whatever names it is for.
func (c canaries) ours(listener string) *tls.Config {
	cert := c.d.certificates[listener]
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if cert == nil || len(s.PeerCertificates) == 0 {
				return errors.New("no certificate to compare")
			}
			for _, have := range cert.config.Load().Certificates {
				if len(have.Certificate) > 0 && bytes.Equal(have.Certificate[0], s.PeerCertificates[0].Raw) {
					return nil
				}
			}
			return fmt.Errorf("listener %s has another certificate than is configured", listener)
		},
	}
}

// delivered looks into the ledger where a message of this node went. What the spool has, or
// tries again, went nowhere yet.
func (c canaries) delivered(ctx context.Context, id string, since time.Time) (canary.Delivery, bool, error) {
	for rec, err := range c.d.ledger.Find(ctx, ledger.Query{MessageID: id, Since: since.Add(-time.Second)}) {
		if err != nil {
			return canary.Delivery{}, false, err
		}
		if rec.Local || len(rec.Recipients) == 0 {
			continue
		}
		d := canary.Delivery{Platform: rec.Platform, Host: rec.Host}
		switch a := rec.Answer(0); a.Result {
		case ledger.ResultDelivered, ledger.ResultNotAcknowledged:
			return d, true, nil
		case ledger.ResultRefused:
			if a.Code/100 == 5 {
				d.Refused = fmt.Sprintf("%d %s", a.Code, a.Text)
				return d, true, nil
			}
		}
	}
	return canary.Delivery{}, false, nil
}
