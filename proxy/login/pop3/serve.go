package pop3

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"mailcutover/proxy/login"
	"mailcutover/proxy/login/sasl"
)

// maxCommands is how many commands a client may send before it has logged in.
const maxCommands = 100

// server speaks with a client before its login: the AUTHORIZATION state.
type server struct {
	c        *login.Conn
	front    login.Front
	user     string // of USER; empty: none, or PASS has used it
	commands int
	errors   int
}

// Serve implements [login.Dialogue].
func (Dialogue) Serve(c *login.Conn) (*login.Session, error) {
	s := &server{c: c, front: c.Front()}
	c.Print("+OK ", s.front.Hostname, " mailcutover\r\n")
	for {
		line, err := s.readLine()
		if err != nil {
			return nil, err
		}
		session, err := s.command(line)
		if err != nil || session != nil {
			return session, err
		}
	}
}

// readLine reads a command, or an answer to a challenge. Only an AUTH may be as long as a
// token (RFC 5034 section 4); what a line was is seen behind it.
func (s *server) readLine() ([]byte, error) {
	line, err := s.c.ReadLine(max(s.front.LineBytes, s.front.TokenBytes+len("AUTH OAUTHBEARER \r\n")))
	switch {
	case errors.Is(err, login.ErrLineTooLong):
		s.c.Print(replyTooLong)
		return nil, s.c.End(err)
	case errors.Is(err, login.ErrBareLineEnd):
		s.c.Print(replyLineEnd)
		return nil, s.c.End(err)
	}
	return line, err
}

// command answers one command. It returns the session after a login, or why the connection
// ends.
func (s *server) command(line []byte) (*login.Session, error) {
	word, arg, given := bytes.Cut(line, []byte{' '})
	verb := strings.ToUpper(string(word[:min(len(word), 8)]))
	if s.commands++; s.commands > maxCommands {
		s.c.Print(replyErrors)
		return nil, s.c.End(&login.Refusal{Cause: login.CauseErrors, Err: errors.New("too many commands before a login")})
	}
	if verb != "AUTH" && len(line)+2 > s.front.LineBytes {
		return nil, s.mistake(replyTooLong)
	}
	switch verb {
	case "CAPA":
		s.capabilities()
	case "STLS":
		return nil, s.startTLS(given)
	case "USER":
		return nil, s.setUser(arg)
	case "PASS":
		return s.pass(arg)
	case "AUTH":
		return s.auth(arg)
	case "NOOP": // not of this state, but harmless
		s.c.Print(replyOK)
	case "QUIT":
		s.c.Print(replyBye)
		return nil, s.c.End(login.ErrQuit)
	case "STAT", "LIST", "RETR", "DELE", "RSET", "TOP", "UIDL":
		return nil, s.mistake(replySequence)
	default:
		return nil, s.mistake(replyUnknown)
	}
	return nil, nil
}

// mistake answers a command that can't be done, and ends the connection after too many.
func (s *server) mistake(reply string) error {
	s.c.Print(reply)
	if s.errors++; s.errors < s.front.Errors {
		return nil
	}
	return s.c.End(&login.Refusal{Cause: login.CauseErrors})
}

// capabilities answers CAPA (RFC 2449). TOP and UIDL are of the state behind the login; all
// platforms have them, and clients need not ask again.
func (s *server) capabilities() {
	s.c.Print("+OK\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\n")
	if s.front.Offers != nil && s.front.Offers().Pipelining {
		s.c.Print("PIPELINING\r\n")
	}
	if s.front.TLS && !s.c.Secure() {
		s.c.Print("STLS\r\n")
	}
	if s.c.MayLogIn() {
		s.c.Print("USER\r\nSASL ", strings.Join(sasl.Announced(), " "), "\r\n")
	}
	s.c.Print(".\r\n")
}

// startTLS puts TLS on; the client begins anew (RFC 2595 section 4).
func (s *server) startTLS(argument bool) error {
	switch {
	case !s.front.TLS:
		return s.mistake(replyNoTLS)
	case s.c.Secure():
		return s.mistake(replySecure)
	case argument:
		return s.mistake(replyArgument)
	case s.c.Buffered() > 0:
		s.c.Print(replyInjected)
		return s.c.End(login.ErrInjected)
	}
	s.c.Print(replyTLS)
	if err := s.c.StartTLS(); err != nil {
		return fmt.Errorf("STLS: %w", err)
	}
	s.user = ""
	return nil
}

func (s *server) setUser(name []byte) error {
	switch {
	case !s.c.MayLogIn():
		return s.mistake(replyPrivacy)
	case len(name) == 0:
		return s.mistake(replyArgument)
	}
	s.user = string(name)
	s.c.Print(replyPass)
	return nil
}

// pass answers PASS, whose argument is all that follows the blank (RFC 1939 section 7).
func (s *server) pass(password []byte) (*login.Session, error) {
	name := s.user
	s.user = ""
	switch {
	case !s.c.MayLogIn():
		return nil, s.mistake(replyPrivacy)
	case name == "":
		return nil, s.mistake(replyUserFirst)
	case len(password) == 0:
		return nil, s.mistake(replyArgument)
	}
	return s.login(&login.Attempt{Name: name, Mechanism: login.MechanismPassword, Secret: bytes.Clone(password)})
}

// auth answers AUTH (RFC 5034). Without an argument it lists the mechanisms, as older clients
// expect it.
func (s *server) auth(arg []byte) (*login.Session, error) {
	mechanism, initial, _ := bytes.Cut(arg, []byte{' '})
	switch {
	case !s.c.MayLogIn():
		return nil, s.mistake(replyPrivacy)
	case len(arg) == 0:
		s.c.Print("+OK\r\n", strings.Join(sasl.Announced(), "\r\n"), "\r\n.\r\n")
		return nil, nil
	case len(mechanism) > 20 || bytes.IndexByte(initial, ' ') >= 0:
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
	case errors.Is(err, sasl.ErrMalformed), errors.Is(err, sasl.ErrTooLong):
		return nil, s.mistake(replyMalformed)
	case err != nil:
		return nil, err
	}
	return s.login(attempt)
}

// ask sends a challenge, and returns the client's answer.
func (s *server) ask(challenge []byte) ([]byte, error) {
	s.c.Print("+ ", string(challenge), "\r\n")
	return s.readLine()
}

// login tries to log in, and tells the client what came of it.
func (s *server) login(a *login.Attempt) (*login.Session, error) {
	return s.c.Answer(a, login.Answers{Success: answerOKPrefix, Welcome: replyWelcome, Refused: refusal, Mistake: s.mistake})
}
