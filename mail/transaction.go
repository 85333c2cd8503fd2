package mail

import (
	"encoding/base32"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// TransactionID names one accepted message, in our Received line, the ledger and all
// logs: 26 characters of a-v and 0-9 that sort by time of creation (a UUIDv7 of
// RFC 9562 section 5.7 in base32hex of RFC 4648 section 7). Empty means none.
type TransactionID string

var idEncoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// NewTransactionID returns a fresh id. It panics if the system has no randomness left.
func NewTransactionID() TransactionID {
	id := uuid.Must(uuid.NewV7())
	return TransactionIDOf(id)
}

// ParseTransactionID returns s as an id, or an error that says what one looks like.
func ParseTransactionID(s string) (TransactionID, error) {
	if !spellsID(s) {
		return "", fmt.Errorf("transaction id %q: want 26 characters of 0-9 and a-v", s)
	}
	return TransactionID(s), nil
}

// spellsID reports whether s is what TransactionIDOf returns for some bytes: an id has one spelling,
// where the decoder would skip line ends and ignore the last two of the 130 bits.
func spellsID(s string) bool {
	if len(s) != 26 || strings.IndexByte("048cgkos", s[25]) < 0 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'v') {
			return false
		}
	}
	return true
}

// TransactionIDOf returns the id of 16 bytes, as [TransactionID.Bytes] returned them.
func TransactionIDOf(b [16]byte) TransactionID {
	var text [26]byte
	idEncoding.Encode(text[:], b[:])
	return TransactionID(text[:])
}

// Bytes returns the 16 bytes that id spells, or an error if it is no id.
func (id TransactionID) Bytes() (b [16]byte, err error) {
	if _, err := ParseTransactionID(string(id)); err != nil {
		return b, err
	}
	raw, err := idEncoding.DecodeString(string(id))
	copy(b[:], raw)
	return b, err
}
