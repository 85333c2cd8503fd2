package routing

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"unsafe"
)

// role says what a name is to a mailbox.
type role uint8

const (
	address role = 1 << iota // mail for it goes to the mailbox
	login                    // a client may log in with it
	place                    // a platform knows the mailbox by it
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
	for _, a := range r.Addresses {
		if a == "" || hasControl(string(a)) {
			return fmt.Errorf("%w: mailbox %s: address %q", ErrBadMapping, r.Mailbox, a)
		}
	}
	for _, l := range r.Logins {
		if l == "" || hasControl(string(l)) {
			return fmt.Errorf("%w: mailbox %s: login %q", ErrBadMapping, r.Mailbox, l)
		}
	}
	for _, p := range []Place{r.Source, r.Target} {
		if hasControl(string(p.Address)) || hasControl(p.Login) {
			return fmt.Errorf("%w: mailbox %s: place %q, %q: control character", ErrBadMapping, r.Mailbox, p.Address, p.Login)
		}
	}
	return nil
}

// hasControl reports whether s holds a byte that separates fields or lines, or another
// control character of ASCII.
func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return true
		}
	}
	return false
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
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrBadMapping, maxMappingBytes)
	}
	m := &Mapping{agency: agency, text: text}
	m.digest = sha256.Sum256(unsafe.Slice(unsafe.StringData(text), len(text)))
	m.rows = make([]uint32, 0, strings.Count(body, "\n"))
	// At most as many keys: values may hold colons too.
	seen := keySet{text: text, slots: make([]uint64, tableSize(strings.Count(body, ":")))}
	for off := len(header) + 1; off < len(text); {
		n := strings.IndexByte(text[off:], '\n')
		if n < 0 {
			return nil, fmt.Errorf("%w: last line has no end", ErrBadMapping)
		}
		if err := m.add(&seen, uint32(off), text[off:off+n]); err != nil {
			return nil, err
		}
		off += n + 1
	}
	if len(m.rows) == 0 {
		return nil, fmt.Errorf("%w: no rows: the empty mapping has no text", ErrBadMapping)
	}
	return m, nil
}

// add checks a row's line and enters its keys.
func (m *Mapping) add(seen *keySet, off uint32, line string) error {
	if len(m.rows) > 0 {
		last := m.line(m.rows[len(m.rows)-1])
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
	last, value := 0, ""
	for n := 0; f.more(); n++ {
		field := f.next()
		if hasControl(field) {
			return fmt.Errorf("%w: mailbox %s: control character in %q", ErrBadMapping, id, field)
		}
		if f.holds(field) {
			return fmt.Errorf("%w: mailbox %s: %q stands twice", ErrBadMapping, id, field)
		}
		before := value
		var tag string
		tag, value, _ = strings.Cut(field, ":")
		rank := slices.Index(tags[:], tag)
		// One content, one text: otherwise it would have two digests.
		ordered := rank >= 0 && rank >= last && (n > 0 || rank == 0) &&
			(rank > last || rank == 1 || n < 2 || rank == 0 && before < value)
		if !ordered {
			return fmt.Errorf("%w: mailbox %s: field %q, or its place in the line", ErrBadMapping, id, field)
		}
		last = rank
		key := value
		switch tag {
		case "a":
			if a, err := ParseAddressKey(value); err != nil || a != Address(value) {
				return fmt.Errorf("%w: mailbox %s: address %q is not in canonical form", ErrBadMapping, id, value)
			}
		case "l":
			if l, err := ParseLogin(value); err != nil || l != Login(value) {
				return fmt.Errorf("%w: mailbox %s: login %q is not in canonical form", ErrBadMapping, id, value)
			}
		default:
			var ok bool
			key, ok = placeKey(field)
			if a, err := ParseAddressKey(value); !ok || tag[1] == 'a' && (err != nil || a != Address(value)) {
				return fmt.Errorf("%w: mailbox %s: place %q", ErrBadMapping, id, field)
			}
		}
		if err := m.enter(seen, key, off, id); err != nil {
			return err
		}
	}
	if strings.HasSuffix(line, "\t") {
		return fmt.Errorf("%w: mailbox %s: empty field at the end", ErrBadMapping, id)
	}
	if value == "" {
		return fmt.Errorf("%w: mailbox %s: no address", ErrBadMapping, id)
	}
	return nil
}

// tags are those of a line's fields, in their order.
var tags = [...]string{"a", "l", "sa", "sl", "ta", "tl"}

// enter notes a key. One mailbox may have a string as address, as login and as place; two
// mailboxes may not share one in any role, since what one platform takes for A's the
// other, or the next mapping, would take for B's.
func (m *Mapping) enter(seen *keySet, key string, off uint32, id MailboxID) error {
	switch other, isNew := seen.enter(key, off); {
	case isNew:
		m.nKeys++
	case other != off:
		return fmt.Errorf("%w: %q belongs to the mailboxes %.36s and %s", ErrBadMapping, key, m.text[other:], id)
	default:
		return nil
	}
	if s := Address(key).Skeleton(); s != key {
		if m.odd == nil {
			m.odd = make(map[string]MailboxID)
		}
		m.odd[s] = id
	}
	return nil
}

// keySet knows which lines of a text have which keys, while the text is checked.
type keySet struct {
	text  string
	slots []uint64 // open addressing: upper half of the key's hash, offset of the line; 0 is empty
}

// enter notes that the line at off has key, or returns the line that has it already.
func (k *keySet) enter(key string, off uint32) (line uint32, isNew bool) {
	h := hashKey(key)
	mask := uint64(len(k.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		entry := k.slots[i]
		if entry == 0 {
			k.slots[i] = h>>32<<32 | uint64(off)
			return off, true
		}
		if entry>>32 == h>>32 && lineHas(cutLine(k.text[uint32(entry):]), key) {
			return uint32(entry), false
		}
	}
}

// row parses a line that index has checked.
func (m *Mapping) row(i int) Row {
	f := fields{rest: m.line(m.rows[i])}
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

// lineHas reports whether key is an address or a login in a mailbox's line, or the name
// by which a platform knows it.
func lineHas(line, key string) bool {
	f := fields{rest: line}
	f.next()
	f.next()
	for f.more() {
		field := f.next()
		if k, ok := placeKey(field); ok && k == key {
			return true
		}
		if len(field) == len(key)+2 && field[1] == ':' && field[2:] == key {
			return true
		}
	}
	return false
}

// names are what a decision needs of a mailbox's line, parts of that.
type names struct {
	roles          role // of the key that was asked for
	primary        Address
	first          Login
	source, target Place
}

// read reads a line. It is written for speed: one pass, and no directory id.
func (n *names) read(line, key string) {
	pos := 36 + len("\tuser\t") // the most frequent kind
	if line[pos-1] != '\t' {
		pos = strings.IndexByte(line[37:], '\t') + 38
	}
	for pos < len(line) {
		end := strings.IndexByte(line[pos:], '\t') + pos
		if end < pos {
			end = len(line)
		}
		field := line[pos:end]
		pos = end + 1
		if field[1] == ':' {
			value := field[2:]
			has := login
			if field[0] == 'a' {
				has = address
				if n.primary == "" {
					n.primary = Address(value)
				}
			} else if n.first == "" {
				n.first = Login(value)
			}
			if value == key {
				n.roles |= has
			}
			continue
		}
		value := field[3:]
		if value == key {
			n.roles |= place
		}
		p := &n.source
		if field[0] == 't' {
			p = &n.target
		}
		if field[1] == 'a' {
			p.Address = Address(value)
		} else {
			p.Login = value
		}
	}
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

// parseCanonicalID parses an id in the form that MailboxID.String returns, without checks.
func parseCanonicalID(s string) (id MailboxID) {
	_ = s[35] // one check of the length for all
	id[0] = hexValue(s[6])<<4 | hexValue(s[7])
	id[1] = hexValue(s[4])<<4 | hexValue(s[5])
	id[2] = hexValue(s[2])<<4 | hexValue(s[3])
	id[3] = hexValue(s[0])<<4 | hexValue(s[1])
	id[4] = hexValue(s[11])<<4 | hexValue(s[12])
	id[5] = hexValue(s[9])<<4 | hexValue(s[10])
	id[6] = hexValue(s[16])<<4 | hexValue(s[17])
	id[7] = hexValue(s[14])<<4 | hexValue(s[15])
	id[8] = hexValue(s[19])<<4 | hexValue(s[20])
	id[9] = hexValue(s[21])<<4 | hexValue(s[22])
	id[10] = hexValue(s[24])<<4 | hexValue(s[25])
	id[11] = hexValue(s[26])<<4 | hexValue(s[27])
	id[12] = hexValue(s[28])<<4 | hexValue(s[29])
	id[13] = hexValue(s[30])<<4 | hexValue(s[31])
	id[14] = hexValue(s[32])<<4 | hexValue(s[33])
	id[15] = hexValue(s[34])<<4 | hexValue(s[35])
	return id
}

// hexValue is the value of a digit or a lower-case letter, without a branch: which of them
// comes next nothing can predict.
func hexValue(c byte) byte { return c&0xf + c>>6*9 }

// cutLine returns the line at the start of text.
func cutLine(text string) string { return text[:strings.IndexByte(text, '\n')] }
