package pop3

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"mailcutover/mail"
	"mailcutover/proxy/dial"
	"mailcutover/proxy/login"
	"mailcutover/proxy/login/sasl"
)

const (
	// maxLine is the longest line taken from a platform, in bytes with CRLF. RFC 2449 section
	// 4 allows 512.
	maxLine = 4096
	// maxCapabilities is how many lines an answer to CAPA may have.
	maxCapabilities = 128
	// maxText is how much of an answer is passed on or logged, in bytes.
	maxText = 400
	// maxInitial is the longest AUTH command with an initial response, without CRLF (RFC
	// 2449 section 4, RFC 5034 section 4).
	maxInitial = 253
)

// exchangeUnavailable begins what Exchange says, without a code, when the mailbox's server
// can't be reached.
const exchangeUnavailable = answerErrPrefix + " Server Unavailable"

// errProtocol is for a platform that doesn't keep to the protocol.
var errProtocol = errors.New("protocol error")

// platform speaks with a platform until a client is logged in there.
type platform struct {
	l    *login.Leg
	to   login.Target
	caps map[string][]string // upper-case names and words; nil: no CAPA

	xclientKnown bool // Dovecot says so in its greeting, to those that it trusts
}

// Authenticate implements [login.Dialogue].
func (Dialogue) Authenticate(l *login.Leg, a *login.Attempt) (login.Welcome, error) {
	p := &platform{l: l, to: l.Target()}
	if err := p.open(); err != nil {
		return login.Welcome{}, err
	}
	if p.to.Identity == login.IdentityXCLIENT {
		if err := p.xclient(); err != nil {
			return login.Welcome{}, err
		}
	}
	return p.login(a)
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
	return login.Offers{Pipelining: p.has("PIPELINING")}, nil
}

// fail says at what, and with whom, an error arose.
func (p *platform) fail(doing string, err error) error {
	return fmt.Errorf("POP3 at platform %s, %s: %s: %w", p.to.Platform, p.to.Host, doing, err)
}

// read reads the first line of an answer.
func (p *platform) read(doing string) (ok bool, line []byte, err error) {
	line, err = p.l.ReadLine(maxLine)
	if err != nil {
		return false, nil, p.fail(doing, err)
	}
	switch word, _, _ := bytes.Cut(line, []byte{' '}); string(word) {
	case answerOKPrefix:
		return true, line, nil
	case answerErrPrefix:
		return false, line, nil
	}
	return false, nil, p.fail(doing, fmt.Errorf("%w: malformed answer %q", errProtocol, mail.CleanText(line, 80)))
}

// command sends a line that holds no secret, and wants a positive answer.
func (p *platform) command(line string) error {
	p.l.Print(line, "\r\n")
	doing, _, _ := strings.Cut(line, " ")
	_, err := p.wantOK(doing)
	return err
}

// wantOK reads a positive answer.
func (p *platform) wantOK(doing string) ([]byte, error) {
	ok, answer, err := p.read(doing)
	if err == nil && !ok {
		err = p.fail(doing, fmt.Errorf("answered %s", mail.CleanText(answer, maxText)))
	}
	return answer, err
}

// open does all that comes before XCLIENT and the credentials.
func (p *platform) open() error {
	greeting, err := p.wantOK("greeting")
	if err != nil {
		return err
	}
	p.xclientKnown = bytes.HasPrefix(greeting, []byte(answerOKPrefix+" [XCLIENT]"))
	if err := p.capa(); err != nil {
		return err
	}
	if p.to.TLS != login.LegStartTLS {
		return nil
	}
	if !p.has("STLS") {
		return p.fail("STLS", fmt.Errorf("%w: not announced", dial.ErrTLS))
	}
	if err := p.command("STLS"); err != nil {
		return err
	}
	if err := p.l.StartTLS(); err != nil {
		return p.fail("STLS", err)
	}
	return p.capa() // what was announced before is forgotten, RFC 2595 section 4
}

// capa reads the capabilities; a platform need not know the command (RFC 2449).
func (p *platform) capa() error {
	p.caps = nil
	p.l.Print("CAPA\r\n")
	ok, _, err := p.read("CAPA")
	if err != nil || !ok {
		return err
	}
	p.caps = map[string][]string{}
	for range maxCapabilities {
		line, err := p.l.ReadLine(maxLine)
		if err != nil {
			return p.fail("CAPA", err)
		}
		if string(line) == "." {
			return nil
		}
		if words := strings.Fields(strings.ToUpper(string(line))); len(words) > 0 {
			p.caps[words[0]] = append(p.caps[words[0]], words[1:]...)
		}
	}
	return p.fail("CAPA", fmt.Errorf("%w: more than %d lines", errProtocol, maxCapabilities))
}

func (p *platform) has(capability string) bool {
	_, ok := p.caps[capability]
	return ok
}

// xclient tells the platform who its client is, as Dovecot 2.3 takes it.
func (p *platform) xclient() error {
	if !p.xclientKnown && !p.has("XCLIENT") {
		return p.fail("XCLIENT", errors.New("not announced, though configured: the platform would take its clients for this node"))
	}
	attributes := p.to.Client.XCLIENT()
	if attributes == "" {
		return nil
	}
	return p.command("XCLIENT " + attributes)
}

// login proves who the client is: by AUTH, or by USER and PASS where the platform has no
// mechanism for it.
func (p *platform) login(a *login.Attempt) (login.Welcome, error) {
	proof, err := sasl.Prove(a, p.offers)
	if errors.Is(err, sasl.ErrNoMechanism) && (a.Master != nil || a.Mechanism == login.MechanismPassword) {
		return p.userPass(a)
	}
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
		line, err := p.l.ReadLine(maxLine)
		if err != nil {
			return login.Welcome{}, p.fail("AUTH", err)
		}
		if !bytes.HasPrefix(line, []byte("+ ")) && string(line) != "+" {
			return p.result(a, line, told)
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

// offers reports whether the platform has a mechanism.
func (p *platform) offers(mechanism string) bool {
	for _, word := range p.caps["SASL"] {
		if word == mechanism {
			return true
		}
	}
	return false
}

// userPass logs in by USER and PASS.
func (p *platform) userPass(a *login.Attempt) (login.Welcome, error) {
	id, err := sasl.Tell(a)
	if err != nil {
		return login.Welcome{}, p.fail("USER", err)
	}
	defer clear(id.Password)
	if id.Authzid != "" || !isLine([]byte(id.Name)) || !isLine(id.Password) {
		return login.Welcome{}, p.fail("USER", errors.New("USER and PASS can't carry this login, and the platform offers no mechanism that can"))
	}
	if err := p.l.MaySend(); err != nil {
		return login.Welcome{}, p.fail("USER", err)
	}
	p.l.Print("USER ", id.Name, "\r\n")
	ok, line, err := p.read("USER")
	switch {
	case err != nil:
		return login.Welcome{}, err
	case !ok:
		return login.Welcome{}, p.refused(a, line, false)
	}
	if err := a.Last(); err != nil {
		return login.Welcome{}, err
	}
	p.l.Print("PASS ")
	_, _ = p.l.Write(id.Password)
	p.l.Print("\r\n")
	line, err = p.l.ReadLine(maxLine)
	if err != nil {
		return login.Welcome{}, p.fail("PASS", err)
	}
	return p.result(a, line, true)
}

// result takes the final answer. told: the secret was sent.
func (p *platform) result(a *login.Attempt, line []byte, told bool) (login.Welcome, error) {
	switch word, _, _ := bytes.Cut(line, []byte{' '}); {
	case string(word) == answerOKPrefix && told:
		return login.Welcome{Final: []byte(mail.CleanText(line, maxText))}, nil
	case string(word) == answerErrPrefix:
		return login.Welcome{}, p.refused(a, line, told)
	}
	return login.Welcome{}, p.fail("login", fmt.Errorf("%w: malformed answer", errProtocol))
}

// refused judges a -ERR by its code. Its text is in no error: it may repeat what the platform
// got. A refusal of the master user, or before the secret was sent, says nothing about the
// client.
func (p *platform) refused(a *login.Attempt, line []byte, told bool) error {
	code := responseCode(line)
	switch {
	case code == "IN-USE", code == "LOGIN-DELAY", code == "SYS/TEMP":
		return p.fail("login", &putOff{answer: mail.CleanText(line, maxText), code: code})
	case bytes.HasPrefix(line, []byte(exchangeUnavailable)):
	case told && a.Master == nil && (code == "AUTH" || code == "" && !p.has("AUTH-RESP-CODE")):
		return &login.Rejection{Answer: []byte(mail.CleanText(line, maxText))}
	}
	if code == "" {
		return p.fail("login", errors.New("refused, and not by reason of the credentials"))
	}
	return p.fail("login", fmt.Errorf("refused with [%s]", mail.CleanText([]byte(code), 40)))
}

// responseCode returns the code of a -ERR in upper case (RFC 2449 section 8); empty: none.
func responseCode(line []byte) string {
	rest, ok := bytes.CutPrefix(line, []byte(answerErrPrefix+" ["))
	code, _, closed := bytes.Cut(rest, []byte{']'})
	if !ok || !closed {
		return ""
	}
	return strings.ToUpper(string(code))
}

// isLine reports whether p can stand in a command's line.
func isLine(p []byte) bool { return len(p) > 0 && !bytes.ContainsAny(p, "\r\n\x00") }
