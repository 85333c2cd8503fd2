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
	mechanism, initial, given := bytes.Cut(arg, []byte{' '})
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
	attempt, err := s.exchange(exchange, initial, given)
	if attempt == nil {
		return nil, err
	}
	attempt.Helo, attempt.Offered = s.helo, s.offered
	return s.c.Answer(attempt, login.Answers{Success: "235 ", Welcome: replyWelcome, Refused: refusal, Mistake: s.mistake})
}

// exchange takes the client's messages. It returns nil if there is no attempt: the client is
// answered, and the error, if any, ends the connection.
func (s *server) exchange(e *sasl.Exchange, initial []byte, given bool) (*login.Attempt, error) {
	for first := true; ; first = false {
		var msg []byte
		var err error
		if first && given {
			msg, err = sasl.DecodeInitial(initial, s.front.TokenBytes)
		} else {
			s.c.Print("334 ", string(sasl.Encode(e.Challenge())), "\r\n")
			line, readErr := s.readLine()
			switch {
			case readErr != nil:
				return nil, readErr
			case string(line) == "*":
				return nil, s.mistake(replyCancelled)
			}
			msg, err = sasl.Decode(line, s.front.TokenBytes)
		}
		switch {
		case errors.Is(err, sasl.ErrTooLong):
			return nil, s.mistake(replyAuthTooLong)
		case err != nil:
			return nil, s.mistake(replyMalformed)
		}
		done, err := e.Respond(msg)
		switch {
		case err != nil:
			clear(msg)
			return nil, s.mistake(replyMalformed)
		case done:
			return e.Attempt(), nil
		}
	}
}
