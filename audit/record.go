package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Entry is what a caller says of one act. Secrets and content of messages don't belong
// into any field.
type Entry struct {
	Person  string   `json:"person"`          // who is behind it; empty: the node itself
	Token   string   `json:"token,omitempty"` // name of the token that was used
	Roles   []string `json:"roles,omitempty"` // that the token has
	What    string   `json:"what"`            // one word of the act, such as lock-agency
	Subject string   `json:"subject"`         // on what: agency health, node mx2
	Reason  string   `json:"reason,omitempty"`

	Before    string   `json:"before,omitempty"` // what is changed, as it was
	After     string   `json:"after,omitempty"`  // as it is to be
	Epoch     string   `json:"epoch,omitempty"`  // of the agency's record that the person has seen
	Digests   []string `json:"digests,omitempty"`
	Operation string   `json:"operation,omitempty"`
	Proposal  string   `json:"proposal,omitempty"` // under which it is done
	Emergency bool     `json:"emergency,omitempty"`
	Request   string   `json:"request,omitempty"` // id of the call in the node's log

	Of    uint64 `json:"of,omitempty"`    // record whose effect this one tells
	Error string `json:"error,omitempty"` // why that effect did not happen, or not as a whole
}

// Record is an entry in its place in the chain.
type Record struct {
	Number   uint64    `json:"n"` // from 1, without gaps
	Previous Hash      `json:"previous"`
	Chain    string    `json:"chain"`
	Node     string    `json:"node"`
	Time     time.Time `json:"time"` // by the node's clock
	Entry
}

// Hash is the SHA-256 of a record's JSON; zero: there is no record before.
type Hash [sha256.Size]byte

// String returns h as 64 hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(b []byte) error {
	if hex.DecodedLen(len(b)) != len(h) || len(b)%2 != 0 || !lowerHex(b) {
		return fmt.Errorf("hash %.80q: want %d hexadecimal digits", b, hex.EncodedLen(len(h)))
	}
	_, err := hex.Decode(h[:], b)
	return err
}

// lowerHex reports whether b has the only spelling of a hash that counts: with two, a
// byte of a line could be changed without anybody noticing.
func lowerHex(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Head names the last record of a chain at some moment, and with it all before.
type Head struct {
	Node   string
	Chain  string
	Number uint64 // 0: the chain has no record yet
	Hash   Hash
}

// ErrBadHead is wrapped by the errors of [ParseHead].
var ErrBadHead = errors.New("not a head of an audit log")

// String returns h as NODE/CHAIN/NUMBER/HASH.
func (h Head) String() string {
	return h.Node + "/" + h.Chain + "/" + strconv.FormatUint(h.Number, 10) + "/" + h.Hash.String()
}

// ParseHead parses the form that [Head.String] returns.
func ParseHead(s string) (Head, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 4 || parts[0] == "" || parts[1] == "" {
		return Head{}, fmt.Errorf("%w: %.200q: want NODE/CHAIN/NUMBER/HASH", ErrBadHead, s)
	}
	h := Head{Node: parts[0], Chain: parts[1]}
	n, err := strconv.ParseUint(parts[2], 10, 64)
	if err == nil {
		h.Number = n
		err = h.Hash.UnmarshalText([]byte(parts[3]))
	}
	if err != nil {
		return Head{}, fmt.Errorf("%w: %.200q: %w", ErrBadHead, s, err)
	}
	return h, nil
}

// maxLine is the longest line of a log, in bytes.
const maxLine = 256 << 10

// encode returns a record's line and its hash.
func encode(r *Record) (line []byte, h Hash, err error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		return nil, h, fmt.Errorf("encode audit record %d: %w", r.Number, err)
	}
	body := bytes.TrimSuffix(text.Bytes(), []byte("\n"))
	h = sha256.Sum256(body)
	line = append(append([]byte(h.String()), ' '), body...)
	line = append(line, '\n')
	if len(line) > maxLine {
		return nil, h, fmt.Errorf("audit record %d of %d bytes: want at most %d", r.Number, len(line), maxLine)
	}
	return line, h, nil
}

// decode reads a line without its end, and says what is wrong with it alone.
func decode(line []byte) (r Record, h Hash, err error) {
	digits, body, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return r, h, errors.New("not a record")
	}
	if err := h.UnmarshalText(digits); err != nil {
		return r, h, err
	}
	if sha256.Sum256(body) != h {
		return r, h, errors.New("its digest is another")
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, h, fmt.Errorf("not a record: %w", err)
	}
	return r, h, nil
}
