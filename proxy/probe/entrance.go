package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/emersion/go-smtp"
)

// Entrance is a listener of this node, as a client on this machine reaches it.
type Entrance struct {
	Addr     net.Addr    // that the listener has; an unspecified address is reached by the loopback one
	Header   bool        // it wants a PROXY header of us
	TLS      *tls.Config // nil: plain text
	Implicit bool        // TLS begins with the connection instead of by STARTTLS
	LMTP     bool        // of a listener for mail: it speaks LMTP; then without STARTTLS
	Helo     string      // of a listener for mail: how we call ourselves
}

// dialPatience bounds a connection to a listener of our own.
const dialPatience = 5 * time.Second

// dial connects, up to where the protocol begins.
func (e *Entrance) dial(ctx context.Context) (net.Conn, error) {
	addr, err := netip.ParseAddrPort(e.Addr.String())
	if err != nil {
		return nil, fmt.Errorf("listener at %s: %w", e.Addr, err)
	}
	if addr.Addr().IsUnspecified() {
		local := netip.IPv6Loopback()
		if addr.Addr().Is4() {
			local = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		addr = netip.AddrPortFrom(local, addr.Port())
	}
	nc, err := (&net.Dialer{Timeout: dialPatience}).DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, err
	}
	if e.Header {
		if err := sendHeader(nc); err != nil {
			_ = nc.Close()
			return nil, err
		}
	}
	if e.TLS == nil || !e.Implicit {
		return nc, nil
	}
	t := tls.Client(nc, e.TLS)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return t, nil
}

// Send hands the listener a message of the null sender, as a relay would. text has CRLF at
// the end of its lines. nil: it was answered 250.
func (e *Entrance) Send(ctx context.Context, to string, text []byte) (err error) {
	nc, err := e.dial(ctx)
	if err != nil {
		return fmt.Errorf("send to %s: %w", to, err)
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { _ = nc.Close() })() // go-smtp's client knows no context
	doing := "greeting"
	defer func() {
		switch {
		case err != nil && ctx.Err() != nil:
			err = fmt.Errorf("send to %s: %s: no answer: %w", to, doing, context.Cause(ctx))
		case err != nil:
			err = fmt.Errorf("send to %s: %s: %w", to, doing, err)
		}
	}()
	var c *smtp.Client
	switch {
	case e.TLS != nil && !e.Implicit && e.LMTP:
		return errors.New("LMTP is not spoken by STARTTLS here")
	case e.TLS != nil && !e.Implicit:
		doing = "STARTTLS"
		if c, err = smtp.NewClientStartTLS(nc, e.TLS); err != nil {
			return err
		}
	case e.LMTP:
		c = smtp.NewClientLMTP(nc)
	default:
		c = smtp.NewClient(nc)
	}
	if e.TLS == nil || e.Implicit { // with STARTTLS it has greeted
		doing = "EHLO"
		if err := c.Hello(e.Helo); err != nil {
			return err
		}
	}
	doing = "MAIL"
	if err := c.Mail("", nil); err != nil {
		return err
	}
	doing = "RCPT"
	if err := c.Rcpt(to, nil); err != nil {
		return err
	}
	doing = "DATA"
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	doing = "final dot"
	if err := w.Close(); err != nil {
		return err
	}
	_ = c.Quit() // the message is taken
	return nil
}
