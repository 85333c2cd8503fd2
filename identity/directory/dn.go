package directory

import "strings"

// Below reports whether the object dn is base itself or below it, as LDAP compares names: without
// case, and without blanks around separators (RFC 4514). What a name escapes is compared as
// it stands.
func Below(dn, base string) bool {
	d, b := parts(dn), parts(base)
	if len(b) == 0 || len(d) < len(b) {
		return false
	}
	d = d[len(d)-len(b):]
	for i := range b {
		if d[i] != b[i] {
			return false
		}
	}
	return true
}

// SameDN reports whether two names are one object's.
func SameDN(a, b string) bool { return Below(a, b) && Below(b, a) }

// parts splits a name at its commas, those that are escaped or quoted left out.
func parts(dn string) []string {
	var out []string
	start, quoted := 0, false
	for i := 0; i < len(dn); i++ {
		switch dn[i] {
		case '\\':
			i++ // what follows is no separator
		case '"':
			quoted = !quoted
		case ',', ';':
			if !quoted {
				out = append(out, part(dn[start:i]))
				start = i + 1
			}
		}
	}
	if rest := part(dn[start:]); rest != "" || len(out) > 0 {
		out = append(out, rest)
	}
	return out
}

func part(s string) string {
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return strings.ToLower(strings.TrimSpace(s))
	}
	return strings.ToLower(strings.TrimSpace(name) + "=" + strings.TrimSpace(value))
}
