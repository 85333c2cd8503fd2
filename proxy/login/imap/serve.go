package imap

import (
	"errors"
	"fmt"

	"mailcutover/proxy/login"
	"mailcutover/proxy/login/sasl"
)

// client is one client's connection before its login is through.
type client struct {
	c      *login.Conn
	front  login.Front
	errors int    // bad commands so far
	id     []byte // its parameters of ID, as text; nil: none
}

// Serve implements [login.Dialogue].
func (Dialogue) Serve(c *login.Conn) (*login.Session, error) {
	cl := &client{c: c, front: c.Front()}
	c.Print("* OK [CAPABILITY ", cl.capabilities(), "] ", cl.front.Hostname, " ready\r\n")
	for {
		session, err := cl.command()
		if session != nil || err != nil {
			return session, err
		}
	}
}

// capabilities are what this side of the proxy can do now. LITERAL- and not LITERAL+: with the
// latter a client may send a literal of any size without asking.
func (cl *client) capabilities() string {
	switch {
	case cl.startTLS() && cl.private():
		return abilitiesOfOurs + " STARTTLS LOGINDISABLED"
	case cl.startTLS():
		return abilitiesOfOurs + " STARTTLS" + mechanisms
	case cl.private():
		return abilitiesOfOurs + " LOGINDISABLED"
	}
	return abilitiesOfOurs + mechanisms
}

const abilitiesOfOurs = "IMAP4rev1 LITERAL- SASL-IR ID"

// mechanisms are announced where credentials are taken.
const mechanisms = " AUTH=" + sasl.NamePlain + " AUTH=" + sasl.NameLogin +
	" AUTH=" + sasl.NameOAuthBearer + " AUTH=" + sasl.NameXOAuth2

// startTLS tells whether STARTTLS is offered.
func (cl *client) startTLS() bool { return cl.front.TLS && !cl.c.Secure() }

// private tells whether credentials aren't taken before TLS.
func (cl *client) private() bool { return cl.front.RequireTLS && !cl.c.Secure() }

// answerBytes is the longest line of base64, with CRLF.
func (cl *client) answerBytes() int { return (cl.front.TokenBytes+2)/3*4 + len("\r\n") }

// command reads a command and answers it. It returns a session, or an error when the
// connection is to end, or neither.
func (cl *client) command() (*login.Session, error) {
	// An initial response is part of the line, and may be longer than any other command.
	line, err := cl.c.ReadLine(max(cl.front.LineBytes, cl.answerBytes()+maxTag+64))
	bare := errors.Is(err, login.ErrBareLineEnd)
	switch {
	case errors.Is(err, login.ErrLineTooLong):
		return nil, cl.bye("Line too long", fmt.Errorf("command: %w", err))
	case err != nil && !bare:
		return nil, err
	}
	cmd := &command{c: cl.c, max: cl.front.LineBytes}
	size := len(line) + len("\r\n")
	if err = cmd.parse(line); err == nil {
		switch {
		case bare:
			err = fmt.Errorf("%w: %w", errSyntax, login.ErrBareLineEnd)
		case size > cl.front.LineBytes && cmd.verb != "AUTHENTICATE":
			err = errTooBig
		default:
			var session *login.Session
			if session, err = cl.execute(cmd); session != nil {
				return session, nil
			}
		}
	}
	if err == nil {
		return nil, nil
	}
	for _, ours := range []error{errSyntax, errTooBig, errLost, errPrivacy, errMechanism, errCancelled} {
		if errors.Is(err, ours) {
			return nil, cl.bad(cmd, err)
		}
	}
	return nil, err
}

// Commands that are as they should be, and can't be carried out.
var (
	errPrivacy   = errors.New("encryption is needed first")
	errMechanism = errors.New("mechanism not supported")
	errCancelled = errors.New("cancelled") // BAD, by RFC 9051 section 6.2.2
)

// bad answers a command that can't be carried out, and counts it. It returns an error when
// the connection is to end.
func (cl *client) bad(cmd *command, reason error) error {
	lost := cmd.discard()
	if lost != nil && !errors.Is(lost, errLost) {
		return lost
	}
	switch {
	case cmd.tag == "":
		cl.c.Print("* BAD ", reason.Error(), "\r\n")
	case errors.Is(reason, errPrivacy):
		cl.c.Write(reply(cmd.tag, &login.Refusal{Cause: login.CausePrivacy}))
	case errors.Is(reason, errMechanism):
		cl.c.Print(cmd.tag, " NO [CANNOT] ", reason.Error(), "\r\n")
	case errors.Is(reason, errTooBig):
		cl.c.Print(cmd.tag, " NO [TOOBIG] ", reason.Error(), "\r\n") // RFC 4469 section 4.2
	default:
		cl.c.Print(cmd.tag, " BAD ", reason.Error(), "\r\n") // nothing of it is the client's
	}
	cl.errors++
	switch {
	case lost != nil || errors.Is(reason, errLost):
		return cl.bye("Literal or line too long", reason)
	case cl.errors > cl.front.Errors:
		return cl.bye("Too many errors", errors.New("too many bad commands"))
	}
	return nil
}

// bye speaks the last words and returns why the connection ends.
func (cl *client) bye(text string, reason error) error {
	cl.c.Print("* BYE ", text, "\r\n")
	if err := cl.c.Flush(); err != nil {
		return err
	}
	return &login.Refusal{Cause: login.CauseErrors, Err: reason}
}

// execute carries out one command. errSyntax and errTooBig are answered by its caller.
func (cl *client) execute(cmd *command) (*login.Session, error) {
	switch cmd.verb {
	case "LOGIN":
		return cl.login(cmd)
	case "AUTHENTICATE":
		return cl.authenticate(cmd)
	case "ID":
		return nil, cl.identify(cmd)
	}
	if err := cmd.end(); err != nil {
		if !known[cmd.verb] {
			err = fmt.Errorf("%w: not a command before login", errSyntax)
		}
		return nil, err
	}
	switch cmd.verb {
	case "CAPABILITY":
		cl.c.Print("* CAPABILITY ", cl.capabilities(), "\r\n", cmd.tag, " OK Capabilities listed\r\n")
		return nil, nil
	case "NOOP":
		cl.c.Print(cmd.tag, " OK Nothing done\r\n")
		return nil, nil
	case "LOGOUT":
		cl.c.Print("* BYE Logging out\r\n", cmd.tag, " OK Logged out\r\n")
		if err := cl.c.Flush(); err != nil {
			return nil, err
		}
		return nil, login.ErrQuit
	case "STARTTLS":
		return nil, cl.encrypt(cmd)
	}
	return nil, fmt.Errorf("%w: not a command before login", errSyntax)
}

// known are the commands without arguments.
var known = map[string]bool{"CAPABILITY": true, "NOOP": true, "LOGOUT": true, "STARTTLS": true}

// encrypt carries out STARTTLS. What was sent behind it, before the handshake, could be
// anybody's: the connection ends.
func (cl *client) encrypt(cmd *command) error {
	if !cl.startTLS() {
		return fmt.Errorf("%w: STARTTLS isn't offered", errSyntax)
	}
	if cl.c.Buffered() > 0 {
		cl.c.Print(cmd.tag, " BAD ", login.ErrInjected.Error(), "\r\n")
		return cl.bye("Nothing may come before TLS", login.ErrInjected)
	}
	cl.c.Print(cmd.tag, " OK Begin TLS\r\n")
	if err := cl.c.StartTLS(); err != nil {
		return err
	}
	cl.id = nil
	return nil
}

// login carries out LOGIN (RFC 9051 section 6.2.3).
func (cl *client) login(cmd *command) (*login.Session, error) {
	if cl.private() {
		return nil, errPrivacy
	}
	if err := cmd.space(); err != nil {
		return nil, err
	}
	if cmd.next('{') {
		// It is known to be wrong before it is asked for.
		if size, _, ok := literalSize(cmd.line); ok && size == 0 {
			return nil, fmt.Errorf("%w: an empty name", errSyntax)
		}
	}
	user, err := cmd.astring(cl.front.TokenBytes)
	if err != nil {
		return nil, err
	}
	if err := cmd.space(); err != nil {
		return nil, err
	}
	password, err := cmd.astring(cl.front.TokenBytes)
	if err != nil {
		return nil, err
	}
	if err := cmd.end(); err != nil {
		clear(password)
		return nil, err
	}
	if len(user) == 0 || len(password) == 0 {
		return nil, fmt.Errorf("%w: an empty name or password", errSyntax)
	}
	return cl.attempt(cmd.tag, &login.Attempt{
		Name: string(user), Secret: password, Mechanism: login.MechanismPassword,
	})
}

// authenticate carries out AUTHENTICATE (RFC 9051 section 6.2.2, RFC 4959).
func (cl *client) authenticate(cmd *command) (*login.Session, error) {
	if cl.private() {
		return nil, errPrivacy
	}
	if err := cmd.space(); err != nil {
		return nil, err
	}
	mechanism, err := cmd.atom(32)
	if err != nil {
		return nil, err
	}
	exchange, ok := sasl.Begin(string(mechanism))
	if !ok {
		return nil, errMechanism
	}
	var initial []byte
	if len(cmd.line) > 0 {
		if err := cmd.space(); err != nil {
			return nil, err
		}
		initial = cmd.line
	}
	attempt, err := exchange.Take(initial, cl.front.TokenBytes, func(challenge []byte) ([]byte, error) {
		cl.c.Print("+ ", string(challenge), "\r\n")
		line, err := cl.c.ReadLine(cl.answerBytes())
		cmd.line = nil
		switch {
		case errors.Is(err, login.ErrLineTooLong):
			return nil, fmt.Errorf("%w: %w", errLost, err)
		case errors.Is(err, login.ErrBareLineEnd):
			return nil, fmt.Errorf("%w: %w", errSyntax, err)
		}
		return line, err
	})
	switch {
	case errors.Is(err, sasl.ErrCancelled):
		return nil, errCancelled
	case errors.Is(err, sasl.ErrTooLong):
		return nil, errTooBig
	case errors.Is(err, sasl.ErrMalformed):
		return nil, fmt.Errorf("%w: %w", errSyntax, err)
	case err != nil:
		return nil, err
	}
	return cl.attempt(cmd.tag, attempt)
}

// attempt asks the core, and tells the client what came of it.
func (cl *client) attempt(tag string, a *login.Attempt) (*login.Session, error) {
	a.ID = cl.id
	session, welcome, err := cl.c.Login(a)
	if refusal := (*login.Refusal)(nil); errors.As(err, &refusal) {
		cl.c.Write(reply(tag, refusal))
		if refusal.Cause != login.CauseDrain {
			return nil, nil
		}
		// It would be told the same again: it is to come back, and perhaps to another node.
		cl.c.Write(Dialogue{}.Farewell(login.CauseDrain, false))
		if err := cl.c.Flush(); err != nil {
			return nil, err
		}
		return nil, refusal
	}
	if err != nil {
		return nil, err
	}
	cl.c.Write(welcome.Before)
	cl.c.Print(tag, " ")
	cl.c.Write(welcome.Final)
	cl.c.Print("\r\n")
	if err := cl.c.Flush(); err != nil {
		return nil, err
	}
	return session, nil
}
