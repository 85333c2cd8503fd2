package routing

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"unsafe"
)

// ErrBadMapping is what every error about the rows of a mapping wraps.
var ErrBadMapping = errors.New("bad mapping")

// Kind is what a mailbox is for. All kinds move with their agency.
type Kind uint8

const (
	KindUnknown Kind = iota
	KindUser
	KindShared
	KindRoom
)

var kindNames = [...]string{"unknown", "user", "shared", "room"}

// String returns the word used in lists and in the table.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return kindNames[KindUnknown]
}

// ParseKind parses the word that [Kind.String] returns; "unknown" is refused.
func ParseKind(s string) (Kind, error) {
	if i := slices.Index(kindNames[1:], s); i >= 0 {
		return Kind(i + 1), nil
	}
	return KindUnknown, fmt.Errorf("%w: kind %q: want user, shared or room", ErrBadMapping, s)
}

// Place is how one platform knows a mailbox.
type Place struct {
	Address Address // where its mail is delivered; empty: the primary address
	Login   string  // what the platform is told at login, as it stands; empty: the first login, else the primary address
}

// Row is one mailbox of a mapping.
type Row struct {
	Mailbox   MailboxID
	Kind      Kind
	Addresses []Address // the primary address first; at least one
	Logins    []Login   // may be empty: then only addresses log in
	Source    Place     // on the agency's source platform
	Target    Place     // on its target platform
}

// Mapping is the immutable table of one agency's mailboxes: their addresses and logins,
// and how either platform knows them. It is kept as the canonical text that its digest
// is taken over, so that a million mailboxes fit a node's memory; what finds a mailbox by
// its names is the State that the mapping is in. Safe for concurrent use.
//
// The text begins with a line that names format and agency; then a line for each
// mailbox, ascending by directory id. Fields are separated by tabs, values of a
// mailbox are tagged: a: address (the primary first, the others ascending), l: login
// (in the order given; the first is the one that platforms are told), sa: sl: ta: tl: place on source
// and target. No value holds a control character, so nothing is escaped.
type Mapping struct {
	agency AgencyID
	digest Digest
	text   string
	rows   []uint32 // offset of each row's line
	nKeys  int
	odd    map[string]MailboxID // skeletons of the keys that aren't their own skeleton
}

const mappingHeader = "mailcutover mapping 1 "

// NewMapping makes a mapping of rows, in any order. An address or login that stands
// twice, an empty row or a double directory id is an error that names it. No rows at
// all give the empty mapping, whose digest is zero.
func NewMapping(agency AgencyID, rows []Row) (*Mapping, error) {
	if len(rows) == 0 {
		return &Mapping{agency: agency}, nil
	}
	lines := make([]string, len(rows))
	var line []byte
	for i := range rows {
		r := &rows[i]
		if err := r.check(); err != nil {
			return nil, err
		}
		line = r.append(line[:0])
		lines[i] = string(line)
	}
	slices.Sort(lines)
	var b strings.Builder
	b.WriteString(mappingHeader + string(agency) + "\n")
	for _, l := range lines {
		b.WriteString(l)
	}
	return index(agency, b.String())
}

// ReadMapping makes a mapping of the parts that [Mapping.Parts] returned. It is an error
// if they are not, byte for byte, the mapping of this agency that digest names.
// size is the text's length if known, else 0.
func ReadMapping(agency AgencyID, digest Digest, size int, parts iter.Seq2[[]byte, error]) (*Mapping, error) {
	if digest.IsZero() {
		return &Mapping{agency: agency}, nil
	}
	text := make([]byte, 0, max(0, min(size, maxMappingBytes)))
	for part, err := range parts {
		if err != nil {
			return nil, fmt.Errorf("read mapping %s of %s: %w", digest, agency, err)
		}
		if len(text)+len(part) > maxMappingBytes {
			return nil, fmt.Errorf("read mapping %s of %s: %w: larger than %d bytes", digest, agency, ErrBadMapping, maxMappingBytes)
		}
		text = append(text, part...)
	}
	if got := Digest(sha256.Sum256(text)); got != digest {
		return nil, fmt.Errorf("read mapping %s of %s: %w: its text has the digest %s", digest, agency, ErrBadMapping, got)
	}
	m, err := index(agency, unsafe.String(unsafe.SliceData(text), len(text))) // text is not written again
	if err != nil {
		return nil, fmt.Errorf("read mapping %s of %s: %w", digest, agency, err)
	}
	return m, nil
}

// Agency returns the agency that m is for.
func (m *Mapping) Agency() AgencyID { return m.agency }

// Digest returns m's name.
func (m *Mapping) Digest() Digest { return m.digest }

// Len returns the number of mailboxes.
func (m *Mapping) Len() int { return len(m.rows) }

// Keys returns the number of addresses, logins and places.
func (m *Mapping) Keys() int { return m.nKeys }

// Size returns the length of m's canonical text in bytes.
func (m *Mapping) Size() int { return len(m.text) }

// Parts cuts the canonical text into pieces of at most size bytes, or one line where a
// line is longer. The empty mapping has none.
func (m *Mapping) Parts(size int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for rest := m.text; rest != ""; {
			n := len(rest)
			if n > size {
				n = strings.LastIndexByte(rest[:size], '\n') + 1
				if n == 0 {
					n = strings.IndexByte(rest, '\n') + 1
				}
			}
			if !yield([]byte(rest[:n])) {
				return
			}
			rest = rest[n:]
		}
	}
}

// WriteTo writes the canonical text. It implements io.WriterTo.
func (m *Mapping) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, m.text)
	return int64(n), err
}

// Rows returns all mailboxes, ascending by directory id as AD writes it.
func (m *Mapping) Rows() iter.Seq[Row] {
	return func(yield func(Row) bool) {
		for i := range m.rows {
			if !yield(m.row(i)) {
				return
			}
		}
	}
}

// Mailbox returns the row of a mailbox.
func (m *Mapping) Mailbox(id MailboxID) (Row, bool) {
	want := id.String()
	i, ok := slices.BinarySearchFunc(m.rows, want, func(off uint32, want string) int {
		return strings.Compare(m.text[off:off+uint32(len(want))], want)
	})
	if !ok {
		return Row{}, false
	}
	return m.row(i), true
}

// line returns the line at an offset.
func (m *Mapping) line(off uint32) string { return cutLine(m.text[off:]) }

// ids returns the directory ids as they stand in the text, ascending.
func (m *Mapping) ids() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, off := range m.rows {
			if !yield(m.text[off : off+36]) {
				return
			}
		}
	}
}

// complete fills in what an empty part of a place means.
func (p Place) complete(primary Address, login Login) Place {
	if p.Address == "" {
		p.Address = primary
	}
	if p.Login == "" {
		p.Login = string(login)
	}
	if p.Login == "" {
		p.Login = string(primary)
	}
	return p
}

// At returns how the source or the target platform knows the mailbox, complete.
func (r *Row) At(target bool) Place {
	p := r.Source
	if target {
		p = r.Target
	}
	var login Login
	if len(r.Logins) > 0 {
		login = r.Logins[0]
	}
	return p.complete(r.Addresses[0], login)
}
