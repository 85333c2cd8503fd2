package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"

	"mailcutover/proxy/dial"
	"mailcutover/proxy/login"
)

// Account is who logs in.
type Account struct {
	Login    string
	Password string
}

// Login logs in at a platform's IMAP endpoint, opens the INBOX for reading and takes leave.
// It returns the host that was asked. header begins the connection with a PROXY header.
//
// Errors wrap dial.ErrTLS, dial.ErrNoHost or login.ErrUnauthenticate where that is the reason.
func Login(ctx context.Context, d *dial.Dialer, header bool, a Account) (host string, err error) {
	raw, host, err := d.Dial(ctx)
	if err != nil {
		return "", err
	}
	defer raw.Close()
	if header {
		if err := sendHeader(raw); err != nil {
			return host, fmt.Errorf("%s: %w", host, err)
		}
	}
	way := d.Endpoint().TLS
	nc, start := raw, (*tls.Config)(nil)
	switch {
	case way.Implicit:
		t, err := d.Handshake(ctx, raw, host)
		if err != nil {
			return host, fmt.Errorf("%s: %w", host, err)
		}
		nc = t
	case way.Policy != dial.TLSNone:
		start = way.Config(host)
	default:
		if err := d.MaySend(raw); err != nil {
			return host, fmt.Errorf("%s: %w", host, err)
		}
	}
	s, err := logIn(ctx, nc, start, a)
	if err != nil {
		return host, fmt.Errorf("%s: %w", host, err)
	}
	s.leave()
	return host, nil
}

// session is a client that has logged in and opened its INBOX.
type session struct{ *imapclient.Client }

// leave says goodbye, without waiting long for it to be heard.
func (s session) leave() {
	_ = s.Logout() // sent; the answer isn't waited for
	_ = s.Close()
}

// logIn logs in over nc, from the greeting on, by STARTTLS if start is set. The session's
// connection is closed at ctx's end.
func logIn(ctx context.Context, nc net.Conn, start *tls.Config, a Account) (_ session, err error) {
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() }) // go-imap's client knows no context
	var c *imapclient.Client
	defer func() {
		if err == nil {
			return
		}
		stop()
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer: %w", context.Cause(ctx))
		}
		if c != nil {
			_ = c.Close()
		}
	}()
	if start != nil {
		if c, err = imapclient.NewStartTLS(nc, &imapclient.Options{TLSConfig: start}); err != nil {
			return session{}, fmt.Errorf("STARTTLS: %w: %w", dial.ErrTLS, plain(err))
		}
	} else {
		c = imapclient.New(nc, nil)
		if err := c.WaitGreeting(); err != nil {
			return session{}, fmt.Errorf("greeting: %w", plain(err))
		}
	}
	caps := c.Caps()
	switch {
	case caps.Has("UNAUTHENTICATE"):
		return session{}, login.ErrUnauthenticate
	case caps.Has("AUTH=PLAIN"):
		err = c.Authenticate(sasl.NewPlainClient("", a.Login, a.Password))
	case caps.Has(imap.CapLoginDisabled):
		return session{}, errors.New("it takes passwords neither by PLAIN nor by LOGIN")
	default:
		err = c.Login(a.Login, a.Password).Wait()
	}
	if err != nil {
		return session{}, fmt.Errorf("login of %s: %w", a.Login, plain(err))
	}
	caps, err = c.Capability().Wait() // not by the one that came with the login
	switch {
	case err != nil:
		return session{}, fmt.Errorf("CAPABILITY: %w", plain(err))
	case caps.Has("UNAUTHENTICATE"):
		return session{}, login.ErrUnauthenticate
	}
	if _, err = c.Select("INBOX", &imap.SelectOptions{ReadOnly: true}).Wait(); err != nil {
		return session{}, fmt.Errorf("open the INBOX of %s: %w", a.Login, plain(err))
	}
	return session{c}, nil
}

// refusal is a refusal by an IMAP server, without its text, which may have in it what was sent.
type refusal struct {
	kind imap.StatusResponseType
	code imap.ResponseCode
}

// Error implements error.
func (r *refusal) Error() string {
	if r.code == "" {
		return fmt.Sprintf("answered %s", r.kind)
	}
	return fmt.Sprintf("answered %s [%s]", r.kind, r.code)
}

// plain takes a server's words out of an error.
func plain(err error) error {
	var said *imap.Error
	if errors.As(err, &said) {
		return &refusal{kind: said.Type, code: said.Code}
	}
	return err
}

// headerPatience bounds the writing of a PROXY header.
const headerPatience = 5 * time.Second

// sendHeader writes the PROXY header of a connection of our own.
func sendHeader(nc net.Conn) error {
	if err := nc.SetWriteDeadline(time.Now().Add(headerPatience)); err != nil {
		return fmt.Errorf("PROXY header: %w", err)
	}
	if _, err := nc.Write(dial.AppendProxyV2(nil, netip.AddrPort{}, netip.AddrPort{})); err != nil {
		return fmt.Errorf("PROXY header: %w", err)
	}
	if err := nc.SetWriteDeadline(time.Time{}); err != nil {
		return fmt.Errorf("PROXY header: %w", err)
	}
	return nil
}
