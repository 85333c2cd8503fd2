package directory

import (
	"encoding/hex"
	"strings"
	"unicode/utf8"
)

// encapsulation begins the local part of an address that holds an X.500 name. Exchange writes
// one where it answers to a message whose sender it knew by a legacyExchangeDN; see [MS-OXOABK]
// for these names and Exchange's non-delivery reports for the form.
const encapsulation = "imceaex-"

// IsEncapsulated reports whether a local part says that it holds an X.500 name.
func IsEncapsulated(local string) bool {
	return len(local) >= len(encapsulation) && strings.EqualFold(local[:len(encapsulation)], encapsulation)
}

// Decapsulate returns the X.500 name in an address of the form IMCEAEX-_o=ORG_cn=NAME@domain,
// or in its local part alone: an underscore stands for a slash, and a plus sign with two
// hexadecimal digits for any other byte. ok is false for everything else.
func Decapsulate(address string) (name string, ok bool) {
	local := address
	if i := strings.LastIndexByte(address, '@'); i >= 0 {
		local = address[:i]
	}
	if !IsEncapsulated(local) {
		return "", false
	}
	local = local[len(encapsulation):]
	var b strings.Builder
	for i := 0; i < len(local); i++ {
		switch c := local[i]; c {
		case '_':
			b.WriteByte('/')
		case '+':
			if i+2 >= len(local) {
				return "", false
			}
			one, err := hex.DecodeString(local[i+1 : i+3])
			if err != nil || isControl(one[0]) {
				return "", false
			}
			b.WriteByte(one[0])
			i += 2
		default:
			if isControl(c) {
				return "", false
			}
			b.WriteByte(c)
		}
	}
	name = b.String()
	return name, strings.HasPrefix(name, "/") && len(name) > 1 && utf8.ValidString(name)
}

func isControl(c byte) bool { return c < ' ' || c == 0x7f }
