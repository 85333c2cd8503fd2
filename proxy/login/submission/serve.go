package submission

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"mailcutover/proxy/login"
	"mailcutover/proxy/login/sasl"
)

// maxCommands is how many commands a client may send before it has logged in. It is above
// what a failed login of a client that pipelined a message for a hundred recipients leaves.
const maxCommands = 200

// maxChunk is the longest BDAT that is read to be refused, in bytes.
const maxChunk = 1 << 20

// server speaks with a client before its login.
type server struct {
	c        *login.Conn
	front    login.Front
	helo     string        // what the client called itself; empty: no EHLO or HELO yet
	offered  *login.Offers // what the last EHLO announced; nil: no EHLO
	commands int
	errors   int
}

// Serve implements [login.Dialogue].
func (Dialogue) Serve(c *login.Conn) (*login.Session, error) {
	s := &server{c: c, front: c.Front()}
	c.Print("220 ", s.front.Hostname, " ESMTP mailcutover\r\n")
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

// readLine reads a command, or an answer to a challenge. Only an AUTH may be as long as a token
// (RFC 4954 section 4); what a line was is seen behind it.
func (s *server) readLine() ([]byte, error) {
	line, err := s.c.ReadLine(max(s.front.LineBytes, s.front.TokenBytes+len("AUTH OAUTHBEARER \r\n")))
	switch {
	case errors.Is(err, login.ErrLineTooLong):
		s.c.Print(replyTooLong)
		return nil, s.c.End(err)
	case errors.Is(err, login.ErrBareLineEnd):
		// Whoever is between might take another byte for the line's end: nothing
		// behind it is certain.
		s.c.Print(replyLineEnd)
		return nil, s.c.End(err)
	}
	return line, err
}

// command answers one command. It returns the session after a login, or why the connection
// ends.
func (s *server) command(line []byte) (*login.Session, error) {
	word, arg, _ := bytes.Cut(line, []byte{' '})
	arg = bytes.Trim(arg, " ")
	verb := strings.ToUpper(string(word[:min(len(word), 16)]))
	if s.commands++; s.commands > maxCommands {
		s.c.Print(replyErrors)
		return nil, s.c.End(&login.Refusal{Cause: login.CauseErrors, Err: errors.New("too many commands before AUTH")})
	}
	if verb != "AUTH" && len(line)+2 > s.front.LineBytes {
		return nil, s.mistake(replyTooLong)
	}
	switch verb {
	case "EHLO", "HELO":
		return nil, s.hello(verb == "EHLO", arg)
	case "STARTTLS":
		return nil, s.startTLS(arg)
	case "AUTH":
		return s.auth(arg)
	case "NOOP", "RSET":
		s.c.Print(replyOK)
	case "HELP":
		s.c.Print(replyHelp)
	case "VRFY":
		s.c.Print(replyVerify)
	case "QUIT":
		if len(arg) > 0 {
			return nil, s.mistake(replyNoArgument)
		}
		s.c.Print(replyBye)
		return nil, s.c.End(login.ErrQuit)
	case "MAIL", "RCPT", "DATA", "EXPN", "BURL":
		return nil, s.mistake(s.first())
	case "BDAT":
		return nil, s.chunk(arg)
	case "XCLIENT", "XFORWARD", "ETRN", "TURN", "ATRN", "SEND", "SOML", "SAML", "LHLO":
		return nil, s.mistake(replyNotHere)
	default:
		return nil, s.mistake(replyUnknown)
	}
	return nil, nil
}

// first returns what a client has to do before mail.
func (s *server) first() string {
	if !s.c.MayLogIn() {
		return replyTLSFirst
	}
	return replyAuthFirst
}

// mistake answers a command that can't be done, and ends the connection after too many.
func (s *server) mistake(reply string) error {
	s.c.Print(reply)
	if s.errors++; s.errors < s.front.Errors {
		return nil
	}
	s.c.Print(replyErrors)
	return s.c.End(&login.Refusal{Cause: login.CauseErrors})
}

// hello answers EHLO and HELO.
func (s *server) hello(extended bool, name []byte) error {
	if !isName(name) {
		return s.mistake(replyArgument)
	}
	s.helo, s.offered = string(name), nil
	if !extended {
		s.c.Print("250 ", s.front.Hostname, "\r\n")
		return nil
	}
	offers := login.Offers{}
	if s.front.Offers != nil {
		offers = s.front.Offers()
	}
	s.offered = &offers
	lines := []string{s.front.Hostname}
	for _, k := range keywords {
		if k.of(&offers) {
			lines = append(lines, k.name)
		}
	}
	switch {
	case offers.Size > 0:
		lines = append(lines, "SIZE "+strconv.FormatInt(offers.Size, 10))
	case offers.Size < 0:
		lines = append(lines, "SIZE")
	}
	if s.canStartTLS() {
		lines = append(lines, "STARTTLS")
	}
	if s.c.MayLogIn() {
		lines = append(lines, "AUTH "+strings.Join(sasl.Announced(), " "))
	}
	for i, line := range lines {
		if i < len(lines)-1 {
			s.c.Print("250-", line, "\r\n")
		} else {
			s.c.Print("250 ", line, "\r\n")
		}
	}
	return nil
}

func (s *server) canStartTLS() bool { return s.front.TLS && !s.c.Secure() }

// startTLS puts TLS on; the client begins anew (RFC 3207 section 4.2).
func (s *server) startTLS(arg []byte) error {
	switch {
	case !s.front.TLS:
		return s.mistake(replyNotHere)
	case s.c.Secure():
		return s.mistake(replySecure)
	case len(arg) > 0:
		return s.mistake(replyNoArgument)
	case s.c.Buffered() > 0:
		s.c.Print(replyInjected)
		return s.c.End(login.ErrInjected)
	}
	s.c.Print(replyReady)
	if err := s.c.StartTLS(); err != nil {
		return fmt.Errorf("STARTTLS: %w", err)
	}
	s.helo, s.offered = "", nil
	return nil
}

// chunk refuses BDAT, and reads its bytes, which stand behind it and are no commands (RFC 3030
// section 2).
func (s *server) chunk(arg []byte) error {
	size, last, _ := bytes.Cut(arg, []byte{' '})
	n, err := strconv.ParseInt(string(size), 10, 64)
	if err != nil || size[0] < '0' || size[0] > '9' || len(last) > 0 && !bytes.EqualFold(last, []byte("LAST")) {
		s.c.Print(replyArgument)
		return s.c.End(&login.Refusal{Cause: login.CauseErrors, Err: errors.New("malformed BDAT: where commands go on isn't known")})
	}
	if n > maxChunk {
		s.c.Print(s.first())
		return s.c.End(&login.Refusal{Cause: login.CauseErrors, Err: errors.New("a chunk too big to be read for nothing")})
	}
	if err := s.c.Skip(n); err != nil {
		return err
	}
	return s.mistake(s.first())
}

// isName reports whether a greeting's argument can be kept. RFC 5321 section 4.1.4 forbids to
// refuse a name because it is wrong; what is no name at all is refused.
func isName(name []byte) bool {
	if len(name) == 0 || len(name) > 255 {
		return false
	}
	for _, c := range name {
		if c <= ' ' || c == 0x7f {
			return false
		}
	}
	return utf8.Valid(name)
}
