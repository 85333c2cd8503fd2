package sieve

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"mailcutover/proxy/dial"
	"mailcutover/proxy/login"
	"mailcutover/proxy/login/sasl"
)

const (
	// maxLines is how many lines a response may have.
	maxLines = 128
	// maxText is how much of an answer's text is passed on or logged, in bytes.
	maxText = 400
	// maxQuoted is the longest quoted string (RFC 5804 section 4); longer ones are literals.
	maxQuoted = 1024
)

// fromPlatform bounds what a platform may send. Lists of extensions are long.
var fromPlatform = limits{line: 8192, literal: 8192}

// errProtocol is for a platform that doesn't keep to the protocol.
var errProtocol = errors.New("protocol error")

// platform speaks with a platform until a client is logged in there.
type platform struct {
	l    *login.Leg
	to   login.Target
	caps map[string]string // by upper-case name
}

// response is a platform's final answer (RFC 5804 section 1.2).
type response struct {
	status string // OK, NO or BYE
	code   string // the response code's name, in upper case; empty: none
	text   string
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
	final, err := p.authenticate(a)
	if err != nil {
		return login.Welcome{}, err
	}
	// Some show UNAUTHENTICATE only to users.
	p.l.Print("CAPABILITY\r\n")
	if err := p.capabilities("CAPABILITY"); err != nil {
		return login.Welcome{}, err
	}
	for _, name := range []string{"XCLIENT", "STARTTLS"} {
		if _, ok := p.caps[name]; ok {
			return login.Welcome{}, p.fail("CAPABILITY", fmt.Errorf("%w: by %s", login.ErrReauthenticate, name))
		}
	}
	return login.Welcome{Final: final}, nil
}

// Probe asks a platform what can be offered in its name, from its greeting on, and takes leave.
// It needs no login. The leg is of no use afterwards.
func (Dialogue) Probe(l *login.Leg) (login.Offers, error) {
	p := &platform{l: l, to: l.Target()}
	if err := p.open(); err != nil {
		return login.Offers{}, err
	}
	l.Print("LOGOUT\r\n")
	if err := l.Flush(); err != nil {
		return login.Offers{}, p.fail("LOGOUT", err)
	}
	return login.Offers{Sieve: p.caps["SIEVE"]}, nil
}

// fail says at what, and with whom, an error arose.
func (p *platform) fail(doing string, err error) error {
	return fmt.Errorf("ManageSieve at platform %s, %s: %s: %w", p.to.Platform, p.to.Host, doing, err)
}

// read reads a line: the final one as a response, another one as its tokens.
func (p *platform) read(doing string) (*response, []token, error) {
	line, err := readTokens(p.l, fromPlatform)
	if err != nil {
		return nil, nil, p.fail(doing, err)
	}
	if len(line) == 0 {
		return nil, nil, p.fail(doing, fmt.Errorf("%w: empty line", errProtocol))
	}
	if line[0].quoted {
		return nil, line, nil
	}
	r, ok := parseResponse(line)
	if !ok {
		return nil, nil, p.fail(doing, fmt.Errorf("%w: neither a string nor a response", errProtocol))
	}
	return r, nil, nil
}

// parseResponse takes a final line apart: status, a code in parentheses, a text.
func parseResponse(line []token) (*response, bool) {
	r := &response{status: strings.ToUpper(string(line[0].text))}
	if r.status != "OK" && r.status != "NO" && r.status != "BYE" {
		return nil, false
	}
	rest := line[1:]
	if len(rest) > 0 && !rest[0].quoted && string(rest[0].text) == "(" {
		end := 1
		for end < len(rest) && (rest[end].quoted || string(rest[end].text) != ")") {
			end++
		}
		if end < 2 || end == len(rest) || rest[1].quoted {
			return nil, false
		}
		r.code, rest = strings.ToUpper(string(rest[1].text)), rest[end+1:]
	}
	switch {
	case len(rest) == 0:
	case len(rest) == 1 && rest[0].quoted:
		r.text = string(rest[0].text)
	default:
		return nil, false
	}
	return r, true
}

// line returns the response as one line of ours, without its end, and without a code.
func (r *response) line() []byte {
	b := []byte(r.status)
	if r.text != "" {
		b = appendQuoted(append(b, ' '), cut(r.text, maxText))
	}
	return b
}

// refused is the error of a response that isn't OK, to something that holds no secret.
func (p *platform) refused(doing string, r *response) error {
	return p.fail(doing, fmt.Errorf("answered %s (%s)", cut(string(r.line()), maxText), cut(r.code, 40)))
}

// capabilities reads a list to its OK. A platform with UNAUTHENTICATE is refused.
func (p *platform) capabilities(doing string) error {
	p.caps = map[string]string{}
	for range maxLines {
		final, line, err := p.read(doing)
		switch {
		case err != nil:
			return err
		case final != nil && final.status != "OK":
			return p.refused(doing, final)
		case final != nil:
			if _, ok := p.caps["UNAUTHENTICATE"]; ok {
				return p.fail(doing, login.ErrUnauthenticate)
			}
			return nil
		}
		value := ""
		if len(line) > 1 {
			value = string(line[1].text)
		}
		p.caps[strings.ToUpper(string(line[0].text))] = value
	}
	return p.fail(doing, fmt.Errorf("%w: more than %d lines", errProtocol, maxLines))
}

// command sends a line that holds no secret, and wants OK.
func (p *platform) command(line string) error {
	p.l.Print(line, "\r\n")
	doing, _, _ := strings.Cut(line, " ")
	final, _, err := p.read(doing)
	switch {
	case err != nil:
		return err
	case final == nil:
		return p.fail(doing, fmt.Errorf("%w: a string in place of an answer", errProtocol))
	case final.status != "OK":
		return p.refused(doing, final)
	}
	return nil
}

// open does all that comes before XCLIENT and the credentials.
func (p *platform) open() error {
	if err := p.capabilities("greeting"); err != nil {
		return err
	}
	if p.to.TLS != login.LegStartTLS {
		return nil
	}
	if _, ok := p.caps["STARTTLS"]; !ok {
		return p.fail("STARTTLS", fmt.Errorf("%w: not announced", dial.ErrTLS))
	}
	if err := p.command("STARTTLS"); err != nil {
		return err
	}
	if err := p.l.StartTLS(); err != nil {
		return p.fail("STARTTLS", err)
	}
	return p.capabilities("STARTTLS") // they come unasked, RFC 5804 section 2.2
}

// xclient tells the platform who its client is, as Pigeonhole 0.5 takes it: in atoms.
func (p *platform) xclient() error {
	if _, ok := p.caps["XCLIENT"]; !ok {
		return p.fail("XCLIENT", errors.New("not announced, though configured: the platform would take its clients for this node"))
	}
	attributes := p.to.Client.XCLIENT()
	if attributes == "" {
		return nil
	}
	return p.command("XCLIENT " + attributes)
}

// authenticate proves who the client is, and returns the platform's OK.
func (p *platform) authenticate(a *login.Attempt) (final []byte, err error) {
	const doing = "AUTHENTICATE"
	proof, err := sasl.Prove(a, func(mechanism string) bool {
		for _, word := range strings.Fields(p.caps["SASL"]) {
			if strings.EqualFold(word, mechanism) {
				return true
			}
		}
		return false
	})
	if err != nil {
		return nil, p.fail(doing, err)
	}
	defer proof.Wipe()
	if err := p.l.MaySend(); err != nil {
		return nil, p.fail(doing, err)
	}
	told := false // the secret was sent
	if first := proof.Initial(); len(first) > 0 {
		if err := a.Last(); err != nil {
			return nil, err
		}
		told = true
		p.l.Print("AUTHENTICATE \"", proof.Mechanism(), "\" ")
		p.send(first)
	} else {
		p.l.Print("AUTHENTICATE \"", proof.Mechanism(), "\"\r\n")
	}
	for {
		final, _, err := p.read(doing)
		switch {
		case err != nil:
			return nil, err
		case final == nil:
			msg, ok := proof.Next()
			if !ok {
				return nil, p.fail(doing, fmt.Errorf("%w: the platform goes on asking", errProtocol))
			}
			if !told && proof.Told() {
				if err := a.Last(); err != nil {
					return nil, err
				}
				told = true
			}
			p.send(msg)
		case final.status == "OK" && told:
			return final.line(), nil
		case final.status == "NO" && final.code == "" && told && a.Master == nil:
			return nil, &login.Rejection{Answer: final.line()}
		default:
			// The text is left out: it may repeat what the platform got. A refusal of the
			// master user, or before the secret was sent, says nothing about the client.
			return nil, p.fail(doing, fmt.Errorf("answered %s (%s)", final.status, cut(final.code, 40)))
		}
	}
}

// send sends a message as a string, and ends the line.
func (p *platform) send(msg []byte) {
	text := sasl.Encode(msg)
	if base64.StdEncoding.EncodedLen(len(msg)) > maxQuoted {
		p.l.Print(fmt.Sprintf("{%d+}\r\n", len(text)))
		_, _ = p.l.Write(text)
	} else {
		p.l.Print("\"")
		_, _ = p.l.Write(text)
		p.l.Print("\"")
	}
	p.l.Print("\r\n")
	clear(text)
}
