package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
)

// scrubber takes out of a text what a support bundle may not have.
type scrubber struct {
	key []byte // of the pseudonyms; nil: addresses stay
}

var (
	// What follows these words is a secret, whoever wrote it there.
	// What follows is one word, or all between quotes, which a log in JSON has escaped.
	secretValue = regexp.MustCompile(`(?i)((?:password|passwd|passphrase|secret|api[_-]?key|requirepass|masterauth)\\?["']?(?:\s*[:=]\s*|\s+(?:is\s+)?))(\\"[^\n]*?\\"|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\\?["']?[^\s"',}\]]+)`)
	// A token of the API (token new), and what clients say to log in.
	apiToken   = regexp.MustCompile(`(?i)(token\\?["']?\s*[:=]\s*\\?["']?)[A-Za-z0-9_-]{43,}`)
	sasl       = regexp.MustCompile(`(?i)(\bauth(?:enticate)? +(?:plain|login|xoauth2|oauthbearer) +\\?"?)[A-Za-z0-9+/=]{4,}`)
	basic      = regexp.MustCompile(`(?i)(\bauthorization\\?["']?\s*[:=]\s*\\?["']?basic\s+)[A-Za-z0-9+/=]+`)
	tokenValue = regexp.MustCompile(`(?i)(\bbearer\s+)([A-Za-z0-9._~+/=-]+)`)
	userinfo   = regexp.MustCompile(`(://)([^/\s"'@]+)@`)
	privateKey = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----`)
	tokenHash  = regexp.MustCompile(`(?m)(^\s*-?\s*sha256:\s*)(\S+)`)

	// A local part may be quoted or beyond ASCII; what is around it in JSON or logs may not.
	address = regexp.MustCompile(`("(?:\\.|[^"\\\s])+\\?"|[^\s"'<>()\[\]{},;:=/\\|@]+)@([\pL\pN](?:[\pL\pN.-]*[\pL\pN])?)`)
	// Names that people log in with, where a log or an answer says that it is one.
	login = regexp.MustCompile(`(?i)("(?:login|user|username|authcid|authzid|name_sent)":")((?:\\.|[^"\\])*)(")|(\b(?:login|user|username|authcid|authzid)=)([^\s"]+)`)
)

const leftOut = "(left out)"

// text returns b without secrets, and with pseudonyms where the scrubber has a key.
func (s *scrubber) text(b []byte) []byte {
	b = privateKey.ReplaceAll(b, []byte(leftOut))
	b = userinfo.ReplaceAll(b, []byte("${1}"+leftOut+"%40"))
	b = tokenValue.ReplaceAll(b, []byte("${1}"+leftOut))
	for _, known := range []*regexp.Regexp{apiToken, sasl, basic} {
		b = known.ReplaceAll(b, []byte("${1}"+leftOut))
	}
	b = secretValue.ReplaceAllFunc(b, func(found []byte) []byte {
		m := secretValue.FindSubmatch(found)
		return append(bytes.Clone(m[1]), unquoted(m[2])...)
	})
	b = tokenHash.ReplaceAll(b, []byte("${1}"+leftOut))
	if s.key == nil {
		return b
	}
	b = address.ReplaceAllFunc(b, func(found []byte) []byte {
		m := address.FindSubmatch(found)
		return append(append(s.pseudonym(m[1]), '@'), m[2]...)
	})
	return login.ReplaceAllFunc(b, func(found []byte) []byte {
		m := login.FindSubmatch(found)
		if m[4] != nil {
			return append(bytes.Clone(m[4]), s.name(m[5])...)
		}
		return append(append(bytes.Clone(m[1]), s.name(m[2])...), m[3]...)
	})
}

// unquoted is what stands for a secret: between its quotes, so that JSON stays JSON.
func unquoted(secret []byte) []byte {
	for _, quote := range []string{`\"`, `"`, `'`} {
		rest, begins := bytes.CutPrefix(secret, []byte(quote))
		switch {
		case begins && bytes.HasSuffix(rest, []byte(quote)):
			return []byte(quote + leftOut + quote)
		case begins:
			return []byte(quote + leftOut)
		}
	}
	return []byte(leftOut)
}

// name is the pseudonym of a login name; an address in it has one already.
func (s *scrubber) name(b []byte) []byte {
	if len(b) == 0 || bytes.ContainsRune(b, '@') {
		return b
	}
	return s.pseudonym(b)
}

// pseudonym stands for a name: the same for the same letters, whatever their case.
func (s *scrubber) pseudonym(b []byte) []byte {
	mac := hmac.New(sha256.New, s.key)
	mac.Write(bytes.ToLower(b))
	return []byte("p-" + hex.EncodeToString(mac.Sum(nil)[:6]))
}
