package smtp

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// command is a command line, split but not yet understood.
type command struct {
	verb string // upper-case; "" if it is none that we know of
	arg  []byte // what follows the verb, without blanks around it; valid until the next read
}

// name returns the verb for counters and logs.
func (cmd command) name() string {
	if cmd.verb == "" {
		return "OTHER"
	}
	return cmd.verb
}

// verbs are all verbs that have an answer of their own.
var verbs = [...]string{
	"MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "EHLO", "HELO", "LHLO", "STARTTLS", "VRFY",
	"EXPN", "HELP", "XFORWARD", "XCLIENT", "AUTH", "ETRN", "TURN", "ATRN", "SEND", "SOML", "SAML", "PROXY", "BURL",
}

// parseCommand splits a line, its CRLF removed.
func parseCommand(line []byte) command {
	word, arg, _ := bytes.Cut(line, []byte{' '})
	for _, v := range &verbs {
		if len(v) == len(word) && equalFold(v, word) {
			return command{verb: v, arg: bytes.Trim(arg, " \t")}
		}
	}
	return command{}
}

// equalFold compares an upper-case word of letters with b, in ASCII only.
func equalFold(upper string, b []byte) bool {
	for i := range len(upper) {
		if b[i]&^0x20 != upper[i] {
			return false
		}
	}
	return true
}

// hasControl reports whether an argument holds what no argument may.
func hasControl(arg []byte) bool {
	for _, c := range arg {
		if c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}

// splitPath takes a MAIL or RCPT argument apart: keyword is "FROM:" or "TO:". It
// returns what stands between the angle brackets, whose end it finds aware of quoted
// local parts, and the parameters behind them.
//
// Blanks before the bracket are no part of RFC 5321 section 3.3, but in wide use.
func splitPath(arg, keyword string) (path, params string, ok bool) {
	if len(arg) < len(keyword) || !strings.EqualFold(arg[:len(keyword)], keyword) {
		return "", "", false
	}
	rest := strings.TrimLeft(arg[len(keyword):], " ")
	if rest == "" || rest[0] != '<' {
		return "", "", false
	}
	end := closingBracket(rest)
	if end < 0 {
		return "", "", false
	}
	path, params = rest[1:end], rest[end+1:]
	if params != "" && params[0] != ' ' {
		return "", "", false
	}
	return path, strings.TrimLeft(params, " "), true
}

// closingBracket returns the index of the > that ends the path which s begins with, or -1.
func closingBracket(s string) int {
	quoted := false
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			return i
		}
	}
	return -1
}

// greetingName returns the argument of HELO, EHLO or LHLO if it can be kept. RFC 5321
// section 4.1.4 forbids to refuse a name because it is wrong; what is no name at all
// is refused.
func greetingName(arg []byte) (string, bool) {
	if len(arg) == 0 || len(arg) > 255 {
		return "", false
	}
	for _, c := range arg {
		if c <= ' ' || c == 0x7f {
			return "", false
		}
	}
	return string(arg), utf8.Valid(arg)
}
