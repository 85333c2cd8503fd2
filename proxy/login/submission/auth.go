package submission

import (
	"bytes"
	"errors"

	"mailcutover/proxy/login"
	"mailcutover/proxy/login/sasl"
)

// auth answers AUTH (RFC 4954 section 4). A second one never comes here: after the first
// that succeeds the platform answers.
func (s *server) auth(arg []byte) (*login.Session, error) {
	mechanism, initial, _ := bytes.Cut(arg, []byte{' '})
	switch {
	case !s.c.MayLogIn():
		return nil, s.mistake(replyPrivacy)
	case s.offered == nil:
		return nil, s.mistake(replyHelloFirst)
	case len(mechanism) == 0 || len(mechanism) > 20 || bytes.IndexByte(initial, ' ') >= 0:
		return nil, s.mistake(replyArgument)
	}
	exchange, ok := sasl.Begin(string(mechanism))
	if !ok {
		return nil, s.mistake(replyMechanism)
	}
	attempt, err := exchange.Take(initial, s.front.TokenBytes, s.ask)
	switch {
	case errors.Is(err, sasl.ErrCancelled):
		return nil, s.mistake(replyCancelled)
	case errors.Is(err, sasl.ErrTooLong):
		return nil, s.mistake(replyAuthTooLong)
	case errors.Is(err, sasl.ErrMalformed):
		return nil, s.mistake(replyMalformed)
	case err != nil:
		return nil, err
	}
	attempt.Helo, attempt.Offered = s.helo, s.offered
	return s.c.Answer(attempt, login.Answers{Success: "235 ", Welcome: replyWelcome, Refused: refusal, Mistake: s.mistake})
}

// ask sends a challenge, and returns the client's answer.
func (s *server) ask(challenge []byte) ([]byte, error) {
	s.c.Print("334 ", string(challenge), "\r\n")
	return s.readLine()
}
