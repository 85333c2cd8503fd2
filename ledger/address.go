package ledger

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"strings"
)

// A hashed address reads "#" and 32 hexadecimal digits.
const (
	hashMark  = '#'
	hashBytes = 16
)

// hashAddress returns the keyed hash that stands for an address, whatever its case.
func hashAddress(mac hash.Hash, address string) (b [hashBytes]byte) {
	mac.Reset()
	io.WriteString(mac, strings.ToLower(address))
	var sum [sha256.Size]byte
	copy(b[:], mac.Sum(sum[:0]))
	return b
}

// newMAC returns what hashAddress wants; nil without a key.
func newMAC(key []byte) hash.Hash {
	if len(key) == 0 {
		return nil
	}
	return hmac.New(sha256.New, key)
}

// hashText returns how a hash reads.
func hashText(b string) string { return string(hashMark) + hex.EncodeToString([]byte(b)) }

// hashOf returns the bytes of a hashed address, if s is one.
func hashOf(s string) (b [hashBytes]byte, ok bool) {
	if len(s) != 1+2*hashBytes || s[0] != hashMark {
		return b, false
	}
	_, err := hex.Decode(b[:], []byte(s[1:]))
	return b, err == nil && hex.EncodeToString(b[:]) == s[1:]
}

// hideAddresses puts "(address)" in the place of everything in a reply's text that could
// be one.
func hideAddresses(text string) string {
	if !strings.Contains(text, "@") {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		n := strings.IndexAny(text, " \t<>()[],;:\"'")
		switch n {
		case -1:
			n = len(text)
		case 0:
			b.WriteByte(text[0])
			text = text[1:]
			continue
		}
		if strings.Contains(text[:n], "@") {
			b.WriteString("(address)")
		} else {
			b.WriteString(text[:n])
		}
		text = text[n:]
	}
	return b.String()
}

// bareMessageID returns a Message-ID without its brackets, as it is kept and looked for.
func bareMessageID(s string) string {
	return cut(strings.Trim(s, "<> \t\r\n"), maxMessageID)
}
