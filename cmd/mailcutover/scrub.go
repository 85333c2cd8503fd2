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
	secretValue = regexp.MustCompile(`(?i)(\b(?:password|passwd|secret|api[_-]?key|requirepass|masterauth)["']?(?:\s*[:=]\s*|\s+(?:is\s+)?)["']?)([^\s"',}\]]+)`)
	tokenValue  = regexp.MustCompile(`(?i)(\bbearer\s+)([A-Za-z0-9._~+/=-]+)`)
	userinfo    = regexp.MustCompile(`(://)([^/\s"'@]+)@`)
	privateKey  = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----`)
	tokenHash   = regexp.MustCompile(`(?m)(^\s*-?\s*sha256:\s*)(\S+)`)

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
	b = secretValue.ReplaceAll(b, []byte("${1}"+leftOut))
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
