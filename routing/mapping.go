package routing

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unsafe"

	"github.com/cespare/xxhash/v2"
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
// is taken over, with an index beside it, so that a million mailboxes fit a node's
// memory. Safe for concurrent use.
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
	keys   []uint64 // open addressing: upper half of the key's hash, row number + 1; 0 is empty
	nKeys  int
	odd    map[string]MailboxID // skeletons of the keys that aren't their own skeleton
}

const mappingHeader = "mailcutover mapping 1 "

// maxMappingBytes keeps the offsets in 32 bits.
const maxMappingBytes = 1<<32 - 1

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
			return nil, fmt.Errorf("read mapping %s of %s: %w: larger than 4 GiB", digest, agency, ErrBadMapping)
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

// Keys returns the number of addresses and logins.
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

// check says what is wrong with a row that a list or a caller made.
func (r *Row) check() error {
	switch {
	case r.Mailbox.IsZero():
		return fmt.Errorf("%w: row without directory id", ErrBadMapping)
	case r.Kind == KindUnknown || int(r.Kind) >= len(kindNames):
		return fmt.Errorf("%w: mailbox %s: unknown kind", ErrBadMapping, r.Mailbox)
	case len(r.Addresses) == 0:
		return fmt.Errorf("%w: mailbox %s: no address", ErrBadMapping, r.Mailbox)
	}
	return nil
}

// append appends r's line.
func (r *Row) append(b []byte) []byte {
	tagged := func(tag, value string) {
		if value != "" {
			b = append(append(append(b, '\t'), tag...), value...)
		}
	}
	b = r.Mailbox.append(b)
	b = append(append(b, '\t'), r.Kind.String()...)
	others := slices.Sorted(slices.Values(r.Addresses[1:]))
	tagged("a:", string(r.Addresses[0]))
	for _, a := range others {
		tagged("a:", string(a))
	}
	for _, l := range r.Logins {
		tagged("l:", string(l))
	}
	tagged("sa:", string(r.Source.Address))
	tagged("sl:", r.Source.Login)
	tagged("ta:", string(r.Target.Address))
	tagged("tl:", r.Target.Login)
	return append(b, '\n')
}

// index checks the canonical text and makes the mapping's index.
func index(agency AgencyID, text string) (*Mapping, error) {
	header, body, ok := strings.Cut(text, "\n")
	if !ok || header != mappingHeader+string(agency) {
		return nil, fmt.Errorf("%w: first line %.80q: want %q", ErrBadMapping, header, mappingHeader+string(agency))
	}
	if len(text) > maxMappingBytes {
		return nil, fmt.Errorf("%w: larger than 4 GiB", ErrBadMapping)
	}
	m := &Mapping{agency: agency, text: text}
	m.digest = sha256.Sum256(unsafe.Slice(unsafe.StringData(text), len(text)))
	m.rows = make([]uint32, 0, strings.Count(body, "\n"))
	keys := strings.Count(body, "\ta:") + strings.Count(body, "\tl:")
	m.keys = make([]uint64, tableSize(keys))
	for off := len(header) + 1; off < len(text); {
		n := strings.IndexByte(text[off:], '\n')
		if n < 0 {
			return nil, fmt.Errorf("%w: last line has no end", ErrBadMapping)
		}
		if err := m.add(uint32(off), text[off:off+n]); err != nil {
			return nil, err
		}
		off += n + 1
	}
	return m, nil
}

// add checks a row's line and enters its keys.
func (m *Mapping) add(off uint32, line string) error {
	if len(m.rows) > 0 {
		last := m.line(len(m.rows) - 1)
		if line[:min(36, len(line))] <= last[:36] {
			return fmt.Errorf("%w: directory id %.36s stands twice, or rows are not in order", ErrBadMapping, line)
		}
	}
	f := fields{rest: line}
	id, err := ParseMailboxID(f.next())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadMapping, err)
	}
	if id.String() != line[:36] {
		return fmt.Errorf("%w: directory id %.36q: not in AD's form", ErrBadMapping, line)
	}
	if _, err := ParseKind(f.next()); err != nil {
		return fmt.Errorf("mailbox %s: %w", id, err)
	}
	m.rows = append(m.rows, off)
	row := uint32(len(m.rows)) // number + 1
	addresses := 0
	for f.more() {
		field := f.next()
		if i := strings.IndexFunc(field, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
			return fmt.Errorf("%w: mailbox %s: control character in %q", ErrBadMapping, id, field)
		}
		tag, value, _ := strings.Cut(field, ":")
		switch tag {
		case "a", "l":
			if tag == "a" {
				addresses++
				if a, err := ParseAddressKey(value); err != nil || a != Address(value) {
					return fmt.Errorf("%w: mailbox %s: address %q is not in canonical form", ErrBadMapping, id, value)
				}
			} else if l, err := ParseLogin(value); err != nil || l != Login(value) {
				return fmt.Errorf("%w: mailbox %s: login %q is not in canonical form", ErrBadMapping, id, value)
			}
			if err := m.enter(value, row, id, tag == "a"); err != nil {
				return err
			}
		case "sa", "ta":
			if a, err := ParseAddressKey(value); err != nil || a != Address(value) {
				return fmt.Errorf("%w: mailbox %s: platform address %q is not in canonical form", ErrBadMapping, id, value)
			}
		case "sl", "tl": // as the platform wants it
		default:
			return fmt.Errorf("%w: mailbox %s: field %q", ErrBadMapping, id, field)
		}
	}
	if addresses == 0 {
		return fmt.Errorf("%w: mailbox %s: no address", ErrBadMapping, id)
	}
	return nil
}

// enter adds a key. An address and a login of one mailbox may be the same string.
func (m *Mapping) enter(key string, row uint32, id MailboxID, address bool) error {
	h := hashKey(key)
	mask := uint64(len(m.keys) - 1)
	i := h & mask
	for ; m.keys[i] != 0; i = (i + 1) & mask {
		if m.keys[i]>>32 != h>>32 {
			continue
		}
		other := int(uint32(m.keys[i])) - 1
		if isAddress, isLogin := rowHas(m.line(other), key); !isAddress && !isLogin {
			continue
		} else if other == int(row)-1 && !(isAddress && isLogin) {
			return fmt.Errorf("%w: %q stands twice in mailbox %s", ErrBadMapping, key, id)
		} else if other == int(row)-1 {
			return nil
		}
		return fmt.Errorf("%w: %q belongs to the mailboxes %.36s and %s", ErrBadMapping, key, m.line(other), id)
	}
	m.keys[i] = h>>32<<32 | uint64(row)
	m.nKeys++
	if s := Address(key).Skeleton(); s != key {
		if m.odd == nil {
			m.odd = make(map[string]MailboxID)
		}
		m.odd[s] = id
	}
	return nil
}

// find returns the number of the row that has key, with its hash.
func (m *Mapping) find(key string, h uint64) (row int, address, ok bool) {
	if len(m.keys) == 0 {
		return 0, false, false
	}
	mask := uint64(len(m.keys) - 1)
	for i := h & mask; m.keys[i] != 0; i = (i + 1) & mask {
		if m.keys[i]>>32 == h>>32 {
			row = int(uint32(m.keys[i])) - 1
			if isAddress, isLogin := rowHas(m.line(row), key); isAddress || isLogin {
				return row, isAddress, true
			}
		}
	}
	return 0, false, false
}

func (m *Mapping) line(row int) string {
	rest := m.text[m.rows[row]:]
	return rest[:strings.IndexByte(rest, '\n')]
}

// row parses a line that index has checked.
func (m *Mapping) row(i int) Row {
	f := fields{rest: m.line(i)}
	var r Row
	r.Mailbox, _ = ParseMailboxID(f.next())
	r.Kind, _ = ParseKind(f.next())
	for f.more() {
		switch tag, value, _ := strings.Cut(f.next(), ":"); tag {
		case "a":
			r.Addresses = append(r.Addresses, Address(value))
		case "l":
			r.Logins = append(r.Logins, Login(value))
		case "sa":
			r.Source.Address = Address(value)
		case "sl":
			r.Source.Login = value
		case "ta":
			r.Target.Address = Address(value)
		case "tl":
			r.Target.Login = value
		}
	}
	return r
}

// place returns the directory id of a row and how a platform knows it, all of it parts
// of the mapping's text.
func (m *Mapping) place(row int, target bool) (id MailboxID, at Place) {
	f := fields{rest: m.line(row)}
	id = parseCanonicalID(f.next())
	f.next()
	tagAddress, tagLogin := "sa", "sl"
	if target {
		tagAddress, tagLogin = "ta", "tl"
	}
	var primary, login string
	for f.more() {
		switch tag, value, _ := strings.Cut(f.next(), ":"); {
		case primary == "" && tag == "a":
			primary = value
		case login == "" && tag == "l":
			login = value
		case tag == tagAddress:
			at.Address = Address(value)
		case tag == tagLogin:
			at.Login = value
		}
	}
	return id, at.complete(Address(primary), Login(login))
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

// ParseAddressKey parses an address in canonical form, whose local part may need quotes
// in a command but stands without them in a key.
func ParseAddressKey(s string) (Address, error) {
	a := Address(s)
	p, err := a.Wire()
	if err != nil {
		return "", err
	}
	return CanonicalAddress(p)
}

// rowHas reports whether key is an address and whether it is a login of a row's line.
func rowHas(line, key string) (address, login bool) {
	for rest := line; ; {
		i := strings.Index(rest, key)
		if i < 0 {
			return address, login
		}
		end := i + len(key)
		if i >= 3 && rest[i-1] == ':' && rest[i-3] == '\t' && (end == len(rest) || rest[end] == '\t') {
			address = address || rest[i-2] == 'a'
			login = login || rest[i-2] == 'l'
		}
		rest = rest[end:]
	}
}

// fields walks over the tab-separated fields of a line.
type fields struct{ rest string }

func (f *fields) more() bool { return f.rest != "" }

func (f *fields) next() string {
	i := strings.IndexByte(f.rest, '\t')
	if i < 0 {
		s := f.rest
		f.rest = ""
		return s
	}
	s := f.rest[:i]
	f.rest = f.rest[i+1:]
	return s
}

// hashKey hashes an address or a login; 0 is not special.
func hashKey(key string) uint64 { return xxhash.Sum64String(key) }

// tableSize returns the size of an open-addressing table for n entries: a power of two,
// at most two thirds full.
func tableSize(n int) int {
	size := 8
	for size*2 < n*3 {
		size *= 2
	}
	return size
}

// parseCanonicalID parses an id in the form that MailboxID.String returns, without checks.
func parseCanonicalID(s string) (id MailboxID) {
	n := 0
	for i := 0; i < len(s) && n < len(id); i++ {
		if s[i] == '-' {
			continue
		}
		id[n] = hexValue(s[i])<<4 | hexValue(s[i+1])
		i++
		n++
	}
	return swapGUID(id)
}

func hexValue(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}
