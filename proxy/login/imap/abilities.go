package imap

import (
	"bytes"

	"mailcutover/proxy/login"
	"mailcutover/proxy/login/sasl"
)

// abilities are a platform's capabilities, as far as they matter before login.
type abilities struct {
	known         bool
	startTLS      bool
	loginDisabled bool
	initial       bool // SASL-IR
	id            bool
	literal       int64 // the longest literal that needs no permission; -1: none
	// AUTH=
	plain, login, oauthBearer, xoauth2 bool
}

// read takes a capability list, instead of the one before.
func (a *abilities) read(list []byte) error {
	*a = abilities{known: true, literal: -1}
	var space [maxWord]byte
	for word := range bytes.FieldsSeq(list) {
		switch string(upper(&space, word)) {
		case "UNAUTHENTICATE":
			return login.ErrUnauthenticate
		case "STARTTLS":
			a.startTLS = true
		case "LOGINDISABLED":
			a.loginDisabled = true
		case "SASL-IR":
			a.initial = true
		case "ID":
			a.id = true
		case "LITERAL+":
			a.literal = maxTotal
		case "LITERAL-":
			a.literal = max(a.literal, 4096) // RFC 7888 section 5
		case "IMAP4REV2": // has both of its own (RFC 9051 appendix E)
			a.initial = true
			a.literal = max(a.literal, 4096)
		case "AUTH=" + sasl.NamePlain:
			a.plain = true
		case "AUTH=" + sasl.NameLogin:
			a.login = true
		case "AUTH=" + sasl.NameOAuthBearer:
			a.oauthBearer = true
		case "AUTH=" + sasl.NameXOAuth2:
			a.xoauth2 = true
		}
	}
	return nil
}

// offers tells whether the platform offers a mechanism.
func (a *abilities) offers(mechanism string) bool {
	switch mechanism {
	case sasl.NamePlain:
		return a.plain
	case sasl.NameLogin:
		return a.login
	case sasl.NameOAuthBearer:
		return a.oauthBearer
	case sasl.NameXOAuth2:
		return a.xoauth2
	}
	return false
}

// maxWord is the longest word that upper takes: no word of the protocol that matters here
// has more.
const maxWord = 32

// upper returns a word in upper case, in space. What is too long is returned as it is.
func upper(space *[maxWord]byte, word []byte) []byte {
	if len(word) > maxWord {
		return word
	}
	for i, c := range word {
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		space[i] = c
	}
	return space[:len(word)]
}
