package routing

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"mailcutover/mail"
)

// Address is a mail address in canonical form: local part without quotes, in NFC and
// lower case, an @, and the domain in lower-case A-labels. Two spellings of one address
// have one canonical form; it is the key under which the table knows a recipient.
//
// The local part may hold any printable character, an @ included: the domain begins
// after the last one. Wire returns the form that may stand in a command.
type Address string

// CanonicalAddress returns the canonical form of a path that a peer named. The null
// path and a path without domain have none; the caller deals with postmaster.
func CanonicalAddress(p mail.Path) (Address, error) {
	domain, err := CanonicalDomain(p.Domain())
	if err != nil {
		return "", fmt.Errorf("address <%s>: %w", p, err)
	}
	local := p.Local()
	if isLowerASCII(local) {
		if w := p.String(); len(w) == len(local)+1+len(domain) && strings.HasSuffix(w, domain) {
			return Address(w), nil // the common case: unquoted and canonical as it came, nothing to allocate
		}
	} else {
		local = fold(local)
	}
	return Address(local + "@" + domain), nil
}

// ParseAddress parses an address as an operator or a list writes it, SMTPUTF8 allowed,
// and returns its canonical form.
func ParseAddress(s string) (Address, error) {
	p, err := mail.ParsePath(s, true)
	if err == nil && p.Domain() == "" {
		err = fmt.Errorf("%w: no domain", mail.ErrBadPath)
	}
	if err != nil {
		return "", fmt.Errorf("address %q: %w", s, err)
	}
	return CanonicalAddress(p)
}

// Split returns local part and domain. Both are empty for the empty address.
func (a Address) Split() (local, domain string) {
	i := strings.LastIndexByte(string(a), '@')
	if i < 0 {
		return "", ""
	}
	return string(a[:i]), string(a[i+1:])
}

// Domain returns the domain.
func (a Address) Domain() string {
	_, domain := a.Split()
	return domain
}

// WithoutDetail returns a without the part of its local part that begins with the
// separator (sub-addressing, RFC 5233), and whether there was one. separator is one
// character, or empty for no sub-addressing.
func (a Address) WithoutDetail(separator string) (Address, bool) {
	if separator == "" {
		return a, false
	}
	local, domain := a.Split()
	i := strings.Index(local, separator)
	if i < 1 {
		return a, false
	}
	return Address(local[:i] + "@" + domain), true
}

// Wire returns a as a path that may stand in a command, the local part quoted where
// that is needed.
func (a Address) Wire() (mail.Path, error) {
	p, err := mail.ParsePath(string(a), true)
	if err == nil && p.Local()+"@"+p.Domain() == string(a) {
		return p, nil
	}
	local, domain := a.Split()
	return mail.ParsePath(`"`+quoter.Replace(local)+`"@`+domain, true)
}

var quoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// Skeleton folds together what looks or compares alike: compatibility forms, case in
// every language, the Turkish i, invisible characters. Addresses with one skeleton may
// not belong to two agencies; a route never follows from a skeleton.
func (a Address) Skeleton() string {
	if isASCII(string(a)) {
		return string(a) // canonical, so lower case already
	}
	return skeleton(string(a))
}

// CanonicalDomain returns a domain in lower-case A-labels (RFC 5891 section 4), or an
// address literal with its address in canonical text form.
func CanonicalDomain(s string) (string, error) {
	if s == "" {
		return "", fmt.Errorf("%w: no domain", mail.ErrBadPath)
	}
	if s[0] == '[' {
		return canonicalLiteral(s)
	}
	if isASCII(s) {
		if !isLowerASCII(s) {
			s = strings.ToLower(s)
		}
		if !strings.Contains(s, "xn--") {
			return s, nil
		}
	}
	d, err := domainProfile.ToASCII(s)
	if err == nil {
		// Mapping can leave empty labels, where a character stands for a dot or for nothing.
		_, err = mail.ParsePath("x@"+d, false)
	}
	if err != nil || d[0] == '[' {
		return "", fmt.Errorf("%w: domain %q is no valid international domain name", mail.ErrBadPath, s)
	}
	return d, nil
}

func canonicalLiteral(s string) (string, error) {
	inner, ok := strings.CutSuffix(s[1:], "]")
	tag := ""
	if i := strings.IndexByte(inner, ':'); i >= 0 && strings.EqualFold(inner[:i+1], "IPv6:") {
		tag, inner = "IPv6:", inner[i+1:]
	}
	addr, err := netip.ParseAddr(inner)
	if !ok || err != nil || addr.Is6() != (tag != "") || addr.Zone() != "" {
		return "", fmt.Errorf("%w: address literal %q", mail.ErrBadPath, s)
	}
	return "[" + tag + addr.String() + "]", nil
}

// domainProfile maps case and width as a look-up does, and takes the underscore.
var domainProfile = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false), idna.StrictDomainName(false))

// Login is a name that a mail client logs in with, in canonical form: NFC and lower
// case, such as "anna.berg", "amt\berg" or "anna.berg@health.example"; an international
// domain after the last @ in A-labels, as in an [Address].
type Login string

// MaxLoginBytes is the longest login taken.
const MaxLoginBytes = 255

// ParseLogin returns the canonical form of a login. Control characters and invisible
// ones are refused, and so are blanks at the ends: what a platform may trim, and we
// not, would be two identities.
func ParseLogin(s string) (Login, error) {
	switch {
	case s == "" || len(s) > MaxLoginBytes:
		return "", fmt.Errorf("%w: login of %d bytes, want 1 to %d", ErrBadID, len(s), MaxLoginBytes)
	case !utf8.ValidString(s):
		return "", fmt.Errorf("%w: login %q: not UTF-8", ErrBadID, s)
	case strings.TrimSpace(s) != s:
		return "", fmt.Errorf("%w: login %q: blank at an end", ErrBadID, s)
	}
	for _, r := range s {
		if (r < ' ' || r >= 0x7f) && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			return "", fmt.Errorf("%w: login %q: character %U", ErrBadID, s, r)
		}
	}
	if isLowerASCII(s) && !strings.Contains(s, "xn--") {
		return Login(s), nil
	}
	s = fold(s)
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		if d, err := CanonicalDomain(s[i+1:]); err == nil {
			s = s[:i+1] + d
		}
	}
	return Login(s), nil
}

// Skeleton is as [Address.Skeleton].
func (l Login) Skeleton() string {
	if isASCII(string(l)) {
		return string(l)
	}
	return skeleton(string(l))
}

// fold makes NFC and lower case; NFC twice, since lower case can leave it. The dotted
// capital I keeps its dot, as Unicode's full mapping has it (SpecialCasing.txt): Go's
// simple one would make a plain i, that is, another name.
func fold(s string) string {
	s = strings.ReplaceAll(norm.NFC.String(s), "\u0130", "i\u0307")
	return norm.NFC.String(strings.ToLower(s))
}

func skeleton(s string) string {
	s = cases.Fold().String(norm.NFKC.String(s))
	s = strings.Map(func(r rune) rune {
		switch {
		case r == 'ı': // dotless i
			return 'i'
		case r == '\u0307' || unicode.Is(unicode.Cf, r): // dot above, left over from İ; invisible
			return -1
		}
		return r
	}, norm.NFKD.String(s))
	return norm.NFKC.String(s)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func isLowerASCII(s string) bool {
	for i := range len(s) {
		if c := s[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}
