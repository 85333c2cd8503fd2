package sieve

import (
	"bytes"
	"errors"
	"math"
	"unicode/utf8"
)

// maxTokens is how many tokens a line may have. No line that is understood here has more.
const maxTokens = 16

var (
	// errSyntax is for a line that isn't understood; it was read to its end.
	errSyntax = errors.New("malformed line")
	// errLiteral is for a literal beyond its bound, or malformed: where the next line begins
	// isn't known.
	errLiteral = errors.New("malformed or oversized literal")
)

// token is a string, or an atom, number or parenthesis.
type token struct {
	text   []byte
	quoted bool // a string: quoted or literal
}

// source is what lines come from.
type source interface {
	ReadLine(max int) ([]byte, error)
	ReadExact(n int) ([]byte, error)
}

// limits bound what a source may send.
type limits struct {
	line    int  // the longest line, in bytes with CRLF
	literal int  // the longest literal
	plus    bool // literals must be non-synchronising, as a client's (RFC 5804 section 4)
}

// readTokens reads a line with its literals. Errors that aren't errSyntax or errLiteral are the
// source's own.
func readTokens(src source, max limits) ([]token, error) {
	var found []token
	for {
		line, err := src.ReadLine(max.line)
		if err != nil {
			return nil, err
		}
		var size int
		var literal bool
		found, size, literal, err = appendTokens(found, line, max.plus)
		switch {
		case err != nil:
			return nil, err
		case !literal:
			return found, nil
		case size > max.literal:
			return nil, errLiteral
		}
		text, err := src.ReadExact(size)
		if err != nil {
			return nil, err
		}
		found = append(found, token{text: bytes.Clone(text), quoted: true})
	}
}

// appendTokens takes a line apart. literal: it ends with the size of one.
func appendTokens(found []token, line []byte, plus bool) (_ []token, size int, literal bool, err error) {
	// What can't be understood may be meant as a literal all the same.
	bad := errSyntax
	if bytes.HasSuffix(line, []byte("}")) {
		bad = errLiteral
	}
	for len(line) > 0 {
		if len(found) == maxTokens {
			return nil, 0, false, bad
		}
		switch c := line[0]; {
		case c == ' ':
			line = line[1:]
		case c == '"':
			text, rest, ok := cutQuoted(line[1:])
			if !ok {
				return nil, 0, false, bad
			}
			found, line = append(found, token{text: text, quoted: true}), rest
		case c == '{':
			size, ok := literalSize(line, plus)
			if !ok {
				return nil, 0, false, errLiteral
			}
			return found, size, true, nil
		case c == '(' || c == ')':
			found, line = append(found, token{text: []byte{c}}), line[1:]
		case c < ' ' || c == 0x7f:
			return nil, 0, false, bad
		default:
			n := bytes.IndexAny(line, " ()\"{")
			if n < 0 {
				n = len(line)
			}
			found, line = append(found, token{text: bytes.Clone(line[:n])}), line[n:]
		}
	}
	return found, 0, false, nil
}

// cutQuoted takes a quoted string off, behind its first quote. The text is a copy.
func cutQuoted(s []byte) (text, rest []byte, ok bool) {
	text = make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return text, s[i+1:], true
		case '\\':
			i++
			if i == len(s) || s[i] != '"' && s[i] != '\\' {
				return nil, nil, false
			}
		}
		text = append(text, s[i])
	}
	return nil, nil, false
}

// literalSize reads {n}, or {n+}, that is all that is left of a line.
func literalSize(s []byte, plus bool) (size int, ok bool) {
	s, ok = bytes.CutSuffix(s[1:], []byte{'}'})
	if !ok {
		return 0, false
	}
	s, hasPlus := bytes.CutSuffix(s, []byte{'+'})
	if plus && !hasPlus || len(s) == 0 || len(s) > 10 {
		return 0, false
	}
	n := int64(0)
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return int(n), n <= math.MaxInt32
}

// appendQuoted appends s as a quoted string. Control characters, which it can't hold, become
// question marks.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ' || 0x7f <= r && r < 0xa0 || r == utf8.RuneError:
			b = append(b, '?')
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// cut returns at most n bytes of s, without breaking a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
