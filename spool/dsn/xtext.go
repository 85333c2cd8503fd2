package dsn

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// decodeXtext decodes xtext (RFC 3461 section 4).
func decodeXtext(s string) (string, bool) {
	if strings.IndexByte(s, '+') < 0 {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '+' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		v, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		b.WriteByte(byte(v))
		i += 2
	}
	return b.String(), true
}

// decodeUTF8Xtext decodes the two forms of an internationalised ORCPT: \x{...} for
// characters, or UTF-8 as it is (RFC 6533 section 3).
func decodeUTF8Xtext(s string) (string, bool) {
	var b strings.Builder
	for len(s) > 0 {
		before, rest, found := strings.Cut(s, `\x{`)
		b.WriteString(before)
		if !found {
			break
		}
		digits, after, ok := strings.Cut(rest, "}")
		r, err := strconv.ParseUint(digits, 16, 32)
		if !ok || err != nil || r > utf8.MaxRune || !utf8.ValidRune(rune(r)) {
			return "", false
		}
		b.WriteRune(rune(r))
		s = after
	}
	return b.String(), utf8.ValidString(b.String())
}

// encodeUTF8Xtext returns s in ASCII, as utf-8-addr-xtext of RFC 6533 section 3.
func encodeUTF8Xtext(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r <= ' ' || r >= 0x7f || r == '\\' || r == '+' || r == '=':
			fmt.Fprintf(&b, `\x{%02X}`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
