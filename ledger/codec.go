package ledger

import (
	"bytes"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"mailcutover/mail"
	"mailcutover/routing"
)

// Names are written in full (0), as the hash of an address (1), or as the number of a
// name that was defined before in the segment (2 and up).
const (
	nameLiteral = 0
	nameHashed  = 1
	nameFirst   = 2
)

// How many names a segment defines: domains, and the ends of Message-IDs, come and go, so
// they leave room for the agencies, platforms and hosts that are seen later.
const (
	maxDomains  = 2048
	maxSuffixes = 1024
	maxNames    = 4096
)

// Flags of an intent.
const (
	intentPackedID = 1 << 0 // the transaction id is one of ours: 16 bytes
	intentLocal    = 1 << 1 // Intent.Local
	intentDigest   = 1 << 2 // a digest follows: 8 bytes
	intentMapping  = 1 << 3 // each recipient of an agency has the mapping behind the epoch, as a name
	intentFlags    = intentPackedID | intentLocal | intentDigest | intentMapping
)

// outcomeFinal is the flag of an outcome after which a start doesn't report the intent.
const outcomeFinal = 1

// magic is the first line of a segment.
const magic = "mailcutover ledger 1\n"

// header is the first record of a segment.
type header struct {
	number  uint64
	salt    uint32
	base    int64  // unix microseconds; times in the segment are relative to it
	boot    string // of the machine, when the segment was begun
	carried uint64 // how many intents follow that were open in the segment before
	unknown bool   // records may be missing since then, see Ledger.Unknown
	since   int64  // unix microseconds; 0: nothing is known
}

// append appends the line and the record.
func (h *header) append(b []byte) []byte {
	p := binary.AppendUvarint(nil, h.number)
	p = binary.LittleEndian.AppendUint32(p, h.salt)
	p = binary.AppendVarint(p, h.base)
	p = appendString(p, h.boot)
	p = binary.AppendUvarint(p, h.carried)
	if h.unknown {
		p = append(p, 1)
		p = binary.AppendVarint(p, h.since)
	} else {
		p = append(p, 0)
	}
	return appendFrame(append(b, magic...), 0, kindHeader, p)
}

// readHeader returns the header and where the first record begins.
func readHeader(data []byte) (h header, n int, state frameState) {
	if len(data) < len(magic) {
		if strings.HasPrefix(magic, string(data)) {
			return h, 0, frameTorn
		}
		return h, 0, frameBad
	}
	if string(data[:len(magic)]) != magic {
		return h, 0, frameBad
	}
	if len(data) == len(magic) {
		return h, 0, frameTorn
	}
	k, payload, state := readFrame(data[len(magic):], 0)
	if state != frameOK {
		return h, 0, state
	}
	f := fields{rest: string(payload)}
	h.number = f.uvarint()
	var salt [4]byte
	f.array(salt[:])
	h.salt = binary.LittleEndian.Uint32(salt[:])
	h.base = f.varint()
	h.boot = f.string()
	h.carried = f.uvarint()
	if h.unknown = f.byte() == 1; h.unknown {
		h.since = f.varint()
	}
	if k != kindHeader || f.bad {
		return h, 0, frameBad
	}
	return h, len(magic) + frameHead + len(payload), frameOK
}

// encoder writes the records of one segment.
type encoder struct {
	header
	names    map[string]uint64
	domains  int
	suffixes int            // of Message-IDs, among the names
	mapping  routing.Digest // the last one that was written
	numbered uint64         // its number as a name; 0: it has none
	scratch  []byte
	line     []byte
	mac      hash.Hash // for hashed addresses; nil: in clear
}

// name appends a name to p, and its definition to b if it is a new one.
func (e *encoder) name(b, p []byte, s string) (b2, p2 []byte) {
	n, ok := e.names[s]
	if !ok && len(e.names) < maxNames && s != "" {
		n, ok = nameFirst+uint64(len(e.names)), true
		e.names[strings.Clone(s)] = n
		var d [binary.MaxVarintLen64]byte
		b = appendFrame(b, e.salt, kindDefine, append(binary.AppendUvarint(d[:0], n), s...))
	}
	if ok {
		return b, binary.AppendUvarint(p, n)
	}
	return b, appendString(append(p, nameLiteral), s)
}

// address appends an address: as a hash, or as domain and local part.
func (e *encoder) address(b, p []byte, s string) (b2, p2 []byte) {
	sum, hashed := hashOf(s)
	if !hashed && e.mac != nil && s != "" {
		sum, hashed = hashAddress(e.mac, s), true
	}
	if hashed {
		return b, append(append(p, nameHashed), sum[:]...)
	}
	s = cut(s, maxAddress)
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return b, appendString(append(p, nameLiteral), s)
	}
	domain := s[at+1:]
	if _, known := e.names[domain]; !known {
		if e.domains >= maxDomains || len(e.names) >= maxNames || domain == "" {
			return b, appendString(append(p, nameLiteral), s)
		}
		e.domains++
	}
	b, p = e.name(b, p, domain)
	return b, appendString(p, s[:at])
}

// messageID appends a Message-ID. What follows the host's own name in its right part is
// a name: the big providers have thousands of hosts in one domain.
func (e *encoder) messageID(b, p []byte, s string) (b2, p2 []byte) {
	at := strings.LastIndexByte(s, '@')
	dot := strings.IndexByte(s[at+1:], '.') + at + 1
	if at < 0 || dot <= at {
		return b, appendString(append(p, nameLiteral), s)
	}
	suffix := s[dot:]
	if _, known := e.names[suffix]; !known {
		if e.suffixes >= maxSuffixes || len(e.names) >= maxNames {
			return b, appendString(append(p, nameLiteral), s)
		}
		e.suffixes++
	}
	b, p = e.name(b, p, suffix)
	return b, appendString(p, s[:dot])
}

// digest appends a mapping's digest as a name of 32 bytes: an agency has the same for days.
func (e *encoder) digest(b, p []byte, d routing.Digest) (b2, p2 []byte) {
	if d == e.mapping && e.numbered > 0 {
		return b, binary.AppendUvarint(p, e.numbered)
	}
	s := string(d[:])
	b, p = e.name(b, p, s)
	e.mapping, e.numbered = d, e.names[s]
	return b, p
}

// intent appends an intent to b, behind the names that it is the first to use. at is
// where it begins.
func (e *encoder) intent(b []byte, k kind, i *Intent) (b2 []byte, at int) {
	p := binary.AppendVarint(e.scratch[:0], i.Time.UnixMicro()-e.base)
	id, err := i.Transaction.Bytes()
	packed := err == nil
	var flags byte
	if packed {
		flags |= intentPackedID
	}
	if i.Digest != 0 {
		flags |= intentDigest
	}
	if i.Local {
		flags |= intentLocal
	}
	if slices.ContainsFunc(i.Recipients, func(r Recipient) bool { return r.Agency != "" && !r.Mapping.IsZero() }) {
		flags |= intentMapping
	}
	p = append(p, flags)
	if packed {
		p = append(p, id[:]...)
	} else {
		p = appendString(p, cut(string(i.Transaction), maxHost))
	}
	if flags&intentDigest != 0 {
		p = binary.LittleEndian.AppendUint64(p, uint64(i.Digest))
	}
	b, p = e.name(b, p, cut(string(i.Platform), maxHost))
	if host := cut(i.Host, maxHost); i.Local { // too many clients for names
		p = appendString(append(p, nameLiteral), host)
	} else {
		b, p = e.name(b, p, host)
	}
	b, p = e.address(b, p, i.From)
	b, p = e.messageID(b, p, bareMessageID(i.MessageID))
	p = binary.AppendUvarint(p, uint64(max(i.Size, 0)))
	p = binary.AppendUvarint(p, uint64(len(i.Recipients)))
	for n := range i.Recipients {
		r := &i.Recipients[n]
		b, p = e.address(b, p, string(r.Address))
		b, p = e.name(b, p, cut(string(r.Agency), maxHost))
		if r.Agency != "" {
			p = append(p, r.Mailbox[:]...)
		}
		p = binary.AppendUvarint(p, uint64(r.Epoch.Term))
		p = binary.AppendUvarint(p, uint64(r.Epoch.Number))
		if flags&intentMapping != 0 && r.Agency != "" {
			b, p = e.digest(b, p, r.Mapping)
		}
	}
	e.scratch = p
	return appendFrame(b, e.salt, k, p), len(b)
}

// outcome appends the outcome of the intent at offset. i is that intent.
func (e *encoder) outcome(b []byte, offset int64, at time.Time, final bool, answers []Answer, i *Intent) []byte {
	p := binary.AppendUvarint(e.scratch[:0], uint64(offset))
	p = binary.AppendVarint(p, at.UnixMicro()-e.base)
	var flags byte
	if final {
		flags |= outcomeFinal
	}
	p = append(p, flags)
	p = binary.AppendUvarint(p, uint64(len(answers)))
	for n := range answers {
		a := &answers[n]
		p = append(p, byte(a.Result))
		p = binary.AppendUvarint(p, uint64(max(a.Code, 0)))
		t := e.text(a, i, n)
		p = binary.AppendUvarint(p, uint64(len(t)))
		p = append(p, t...)
	}
	e.scratch = p
	return appendFrame(b, e.salt, kindOutcome, p)
}

// text returns what is kept of the text of an answer: its first line, without what the
// intent says anyway, printable, and cut. It is good until the next call.
func (e *encoder) text(a *Answer, i *Intent, recipient int) []byte {
	s, _, _ := strings.Cut(a.Text, "\n")
	bound := maxText
	switch a.Result {
	case ResultDelivered, ResultNotAcknowledged:
		bound = maxTextOK
	case ResultQuarantined, ResultReleased, ResultDropped:
		bound = maxTextAct
	}
	known := strings.Trim(i.MessageID, "<> \t\r\n") // Exchange repeats it
	at := -1
	if len(known) > 8 {
		at = strings.Index(s, known)
	}
	if at < 0 && recipient < len(i.Recipients) {
		known = string(i.Recipients[recipient].Address) // Dovecot does
		if known != "" {
			at = strings.Index(s, known)
		}
	}
	t := e.line[:0]
	if at >= 0 {
		t = append(append(t, s[:at]...), '=')
		s = s[at+len(known):]
	}
	t = append(t, s[:min(len(s), 1024)]...) // a reply line is not longer (RFC 5321 section 4.5.3.1.5)
	if e.mac != nil {
		t = append(t[:0], hideAddresses(string(t))...)
	}
	for n, c := range t {
		if c < ' ' || c == 0x7f {
			t[n] = ' '
		}
	}
	if !utf8.Valid(t) {
		t = bytes.ToValidUTF8(t, []byte("?"))
	}
	e.line = t[:0]
	t = bytes.TrimSpace(t)
	if len(t) > bound {
		end := bound - len(cutMark)
		for !utf8.RuneStart(t[end]) {
			end--
		}
		t = append(t[:end], cutMark...)
	}
	return t
}

// mark appends a note with a time: a kindMark, kindClosed or kindOver.
func (e *encoder) mark(b []byte, k kind, t time.Time) []byte {
	var d [binary.MaxVarintLen64]byte
	return appendFrame(b, e.salt, k, binary.AppendVarint(d[:0], t.UnixMicro()-e.base))
}

// decoder reads the records of one segment.
type decoder struct {
	header
	names map[uint64]string
}

func (d *decoder) time(micros int64) time.Time { return time.UnixMicro(d.base + micros) }

// define takes note of a name.
func (d *decoder) define(payload string) bool {
	f := fields{rest: payload}
	n := f.uvarint()
	if f.bad || n < nameFirst || n >= nameFirst+maxNames {
		return false
	}
	d.names[n] = f.rest
	return true
}

func (d *decoder) name(f *fields) string {
	n := f.uvarint()
	if n == nameLiteral {
		return f.string()
	}
	return d.named(n)
}

// named returns a name by its number. If its definition was damaged, the records that use
// it still tell the rest.
func (d *decoder) named(n uint64) string {
	if s, ok := d.names[n]; ok {
		return s
	}
	return "?"
}

func (d *decoder) messageID(f *fields) string {
	n := f.uvarint()
	if n == nameLiteral {
		return f.string()
	}
	return f.string() + d.named(n)
}

func (d *decoder) address(f *fields) string {
	switch n := f.uvarint(); n {
	case nameLiteral:
		return f.string()
	case nameHashed:
		return hashText(f.bytes(hashBytes))
	default:
		return f.string() + "@" + d.named(n)
	}
}

// intent reads an intent into i, whose Recipients are reused; false if it isn't one. The
// strings are parts of the payload.
func (d *decoder) intent(payload string, i *Intent) bool {
	f := fields{rest: payload}
	rcpts := i.Recipients[:0]
	*i = Intent{Time: d.time(f.varint())}
	flags := f.byte()
	if flags&^intentFlags != 0 {
		return false
	}
	i.Local = flags&intentLocal != 0
	if flags&intentPackedID != 0 {
		var id [16]byte
		f.array(id[:])
		i.Transaction = mail.TransactionIDOf(id)
	} else {
		i.Transaction = mail.TransactionID(f.string())
	}
	if flags&intentDigest != 0 {
		i.Digest = Digest(f.uint64())
	}
	i.Platform = routing.PlatformID(d.name(&f))
	i.Host = d.name(&f)
	i.From = d.address(&f)
	i.MessageID = d.messageID(&f)
	i.Size = int64(f.uvarint())
	n := f.uvarint()
	if n > MaxRecipients {
		return false
	}
	for range n {
		r := Recipient{Address: routing.Address(d.address(&f)), Agency: routing.AgencyID(d.name(&f))}
		if r.Agency != "" {
			f.array(r.Mailbox[:])
		}
		r.Epoch = routing.Epoch{Term: uint32(f.uvarint()), Number: uint32(f.uvarint())}
		if flags&intentMapping != 0 && r.Agency != "" {
			if raw := d.name(&f); len(raw) == len(r.Mapping) { // else its definition was damaged
				copy(r.Mapping[:], raw)
			}
		}
		if f.bad {
			return false
		}
		rcpts = append(rcpts, r)
	}
	i.Recipients = rcpts
	return !f.bad && f.rest == ""
}

// outcome is a decoded outcome.
type outcome struct {
	intent  int64 // where the intent begins
	at      time.Time
	final   bool
	answers []Answer
}

// outcome reads an outcome into o, whose answers are reused; false if it isn't one.
func (d *decoder) outcome(payload string, o *outcome) bool {
	f := fields{rest: payload}
	o.intent = int64(f.uvarint())
	o.at = d.time(f.varint())
	o.final = f.byte()&outcomeFinal != 0
	o.answers = o.answers[:0]
	n := f.uvarint()
	if n > MaxRecipients {
		return false
	}
	for range n {
		a := Answer{Result: Result(f.byte()), Code: int(f.uvarint()), Text: f.string()}
		if f.bad {
			return false
		}
		o.answers = append(o.answers, a)
	}
	return !f.bad && f.rest == "" && o.intent >= 0
}

// mark reads the time of a mark.
func (d *decoder) mark(payload string) (time.Time, bool) {
	f := fields{rest: payload}
	t := d.time(f.varint())
	return t, !f.bad
}

// newSalt makes CRCs of one segment fail in another.
func newSalt(number uint64, boot string, base int64) uint32 {
	b := binary.LittleEndian.AppendUint64(nil, number)
	b = binary.LittleEndian.AppendUint64(b, uint64(base))
	return crc32.Checksum(append(b, boot...), castagnoli)
}
