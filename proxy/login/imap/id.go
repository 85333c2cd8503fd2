package imap

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"mailcutover/proxy/login"
)

// Bounds of ID's parameters (RFC 2971 section 3.3).
const (
	maxPairs = 30
	maxKey   = 30
	maxValue = 1024
)

// identify carries out ID. The client's parameters are kept for the platform.
func (cl *client) identify(cmd *command) error {
	id, err := cmd.parameters()
	if err != nil {
		return err
	}
	cl.id = id
	cl.c.Print("* ID (\"name\" \"", name, "\")\r\n", cmd.tag, " OK Noted\r\n")
	return nil
}

// parameters takes the parameters of ID, and returns them as quoted strings: what can't be
// quoted is left out. nil: there are none.
func (cmd *command) parameters() ([]byte, error) {
	if err := cmd.space(); err != nil {
		return nil, err
	}
	if len(cmd.line) >= 3 && bytes.EqualFold(cmd.line[:3], []byte("NIL")) {
		cmd.line = cmd.line[3:]
		return nil, cmd.end()
	}
	if err := cmd.byte('('); err != nil {
		return nil, err
	}
	var text []byte
	kept := 0
	seen := make(map[string]bool)
	for !cmd.next(')') {
		if len(seen) == maxPairs {
			return nil, fmt.Errorf("%w: more than %d parameters", errSyntax, maxPairs)
		}
		if len(seen) > 0 {
			if err := cmd.space(); err != nil {
				return nil, err
			}
			if cmd.next(')') { // a blank too many: there are clients that send it
				break
			}
		}
		key, err := cmd.string(maxKey)
		if err != nil {
			return nil, err
		}
		if err := cmd.space(); err != nil {
			return nil, err
		}
		value, err := cmd.nstring(maxValue)
		if err != nil {
			return nil, err
		}
		field := strings.ToLower(string(key))
		if seen[field] {
			return nil, fmt.Errorf("%w: a parameter twice", errSyntax)
		}
		seen[field] = true
		// What we say of a client ourselves, it doesn't say.
		if value == nil || kept == maxPairs-ourPairs || strings.HasPrefix(field, "x-") || !quotable(key) || !quotable(value) {
			continue
		}
		text = appendPair(text, string(key), string(value))
		kept++
	}
	cmd.line = cmd.line[1:]
	return text, cmd.end()
}

// ourPairs is how many parameters identity adds.
const ourPairs = 6

// proxyTTL is for how many proxies more Dovecot may pass the session on.
const proxyTTL = 4

// identity returns the arguments of the ID that tells a platform of the client. The fields
// are Dovecot's (its imap-login takes them from login_trusted_networks).
// What the client said of itself follows.
func identity(info login.ClientInfo, clients []byte) []byte {
	var text []byte
	for _, f := range [...]struct{ key, value string }{
		{"x-originating-ip", info.Addr},
		{"x-originating-port", info.Port},
		{"x-connected-ip", info.Local},
		{"x-connected-port", info.LocalPort},
		{"x-session-id", info.Session},
		{"x-proxy-ttl", strconv.Itoa(proxyTTL)},
	} {
		if f.value != "" && quotable([]byte(f.value)) {
			text = appendPair(text, f.key, f.value)
		}
	}
	if len(clients) > 0 {
		text = append(append(text, ' '), clients...)
	}
	return text
}

// appendPair appends a key and a value, both quoted.
func appendPair(text []byte, key, value string) []byte {
	if len(text) > 0 {
		text = append(text, ' ')
	}
	return appendQuoted(append(appendQuoted(text, key), ' '), value)
}

// quotable tells whether p can stand in a quoted string of RFC 3501: 7 bits, and no
// CR, LF or NUL.
func quotable(p []byte) bool {
	return all(p, func(c byte) bool { return c != 0 && c != '\r' && c != '\n' && c < 0x80 })
}

// appendQuoted appends a quoted string.
func appendQuoted[S string | []byte](text []byte, s S) []byte {
	text = append(text, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			text = append(text, '\\')
		}
		text = append(text, s[i])
	}
	return append(text, '"')
}
