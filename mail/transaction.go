package mail

import (
	"encoding/base32"
	"fmt"

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
	return TransactionID(idEncoding.EncodeToString(id[:]))
}

// ParseTransactionID returns s as an id, or an error that says what one looks like.
func ParseTransactionID(s string) (TransactionID, error) {
	// An id has one spelling: the decoder would skip line ends and ignore the last two bits.
	if b, err := idEncoding.DecodeString(s); err != nil || len(b) != 16 || idEncoding.EncodeToString(b) != s {
		return "", fmt.Errorf("transaction id %q: want 26 characters of 0-9 and a-v", s)
	}
	return TransactionID(s), nil
}

// TransactionIDOf returns the id of 16 bytes, as [TransactionID.Bytes] returned them.
func TransactionIDOf(b [16]byte) TransactionID {
	return TransactionID(idEncoding.EncodeToString(b[:]))
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
