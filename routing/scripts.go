package routing

import (
	"strings"
	"unicode"

	"golang.org/x/net/idna"
)

// alphabets are those whose letters are easily taken for one another's.
var alphabets = [...]struct {
	name  string
	table *unicode.RangeTable
}{
	{"Latin", unicode.Latin}, {"Cyrillic", unicode.Cyrillic}, {"Greek", unicode.Greek},
	{"Armenian", unicode.Armenian}, {"Cherokee", unicode.Cherokee}, {"Coptic", unicode.Coptic},
}

// MixedScripts names the alphabets that a part of an address or a login mixes, such as
// "Latin and Cyrillic", or returns "" if none does. The parts are the local part, each
// label of the domain, and what stands before a backslash. Names that mix alphabets with
// letters that look alike are how one is passed off as another (UTS 39 section 5). A name
// that is written wholly in another alphabet mixes nothing, whatever it looks like.
func MixedScripts(name string) string {
	if isASCII(name) && !strings.Contains(name, "xn--") {
		return ""
	}
	local, domain := Address(name).Split()
	if domain == "" {
		local = name
	}
	if u, err := idna.ToUnicode(domain); err == nil {
		domain = u
	}
	for _, part := range append(strings.Split(local, `\`), strings.Split(domain, ".")...) {
		var found []string
		for _, a := range alphabets {
			if strings.ContainsFunc(part, func(r rune) bool { return unicode.Is(a.table, r) }) {
				found = append(found, a.name)
			}
		}
		if len(found) > 1 {
			return strings.Join(found, " and ")
		}
	}
	return ""
}
