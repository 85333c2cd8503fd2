package probe

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"

	"mailcutover/proxy/login"
)

// Dialogue logs in by a protocol; a login.Dialogue is one.
type Dialogue interface {
	Protocol() string
	Authenticate(l *login.Leg, a *login.Attempt) (login.Welcome, error)
}

// listenerName is what errors call a listener of our own, where they name a platform.
const listenerName = "(this node)"

// LogIn logs in through the listener by the protocol of d, from the greeting to the answer, and takes leave.
// logged is called while the session is there, with the address that it has on our side. Errors
// say at what it failed; one that wraps a *login.Rejection is about name or password.
func (e *Entrance) LogIn(ctx context.Context, d Dialogue, a Account, logged func(client netip.AddrPort)) error {
	nc, err := e.dial(ctx)
	if err != nil {
		return fmt.Errorf("login of %s: %w", a.Login, err)
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { _ = nc.Close() })() // a dialogue knows no context
	client, err := netip.ParseAddrPort(nc.LocalAddr().String())
	if err != nil {
		return fmt.Errorf("login of %s: %w", a.Login, err)
	}
	o := login.LegOptions{
		Net: nc, Encrypted: e.TLS != nil && e.Implicit, Ended: ctx.Err,
		Target: login.Target{Platform: listenerName, Host: nc.RemoteAddr().String(), Helo: e.Helo},
	}
	switch {
	case e.TLS == nil:
		o.Target.TLS = login.LegPlain
	case e.Implicit:
		o.Target.TLS = login.LegImplicit
	default:
		o.Target.TLS = login.LegStartTLS
		o.TLS = func(raw net.Conn) *tls.Conn { return tls.Client(raw, e.TLS) }
	}
	l := login.NewLeg(o)
	attempt := &login.Attempt{Name: a.Login, Login: a.Login, Mechanism: login.MechanismPassword, Secret: []byte(a.Password), Helo: e.Helo}
	attempt.SetLast(ctx.Err) // nobody else decides on it
	defer clear(attempt.Secret)
	if _, err := d.Authenticate(l, attempt); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer: %w", context.Cause(ctx))
		}
		return fmt.Errorf("login of %s: %w", a.Login, err)
	}
	logged(client)
	leave(l, d.Protocol())
	return nil
}

// leave says goodbye, without waiting for it to be heard.
func leave(l *login.Leg, protocol string) {
	word := "QUIT\r\n"
	switch protocol {
	case "imap":
		word = "z LOGOUT\r\n"
	case "sieve":
		word = "LOGOUT\r\n"
	}
	l.Print(word)
	_ = l.Flush() // whatever comes of it, the connection is closed next
}
