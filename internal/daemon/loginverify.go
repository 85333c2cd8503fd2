package daemon

import (
	"context"
	"errors"
	"fmt"

	"mailcutover/identity/ldapdir"
	"mailcutover/proxy/login"
	"mailcutover/routing"
)

// passwords says whether a client's password is right, by the directory that the configuration
// in force names. It is asked where a platform is told a master user's (login.Verifier).
type passwords struct{ *Daemon }

var (
	errNoVerify = errors.New("no directory is configured that says whether a password is right (logins.verify)")
	errToken    = errors.New("a token can't be checked by a directory")
)

// Verify implements login.Verifier.
func (p passwords) Verify(ctx context.Context, user routing.MailboxID, a *login.Attempt) error {
	if a.Mechanism != login.MechanismPassword {
		return errToken
	}
	client := p.identity.Load().client(p.config.Load().Logins.Verify.Directory)
	if client == nil {
		return errNoVerify
	}
	err := client.Verify(ctx, user, a.Secret)
	if refused := (*ldapdir.Refused)(nil); errors.As(err, &refused) {
		return fmt.Errorf("%w: %w", login.ErrRefused, err)
	}
	return err
}

// client returns the client of a directory; nil: it isn't configured. i may be nil.
func (i *identity) client(name string) *ldapdir.Client {
	if i == nil || name == "" {
		return nil
	}
	for _, c := range i.clients {
		if c.Name() == name {
			return c
		}
	}
	return nil
}
