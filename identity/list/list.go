package list

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"
	"time"

	"mailcutover/routing"
)

// DefaultRows is how many rows a generated list has, unless the configuration says another
// number.
const DefaultRows = 200

// List is one batch list. It is not changed once it is made.
type List struct {
	ID     string           // made by the program: AGENCY-NUMBER-SUFFIX; of a foreign list given at its import
	Agency routing.AgencyID // of every row
	Number int              // among the agency's lists, from 1
	Made   time.Time
	By     string // a person
	Rows   []Row  // in the list's order

	Foreign bool   // its rows came without digests
	Source  string // the name of the file that a foreign one came from, for people
	Headers Headers
}

// Headers are the names of the columns as a file has them, for people who look into it; empty
// where there is no such column.
type Headers struct{ Address, Account, ID, Agency string }

// AccountKey returns the form of an account in which two are compared: its name without a domain,
// folded.
func AccountKey(name string) string {
	if i := strings.LastIndexByte(name, '\\'); i >= 0 {
		name = name[i+1:]
	}
	return strings.ToLower(name)
}

// Row says that an address is a mailbox's.
type Row struct {
	Line    int // in the file it was read from, from 1; 0: not read from one
	Address routing.Address
	Account string // a foreign list may have the account's name as well; else empty
	ID      routing.MailboxID
	Agency  routing.AgencyID
	MAC     MAC // zero: a foreign row
}

// Key makes and checks the digests of rows. All nodes have the same.
type Key struct{ secret []byte }

// MinKeyBytes is the least a key has.
const MinKeyBytes = 16

// NewKey returns the key of a secret, of at least MinKeyBytes bytes.
func NewKey(secret []byte) (Key, error) {
	if len(secret) < MinKeyBytes {
		return Key{}, fmt.Errorf("key of lists: %d bytes, want %d at least", len(secret), MinKeyBytes)
	}
	return Key{secret: append([]byte(nil), secret...)}, nil
}

// MAC is the keyed digest of a row: HMAC-SHA-256 (RFC 2104), cut to 128 bits.
type MAC [16]byte

// IsZero reports whether a row has none.
func (m MAC) IsZero() bool { return m == MAC{} }

// String returns m in hexadecimal digits.
func (m MAC) String() string { return hex.EncodeToString(m[:]) }

// errMAC is for text that is no digest.
var errMAC = errors.New("want 32 hexadecimal digits")

// ParseMAC returns the digest of its hexadecimal digits.
func ParseMAC(s string) (m MAC, err error) {
	if n, err := hex.Decode(m[:], []byte(s)); err != nil || n != len(m) || len(s) != 2*len(m) {
		return MAC{}, fmt.Errorf("digest %q: %w", s, errMAC)
	}
	return m, nil
}

// Row returns the digest of a row of the list with this id.
func (k Key) Row(list string, r *Row) MAC {
	h := hmac.New(sha256.New, k.secret)
	field(h, "mailcutover list row 1", list, string(r.Address), r.ID.String(), string(r.Agency))
	var m MAC
	copy(m[:], h.Sum(nil))
	return m
}

// Holds reports whether the digest of r is that of the list with this id. It takes the same
// time whatever differs.
func (k Key) Holds(list string, r *Row) bool {
	want := k.Row(list, r)
	return hmac.Equal(want[:], r.MAC[:])
}

// Digest names l's content: its id, its agency, and its rows in their order, without lines.
// Two files that say the same have one digest, whatever they look like.
func (l *List) Digest() routing.Digest {
	h := sha256.New()
	field(h, "mailcutover list 1", l.ID, string(l.Agency))
	for i := range l.Rows {
		r := &l.Rows[i]
		field(h, string(r.Address), r.Account, r.ID.String(), string(r.Agency))
	}
	var d routing.Digest
	h.Sum(d[:0])
	return d
}

// field writes strings so that no two sequences of them write the same bytes.
func field(h hash.Hash, parts ...string) {
	var n [4]byte
	for _, p := range parts {
		binary.BigEndian.PutUint32(n[:], uint32(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
}
