package imap

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"mailcutover/proxy/login"
)

// maxTag is the longest tag that is taken. Clients have up to some 40 bytes.
const maxTag = 128

// maxSkip is how much of a refused command is read and forgotten: its literals and the lines
// between them. Beyond that the connection ends: it is cheaper for all.
const maxSkip = 64 << 10

// What is wrong with a command. Other errors are the connection's.
var (
	errSyntax = errors.New("syntax error")
	errTooBig = errors.New("literal or line too long")
	errLost   = errors.New("where the next command begins can't be known")
)

// command is one command as it comes: its first line, and as much of its literals and further
// lines as was asked for.
type command struct {
	c    *login.Conn
	max  int    // the longest further line
	tag  string // valid, or empty
	verb string // in upper case
	line []byte // the unread rest of the current line; valid until the next read
}

// parse takes the tag and the verb off the first line. After errSyntax tag is valid if
// it isn't empty.
func (cmd *command) parse(line []byte) error {
	cmd.line = line
	tag, rest, found := bytes.Cut(line, []byte{' '})
	if len(tag) == 0 || len(tag) > maxTag || !all(tag, isTagChar) {
		return fmt.Errorf("%w: no tag", errSyntax)
	}
	if !found {
		return fmt.Errorf("%w: no command", errSyntax)
	}
	cmd.tag, cmd.line = string(tag), rest
	n := 0
	for n < len(rest) && isLetter(rest[n]) {
		n++
	}
	if n == 0 || n > maxWord || n < len(rest) && rest[n] != ' ' {
		return fmt.Errorf("%w: no command", errSyntax)
	}
	var space [maxWord]byte
	cmd.verb = string(upper(&space, rest[:n]))
	cmd.line = rest[n:]
	return nil
}

// space takes one blank.
func (cmd *command) space() error { return cmd.byte(' ') }

// byte takes one byte.
func (cmd *command) byte(b byte) error {
	if len(cmd.line) == 0 || cmd.line[0] != b {
		return fmt.Errorf("%w: %q expected", errSyntax, b)
	}
	cmd.line = cmd.line[1:]
	return nil
}

// next tells whether the next byte is b.
func (cmd *command) next(b byte) bool { return len(cmd.line) > 0 && cmd.line[0] == b }

// end makes sure that there is nothing more.
func (cmd *command) end() error {
	if len(cmd.line) > 0 {
		return fmt.Errorf("%w: too many arguments", errSyntax)
	}
	return nil
}

// atom takes characters that may stand in an astring without quotes. The result is a copy.
func (cmd *command) atom(max int) ([]byte, error) {
	n := 0
	for n < len(cmd.line) && isAstringChar(cmd.line[n]) {
		n++
	}
	if n == 0 {
		return nil, fmt.Errorf("%w: an argument is missing", errSyntax)
	}
	if n > max {
		return nil, errTooBig
	}
	p := bytes.Clone(cmd.line[:n])
	cmd.line = cmd.line[n:]
	return p, nil
}

// astring takes an atom, a quoted string or a literal. The result is a copy, of at most max
// bytes, else errTooBig.
func (cmd *command) astring(max int) ([]byte, error) {
	if cmd.next('"') || cmd.next('{') {
		return cmd.string(max)
	}
	return cmd.atom(max)
}

// string takes a quoted string or a literal, as astring does.
func (cmd *command) string(max int) ([]byte, error) {
	switch {
	case cmd.next('"'):
		return cmd.quoted(max)
	case cmd.next('{'):
		return cmd.literal(max)
	}
	return nil, fmt.Errorf("%w: a string is missing", errSyntax)
}

// nstring takes a string, or NIL: then the result is nil.
func (cmd *command) nstring(max int) ([]byte, error) {
	if len(cmd.line) >= 3 && bytes.EqualFold(cmd.line[:3], []byte("NIL")) {
		cmd.line = cmd.line[3:]
		return nil, nil
	}
	return cmd.string(max)
}

// quoted takes a quoted string. Bytes above 0x7f are taken: RFC 9051 has UTF-8 there, and
// clients send passwords in other charsets too.
func (cmd *command) quoted(max int) ([]byte, error) {
	p := []byte{}
	for i := 1; i < len(cmd.line); i++ {
		switch b := cmd.line[i]; b {
		case '"':
			cmd.line = cmd.line[i+1:]
			return p, nil
		case '\\':
			i++
			if i == len(cmd.line) || cmd.line[i] != '"' && cmd.line[i] != '\\' {
				clear(p)
				return nil, fmt.Errorf("%w: a backslash", errSyntax)
			}
			b = cmd.line[i]
			fallthrough
		default:
			if len(p) == max {
				clear(p)
				return nil, errTooBig
			}
			p = append(p, b)
		}
	}
	clear(p)
	return nil, fmt.Errorf("%w: a quote is missing", errSyntax)
}

// literal takes a literal, for which it asks if it has to (RFC 9051 section 4.3), and goes on
// with the line behind it.
func (cmd *command) literal(max int) ([]byte, error) {
	size, ask, ok := literalSize(cmd.line)
	if !ok {
		return nil, fmt.Errorf("%w: a literal's size", errSyntax)
	}
	if size > int64(max) {
		return nil, errTooBig
	}
	if ask {
		cmd.c.Print("+ OK\r\n")
	}
	p, err := cmd.c.ReadExact(int(size))
	if err != nil {
		return nil, err
	}
	p = append([]byte{}, p...)
	if err := cmd.further(); err != nil {
		clear(p)
		return nil, err
	}
	if bytes.IndexByte(p, 0) >= 0 {
		clear(p)
		return nil, fmt.Errorf("%w: NUL", errSyntax)
	}
	return p, nil
}

// further reads the line behind a literal.
func (cmd *command) further() (err error) {
	cmd.line, err = cmd.c.ReadLine(cmd.max)
	switch {
	case errors.Is(err, login.ErrBareLineEnd):
		return fmt.Errorf("%w: %w", errSyntax, err)
	case errors.Is(err, login.ErrLineTooLong):
		return fmt.Errorf("%w: %w", errLost, err)
	}
	return err
}

// discard reads what the client sends of the command without being asked, and forgets it:
// the literals of the kind that doesn't wait (RFC 7888) are no commands, whatever they
// hold. errLost if that is too much, or if it can't be known how much it is.
func (cmd *command) discard() error {
	for left := int64(maxSkip); ; {
		header := bytes.LastIndexByte(cmd.line, '{')
		if header < 0 || !bytes.HasSuffix(cmd.line, []byte("+}")) {
			return nil
		}
		size, _, ok := literalSize(cmd.line[header:])
		left -= int64(len(cmd.line)) + size
		if !ok || left < 0 {
			return errLost
		}
		if err := cmd.c.Skip(size); err != nil {
			return err
		}
		// What is wrong with a line that is forgotten doesn't matter.
		if err := cmd.further(); err != nil && !errors.Is(err, errSyntax) {
			return err
		}
	}
}

// literalSize reads "{n}", "{n+}", which has to be the end of a line. ask says that the client
// waits for a "+".
func literalSize(p []byte) (n int64, ask, ok bool) {
	p, ok = bytes.CutPrefix(p, []byte{'{'})
	if !ok {
		return 0, false, false
	}
	if p, ok = bytes.CutSuffix(p, []byte{'}'}); !ok {
		return 0, false, false
	}
	p, at := bytes.CutSuffix(p, []byte{'+'})
	n, ok = number(p)
	return n, !at, ok
}

// number reads digits: at least one, and at most 2^63-1 (RFC 9051's number64).
func number(p []byte) (n int64, ok bool) {
	for _, c := range p {
		if c < '0' || c > '9' || n > (math.MaxInt64-9)/10 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, len(p) > 0
}

// all tells whether is holds for all bytes.
func all(p []byte, is func(byte) bool) bool {
	for _, c := range p {
		if !is(c) {
			return false
		}
	}
	return true
}

// isAstringChar is RFC 9051's ASTRING-CHAR: visible ASCII without ( ) { % * " \.
func isAstringChar(c byte) bool {
	switch c {
	case '(', ')', '{', '%', '*', '"', '\\':
		return false
	}
	return c > ' ' && c < 0x7f
}

// isTagChar is what a tag consists of: ASTRING-CHAR without +.
func isTagChar(c byte) bool { return c != '+' && isAstringChar(c) }

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
