package routing

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/cespare/xxhash/v2"
)

// role says what a name is to a mailbox.
type role uint8

const (
	address role = 1 << iota // mail for it goes to the mailbox
	login                    // a client may log in with it
)

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
	keys := strings.Count(body, ":") // at most: values may hold colons too
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
	addressed := 0
	for f.more() {
		field := f.next()
		if i := strings.IndexFunc(field, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
			return fmt.Errorf("%w: mailbox %s: control character in %q", ErrBadMapping, id, field)
		}
		if f.holds(field) {
			return fmt.Errorf("%w: mailbox %s: %q stands twice", ErrBadMapping, id, field)
		}
		tag, value, _ := strings.Cut(field, ":")
		switch tag {
		case "a", "l":
			if tag == "a" {
				addressed++
				if a, err := ParseAddressKey(value); err != nil || a != Address(value) {
					return fmt.Errorf("%w: mailbox %s: address %q is not in canonical form", ErrBadMapping, id, value)
				}
			} else if l, err := ParseLogin(value); err != nil || l != Login(value) {
				return fmt.Errorf("%w: mailbox %s: login %q is not in canonical form", ErrBadMapping, id, value)
			}
			if err := m.enter(value, row, id); err != nil {
				return err
			}
		case "sa", "ta", "sl", "tl":
			key, ok := placeKey(field)
			if a, err := ParseAddressKey(value); !ok || tag[1] == 'a' && (err != nil || a != Address(value)) {
				return fmt.Errorf("%w: mailbox %s: place %q", ErrBadMapping, id, field)
			}
			if err := m.enter(key, row, id); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: mailbox %s: field %q", ErrBadMapping, id, field)
		}
	}
	if addressed == 0 {
		return fmt.Errorf("%w: mailbox %s: no address", ErrBadMapping, id)
	}
	return nil
}

// enter adds a key. One mailbox may have a string as address, as login and as place; two
// mailboxes may not share one in any role, since what one platform takes for A's the
// other, or the next mapping, would take for B's.
func (m *Mapping) enter(key string, row uint32, id MailboxID) error {
	h := hashKey(key)
	if other, ok := m.findAny(key, h); ok {
		if other != int(row)-1 {
			return fmt.Errorf("%w: %q belongs to the mailboxes %.36s and %s", ErrBadMapping, key, m.line(other), id)
		}
		return nil
	}
	mask := uint64(len(m.keys) - 1)
	i := h & mask
	for m.keys[i] != 0 {
		i = (i + 1) & mask
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

// rowNames returns whether key is an address and whether it is a login in a row's line.
func rowNames(line, key string) (roles role) {
	for rest := line; ; {
		i := strings.Index(rest, key)
		if i < 0 {
			return roles
		}
		end := i + len(key)
		if i >= 3 && rest[i-1] == ':' && rest[i-3] == '\t' && (end == len(rest) || rest[end] == '\t') {
			if rest[i-2] == 'a' {
				roles |= address
			} else {
				roles |= login
			}
		}
		rest = rest[end:]
	}
}

// rowPlaces reports whether a platform knows the row's mailbox by key.
func rowPlaces(line, key string) bool {
	for f := (fields{rest: line}); f.more(); {
		if k, ok := placeKey(f.next()); ok && k == key {
			return true
		}
	}
	return false
}

// placeKey returns the key under which a place's address or login is known.
func placeKey(field string) (key string, ok bool) {
	switch tag, value, _ := strings.Cut(field, ":"); tag {
	case "sa", "ta":
		return value, true
	case "sl", "tl":
		l, err := ParseLogin(value)
		return string(l), err == nil
	}
	return "", false
}

// fields walks over the tab-separated fields of a line.
type fields struct{ rest string }

func (f fields) more() bool { return f.rest != "" }

// holds reports whether one of the fields to come is v.
func (f fields) holds(v string) bool {
	for f.more() {
		if f.next() == v {
			return true
		}
	}
	return false
}

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
