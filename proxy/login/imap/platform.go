package imap

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"mailcutover/proxy/dial"
	"mailcutover/proxy/login"
	"mailcutover/proxy/login/sasl"
)

// Authenticate implements [login.Dialogue].
func (Dialogue) Authenticate(l *login.Leg, a *login.Attempt) (login.Welcome, error) {
	p := &platform{l: l, a: a}
	welcome, err := p.authenticate()
	if errors.Is(err, login.ErrUnauthenticate) {
		// It may have logged us in. The answer isn't waited for: the connection is closed.
		l.Print(p.tag(), " LOGOUT\r\n")
		_ = l.Flush()
	}
	if rejection := (*login.Rejection)(nil); err == nil || p.lapsed || errors.As(err, &rejection) {
		return welcome, err
	}
	return welcome, fmt.Errorf("IMAP at platform %s, %s: %w", l.Target().Platform, l.Target().Host, err)
}

// authenticate goes from the greeting to the platform's answer to the login.
func (p *platform) authenticate() (login.Welcome, error) {
	if err := p.greeting(); err != nil {
		return login.Welcome{}, err
	}
	if p.l.Target().TLS == login.LegStartTLS {
		if err := p.startTLS(); err != nil {
			return login.Welcome{}, err
		}
	}
	if err := p.capabilities(); err != nil {
		return login.Welcome{}, err
	}
	if p.l.Target().Identity == login.IdentityID && p.can.id {
		if err := p.identify(); err != nil {
			return login.Welcome{}, err
		}
	}
	if err := p.l.MaySend(); err != nil {
		return login.Welcome{}, err
	}
	p.can.known = false // what it can do behind the login may be something else
	welcome, err := p.prove()
	if err != nil {
		return login.Welcome{}, err
	}
	p.in = true
	if err := p.capabilities(); err != nil {
		return login.Welcome{}, fmt.Errorf("behind the login: %w", err)
	}
	welcome.Before = p.kept
	return welcome, nil
}

// last looks at the decision again.
func (p *platform) last() error {
	err := p.a.Last()
	p.lapsed = err != nil
	return err
}

// capabilities asks for them if the platform hasn't told them. Behind the login the client gets
// what is answered, too.
func (p *platform) capabilities() error {
	if p.can.known {
		return nil
	}
	s, _, err := p.ask("CAPABILITY")
	switch {
	case err != nil:
		return fmt.Errorf("CAPABILITY: %w", err)
	case s != statusOK || !p.can.known:
		return fmt.Errorf("CAPABILITY: %w", errPlatform)
	}
	return nil
}

// startTLS puts TLS on. A platform that doesn't offer it is one of which somebody on the way
// has taken it away; what it said before TLS isn't believed.
func (p *platform) startTLS() error {
	if err := p.capabilities(); err != nil {
		return err
	}
	if !p.can.startTLS {
		return fmt.Errorf("%w: STARTTLS isn't offered", dial.ErrTLS)
	}
	s, _, err := p.ask("STARTTLS")
	switch {
	case err != nil:
		return fmt.Errorf("STARTTLS: %w", err)
	case s != statusOK:
		return fmt.Errorf("STARTTLS: %w: refused", errPlatform)
	}
	if err := p.l.StartTLS(); err != nil {
		return fmt.Errorf("STARTTLS: %w", err)
	}
	p.can = abilities{}
	return nil
}

// identify tells the platform of the client (RFC 2971). What it answers says nothing about
// the login.
func (p *platform) identify() error {
	s, _, err := p.ask("ID (", string(identity(p.l.Target().Client, p.a.ID)), ")")
	switch {
	case err != nil:
		return fmt.Errorf("ID: %w", err)
	case s == statusGoOn:
		return fmt.Errorf("ID: %w: a request to go on", errPlatform)
	}
	return nil
}

// prove logs in, by a mechanism, else by LOGIN.
func (p *platform) prove() (login.Welcome, error) {
	proof, err := sasl.Prove(p.a, p.can.offers)
	if errors.Is(err, sasl.ErrNoMechanism) && p.a.Mechanism == login.MechanismPassword {
		return p.login()
	}
	if err != nil {
		return login.Welcome{}, err
	}
	defer proof.Wipe()
	if err := p.settle(); err != nil {
		return login.Welcome{}, fmt.Errorf("AUTHENTICATE: %w", err)
	}
	p.keep = true
	asked, tag := false, p.tag()
	var first []byte
	if p.can.initial {
		first = proof.Initial()
	}
	if len(first) > 0 {
		if err := p.last(); err != nil {
			return login.Welcome{}, err
		}
		asked = true
		p.l.Print(tag, " AUTHENTICATE ", proof.Mechanism(), " ")
		sasl.Send(p.l, first)
	} else {
		p.l.Print(tag, " AUTHENTICATE ", proof.Mechanism(), "\r\n")
	}
	for {
		s, text, err := p.answer(tag)
		if err != nil {
			return login.Welcome{}, fmt.Errorf("AUTHENTICATE: %w", err)
		}
		switch {
		case s != statusGoOn && proof.Told():
			return p.judge(s, text)
		case s != statusGoOn:
			return login.Welcome{}, early(s, text)
		}
		msg, ok := proof.Next()
		if !ok {
			return login.Welcome{}, fmt.Errorf("AUTHENTICATE: %w: a challenge too many", errPlatform)
		}
		if err := p.settle(); err != nil {
			return login.Welcome{}, fmt.Errorf("AUTHENTICATE: %w", err)
		}
		if !asked {
			if err := p.last(); err != nil {
				return login.Welcome{}, err
			}
			asked = true
		}
		sasl.Send(p.l, msg)
	}
}

// login logs in by LOGIN.
func (p *platform) login() (login.Welcome, error) {
	if p.can.loginDisabled {
		return login.Welcome{}, fmt.Errorf("LOGIN: %w: %w", login.ErrLacks, sasl.ErrNoMechanism)
	}
	id, err := sasl.Tell(p.a)
	if err != nil {
		return login.Welcome{}, err
	}
	defer clear(id.Password)
	if id.Authzid != "" {
		return login.Welcome{}, fmt.Errorf("LOGIN as another user: %w: %w", login.ErrLacks, sasl.ErrNoMechanism)
	}
	if bytes.IndexByte(id.Password, 0) >= 0 || bytes.IndexByte([]byte(id.Name), 0) >= 0 {
		return login.Welcome{}, fmt.Errorf("LOGIN: %w: NUL", sasl.ErrMalformed)
	}
	if err := p.settle(); err != nil {
		return login.Welcome{}, fmt.Errorf("LOGIN: %w", err)
	}
	if err := p.last(); err != nil {
		return login.Welcome{}, err
	}
	p.keep = true
	tag := p.tag()
	p.l.Print(tag, " LOGIN")
	for _, argument := range [...][]byte{[]byte(id.Name), id.Password} {
		done, s, text, err := p.argument(tag, argument)
		if err != nil {
			return login.Welcome{}, fmt.Errorf("LOGIN: %w", err)
		}
		if !done {
			return login.Welcome{}, early(s, text)
		}
	}
	p.l.Print("\r\n")
	s, text, err := p.answer(tag)
	switch {
	case err != nil:
		return login.Welcome{}, fmt.Errorf("LOGIN: %w", err)
	case s == statusGoOn:
		return login.Welcome{}, fmt.Errorf("LOGIN: %w: a request to go on", errPlatform)
	}
	return p.judge(s, text)
}

// argument writes a blank and a string: quoted, else as a literal, for which the platform is
// asked if it has to be. done is false if it answered the command instead of going on.
func (p *platform) argument(tag string, argument []byte) (done bool, s status, text []byte, err error) {
	if quotable(argument) && len(argument) <= 1000 {
		p.l.Print(" ")
		quoted := appendQuoted(make([]byte, 0, 2*len(argument)+2), argument)
		p.l.Write(quoted)
		clear(quoted)
		return true, statusNone, nil, nil
	}
	size := strconv.Itoa(len(argument))
	if int64(len(argument)) <= p.can.literal {
		p.l.Print(" {", size, "+}\r\n")
	} else {
		p.l.Print(" {", size, "}\r\n")
		if s, text, err = p.answer(tag); err != nil || s != statusGoOn {
			return false, s, text, err
		}
		if err := p.settle(); err != nil {
			return false, statusNone, nil, err
		}
	}
	p.l.Write(argument)
	return true, statusNone, nil, nil
}
