package imap

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"mailcutover/proxy/login"
)

// Bounds of what a platform says before and while a client logs in.
const (
	maxLine  = 8 << 10  // a line; capability lists have some 1,000 bytes
	maxTotal = 64 << 10 // all of it
)

// errPlatform is for what a platform says that isn't an answer to what it was asked.
var errPlatform = errors.New("no proper IMAP")

// platform is one connection to a platform until the client is logged in.
type platform struct {
	l      *login.Leg
	a      *login.Attempt
	can    abilities
	heard  int    // bytes so far
	tags   int    // commands so far
	lapsed bool   // the decision doesn't hold any more
	in     bool   // the platform has taken the login
	keep   bool   // untagged responses are kept, for the client
	kept   []byte // whole lines
}

// status is what a platform answered.
type status uint8

const (
	statusNone status = iota
	statusOK
	statusNO
	statusBAD
	statusGoOn // a request to continue
)

// response reads one response: a line and, where it has literals, those and the lines behind
// them. It is valid until the next read.
func (p *platform) response() ([]byte, error) {
	line, err := p.line()
	if err != nil {
		return nil, err
	}
	var whole []byte
	for {
		size, ok := announced(line)
		if ok && whole == nil {
			// Only data has literals; in a text for people it would swallow what follows.
			if err := dataOnly(line); err != nil {
				return nil, err
			}
		}
		if !ok {
			if whole == nil {
				return line, nil
			}
			return append(whole, line...), nil
		}
		if size > int64(maxTotal-p.heard) {
			return nil, fmt.Errorf("%w: a literal of %d bytes", errPlatform, size)
		}
		p.heard += int(size)
		whole = append(append(whole, line...), "\r\n"...)
		literal, err := p.l.ReadExact(int(size))
		if err != nil {
			return nil, err
		}
		whole = append(whole, literal...)
		if line, err = p.line(); err != nil {
			return nil, err
		}
	}
}

// line reads a line within the bounds.
func (p *platform) line() ([]byte, error) {
	line, err := p.l.ReadLine(maxLine)
	switch {
	case errors.Is(err, login.ErrLineTooLong), errors.Is(err, login.ErrBareLineEnd):
		return nil, fmt.Errorf("%w: %w", errPlatform, err)
	case err != nil:
		return nil, err
	}
	if p.heard += len(line) + len("\r\n"); p.heard > maxTotal {
		return nil, fmt.Errorf("%w: more than %d bytes", errPlatform, maxTotal)
	}
	return line, nil
}

// announced returns the size of the literal that follows a line, if one does.
func announced(line []byte) (size int64, ok bool) {
	if len(line) == 0 || line[len(line)-1] != '}' {
		return 0, false
	}
	header := bytes.LastIndexByte(line, '{')
	if header < 0 {
		return 0, false
	}
	size, ask, ok := literalSize(line[header:])
	return size, ok && ask
}

// greeting reads the greeting (RFC 9051 section 7.1). PREAUTH would be somebody's mailbox,
// whose it is nobody knows.
func (p *platform) greeting() error {
	line, err := p.response()
	if err != nil {
		return fmt.Errorf("IMAP greeting: %w", err)
	}
	text, ok := bytes.CutPrefix(line, []byte("* "))
	if !ok {
		return fmt.Errorf("IMAP greeting: %w: %.80q", errPlatform, line)
	}
	word, rest, _ := bytes.Cut(text, []byte{' '})
	if !bytes.EqualFold(word, []byte("OK")) {
		return fmt.Errorf("IMAP greeting: %w: %.80q", errPlatform, line)
	}
	return p.learn(rest)
}

// learn takes the capabilities out of a status response's text.
func (p *platform) learn(text []byte) error {
	code, arguments := responseCode(text)
	if code != "CAPABILITY" {
		return nil
	}
	return p.can.read(arguments)
}

// ask sends a command and returns the platform's answer, for which see answer.
func (p *platform) ask(command ...string) (status, []byte, error) {
	if err := p.settle(); err != nil {
		return statusNone, nil, err
	}
	tag := p.tag()
	p.l.Print(tag, " ")
	p.l.Print(command...)
	p.l.Print("\r\n")
	return p.answer(tag)
}

// tag returns the tag of the next command.
func (p *platform) tag() string {
	p.tags++
	return "m" + strconv.Itoa(p.tags)
}

// answer reads until the platform answers the command with this tag, or asks for more. text
// is what follows the status; it is valid until the next read.
func (p *platform) answer(tag string) (s status, text []byte, err error) {
	for {
		line, err := p.response()
		if err != nil {
			return statusNone, nil, err
		}
		switch {
		case bytes.HasPrefix(line, []byte("* ")):
			if err := p.untagged(line); err != nil {
				return statusNone, nil, err
			}
			continue
		case len(line) > 0 && line[0] == '+':
			return statusGoOn, bytes.TrimPrefix(line[1:], []byte{' '}), nil
		}
		text, ok := bytes.CutPrefix(line, []byte(tag+" "))
		if !ok {
			return statusNone, nil, fmt.Errorf("%w: a foreign tag", errPlatform)
		}
		word, rest, _ := bytes.Cut(text, []byte{' '})
		var space [maxWord]byte
		switch string(upper(&space, word)) {
		case "OK":
			return statusOK, rest, p.learn(rest)
		case "NO":
			return statusNO, rest, nil
		case "BAD":
			return statusBAD, rest, nil
		}
		return statusNone, nil, fmt.Errorf("%w: no status", errPlatform)
	}
}

// settle takes what came before anything else is sent. None of that can be an answer to it,
// however it is tagged: our tags can be guessed.
func (p *platform) settle() error {
	keep := p.keep
	p.keep = p.in // then it is the client's
	for p.l.Buffered() > 0 {
		line, err := p.response()
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(line, []byte("* ")) {
			return fmt.Errorf("%w: an answer before the question", errPlatform)
		}
		if err := p.untagged(line); err != nil {
			return err
		}
	}
	p.keep = keep
	return nil
}

// untagged takes an untagged response.
func (p *platform) untagged(line []byte) error {
	word, rest, _ := bytes.Cut(line[len("* "):], []byte{' '})
	var space [maxWord]byte
	switch string(upper(&space, word)) {
	case "BYE":
		if !p.keep { // nothing that it could hold was sent yet
			return fmt.Errorf("%w: %.120q", errPlatform, line)
		}
		return fmt.Errorf("%w: the platform ends the connection", errPlatform)
	case "PREAUTH":
		return fmt.Errorf("%w: PREAUTH", errPlatform)
	case "CAPABILITY":
		if err := p.can.read(rest); err != nil {
			return err
		}
	case "OK", "NO", "BAD":
		if err := p.learn(rest); err != nil {
			return err
		}
	}
	if p.keep {
		p.kept = append(append(p.kept, line...), "\r\n"...)
	}
	return nil
}

// dataOnly makes sure that a response with a literal is an untagged one without a text.
func dataOnly(line []byte) error {
	text, ok := bytes.CutPrefix(line, []byte("* "))
	word, _, _ := bytes.Cut(text, []byte{' '})
	if !ok || isStatus(word) || bytes.EqualFold(word, []byte("BYE")) || bytes.EqualFold(word, []byte("PREAUTH")) {
		return fmt.Errorf("%w: a literal in a status response", errPlatform)
	}
	return nil
}

// responseCode returns the response code that a text begins with, in upper case, and
// its arguments; "" if it has none, "?" if it can't be read.
func responseCode(text []byte) (code string, arguments []byte) {
	if len(text) == 0 || text[0] != '[' {
		return "", nil
	}
	inner, _, ok := bytes.Cut(text[1:], []byte{']'})
	word, arguments, _ := bytes.Cut(inner, []byte{' '})
	if !ok || len(word) == 0 || len(word) > maxWord || !all(word, isAstringChar) {
		return "?", nil
	}
	var space [maxWord]byte
	return string(upper(&space, word)), arguments
}
