package msgkey

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"mailcutover/mail"
)

// Key names a message; two messages with one key are taken for the same. It is comparable,
// and evenly spread over its 16 bytes. Zero is no key.
//
// Keys of different kinds (transaction, identity, content) never meet: the kind goes into
// the digest.
type Key [16]byte

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k == Key{} }

// String returns the key as 32 hex digits.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// MarshalText writes the key as [Key.String] does, for JSON.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (k *Key) UnmarshalText(text []byte) error {
	parsed, err := ParseKey(string(text))
	if err == nil {
		*k = parsed
	}
	return err
}

// ParseKey reads what [Key.String] wrote.
func ParseKey(s string) (k Key, err error) {
	if len(s) != 2*len(k) {
		return Key{}, fmt.Errorf("message key %q: want %d hex digits", s, 2*len(k))
	}
	if _, err := hex.Decode(k[:], []byte(s)); err != nil {
		return Key{}, fmt.Errorf("message key %q: want %d hex digits", s, 2*len(k))
	}
	return k, nil
}

// Kinds of keys, the first byte of what is digested. They stand in files: never change one.
const (
	kindTransaction = 't'
	kindIdentity    = 'i'
	kindContent     = 'c'
)

// TransactionKey returns the key of a message that was accepted as id, as
// [Facts.Transaction] returns it for the message with that Received line. It is zero for
// what is no transaction id.
func TransactionKey(id mail.TransactionID) Key {
	raw, err := id.Bytes()
	if err != nil {
		return Key{}
	}
	return digest(kindTransaction, string(raw[:]))
}

// digest makes a key of a kind from parts. No part can be mistaken for two.
func digest(kind byte, parts ...string) (k Key) {
	buffer := make([]byte, 0, 512)
	buffer = append(buffer, kind)
	for _, part := range parts {
		n := len(part)
		buffer = append(buffer, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		buffer = append(buffer, part...)
	}
	sum := sha256.Sum256(buffer)
	copy(k[:], sum[:])
	return k
}
