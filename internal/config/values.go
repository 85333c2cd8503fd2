package config

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes, written with its unit: 500B, 64KiB, 36MiB, 1GiB.
type Size int64

// Rate is a number of bytes per second, written with its unit: 500B/s, 1MiB/s.
type Rate int64

var sizeUnits = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// ParseSize parses a whole number with one of the units B, KiB, MiB and GiB; 0 needs
// none. The decimal units are refused: MB is read as either by different people.
func ParseSize(s string) (Size, error) {
	if s == "0" {
		return 0, nil
	}
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 63)
		if err != nil || n > uint64(math.MaxInt64/u.bytes) {
			break
		}
		return Size(int64(n) * u.bytes), nil
	}
	return 0, fmt.Errorf("parse size %q: want a whole number with the unit B, KiB, MiB or GiB", s)
}

// String returns s in the largest unit that gives a whole number.
func (s Size) String() string {
	if s == 0 {
		return "0B"
	}
	for _, u := range sizeUnits {
		if int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// ParseRate parses a size and "/s"; 0 needs no unit.
func ParseRate(s string) (Rate, error) {
	size, ok := strings.CutSuffix(s, "/s")
	n, err := ParseSize(size)
	if err != nil || !ok && s != "0" {
		return 0, fmt.Errorf("parse rate %q: want a whole number with the unit B/s, KiB/s, MiB/s or GiB/s", s)
	}
	return Rate(n), nil
}

// String returns r in the largest unit that gives a whole number.
func (r Rate) String() string { return Size(r).String() + "/s" }

// Pin is the SHA-256 of a certificate's public key (SubjectPublicKeyInfo, as RFC 7469
// section 2.4 takes it). Written "sha256:" and 64 hexadecimal digits, or base64.
type Pin [sha256.Size]byte

// ParsePin parses a pin.
func ParsePin(s string) (p Pin, err error) {
	digits, ok := strings.CutPrefix(s, "sha256:")
	b, err := hex.DecodeString(digits)
	if err != nil {
		b, err = base64.StdEncoding.DecodeString(digits)
	}
	if !ok || err != nil || len(b) != len(p) {
		return p, fmt.Errorf(`parse pin %q: want "sha256:" and the digest of the public key in hexadecimal or base64`, s)
	}
	return Pin(b), nil
}

// String returns p with its digest in base64.
func (p Pin) String() string { return "sha256:" + base64.StdEncoding.EncodeToString(p[:]) }

// Hash is the SHA-256 of an API token.
type Hash [sha256.Size]byte

// HashToken returns the hash of a token's text.
func HashToken(token string) Hash { return sha256.Sum256([]byte(token)) }

// ParseHash parses 64 hexadecimal digits.
func ParseHash(s string) (h Hash, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) {
		// Not quoted: somebody may have written the token itself here.
		return h, errors.New("parse hash: want 64 hexadecimal digits, the SHA-256 of the token")
	}
	return Hash(b), nil
}

// IsZero reports whether no hash was given.
func (h Hash) IsZero() bool { return h == Hash{} }

// String returns the first digits of h, enough to tell two apart.
func (h Hash) String() string { return hex.EncodeToString(h[:4]) + "..." }

// Secret is a password. It prints, marshals and logs as a reference to where it came
// from; only Reveal returns it.
type Secret struct {
	file, env string // where it came from; both empty: there is none
	value     string
}

// Reveal returns the password; empty if there is none.
func (s Secret) Reveal() string { return s.value }

// IsSet reports whether there is a password.
func (s Secret) IsSet() bool { return s.value != "" }

// String returns where the password came from, never the password.
func (s Secret) String() string {
	switch {
	case s.file != "":
		return "file " + s.file
	case s.env != "":
		return "variable " + s.env
	case s.value != "":
		return "set"
	default:
		return "none"
	}
}

// GoString keeps %#v from printing the password.
func (s Secret) GoString() string { return "config.Secret(" + s.String() + ")" }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
