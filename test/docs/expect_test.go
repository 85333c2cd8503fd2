package docs

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// What differs from run to run. Ids and digests are bound: the same one has to come again.
var (
	volatile = regexp.MustCompile(strings.Join([]string{
		`(?P<any>\.\.\.)`,
		`(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?Z?)`,
		`(?P<id>\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b[0-9a-v]{26}\b|\b[A-Z2-7]{16}\b|\b[0-9a-f]{64}\b)`,
		`(?P<duration>\b(?:\d+h)?(?:\d+m)?\d+(?:\.\d+)?(?:ns|µs|ms|s|m)\b)`,
		`(?P<space>\s+)`,
	}, "|"))
	patterns = map[string]string{
		"any":      `.*`,
		"time":     `\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?Z?`,
		"duration": `(?:\d+h)?(?:\d+m)?\d+(?:\.\d+)?(?:ns|µs|ms|s|m)`,
		"space":    `\s+`,
	}
)

// bindings are what stands on the page, and what it really was.
type bindings map[string]string

// put replaces what stands on the page.
func (b bindings) put(text string) string {
	for shown, real := range b {
		text = strings.ReplaceAll(text, shown, real)
	}
	return text
}

// expression returns what a printed line has to match, and which ids are found by it.
func (b bindings) expression(shown string) (*regexp.Regexp, []string) {
	var e strings.Builder
	var ids []string
	e.WriteString(`^\s*`)
	rest := strings.TrimSpace(shown)
	for rest != "" {
		at := volatile.FindStringSubmatchIndex(rest)
		if at == nil {
			break
		}
		e.WriteString(regexp.QuoteMeta(rest[:at[0]]))
		found := rest[at[0]:at[1]]
		for i, name := range volatile.SubexpNames() {
			if name == "" || at[2*i] < 0 {
				continue
			}
			real, bound := b[found]
			switch {
			case name != "id":
				e.WriteString(patterns[name])
			case bound:
				e.WriteString(regexp.QuoteMeta(real))
			default:
				ids = append(ids, found)
				fmt.Fprintf(&e, `([0-9A-Za-z-]{%d})`, len(found))
			}
		}
		rest = rest[at[1]:]
	}
	e.WriteString(regexp.QuoteMeta(rest) + `\s*$`)
	return regexp.MustCompile(e.String()), ids
}

// match looks for the shown lines, in their order, and binds the ids in them. It returns
// the first one that isn't there, or "".
func (b bindings) match(shown []string, printed string) (missing string) {
	lines := strings.Split(printed, "\n")
	for _, want := range shown {
		if w := strings.TrimSpace(want); w == "" || w == "..." {
			continue
		}
		re, ids := b.expression(want)
		found := false
		for i, line := range lines {
			if m := re.FindStringSubmatch(line); m != nil {
				for n, id := range ids {
					b[id] = m[n+1]
				}
				lines, found = lines[i+1:], true
				break
			}
		}
		if !found {
			return want
		}
	}
	return ""
}

func TestMatch(t *testing.T) {
	const a, real = "3a3d7e5a-61bb-42cc-8d65-81848ea5f2a7", "fd6f898d-fc6c-4257-9599-5229ee0e0cbf"
	for _, test := range []struct {
		shown, printed, missing string
	}{
		{"done in 43ms", "done in 1.2s", ""},
		{"done in 43ms", "failed in 1.2s", "done in 43ms"},
		{"a  b", "  a b ", ""},
		{"a", "a b", "a"},
		{"a ...", "a b", ""},
		{"at 2026-11-22 07:08:38 x", "at 2027-01-01 00:00:00 x", ""},
		{"one\ntwo", "one\nmore\ntwo", ""},
		{"two\none", "one\ntwo", "one"},
		{"id " + a + "\nsame " + a, "id " + real + "\nsame " + real, ""},
		{"id " + a + "\nsame " + a, "id " + real + "\nsame " + a, "same " + a},
		{"2 mailboxes", "3 mailboxes", "2 mailboxes"},
	} {
		b := bindings{}
		if got := b.match(strings.Split(test.shown, "\n"), test.printed); got != test.missing {
			t.Errorf("shown %q, printed %q: missing %q, want %q", test.shown, test.printed, got, test.missing)
		}
	}
	b := bindings{}
	b.match([]string{"proposal " + a}, "proposal "+real)
	if got := b.put("approve " + a); got != "approve "+real {
		t.Errorf("the next command is %q", got)
	}
}
