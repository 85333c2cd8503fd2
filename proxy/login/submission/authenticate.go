package submission

import (
	"encoding/base64"
	"fmt"
	"strings"

	"mailcutover/proxy/dial"
	"mailcutover/proxy/login"
	"mailcutover/proxy/login/sasl"
)

// maxInitial is the longest AUTH command with an initial response, without CRLF (RFC 4954
// section 4, RFC 5321 section 4.5.3.1.4).
const maxInitial = 510

// platform speaks with a platform until a client is logged in there.
type platform struct {
	l    *login.Leg
	to   login.Target
	name string // what it was told by EHLO
	caps capabilities
}

// Authenticate implements [login.Dialogue].
func (Dialogue) Authenticate(l *login.Leg, a *login.Attempt) (login.Welcome, error) {
	p := &platform{l: l, to: l.Target()}
	if err := p.open(); err != nil {
		return login.Welcome{}, err
	}
	if p.to.Identity == login.IdentityXCLIENT {
		if err := p.xclient(a.Helo); err != nil {
			return login.Welcome{}, err
		}
	}
	if missing := p.caps.missing(a.Offered); len(missing) > 0 {
		return login.Welcome{}, p.fail("EHLO", fmt.Errorf("%w: %s", login.ErrLacks, strings.Join(missing, ", ")))
	}
	welcome, err := p.auth(a)
	if err != nil {
		return login.Welcome{}, err
	}
	return welcome, p.settled()
}

// settled makes sure that the client can't become another user behind its login: by XCLIENT, which
// Postfix takes at any time from whom it trusts, with a LOGIN too; or by STARTTLS, behind which
// all begins anew (RFC 3207 section 4.2). It asks only where one of them was announced
// before: Dovecot 2.3 takes them no more.
func (p *platform) settled() error {
	if !p.caps.has("XCLIENT") && !p.caps.has("STARTTLS") {
		return nil
	}
	if err := p.ehlo(p.name); err != nil {
		return err
	}
	for _, keyword := range []string{"XCLIENT", "STARTTLS"} {
		if p.caps.has(keyword) {
			return p.fail("EHLO", fmt.Errorf("%w: by %s, which has to be used before it, or not offered to this node", login.ErrReauthenticate, keyword))
		}
	}
	return nil
}

// Probe asks a platform what can be offered in its name, from its greeting on, and takes leave.
// It needs no login. The leg is of no use afterwards.
func (Dialogue) Probe(l *login.Leg) (login.Offers, error) {
	p := &platform{l: l, to: l.Target()}
	if err := p.open(); err != nil {
		return login.Offers{}, err
	}
	l.Print("QUIT\r\n")
	if err := l.Flush(); err != nil {
		return login.Offers{}, p.fail("QUIT", err)
	}
	return p.caps.offers(), nil
}

// fail says at what, and with whom, an error arose.
func (p *platform) fail(doing string, err error) error {
	return fmt.Errorf("submission at platform %s, %s: %s: %w", p.to.Platform, p.to.Host, doing, err)
}

// command sends a line that holds no secret, and wants an answer with one of the codes.
func (p *platform) command(line string, codes ...int) (*reply, error) {
	verb, _, _ := strings.Cut(line, " ")
	p.l.Print(line, "\r\n")
	return p.want(verb, codes...)
}

func (p *platform) want(doing string, codes ...int) (*reply, error) {
	r, err := readReply(p.l)
	if err != nil {
		return nil, p.fail(doing, err)
	}
	for _, code := range codes {
		if r.code == code {
			return r, nil
		}
	}
	return nil, p.fail(doing, fmt.Errorf("answered %s", r.line("")))
}

// open does all that comes before XCLIENT and AUTH.
func (p *platform) open() error {
	if _, err := p.want("greeting", 220); err != nil {
		return err
	}
	if err := p.ehlo(p.to.Helo); err != nil {
		return err
	}
	if p.to.TLS != login.LegStartTLS {
		return nil
	}
	if !p.caps.has("STARTTLS") {
		return p.fail("STARTTLS", fmt.Errorf("%w: not announced", dial.ErrTLS))
	}
	if _, err := p.command("STARTTLS", 220); err != nil {
		return err
	}
	if err := p.l.StartTLS(); err != nil {
		return p.fail("STARTTLS", err)
	}
	return p.ehlo(p.to.Helo) // what was announced before is forgotten, RFC 3207 section 4.2
}

func (p *platform) ehlo(name string) error {
	r, err := p.command("EHLO "+name, 250)
	if err != nil {
		return err
	}
	p.name, p.caps = name, parseCapabilities(r.lines)
	return nil
}

// auth proves who the client is.
func (p *platform) auth(a *login.Attempt) (login.Welcome, error) {
	proof, err := sasl.Prove(a, func(mechanism string) bool { return p.caps.word("AUTH", mechanism) })
	if err != nil {
		return login.Welcome{}, p.fail("AUTH", err)
	}
	defer proof.Wipe()
	if err := p.l.MaySend(); err != nil {
		return login.Welcome{}, p.fail("AUTH", err)
	}
	// The mechanism's first message goes with the command if there is one and it fits; else it
	// is the answer to the first challenge. told: the secret was sent.
	command, msg, told := "AUTH "+proof.Mechanism(), proof.Initial(), false
	if n := base64.StdEncoding.EncodedLen(len(msg)); n > 0 && len(command)+1+n <= maxInitial {
		if err := a.Last(); err != nil {
			return login.Welcome{}, err
		}
		p.l.Print(command, " ")
		sasl.Send(p.l, msg)
		msg, told = nil, true
	} else {
		p.l.Print(command, "\r\n")
	}
	for {
		r, err := readReply(p.l)
		if err != nil {
			return login.Welcome{}, p.fail("AUTH", err)
		}
		switch {
		case r.code == 235 && told:
			return login.Welcome{Final: []byte(r.line("2.7.0"))}, nil
		case r.code == 535 && told && a.Master == nil:
			return login.Welcome{}, &login.Rejection{Answer: []byte(r.line("5.7.8"))}
		case r.code != 334:
			// The text is left out: it may repeat what it got. A refusal of the master user, or
			// before the secret was sent, says nothing about the client.
			return login.Welcome{}, p.fail("AUTH", fmt.Errorf("answered %d", r.code))
		}
		ok := true
		if msg == nil {
			msg, ok = proof.Next()
		}
		if !ok {
			return login.Welcome{}, p.fail("AUTH", fmt.Errorf("%w: the platform goes on asking", errProtocol))
		}
		if !told && proof.Told() {
			if err := a.Last(); err != nil {
				return login.Welcome{}, err
			}
			told = true
		}
		sasl.Send(p.l, msg)
		msg = nil
	}
}
