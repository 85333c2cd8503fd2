package sasl

import (
	"errors"
	"fmt"
	"strings"

	"mailcutover/proxy/login"
)

// ErrNoMechanism is for a platform that offers no mechanism for this attempt.
var ErrNoMechanism = errors.New("the platform offers no mechanism for this login")

var errNobody = fmt.Errorf("%w: no login", ErrMalformed)

// Proof is the client's half of an authentication towards a platform. Its messages are
// not in base64 yet.
type Proof struct {
	mechanism string
	first     bool     // the first message may go as initial response
	messages  [][]byte // each is the answer to one challenge
	at        int
}

// Prove chooses the mechanism and makes the messages for an attempt. offers tells whether
// the platform offers a mechanism, by its name in upper case. ErrNoMechanism, or ErrMalformed if
// the attempt holds what the mechanism can't carry.
//
// A password is proven by PLAIN, else LOGIN; a token by the client's own mechanism, else the
// other of the two: the token is the same. A master user's separator makes a name
// that both PLAIN and LOGIN can carry; without one it needs PLAIN's authzid.
func Prove(a *login.Attempt, offers func(mechanism string) bool) (*Proof, error) {
	if a.Login == "" {
		return nil, errNobody
	}
	if a.Master == nil && a.Mechanism != login.MechanismPassword {
		return proveToken(a, offers)
	}
	id, err := Tell(a)
	if err != nil {
		return nil, err
	}
	defer clear(id.Password)
	switch {
	case offers(NamePlain):
		msg, err := encodePlain(id.Authzid, id.Name, id.Password)
		return single(NamePlain, msg, err)
	case offers(NameLogin) && id.Authzid == "":
		if strings.ContainsRune(id.Name, 0) || strings.ContainsRune(string(id.Password), 0) {
			return nil, fmt.Errorf("%w: LOGIN can't carry this login", ErrMalformed)
		}
		// A copy: the attempt's secret is wiped by its owner, the proof's by Wipe.
		return &Proof{mechanism: NameLogin, messages: [][]byte{[]byte(id.Name), append([]byte(nil), id.Password...)}}, nil
	}
	return nil, ErrNoMechanism
}

// proveToken is Prove for OAuth.
func proveToken(a *login.Attempt, offers func(string) bool) (*Proof, error) {
	order := []string{NameOAuthBearer, NameXOAuth2}
	if a.Mechanism == login.MechanismXOAuth2 {
		order = []string{NameXOAuth2, NameOAuthBearer}
	}
	for _, name := range order {
		if !offers(name) {
			continue
		}
		encode := encodeOAuthBearer
		if name == NameXOAuth2 {
			encode = encodeXOAuth2
		}
		msg, err := encode(a.Login, a.Secret)
		return single(name, msg, err)
	}
	return nil, ErrNoMechanism
}

// single returns the proof of a mechanism with one message, which the client may send first.
func single(mechanism string, msg []byte, err error) (*Proof, error) {
	if err != nil {
		return nil, err
	}
	return &Proof{mechanism: mechanism, first: true, messages: [][]byte{msg}}, nil
}

// Identity is what a platform is told by name and password, in PLAIN or in a command of
// the protocol's own.
type Identity struct {
	Authzid  string // PLAIN only; empty: as Name
	Name     string
	Password []byte // a copy; to be wiped
}

// Tell returns the identity for an attempt with a password, or by a master user.
func Tell(a *login.Attempt) (Identity, error) {
	if a.Login == "" {
		return Identity{}, errNobody
	}
	if a.Master == nil {
		return Identity{Name: a.Login, Password: append([]byte(nil), a.Secret...)}, nil
	}
	m := a.Master
	switch {
	case m.Separator == "":
		return Identity{Authzid: a.Login, Name: m.User, Password: []byte(m.Password)}, nil
	case strings.Contains(a.Login, m.Separator): // the platform would take the first one for it
		return Identity{}, fmt.Errorf("%w: a login with the master user's separator", ErrMalformed)
	default:
		return Identity{Name: a.Login + m.Separator + m.User, Password: []byte(m.Password)}, nil
	}
}

// Mechanism returns the mechanism's name, in upper case.
func (p *Proof) Mechanism() string { return p.mechanism }

// Initial returns the message that may go with the command as an initial response, and
// takes it as sent. nil: the mechanism has none.
func (p *Proof) Initial() []byte {
	if !p.first || p.at > 0 {
		return nil
	}
	p.at++
	return p.messages[0]
}

// Next returns the answer to the platform's next challenge. One beyond the mechanism's own
// is OAuth's way to tell an error, and its answer lets the platform come to its refusal: ^A
// (RFC 7628 section 3.2.3), or nothing (XOAUTH2). In PLAIN and LOGIN it isn't foreseen: nil
// and false; then the exchange has to be cancelled.
func (p *Proof) Next() ([]byte, bool) {
	if p.at < len(p.messages) {
		p.at++
		return p.messages[p.at-1], true
	}
	if p.at > len(p.messages) {
		return nil, false
	}
	p.at++
	switch p.mechanism {
	case NameOAuthBearer:
		return []byte{1}, true
	case NameXOAuth2:
		return []byte{}, true
	}
	return nil, false
}

// Told reports whether all messages of the mechanism's own were taken. A success before that
// isn't one of these credentials, and a refusal isn't one of them either.
func (p *Proof) Told() bool { return p.at >= len(p.messages) }

// Wipe overwrites the messages.
func (p *Proof) Wipe() {
	for _, m := range p.messages {
		clear(m)
	}
}
