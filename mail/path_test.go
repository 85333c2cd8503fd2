package mail

import (
	"errors"
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	long := strings.Repeat("x", MaxPathBytes-len("@in.example"))
	for _, c := range []struct {
		in     string
		utf8   bool
		wire   string // "" for a refusal
		local  string
		domain string
	}{
		{in: "a@in.example", wire: "a@in.example", local: "a", domain: "in.example"},
		{in: "First.Last+tag@IN.Example", wire: "First.Last+tag@IN.Example", local: "First.Last+tag", domain: "IN.Example"},
		{in: "!#$%&'*+-/=?^_`{|}~@in.example", wire: "!#$%&'*+-/=?^_`{|}~@in.example", local: "!#$%&'*+-/=?^_`{|}~", domain: "in.example"},
		{in: long + "@in.example", wire: long + "@in.example", local: long, domain: "in.example"},
		{in: long + "x@in.example"},
		{in: "a@under_score.example", wire: "a@under_score.example", local: "a", domain: "under_score.example"},
		{in: "a@localhost", wire: "a@localhost", local: "a", domain: "localhost"},
		// Exchange's encapsulated X.500 addresses.
		{in: "IMCEAEX-_o=org_ou=x+20y_cn=Recipients_cn=a@in.example", wire: "IMCEAEX-_o=org_ou=x+20y_cn=Recipients_cn=a@in.example", local: "IMCEAEX-_o=org_ou=x+20y_cn=Recipients_cn=a", domain: "in.example"},

		// T1, T2: what looks like the end of a path and parameters.
		{in: `"victim@agency-b.example> ORCPT=rfc822;x"@agency-a.example`, wire: `"victim@agency-b.example> ORCPT=rfc822;x"@agency-a.example`, local: "victim@agency-b.example> ORCPT=rfc822;x", domain: "agency-a.example"},
		{in: `victim@agency-b.example> NOTIFY=NEVER ORCPT=@agency-a.example`},
		{in: `victim@agency-b.example> SIZE=1 <@agency-a.example`},
		{in: "a b@in.example"}, {in: "<a@in.example"}, {in: "a>@in.example"}, {in: "a@in.example "}, {in: " a@in.example"},

		// T3: quoting is kept.
		{in: `"a b\" c"@agency-a.example`, wire: `"a b\" c"@agency-a.example`, local: `a b" c`, domain: "agency-a.example"},
		{in: `"a@b"@agency-a`, wire: `"a@b"@agency-a`, local: "a@b", domain: "agency-a"},
		{in: `" "@agency-a`, wire: `" "@agency-a`, local: " ", domain: "agency-a"},
		{in: `"\\"@agency-a`, wire: `"\\"@agency-a`, local: `\`, domain: "agency-a"},
		{in: `""@agency-a`}, {in: `"a@agency-a`}, {in: `"a\"@agency-a`}, {in: `"a"b@agency-a`}, {in: `a"b"@agency-a`}, {in: `"a"`}, {in: `"a\`},

		// T4: other ways to name another host.
		{in: "@evil.example:user@agency-a", wire: "user@agency-a", local: "user", domain: "agency-a"},
		{in: "@one.example,@two.example:user@agency-a", wire: "user@agency-a", local: "user", domain: "agency-a"},
		{in: "@evil.example:"}, {in: "@evil.example"}, {in: "@:a@b"}, {in: "@a,b:c@d"}, {in: "@a b:c@d"}, {in: "@a:@b:c@d"},
		{in: "user%agency-b@agency-a", wire: "user%agency-b@agency-a", local: "user%agency-b", domain: "agency-a"},
		{in: "agency-b!user@agency-a", wire: "agency-b!user@agency-a", local: "agency-b!user", domain: "agency-a"},
		{in: "user@agency-b@agency-a"}, {in: "user@agency-a.example."}, {in: "user@.agency-a"}, {in: "user@a..b"}, {in: "user@-a"}, {in: "user@a-"},
		{in: "user@" + strings.Repeat("x", 64) + ".example"}, {in: "user@" + strings.Repeat("x.", 128) + "x"},
		{in: "user@[127.0.0.1]", wire: "user@[127.0.0.1]", local: "user", domain: "[127.0.0.1]"},
		{in: "user@[IPv6:::1]", wire: "user@[IPv6:::1]", local: "user", domain: "[IPv6:::1]"},
		{in: "user@[ipv6:::1]", wire: "user@[ipv6:::1]", local: "user", domain: "[ipv6:::1]"},
		{in: "user@[::1]"}, {in: "user@[IPv6:127.0.0.1]"}, {in: "user@[127.0.0.1"}, {in: "user@[127.1]"}, {in: "user@[IPv6:fe80::1%eth0]"}, {in: "user@[]"}, {in: "user@[tag:x]"},

		// T5: bytes that no address has.
		{in: "b\x00c@agency-a"}, {in: "b\rc@agency-a"}, {in: "b\nc@agency-a"}, {in: "b\x7fc@agency-a"}, {in: "\"b\x01\"@agency-a"}, {in: "b@agency\x1b-a"}, {in: "b\tc@agency-a"},
		{in: "m\u00fcller@agency-a"}, {in: "m@m\u00fcller.example"}, {in: "m\xfcller@agency-a", utf8: true},
		{in: "m\u00fcller@b\u00fcro.example", utf8: true, wire: "m\u00fcller@b\u00fcro.example", local: "m\u00fcller", domain: "b\u00fcro.example"},
		{in: "a\uff20agency-a", utf8: true}, // a full-width @ is none

		// In use, against RFC 5321 section 4.1.2: dots at the ends or in a row.
		{in: ".a@b", wire: ".a@b", local: ".a", domain: "b"},
		{in: "a.@b", wire: "a.@b", local: "a.", domain: "b"},
		{in: "a..b@c", wire: "a..b@c", local: "a..b", domain: "c"},

		// T6, and what has no domain.
		{in: "postmaster", wire: "postmaster", local: "postmaster"},
		{in: "PostMaster", wire: "PostMaster", local: "PostMaster"},
		{in: "root"}, {in: "@"}, {in: "a@"}, {in: "@a"}, {in: "a(comment)@b"}, {in: "a:b@c"}, {in: "a,b@c"}, {in: "a;b@c"}, {in: `a\b@c`}, {in: "a[b@c"},
	} {
		p, err := ParsePath(c.in, c.utf8)
		if c.wire == "" {
			if !errors.Is(err, ErrBadPath) || p != (Path{}) {
				t.Errorf("%q: %q and error %v, want a bad path", c.in, p, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
		} else if p.String() != c.wire || p.Local() != c.local || p.Domain() != c.domain || p.IsNull() {
			t.Errorf("%q: %q with local part %q and domain %q, want %q, %q, %q", c.in, p, p.Local(), p.Domain(), c.wire, c.local, c.domain)
		} else if p.IsASCII() != !strings.ContainsRune(c.in, '\u00fc') {
			t.Errorf("%q: IsASCII is %v", c.in, p.IsASCII())
		}
	}
}

func TestNullPath(t *testing.T) {
	p, err := ParsePath("", false)
	if err != nil || !p.IsNull() || p != (Path{}) || p.String() != "" || p.Local() != "" || p.Domain() != "" || !p.IsASCII() {
		t.Errorf("null path is %q, error %v", p, err)
	}
}

// FuzzPath wants a path to hold nothing that could end a command or a path, and to be
// read again as it was written.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"a@b", `"a> b"@c`, `"\""@c`, "@a,@b:c@d", "postmaster", "a@[IPv6:::1]", "m\u00fc@\u00fc.example"} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, s string, utf8OK bool) {
		p, err := ParsePath(s, utf8OK)
		if err != nil {
			if !errors.Is(err, ErrBadPath) {
				t.Fatalf("%q: error %v", s, err)
			}
			return
		}
		if !utf8OK && !p.IsASCII() {
			t.Fatalf("%q is taken without SMTPUTF8", s)
		}
		quoted, escaped := false, false
		for _, c := range []byte(p.String()) {
			if c < ' ' || c == 0x7f {
				t.Fatalf("%q holds the byte %#x", p, c)
			}
			switch {
			case escaped:
				escaped = false
			case quoted && c == '\\':
				escaped = true
			case c == '"':
				quoted = !quoted
			case !quoted && (c == '>' || c == '<' || c == ' '):
				t.Fatalf("%q holds %q outside quotes", p, c)
			}
		}
		if again, err := ParsePath(p.String(), utf8OK); err != nil || again != p {
			t.Fatalf("%q is read again as %q, error %v", p, again, err)
		}
	})
}
