package mail

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// MaxPathBytes is the longest path taken, brackets excluded. RFC 5321 section
// 4.5.3.1.3 asks for 256 at least; Exchange's encapsulated addresses (IMCEAEX-...)
// are longer, and a permanent refusal would lose replies to old mail.
const MaxPathBytes = 1000

// ErrBadPath is what every error of [ParsePath] wraps.
var ErrBadPath = errors.New("bad path")

// Path is a reverse-path or forward-path (RFC 5321 section 4.1.2): a mailbox that a
// peer named, in the form in which he named it. The zero value is the null reverse-path <>.
//
// A Path is comparable, but two spellings of one mailbox are different Paths: what is
// compared to decide a route is a routing.Address.
type Path struct {
	wire  string // as it stood between the brackets, source route removed
	local string // local part without quotes and escapes
	at    int    // index of the @ in wire; 0 where there is no domain
}

// ParsePath parses what stands between the angle brackets of MAIL FROM or RCPT TO.
//
// The empty string is the null reverse-path. "postmaster" in any case needs no domain
// (RFC 5321 section 4.5.1). A source route is removed, as RFC 5321 appendix C asks.
// Bytes over 0x7f are refused unless utf8OK, that is, unless the transaction has
// SMTPUTF8 (RFC 6531 section 3.4). All errors wrap [ErrBadPath].
func ParsePath(s string, utf8OK bool) (Path, error) {
	if s == "" {
		return Path{}, nil
	}
	if len(s) > MaxPathBytes {
		return Path{}, fmt.Errorf("%w: %d bytes, at most %d are taken", ErrBadPath, len(s), MaxPathBytes)
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c < 0x20 || c == 0x7f:
			return Path{}, fmt.Errorf("%w: control byte 0x%02x", ErrBadPath, c)
		case c >= 0x80 && !utf8OK:
			return Path{}, fmt.Errorf("%w: byte 0x%02x needs SMTPUTF8", ErrBadPath, c)
		}
	}
	if !utf8.ValidString(s) {
		return Path{}, fmt.Errorf("%w: not UTF-8", ErrBadPath)
	}
	if s[0] == '@' { // source route: @a,@b:user@c
		route, rest, ok := strings.Cut(s, ":")
		if !ok {
			return Path{}, fmt.Errorf("%w: source route without a mailbox", ErrBadPath)
		}
		for hop := range strings.SplitSeq(route, ",") {
			if len(hop) < 2 || hop[0] != '@' || checkDomain(hop[1:]) != nil {
				return Path{}, fmt.Errorf("%w: malformed source route", ErrBadPath)
			}
		}
		s = rest
	}
	local, n, err := parseLocal(s)
	if err != nil {
		return Path{}, err
	}
	if n == len(s) {
		if strings.EqualFold(s, "postmaster") {
			return Path{wire: s, local: local}, nil
		}
		return Path{}, fmt.Errorf("%w: no domain", ErrBadPath)
	}
	if s[n] != '@' {
		return Path{}, fmt.Errorf("%w: %q after the local part", ErrBadPath, s[n])
	}
	if err := checkDomain(s[n+1:]); err != nil {
		return Path{}, err
	}
	return Path{wire: s, local: local, at: n}, nil
}

// IsNull reports whether p is the null reverse-path <>, the sender of notices
// (RFC 5321 section 4.5.5).
func (p Path) IsNull() bool { return p.wire == "" }

// Local returns the local part without quotes and escapes, case kept.
func (p Path) Local() string { return p.local }

// Domain returns the domain as the peer wrote it, or an address literal with its
// brackets; empty for the null path and for a bare postmaster.
func (p Path) Domain() string {
	if p.at == 0 {
		return ""
	}
	return p.wire[p.at+1:]
}

// IsASCII reports whether p can be sent to a peer without SMTPUTF8.
func (p Path) IsASCII() bool { return isASCII(p.wire) }

// String returns p as it goes on the wire, without angle brackets.
func (p Path) String() string { return p.wire }

// parseLocal parses the local part at the start of s and returns its content and the
// number of bytes that it takes up.
func parseLocal(s string) (local string, n int, err error) {
	if s == "" {
		return "", 0, fmt.Errorf("%w: empty mailbox", ErrBadPath)
	}
	if s[0] == '"' {
		return parseQuoted(s)
	}
	// Dots are taken anywhere: RFC 5321 wants them between other characters, but
	// addresses such as <a..b@example> exist, Postfix takes them, and a dot can end no
	// command.
	for n < len(s) && s[n] != '@' {
		if c := s[n]; c != '.' && !isAtext(c) {
			return "", 0, fmt.Errorf("%w: %q in an unquoted local part", ErrBadPath, c)
		}
		n++
	}
	if n == 0 {
		return "", 0, fmt.Errorf("%w: empty local part", ErrBadPath)
	}
	return s[:n], n, nil
}

func parseQuoted(s string) (local string, n int, err error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case '\\':
			i++
			if i == len(s) {
				return "", 0, fmt.Errorf("%w: unfinished quoted pair", ErrBadPath)
			}
			b.WriteByte(s[i])
		case '"':
			if b.Len() == 0 {
				return "", 0, fmt.Errorf("%w: empty quoted local part", ErrBadPath)
			}
			return b.String(), i + 1, nil
		default:
			b.WriteByte(c)
		}
	}
	return "", 0, fmt.Errorf("%w: unfinished quoted local part", ErrBadPath)
}

// isAtext is atext of RFC 5322 section 3.2.3, and with it UTF8-non-ascii of RFC 6531.
func isAtext(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c >= 0x80:
		return true
	}
	return strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

// checkDomain accepts a domain in A-labels or U-labels, or an address literal. It
// takes the underscore, which is in use though RFC 1123 knows it not.
func checkDomain(s string) error {
	if s == "" {
		return fmt.Errorf("%w: empty domain", ErrBadPath)
	}
	if s[0] == '[' {
		return checkLiteral(s)
	}
	if len(s) > 255 {
		return fmt.Errorf("%w: domain of %d bytes, at most 255 are allowed", ErrBadPath, len(s))
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 && isASCII(label) || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("%w: domain label %q", ErrBadPath, label)
		}
		for i := range len(label) {
			switch c := label[i]; {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c >= 0x80:
			default:
				return fmt.Errorf("%w: %q in the domain", ErrBadPath, c)
			}
		}
	}
	return nil
}

// checkLiteral accepts the address literals of RFC 5321 section 4.1.3 for IPv4 and IPv6.
func checkLiteral(s string) error {
	inner, ok := strings.CutSuffix(s[1:], "]")
	if ok {
		const tag = "IPv6:"
		tagged := len(inner) > len(tag) && strings.EqualFold(inner[:len(tag)], tag)
		if tagged {
			inner = inner[len(tag):]
		}
		addr, err := netip.ParseAddr(inner)
		if err == nil && addr.Is6() == tagged && addr.Zone() == "" {
			return nil
		}
	}
	return fmt.Errorf("%w: address literal %q", ErrBadPath, s)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
