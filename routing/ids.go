package routing

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrBadID is what every error of this package's Parse functions for identifiers wraps.
var ErrBadID = errors.New("bad identifier")

// AgencyID names an agency: 1 to 63 characters of a-z, 0-9 and hyphen, beginning with a
// letter or digit. Empty means none.
type AgencyID string

// ParseAgencyID returns s as an agency id. Capitals are refused, not folded: the id
// stands in logs, files and Redis keys in one form only.
func ParseAgencyID(s string) (AgencyID, error) {
	if err := checkName("agency", s); err != nil {
		return "", err
	}
	return AgencyID(s), nil
}

// PlatformID names a platform, in the form of an [AgencyID]. Empty means none.
type PlatformID string

// ParsePlatformID returns s as a platform id.
func ParsePlatformID(s string) (PlatformID, error) {
	if err := checkName("platform", s); err != nil {
		return "", err
	}
	return PlatformID(s), nil
}

func checkName(what, s string) error {
	ok := len(s) >= 1 && len(s) <= 63 && s[0] != '-'
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		ok = 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-'
	}
	if !ok {
		return fmt.Errorf("%w: %s %q: want 1 to 63 characters of a-z, 0-9 and hyphen, not beginning with a hyphen", ErrBadID, what, s)
	}
	return nil
}

// OperationID names one approved run: a UUID in its text form. Empty means none.
type OperationID string

// Incarnation is the identity of a table's data set, a UUID. Revisions and epochs of
// different incarnations can't be compared.
type Incarnation string

// Revision numbers the changes of a table, from 1; 0 means before any.
type Revision uint64

// Nonce is the random number that begin writes beside the epoch, so that two histories
// with one epoch differ. 0 means that no operation has begun yet.
type Nonce uint64

// String returns n as 16 hexadecimal digits.
func (n Nonce) String() string { return fmt.Sprintf("%016x", uint64(n)) }

// MarshalText implements encoding.TextMarshaler: a JSON number would lose bits in Lua.
func (n Nonce) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *Nonce) UnmarshalText(b []byte) error {
	v, err := strconv.ParseUint(string(b), 16, 64)
	if err != nil || len(b) != 16 {
		return fmt.Errorf("%w: nonce %q: want 16 hexadecimal digits", ErrBadID, b)
	}
	*n = Nonce(v)
	return nil
}

// Epoch numbers the versions of an agency's record: first by term, which grows when a
// table comes back from a failover or a backup, then by number, which grows with every
// change of an answer. The zero Epoch is before any record.
type Epoch struct {
	Term, Number uint32
}

// ParseEpoch parses the form that [Epoch.String] returns.
func ParseEpoch(s string) (Epoch, error) {
	t, n, ok := strings.Cut(s, ".")
	term, err1 := strconv.ParseUint(t, 10, 32)
	number, err2 := strconv.ParseUint(n, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return Epoch{}, fmt.Errorf("%w: epoch %q: want TERM.NUMBER, such as 1.7", ErrBadID, s)
	}
	return Epoch{Term: uint32(term), Number: uint32(number)}, nil
}

// Compare returns -1, 0 or 1 as e is older than, the same as, or newer than o.
func (e Epoch) Compare(o Epoch) int {
	if c := cmp.Compare(e.Term, o.Term); c != 0 {
		return c
	}
	return cmp.Compare(e.Number, o.Number)
}

// Next returns the epoch of the next change in the same term.
func (e Epoch) Next() Epoch { return Epoch{Term: e.Term, Number: e.Number + 1} }

// String returns e as TERM.NUMBER.
func (e Epoch) String() string {
	return strconv.FormatUint(uint64(e.Term), 10) + "." + strconv.FormatUint(uint64(e.Number), 10)
}

// MarshalText implements encoding.TextMarshaler.
func (e Epoch) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (e *Epoch) UnmarshalText(b []byte) (err error) {
	*e, err = ParseEpoch(string(b))
	return err
}

// MailboxID is the immutable directory id of a mailbox: the 16 bytes of an Active
// Directory objectGUID as LDAP returns them. The zero value means none.
type MailboxID [16]byte

// ParseMailboxID parses a directory id in AD's string form
// (6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1c2, braces allowed, case ignored). AD writes the
// first three groups in little-endian order (MS-DTYP section 2.3.4.2); the bytes of the
// result are the ones that LDAP returns. Plain hexadecimal digits without hyphens are
// refused: they could be meant in either order.
func ParseMailboxID(s string) (MailboxID, error) {
	t := s
	if len(t) == 38 && t[0] == '{' && t[37] == '}' {
		t = t[1:37]
	}
	var id MailboxID
	if len(t) != 36 || t[8] != '-' || t[13] != '-' || t[18] != '-' || t[23] != '-' {
		return id, fmt.Errorf("%w: directory id %q: want AD's form, such as 6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1c2", ErrBadID, s)
	}
	var b [16]byte
	if _, err := hex.Decode(b[:], []byte(t[:8]+t[9:13]+t[14:18]+t[19:23]+t[24:])); err != nil {
		return id, fmt.Errorf("%w: directory id %q: not hexadecimal", ErrBadID, s)
	}
	id = MailboxID(swapGUID(b))
	if id.IsZero() {
		return id, fmt.Errorf("%w: directory id %q: all zero", ErrBadID, s)
	}
	return id, nil
}

// IsZero reports whether id names no mailbox.
func (id MailboxID) IsZero() bool { return id == MailboxID{} }

// String returns id in AD's string form.
func (id MailboxID) String() string {
	var out [36]byte
	id.append(out[:0])
	return string(out[:])
}

func (id MailboxID) append(dst []byte) []byte {
	b := swapGUID(id)
	dst = hex.AppendEncode(dst, b[0:4])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, b[4:6])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, b[6:8])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, b[8:10])
	dst = append(dst, '-')
	return hex.AppendEncode(dst, b[10:16])
}

// MarshalText implements encoding.TextMarshaler.
func (id MailboxID) MarshalText() ([]byte, error) { return id.append(nil), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *MailboxID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseMailboxID(string(b))
	return err
}

// swapGUID changes between the bytes that LDAP returns and the order in which AD writes them.
func swapGUID(b [16]byte) [16]byte {
	return [16]byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6],
		b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]}
}

// Digest names a mapping by the SHA-256 of its canonical text. The zero value names the
// empty mapping of a new agency.
type Digest [32]byte

// ParseDigest parses 64 hexadecimal digits.
func ParseDigest(s string) (d Digest, err error) {
	if len(s) != hex.EncodedLen(len(d)) {
		return d, fmt.Errorf("%w: digest %q: want 64 hexadecimal digits", ErrBadID, s)
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return Digest{}, fmt.Errorf("%w: digest %q: want 64 hexadecimal digits", ErrBadID, s)
	}
	return d, nil
}

// IsZero reports whether d names the empty mapping.
func (d Digest) IsZero() bool { return d == Digest{} }

// String returns d as 64 hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDigest(string(b))
	return err
}
