package mailstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"
)

// logIn logs in at the mailbox that the platform knows by login. Only a platform's answer is
// returned bare, as an *imap.Error.
func (a *Access) logIn(ctx context.Context, c *imapclient.Client, login string) error {
	caps := c.Caps()
	if caps == nil {
		return errors.New("capabilities not told")
	}
	switch a.Mode {
	case ModeMaster:
		if !caps.Has(imap.AuthCap("PLAIN")) {
			return fmt.Errorf("%w: the platform has no AUTH=PLAIN, which a master user needs", ErrAuth)
		}
		return c.Authenticate(sasl.NewPlainClient(login, a.User, a.Password))
	case ModeMasterName:
		return a.plain(c, caps, login+a.Separator+a.User)
	case ModeDelegated:
		return a.plain(c, caps, strings.NewReplacer("{user}", a.User, "{login}", login).Replace(a.Form))
	default:
		return a.oauth(ctx, c, caps, login)
	}
}

// plain logs in with a name and our password.
func (a *Access) plain(c *imapclient.Client, caps imap.CapSet, name string) error {
	if caps.Has(imap.AuthCap("PLAIN")) {
		return c.Authenticate(sasl.NewPlainClient("", name, a.Password))
	}
	if caps.Has(imap.CapLoginDisabled) {
		return fmt.Errorf("%w: the platform takes no passwords here", ErrAuth)
	}
	return c.Login(name, a.Password).Wait()
}

// oauth logs in with a token; with a fresh one if the first was refused.
func (a *Access) oauth(ctx context.Context, c *imapclient.Client, caps imap.CapSet, login string) error {
	refused := ""
	for {
		token, err := a.Token.Token(ctx, refused)
		if err != nil {
			return fmt.Errorf("%w: get a token: %w", ErrAuth, err)
		}
		switch {
		case caps.Has(imap.AuthCap("OAUTHBEARER")):
			err = c.Authenticate(&oauthbearer{login: login, token: token})
		case caps.Has(imap.AuthCap("XOAUTH2")):
			err = c.Authenticate(&xoauth2{login: login, token: token})
		default:
			return fmt.Errorf("%w: the platform has neither AUTH=OAUTHBEARER nor AUTH=XOAUTH2", ErrAuth)
		}
		if err == nil || refused != "" {
			return err
		}
		refused = token
	}
}

// oauthbearer is the mechanism of RFC 7628. go-sasl's client ends the exchange with an error where
// the platform gives its reason, and then the platform waits for an answer.
type oauthbearer struct{ login, token string }

// Start implements sasl.Client. Comma and equals sign are escaped in names (RFC 5801 section 4).
func (o *oauthbearer) Start() (mech string, ir []byte, err error) {
	name := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(o.login)
	return "OAUTHBEARER", []byte("n,a=" + name + ",\x01auth=Bearer " + o.token + "\x01\x01"), nil
}

// Next implements sasl.Client: a challenge is a refusal with its reason; one byte ends it (RFC 7628
// section 3.2.3), and the platform says NO.
func (o *oauthbearer) Next([]byte) ([]byte, error) { return []byte{1}, nil }

// xoauth2 is Google's and Microsoft's mechanism, as
// https://developers.google.com/workspace/gmail/imap/xoauth2-protocol describes it.
type xoauth2 struct{ login, token string }

// Start implements sasl.Client.
func (x *xoauth2) Start() (mech string, ir []byte, err error) {
	return "XOAUTH2", []byte("user=" + x.login + "\x01auth=Bearer " + x.token + "\x01\x01"), nil
}

// Next implements sasl.Client: a challenge is a refusal with its reason; an empty response
// ends it, and the platform says NO.
func (x *xoauth2) Next([]byte) ([]byte, error) { return []byte{}, nil }
