package routing

import (
	"strings"
	"testing"

	"mailcutover/mail"
)

func TestCanonicalAddress(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{ // want empty: refused
		{"as it is", "anna@health.example", "anna@health.example"},
		{"case", "Anna.BERG@Health.EXAMPLE", "anna.berg@health.example"},
		{"needless quotes", `"anna"@health.example`, "anna@health.example"},
		{"needless quoted pair", `"an\na"@health.example`, "anna@health.example"},
		{"quotes that are needed", `"Anna Berg"@health.example`, "anna berg@health.example"},
		{"quoted @", `"a@b"@health.example`, "a@b@health.example"},
		{"quoted quote", `"a\"b"@health.example`, `a"b@health.example`},
		{"quoted dots", `"a..b"@health.example`, "a..b@health.example"},
		{"sub-address is kept", "Anna+News@health.example", "anna+news@health.example"},
		{"%-hack is a local part", "anna%other.example@health.example", "anna%other.example@health.example"},
		{"bang path is a local part", "other!anna@health.example", "other!anna@health.example"},
		{"source route is removed", "@a.example,@b.example:anna@health.example", "anna@health.example"},
		{"NFC", "jos\u00e9@health.example", "jos\u00e9@health.example"},
		{"NFD becomes NFC", "jose\u0301@health.example", "jos\u00e9@health.example"},
		{"capital with accent", "JOSE\u0301@health.example", "jos\u00e9@health.example"},
		{"sharp s stays", "stra\u00dfe@health.example", "stra\u00dfe@health.example"},
		{"capital sharp s", "STRA\u1e9eE@health.example", "stra\u00dfe@health.example"},
		{"dotted capital I is no i", "\u0130nci@health.example", "i\u0307nci@health.example"},
		{"dotless i is no i", "\u0131nci@health.example", "\u0131nci@health.example"},
		{"full-width @ in the local part is no @", "a\uff20b@health.example", "a\uff20b@health.example"},
		{"full-width @ alone", "a\uff20health.example", ""},
		{"zero-width joiner stays", "a\u200db@health.example", "a\u200db@health.example"},
		{"U-label", "anna@m\u00fcnchen.example", "anna@xn--mnchen-3ya.example"},
		{"U-label in capitals, NFD", "anna@MU\u0308NCHEN.example", "anna@xn--mnchen-3ya.example"},
		{"A-label in capitals", "anna@XN--MNCHEN-3YA.example", "anna@xn--mnchen-3ya.example"},
		{"sharp s in the domain is a letter of its own", "anna@stra\u00dfe.example", "anna@xn--strae-oqa.example"},
		{"broken A-label", "anna@xn--a-0.example", ""},
		{"A-label of ASCII", "anna@xn--abc-.example", ""},
		{"full-width domain", "anna@\uff48ealth.example", "anna@health.example"},
		{"ideographic dot", "anna@health\u3002example", "anna@health.example"},
		{"trailing ideographic dot", "anna@health.example\u3002", ""},
		{"two ideographic dots", "anna@health\u3002\u3002example", ""},
		{"label of invisible characters", "anna@\u00ad.example", ""},
		{"trailing dot", "anna@health.example.", ""},
		{"underscore", "anna@my_host.Example", "anna@my_host.example"},
		{"hyphens in capitals", "anna@AB--CD.example", "anna@ab--cd.example"},
		{"hyphens", "anna@ab--cd.example", "anna@ab--cd.example"},
		{"literal", "anna@[127.0.0.1]", "anna@[127.0.0.1]"},
		{"IPv6 literal", "anna@[IPv6:2001:DB8:0::1]", "anna@[IPv6:2001:db8::1]"},
		{"no domain", "anna", ""},
		{"postmaster without domain", "postmaster", ""},
		{"null path", "", ""},
		{"two @", "a@b@health.example", ""},
		{"empty local part", "@health.example", ""},
		{"empty quotes", `""@health.example`, ""},
		{"control character", "a\tb@health.example", ""},
		{"quoted control character", "\"a\tb\"@health.example", ""},
		{"not UTF-8", "a\xff@health.example", ""},
		{"label too long", "a@" + strings.Repeat("x", 64) + ".example", ""},
	} {
		got, err := ParseAddress(test.in)
		if string(got) != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %q, %v; want %q", test.name, got, err, test.want)
			continue
		}
		if err != nil {
			continue
		}
		wire, err := got.Wire()
		if err != nil {
			t.Errorf("%s: wire form: %v", test.name, err)
			continue
		}
		if again, err := CanonicalAddress(wire); err != nil || again != got {
			t.Errorf("%s: %s on the wire is %q, %v", test.name, got, again, err)
		}
		if key, err := ParseAddressKey(string(got)); err != nil || key != got {
			t.Errorf("%s: as a key: %q, %v", test.name, key, err)
		}
	}
}

func TestCanonicalAddressOfACommandDoesNotAllocate(t *testing.T) {
	p, err := mail.ParsePath("anna.berg@health.example", false)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { CanonicalAddress(p) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestParseLogin(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"name", "Anna.Berg", "anna.berg"},
		{"domain and name", `AMT\Anna`, `amt\anna`},
		{"address", "Anna@Health.example", "anna@health.example"},
		{"address in U-labels", "anna@m\u00fcnchen.example", "anna@xn--mnchen-3ya.example"},
		{"address in capital A-labels", "anna@XN--MNCHEN-3YA.example", "anna@xn--mnchen-3ya.example"},
		{"NFD", "jose\u0301", "jos\u00e9"},
		{"blank inside", "anna berg", "anna berg"},
		{"empty", "", ""},
		{"blank before", " anna", ""},
		{"blank after", "anna ", ""},
		{"no-break space after", "anna\u00a0", ""},
		{"NUL", "anna\x00", ""},
		{"line end", "anna\r\n", ""},
		{"zero-width joiner", "an\u200dna", ""},
		{"right-to-left override", "an\u202ena", ""},
		{"line separator", "an\u2028na", ""},
		{"C1 control", "an\u0085na", ""},
		{"not UTF-8", "an\xffna", ""},
		{"too long", strings.Repeat("a", MaxLoginBytes+1), ""},
	} {
		got, err := ParseLogin(test.in)
		if string(got) != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %q, %v; want %q", test.name, got, err, test.want)
		}
		if again, err2 := ParseLogin(string(got)); err == nil && (err2 != nil || again != got) {
			t.Errorf("%s: again: %q, %v", test.name, again, err2)
		}
	}
}

func TestSkeletons(t *testing.T) {
	same := [][]string{
		{"stra\u00dfe@x.example", "strasse@x.example"},
		{"\u0131nci@x.example", "inci@x.example", "\u0130nci@x.example"},
		{"a\u200db@x.example", "ab@x.example", "a\u00adb@x.example"},
		{"\uff41nna@x.example", "anna@x.example"},
		{`"a` + "\uff20" + `b"@x.example`, `"a@b"@x.example`},
		{"\ufb01nn@x.example", "finn@x.example"},
		{"\u03c3\u03c2@x.example", "\u03c3\u03c3@x.example"},
		{"\u212ba@x.example", "\u00e5a@x.example"},
	}
	for _, group := range same {
		first, err := ParseAddress(group[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range group[1:] {
			o, err := ParseAddress(other)
			if err != nil {
				t.Fatal(err)
			}
			if o.Skeleton() != first.Skeleton() || o.Skeleton() == "" {
				t.Errorf("%q and %q: skeletons %q and %q", first, o, first.Skeleton(), o.Skeleton())
			}
			if s := Address(o.Skeleton()); s.Skeleton() != string(s) {
				t.Errorf("%q: skeleton of its skeleton is %q", s, s.Skeleton())
			}
		}
	}
	if Address("jos\u00e9@x.example").Skeleton() == Address("jose@x.example").Skeleton() {
		t.Error("an accent was folded away")
	}
}

func TestWithoutDetail(t *testing.T) {
	for _, test := range []struct {
		in, separator, want string
		ok                  bool
	}{
		{"anna+x@h.example", "+", "anna@h.example", true},
		{"anna+x+y@h.example", "+", "anna@h.example", true},
		{"anna+@h.example", "+", "anna@h.example", true},
		{"+x@h.example", "+", "+x@h.example", false},
		{"anna-x@h.example", "-", "anna@h.example", true},
		{"anna@a-b.example", "-", "anna@a-b.example", false},
		{"anna+x@h.example", "", "anna+x@h.example", false},
		{"a@b+c@h.example", "+", "a@b@h.example", true},
	} {
		if got, ok := Address(test.in).WithoutDetail(test.separator); string(got) != test.want || ok != test.ok {
			t.Errorf("%s with %q: %s, %t", test.in, test.separator, got, ok)
		}
	}
}

func TestMailboxIDsByteOrder(t *testing.T) {
	// MS-DTYP section 2.3.4: the first three groups are little-endian on the wire.
	id, err := ParseMailboxID("{6B1F2AD0-3C4E-4F5A-8B6C-7D8E9FA0B1C2}")
	if err != nil {
		t.Fatal(err)
	}
	if want := (MailboxID{0xd0, 0x2a, 0x1f, 0x6b, 0x4e, 0x3c, 0x5a, 0x4f, 0x8b, 0x6c, 0x7d, 0x8e, 0x9f, 0xa0, 0xb1, 0xc2}); id != want {
		t.Errorf("%x", [16]byte(id))
	}
	if id.String() != "6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1c2" || parseCanonicalID(id.String()) != id {
		t.Errorf("%s", id)
	}
	for _, bad := range []string{"", "6b1f2ad03c4e4f5a8b6c7d8e9fa0b1c2", "6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1cg",
		"{6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1c2", "00000000-0000-0000-0000-000000000000", "6b1f2ad0-3c4e-4f5a-8b6c7-d8e9fa0b1c2"} {
		if id, err := ParseMailboxID(bad); err == nil {
			t.Errorf("%q: %s", bad, id)
		}
	}
}

func TestNames(t *testing.T) {
	for _, ok := range []string{"a", "health", "0-9", strings.Repeat("x", 63)} {
		if _, err := ParseAgencyID(ok); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "-a", "A", "a.b", "a/b", "../x", "ü", "a b", strings.Repeat("x", 64)} {
		if _, err := ParseAgencyID(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
		if _, err := ParsePlatformID(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"anna@health.example", `"a@b"@x.example`, "a\u200db@m\u00fcnchen.example", "@a:b@c", "a@[IPv6:::1]", "a@XN--MNCHEN-3YA.example", "a@\u00ad.b", "x\uff20y@z\u3002w"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		local, domain := a.Split()
		if local == "" || domain == "" {
			t.Fatalf("%q became %q", s, a)
		}
		wire, err := a.Wire()
		if err != nil {
			return // folding can make a path too long for a command; such a key is refused by a mapping
		}
		if again, err := CanonicalAddress(wire); err != nil || again != a {
			t.Fatalf("%q became %q, and that %q, %v", s, a, again, err)
		}
		if d, err := CanonicalDomain(domain); err != nil || d != domain {
			t.Fatalf("%q: domain %q became %q, %v", s, domain, d, err)
		}
		skeleton := a.Skeleton()
		if again := Address(skeleton).Skeleton(); again != skeleton && isASCII(skeleton) {
			t.Fatalf("%q: skeleton %q has the skeleton %q", s, skeleton, again)
		}
	})
}

func FuzzParseMailboxID(f *testing.F) {
	f.Add("6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1c2")
	f.Add("{6B1F2AD0-3C4E-4F5A-8B6C-7D8E9FA0B1C2}")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseMailboxID(s)
		if err != nil {
			return
		}
		text := id.String()
		again, err := ParseMailboxID(text)
		if err != nil || again != id || parseCanonicalID(text) != id {
			t.Fatalf("%q: %s, %s, %v", s, id, again, err)
		}
		if !strings.EqualFold(text, strings.Trim(s, "{}")) {
			t.Fatalf("%q is shown as %q", s, text)
		}
	})
}
