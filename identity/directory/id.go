package directory

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"mailcutover/routing"
)

// ErrAmbiguous is wrapped by the error of [ParseID] for a directory id that could be meant
// in two byte orders.
var ErrAmbiguous = errors.New("the directory id can be read in two ways")

// ParseID reads a directory id as people and programs write it:
//
//   - in AD's form, 6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1c2, with or without braces; its first
//     three groups stand in reverse byte order (MS-DTYP section 2.3.4.2);
//   - as the bytes that LDAP returns: escaped as in a filter (\d0\2a..., RFC 4515 section
//     3), or in base64 (as in LDIF and in Entra's immutable id).
//
// Thirty-two hexadecimal digits alone could be either; unless both readings are the same id
// they are refused with an ErrAmbiguous that shows both.
func ParseID(s string) (routing.MailboxID, error) {
	switch {
	case len(s) == 48 && strings.Count(s, `\`) == 16:
		b, err := hex.DecodeString(strings.ReplaceAll(s, `\`, ""))
		if err != nil || !escaped(s) {
			return routing.MailboxID{}, fmt.Errorf("%w: directory id %q: want sixteen times a backslash and two hexadecimal digits", routing.ErrBadID, s)
		}
		return fromBytes(s, b)
	case len(s) == 24 && strings.HasSuffix(s, "=="):
		b, err := base64.StdEncoding.Strict().DecodeString(s)
		if err != nil {
			return routing.MailboxID{}, fmt.Errorf("%w: directory id %q: base64: %w", routing.ErrBadID, s, err)
		}
		return fromBytes(s, b)
	}
	if digits := strings.TrimPrefix(s, "0x"); len(digits) == 32 {
		return parseDigits(s, digits)
	}
	return routing.ParseMailboxID(s)
}

// escaped reports whether s is made of a backslash and two characters, again and again.
func escaped(s string) bool {
	for i := 0; i < len(s); i += 3 {
		if s[i] != '\\' {
			return false
		}
	}
	return true
}

func parseDigits(s, digits string) (routing.MailboxID, error) {
	b, err := hex.DecodeString(digits)
	if err != nil {
		return routing.MailboxID{}, fmt.Errorf("%w: directory id %q: not hexadecimal", routing.ErrBadID, s)
	}
	plain, err := fromBytes(s, b)
	if err != nil {
		return plain, err
	}
	mixed, err := routing.ParseMailboxID(digits[:8] + "-" + digits[8:12] + "-" + digits[12:16] + "-" + digits[16:20] + "-" + digits[20:])
	if err != nil {
		return mixed, err
	}
	if plain != mixed {
		return routing.MailboxID{}, &AmbiguousID{Text: s, Bytes: plain, Form: mixed}
	}
	return plain, nil
}

// AmbiguousID is the error about digits that could be two ids; it wraps [ErrAmbiguous] and
// routing.ErrBadID.
type AmbiguousID struct {
	Text  string
	Bytes routing.MailboxID // if they are the bytes that LDAP returns
	Form  routing.MailboxID // if they are AD's form without its hyphens
}

// Error implements error.
func (e *AmbiguousID) Error() string {
	return fmt.Sprintf("%v: %v: %q is %s if the digits are the bytes that LDAP returns, and %s if they are AD's form without its hyphens; write the one that is meant",
		routing.ErrBadID, ErrAmbiguous, e.Text, e.Bytes, e.Form)
}

// Unwrap returns both.
func (e *AmbiguousID) Unwrap() []error { return []error{routing.ErrBadID, ErrAmbiguous} }

// ParseBytes returns the directory id of the 16 bytes that LDAP returns for objectGUID.
func ParseBytes(b []byte) (routing.MailboxID, error) { return fromBytes(hex.EncodeToString(b), b) }

// ParsePlain reads an id that is written in plain byte order, such as OpenLDAP's entryUUID
// (RFC 4530): with hyphens, but not AD's form.
func ParsePlain(s string) (routing.MailboxID, error) {
	digits := strings.ReplaceAll(s, "-", "")
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) != 16 || len(s) != 36 && len(s) != 32 {
		return routing.MailboxID{}, fmt.Errorf("%w: directory id %q: want 32 hexadecimal digits in plain byte order, such as d02a1f6b-4e3c-5a4f-8b6c-7d8e9fa0b1c2", routing.ErrBadID, s)
	}
	return fromBytes(s, b)
}

func fromBytes(s string, b []byte) (routing.MailboxID, error) {
	var id routing.MailboxID
	if len(b) != len(id) {
		return id, fmt.Errorf("%w: directory id %q: %d bytes, want 16", routing.ErrBadID, s, len(b))
	}
	copy(id[:], b)
	if id.IsZero() {
		return id, fmt.Errorf("%w: directory id %q: all zero", routing.ErrBadID, s)
	}
	return id, nil
}
