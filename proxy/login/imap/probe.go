package imap

import (
	"fmt"

	"mailcutover/proxy/login"
)

// Probe looks whether a platform would take logins, from its greeting on, and takes leave. It
// needs no login. IMAP announces nothing in the name of platforms, so the Offers are empty.
func (Dialogue) Probe(l *login.Leg) (login.Offers, error) {
	p := &platform{l: l, a: new(login.Attempt)}
	err := p.greeting()
	if err == nil && l.Target().TLS == login.LegStartTLS {
		err = p.startTLS()
	}
	if err == nil {
		err = p.capabilities()
	}
	if err != nil {
		return login.Offers{}, fmt.Errorf("IMAP at platform %s, %s: %w", l.Target().Platform, l.Target().Host, err)
	}
	l.Print(p.tag(), " LOGOUT\r\n")
	_ = l.Flush() // it has said all that was to be known
	return login.Offers{}, nil
}
