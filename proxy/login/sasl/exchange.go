package sasl

import (
	"errors"
	"fmt"
	"strings"

	"mailcutover/proxy/login"
)

// Names of the mechanisms that clients may use, as they are announced.
const (
	NamePlain       = "PLAIN"
	NameLogin       = "LOGIN"
	NameOAuthBearer = "OAUTHBEARER"
	NameXOAuth2     = "XOAUTH2"
)

// Announced are the mechanisms in the order in which they are announced.
func Announced() []string {
	return []string{NamePlain, NameLogin, NameOAuthBearer, NameXOAuth2}
}

// ErrCancelled is for a client that gives an exchange up, by "*".
var ErrCancelled = errors.New("cancelled")

// Exchange is the server's half of one authentication: alternately Challenge and Respond,
// until Respond says that it is done. A client's initial response is its first answer; then
// the first challenge isn't sent.
type Exchange struct {
	mechanism string
	name      []byte // LOGIN: the first answer
	named     bool
	attempt   *login.Attempt
}

// Begin starts an exchange by the mechanism's name, without case. false: it isn't one of ours.
func Begin(mechanism string) (*Exchange, bool) {
	for _, name := range Announced() {
		if strings.EqualFold(name, mechanism) {
			return &Exchange{mechanism: name}, true
		}
	}
	return nil, false
}

// Challenge returns what the server says before the next answer: not yet in base64; mostly
// empty.
func (e *Exchange) Challenge() []byte {
	switch {
	case e.mechanism != NameLogin:
		return nil
	case !e.named:
		return []byte("Username:")
	}
	return []byte("Password:")
}

// Respond takes the client's next answer, after base64. When it returns true, Attempt has the
// result. The exchange keeps msg. After an error, an ErrMalformed, it is over.
func (e *Exchange) Respond(msg []byte) (done bool, err error) {
	a := &login.Attempt{Mechanism: login.MechanismPassword}
	switch e.mechanism {
	case NamePlain:
		var authzid string
		authzid, a.Name, a.Secret, err = readPlain(msg)
		if authzid != a.Name {
			a.Authorize = authzid
		}
	case NameLogin:
		if strings.ContainsRune(string(msg), 0) || len(msg) == 0 {
			return false, fmt.Errorf("%w: LOGIN with an empty answer, or NUL", ErrMalformed)
		}
		if !e.named {
			e.name, e.named = msg, true
			return false, nil
		}
		a.Name, a.Secret = string(e.name), msg
	case NameOAuthBearer:
		a.Mechanism = login.MechanismOAuthBearer
		a.Name, a.Secret, err = readOAuthBearer(msg)
		if err == nil && a.Name == "" { // only the token says who it is; no mailbox can be found
			err = fmt.Errorf("%w: OAUTHBEARER without a user", ErrMalformed)
		}
	case NameXOAuth2:
		a.Mechanism = login.MechanismXOAuth2
		a.Name, a.Secret, err = readXOAuth2(msg)
	}
	if err != nil {
		return false, err
	}
	e.attempt = a
	return true, nil
}

// Attempt returns what the client said: name, authorize, mechanism and secret.
func (e *Exchange) Attempt() *login.Attempt { return e.attempt }

// Take leads the exchange to its end, with a client that answers in lines. initial is its initial
// response; nil: there is none. ask sends a challenge and returns the answer, both in base64; its
// errors are returned as they are. max is the longest message, in bytes. Else the error is
// ErrCancelled, ErrTooLong or ErrMalformed.
func (e *Exchange) Take(initial []byte, max int, ask func(challenge []byte) ([]byte, error)) (*login.Attempt, error) {
	for first := true; ; first = false {
		var msg []byte
		var err error
		if first && initial != nil {
			msg, err = decodeInitial(initial, max)
		} else {
			answer, askErr := ask(Encode(e.Challenge()))
			switch {
			case askErr != nil:
				return nil, askErr
			case string(answer) == "*":
				return nil, ErrCancelled
			}
			msg, err = Decode(answer, max)
		}
		if err != nil {
			return nil, err
		}
		done, err := e.Respond(msg)
		switch {
		case err != nil:
			clear(msg)
			return nil, err
		case done:
			return e.Attempt(), nil
		}
	}
}
