package sieve

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"mailcutover/proxy/login"
	"mailcutover/proxy/login/sasl"
)

const (
	// maxCommands is how many commands a client may send before it has logged in.
	maxCommands = 100
	// maxTag is the longest string that NOOP gives back, in bytes.
	maxTag = 1024
)

// server speaks with a client before its login.
type server struct {
	c        *login.Conn
	front    login.Front
	commands int
	errors   int
}

// Serve implements [login.Dialogue].
func (Dialogue) Serve(c *login.Conn) (*login.Session, error) {
	s := &server{c: c, front: c.Front()}
	s.capabilities()
	c.Print(replyReady)
	for {
		line, err := s.read()
		var session *login.Session
		switch {
		case errors.Is(err, errSyntax):
			err = s.mistake(replyMalformed)
		case err == nil:
			session, err = s.command(line)
		}
		if err != nil || session != nil {
			return session, err
		}
	}
}

// read reads a command, or an answer to a challenge, with its literals. errSyntax is for the
// caller to answer; after every other error the connection ends.
func (s *server) read() ([]token, error) {
	line, err := readTokens(s.c, limits{
		line:    max(s.front.LineBytes, s.front.TokenBytes+len(`AUTHENTICATE "OAUTHBEARER" ""`)+2),
		literal: s.front.TokenBytes, plus: true,
	})
	switch {
	case errors.Is(err, login.ErrLineTooLong):
		s.c.Print(byeTooLong)
		return nil, s.c.End(err)
	case errors.Is(err, login.ErrBareLineEnd):
		s.c.Print(byeLineEnd)
		return nil, s.c.End(err)
	case errors.Is(err, errLiteral):
		s.c.Print(byeLiteral)
		return nil, s.c.End(&login.Refusal{Cause: login.CauseErrors, Err: err})
	}
	return line, err
}

// command answers one command. It returns the session after a login, or why the connection
// ends.
func (s *server) command(line []token) (*login.Session, error) {
	if s.commands++; s.commands > maxCommands {
		s.c.Print(byeErrors)
		return nil, s.c.End(&login.Refusal{Cause: login.CauseErrors, Err: errors.New("too many commands before a login")})
	}
	if len(line) == 0 || line[0].quoted {
		return nil, s.mistake(replyMalformed)
	}
	args := line[1:]
	verb := strings.ToUpper(string(line[0].text))
	switch verb {
	case "AUTHENTICATE":
		return s.authenticate(args)
	case "STARTTLS", "CAPABILITY", "LOGOUT":
		if len(args) > 0 {
			return nil, s.mistake(replyMalformed)
		}
	case "NOOP":
		return nil, s.noop(args)
	case "HAVESPACE", "PUTSCRIPT", "LISTSCRIPTS", "SETACTIVE", "GETSCRIPT", "DELETESCRIPT", "RENAMESCRIPT", "CHECKSCRIPT":
		return nil, s.mistake(replyFirst)
	default:
		return nil, s.mistake(replyUnknown)
	}
	switch verb {
	case "STARTTLS":
		return nil, s.startTLS()
	case "CAPABILITY":
		s.capabilities()
		s.c.Print(replyCapability)
		return nil, nil
	}
	s.c.Print(replyBye)
	return nil, s.c.End(login.ErrQuit)
}

// mistake answers a command that can't be done, and ends the connection after too many.
func (s *server) mistake(reply string) error {
	s.c.Print(reply)
	if s.errors++; s.errors < s.front.Errors {
		return nil
	}
	s.c.Print(byeErrors)
	return s.c.End(&login.Refusal{Cause: login.CauseErrors})
}

// capabilities writes the list (RFC 5804 section 1.7).
func (s *server) capabilities() {
	mechanisms, extensions := "", ""
	if s.c.MayLogIn() {
		mechanisms = strings.Join(sasl.Announced(), " ")
	}
	if s.front.Offers != nil {
		extensions = s.front.Offers().Sieve
	}
	s.c.Print("\"IMPLEMENTATION\" \"mailcutover\"\r\n\"SASL\" \"", mechanisms, "\"\r\n\"SIEVE\" ")
	s.c.Print(string(appendQuoted(nil, extensions)), "\r\n")
	if s.front.TLS && !s.c.Secure() {
		s.c.Print("\"STARTTLS\"\r\n")
	}
	s.c.Print("\"VERSION\" \"1.0\"\r\n")
}

// startTLS puts TLS on, and lists the capabilities anew (RFC 5804 section 2.2).
func (s *server) startTLS() error {
	switch {
	case !s.front.TLS:
		return s.mistake(replyNoTLS)
	case s.c.Secure():
		return s.mistake(replySecure)
	case s.c.Buffered() > 0:
		s.c.Print(byeInjected)
		return s.c.End(login.ErrInjected)
	}
	s.c.Print(replyTLS)
	if err := s.c.StartTLS(); err != nil {
		return fmt.Errorf("STARTTLS: %w", err)
	}
	s.capabilities()
	s.c.Print(replyTLSDone)
	return nil
}

// noop answers NOOP, with the client's string if there is one (RFC 5804 section 2.13).
func (s *server) noop(args []token) error {
	switch {
	case len(args) == 0:
		s.c.Print(replyNoop)
		return nil
	case len(args) > 1 || !args[0].quoted || len(args[0].text) > maxTag || !utf8.Valid(args[0].text):
		return s.mistake(replyMalformed)
	}
	s.c.Print("OK (TAG ", string(appendQuoted(nil, string(args[0].text))), ") \"Done\"\r\n")
	return nil
}

// authenticate answers AUTHENTICATE (RFC 5804 section 2.1).
func (s *server) authenticate(args []token) (*login.Session, error) {
	for _, a := range args {
		defer clear(a.text)
	}
	switch {
	case !s.c.MayLogIn():
		return nil, s.mistake(replyPrivacy)
	case len(args) < 1 || len(args) > 2 || !args[0].quoted || !args[len(args)-1].quoted:
		return nil, s.mistake(replyMalformed)
	}
	exchange, ok := sasl.Begin(string(args[0].text))
	if !ok {
		return nil, s.mistake(replyMechanism)
	}
	attempt, err := s.exchange(exchange, args[1:])
	if attempt == nil {
		return nil, err
	}
	return s.c.Answer(attempt, login.Answers{Success: "OK", Welcome: replyWelcome, Refused: refusal, Mistake: s.mistake})
}

// exchange takes the client's messages: initial, if it isn't empty, then its answers. It
// returns nil if there is no attempt: the client is answered, and the error, if any, ends
// the connection.
func (s *server) exchange(e *sasl.Exchange, initial []token) (*login.Attempt, error) {
	for {
		answer := initial
		if len(answer) == 0 {
			var err error
			s.c.Print("\"", string(sasl.Encode(e.Challenge())), "\"\r\n")
			answer, err = s.read()
			switch {
			case errors.Is(err, errSyntax):
				return nil, s.mistake(replyMessage)
			case err != nil:
				return nil, err
			case len(answer) != 1 || !answer[0].quoted:
				return nil, s.mistake(replyMessage)
			case string(answer[0].text) == "*":
				return nil, s.mistake(replyCancelled)
			}
		}
		initial = nil
		msg, err := sasl.Decode(answer[0].text, s.front.TokenBytes)
		clear(answer[0].text)
		if err != nil {
			return nil, s.mistake(replyMessage)
		}
		done, err := e.Respond(msg)
		switch {
		case err != nil:
			clear(msg)
			return nil, s.mistake(replyMessage)
		case done:
			return e.Attempt(), nil
		}
	}
}
