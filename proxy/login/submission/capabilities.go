package submission

import (
	"strconv"
	"strings"

	"mailcutover/proxy/login"
)

// keywords are the extensions that are offered in the name of all platforms, and how
// [login.Offers] has them. SIZE has a number, and stands apart.
var keywords = [...]struct {
	name string
	of   func(*login.Offers) bool
	set  func(*login.Offers)
}{
	{"PIPELINING", func(o *login.Offers) bool { return o.Pipelining }, func(o *login.Offers) { o.Pipelining = true }},
	{"8BITMIME", func(o *login.Offers) bool { return o.EightBitMIME }, func(o *login.Offers) { o.EightBitMIME = true }},
	{"SMTPUTF8", func(o *login.Offers) bool { return o.SMTPUTF8 }, func(o *login.Offers) { o.SMTPUTF8 = true }},
	{"DSN", func(o *login.Offers) bool { return o.DSN }, func(o *login.Offers) { o.DSN = true }},
	{"CHUNKING", func(o *login.Offers) bool { return o.Chunking }, func(o *login.Offers) { o.Chunking = true }},
	{"ENHANCEDSTATUSCODES", func(o *login.Offers) bool { return o.Enhanced }, func(o *login.Offers) { o.Enhanced = true }},
}

// capabilities are a platform's answer to EHLO (RFC 5321 section 4.1.1.1): upper-case
// keywords and their words.
type capabilities map[string][]string

func parseCapabilities(lines []string) capabilities {
	caps := capabilities{}
	for _, line := range lines[min(1, len(lines)):] {
		if words := strings.Fields(strings.ToUpper(line)); len(words) > 0 {
			caps[words[0]] = append(caps[words[0]], words[1:]...)
		}
	}
	return caps
}

// has reports whether a keyword was announced.
func (c capabilities) has(keyword string) bool {
	_, ok := c[keyword]
	return ok
}

// word reports whether a keyword was announced with a word.
func (c capabilities) word(keyword, word string) bool {
	for _, w := range c[keyword] {
		if w == word {
			return true
		}
	}
	return false
}

// missing returns what a client was offered and the platform lacks.
func (c capabilities) missing(offered *login.Offers) []string {
	if offered == nil {
		return nil
	}
	var missing []string
	for _, k := range keywords {
		if k.of(offered) && !c.has(k.name) {
			missing = append(missing, k.name)
		}
	}
	if offered.Size != 0 && !c.has("SIZE") {
		missing = append(missing, "SIZE")
	}
	return missing
}

// offers returns what can be offered in this platform's name.
func (c capabilities) offers() login.Offers {
	var o login.Offers
	for _, k := range keywords {
		if c.has(k.name) {
			k.set(&o)
		}
	}
	if c.has("SIZE") {
		o.Size = -1
	}
	if words := c["SIZE"]; len(words) > 0 {
		// 0 and nonsense mean that no limit is known.
		if n, err := strconv.ParseInt(words[0], 10, 64); err == nil && n > 0 {
			o.Size = n
		}
	}
	return o
}
