package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"sort"
	"strings"
	"time"

	"mailcutover/routing"
)

// An index is: a line of text; a summary and the names of its segment, each with length
// and CRC; pages of sorted entries. An entry is the hash of a key and the offset of the
// outcome of an intent that has the key, or of the intent itself if it has none.
const indexMagic = "mailcutover ledger index 1\n"

const (
	pageBytes   = 4096
	pageEntries = (pageBytes - 8) / 8 // behind CRC and count
)

// Segment is what is known of a segment without reading it.
type Segment struct {
	Number      uint64
	First, Last time.Time // of its intents; zero while there is no index, or no intent
	Intents     uint64    // without those that were carried
	Agencies    []routing.AgencyID
	Bytes       int64
	IndexBytes  int64 // 0 while there is no index
	Damaged     int64 // bytes that could not be read

	ended bool      // nothing is appended any more
	retry time.Time // an index could not be made, and is not tried again before
}

// index is what a search needs of an index file.
type index struct {
	Segment
	decoder
	firsts []uint64 // first entry of each page
	pages  int64    // where the pages begin
}

// Kinds of keys.
const (
	keyTransaction = 't'
	keyMessageID   = 'm'
	keyFrom        = 'f'
	keyRecipient   = 'r'
)

// hashKey is FNV-1a, folded; it stands in files, so it must stay what it is.
func hashKey(k byte, s string) uint32 {
	h := uint64(14695981039346656037)
	h = (h ^ uint64(k)) * 1099511628211
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return uint32(h>>32) ^ uint32(h)
}

// keys appends the hashes of all keys of an intent.
func (i *Intent) keys(to []uint32) []uint32 {
	to = append(to, hashKey(keyTransaction, string(i.Transaction)), hashKey(keyFrom, strings.ToLower(i.From)))
	if i.MessageID != "" {
		to = append(to, hashKey(keyMessageID, i.MessageID))
	}
	for n := range i.Recipients {
		to = append(to, hashKey(keyRecipient, strings.ToLower(string(i.Recipients[n].Address))))
	}
	return to
}

// buildIndex makes the index of a segment.
func buildIndex(s *scanned) (Segment, []byte) {
	seg := Segment{Number: s.number, Bytes: int64(len(s.file)), ended: true}
	type span struct{ from, to int32 }
	records := len(s.data) / 200 // about
	hashes := make([]uint32, 0, 4*records)
	spans := map[int64]span{}
	silent := map[int64]struct{}{} // intents without any outcome
	agencies := map[routing.AgencyID]struct{}{}
	entries := make([]uint64, 0, 4*records)
	var i Intent
	var o outcome
	enter := func(sp span, at int64) {
		for _, h := range hashes[sp.from:sp.to] {
			entries = append(entries, uint64(h)<<32|uint64(at))
		}
	}
	s.each(func(at int64, k kind, payload string) bool {
		switch k {
		case kindIntent, kindCarried:
			if !s.intent(payload, &i) {
				break
			}
			from := int32(len(hashes))
			hashes = i.keys(hashes)
			spans[at] = span{from, int32(len(hashes))}
			silent[at] = struct{}{}
			if k == kindIntent {
				seg.Intents++
			}
			if seg.First.IsZero() || i.Time.Before(seg.First) {
				seg.First = i.Time
			}
			seg.Last = later(seg.Last, i.Time)
			for n := range i.Recipients {
				if a := i.Recipients[n].Agency; a != "" {
					if _, ok := agencies[a]; !ok {
						agencies[routing.AgencyID(strings.Clone(string(a)))] = struct{}{}
					}
				}
			}
		case kindOutcome:
			if !s.outcome(payload, &o) {
				break
			}
			if sp, ok := spans[o.intent]; ok {
				enter(sp, at)
				delete(silent, o.intent)
				if o.final {
					delete(spans, o.intent)
				}
			}
		}
		return true
	})
	for at := range silent {
		enter(spans[at], at)
	}
	slices.Sort(entries)
	entries = slices.Compact(entries)
	for a := range agencies {
		seg.Agencies = append(seg.Agencies, a)
	}
	slices.Sort(seg.Agencies)
	seg.Damaged = int64(s.damaged)
	return seg, encodeIndex(&seg, s, entries)
}

func encodeIndex(seg *Segment, s *scanned, entries []uint64) []byte {
	pages := (len(entries) + pageEntries - 1) / pageEntries
	p := binary.AppendUvarint(nil, seg.Number)
	p = binary.LittleEndian.AppendUint32(p, s.salt)
	p = binary.AppendVarint(p, s.base)
	p = binary.AppendUvarint(p, seg.Intents)
	p = binary.AppendUvarint(p, uint64(seg.Bytes))
	p = binary.AppendUvarint(p, uint64(seg.Damaged))
	p = binary.AppendVarint(p, micros(seg.First))
	p = binary.AppendVarint(p, micros(seg.Last))
	p = binary.AppendUvarint(p, uint64(len(seg.Agencies)))
	for _, a := range seg.Agencies {
		p = appendString(p, string(a))
	}
	p = binary.AppendUvarint(p, uint64(pages))
	for n := range pages {
		p = binary.LittleEndian.AppendUint64(p, entries[n*pageEntries])
	}
	p = binary.AppendUvarint(p, uint64(len(s.names)))
	for n, name := range s.names {
		p = binary.AppendUvarint(p, n)
		p = appendString(p, name)
	}
	b := make([]byte, 0, len(indexMagic)+8+len(p)+pages*pageBytes)
	b = append(append(b, indexMagic...), 0, 0, 0, 0, 0, 0, 0, 0)
	head := b[len(indexMagic):]
	binary.LittleEndian.PutUint32(head, uint32(len(p)))
	binary.LittleEndian.PutUint32(head[4:], crc32.Checksum(p, castagnoli))
	b = append(b, p...)
	for page := range slices.Chunk(entries, pageEntries) {
		at := len(b)
		b = b[:at+pageBytes]
		q := b[at:]
		binary.LittleEndian.PutUint32(q[4:], uint32(len(page)))
		for n, e := range page {
			binary.LittleEndian.PutUint64(q[8+8*n:], e)
		}
		binary.LittleEndian.PutUint32(q, crc32.Checksum(q[4:], castagnoli))
	}
	seg.IndexBytes = int64(len(b))
	return b
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n)
}

var errBadIndex = errors.New("index can't be read")

// readIndex reads all but the pages.
func readIndex(r io.ReaderAt, number uint64) (*index, error) {
	const headBytes = len(indexMagic) + 8
	head := make([]byte, headBytes+16<<10)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if head = head[:n]; n < headBytes || string(head[:len(indexMagic)]) != indexMagic {
		return nil, errBadIndex
	}
	size := int(binary.LittleEndian.Uint32(head[len(indexMagic):]))
	sum := binary.LittleEndian.Uint32(head[len(indexMagic)+4:])
	if size > 16<<20 {
		return nil, errBadIndex
	}
	p := head[headBytes:]
	if len(p) < size {
		rest := make([]byte, size)
		copy(rest, p)
		if _, err := r.ReadAt(rest[len(p):], int64(n)); err != nil && err != io.EOF {
			return nil, err
		}
		p = rest
	}
	p = p[:size]
	if crc32.Checksum(p, castagnoli) != sum {
		return nil, errBadIndex
	}
	x := &index{pages: int64(headBytes + size)}
	x.ended = true
	f := fields{rest: view(p)}
	x.Number = f.uvarint()
	var salt [4]byte
	f.array(salt[:])
	x.salt = binary.LittleEndian.Uint32(salt[:])
	x.base = f.varint()
	x.number = x.Number
	x.Intents = f.uvarint()
	x.Bytes = int64(f.uvarint())
	x.Damaged = int64(f.uvarint())
	x.First = fromMicros(f.varint())
	x.Last = fromMicros(f.varint())
	for n := f.uvarint(); n > 0 && !f.bad; n-- {
		x.Agencies = append(x.Agencies, routing.AgencyID(strings.Clone(f.string())))
	}
	for n := f.uvarint(); n > 0 && !f.bad; n-- {
		x.firsts = append(x.firsts, f.uint64())
	}
	x.names = map[uint64]string{}
	for n := f.uvarint(); n > 0 && !f.bad; n-- {
		number := f.uvarint()
		x.names[number] = f.string()
	}
	if f.bad || x.Number != number {
		return nil, errBadIndex
	}
	x.IndexBytes = x.pages + int64(len(x.firsts))*pageBytes
	return x, nil
}

// lookup returns the offsets under a key's hash.
func (x *index) lookup(r io.ReaderAt, hash uint32) ([]int64, error) {
	low := uint64(hash) << 32
	page := max(sort.Search(len(x.firsts), func(n int) bool { return x.firsts[n] > low })-1, 0)
	var found []int64
	buf := make([]byte, pageBytes)
	for ; page < len(x.firsts) && uint32(x.firsts[page]>>32) <= hash; page++ {
		if _, err := r.ReadAt(buf, x.pages+int64(page)*pageBytes); err != nil && err != io.EOF {
			return nil, err
		}
		n := int(binary.LittleEndian.Uint32(buf[4:]))
		if n > pageEntries || crc32.Checksum(buf[4:], castagnoli) != binary.LittleEndian.Uint32(buf) {
			return nil, errBadIndex
		}
		for at := 8; at < 8+8*n; at += 8 {
			if e := binary.LittleEndian.Uint64(buf[at:]); uint32(e>>32) == hash {
				found = append(found, int64(uint32(e)))
			}
		}
	}
	return found, nil
}

// readerAt opens a file for reading anywhere in it. Where the disk can't do that, the
// file is read as a whole.
func (l *Ledger) readerAt(name string) (io.ReaderAt, func(), error) {
	r, err := l.folder.Open(name)
	if err != nil {
		return nil, nil, err
	}
	if at, ok := r.(io.ReaderAt); ok {
		return at, func() { r.Close() }, nil
	}
	b, err := io.ReadAll(r)
	r.Close()
	return bytes.NewReader(b), func() {}, err
}

// summary returns what a segment's index says of it, or only its number.
func (l *Ledger) summary(number uint64) *Segment {
	seg := &Segment{Number: number, ended: true}
	r, end, err := l.readerAt(segmentName(number, indexSuffix))
	if err != nil {
		return seg
	}
	defer end()
	x, err := readIndex(r, number)
	if err != nil {
		return seg
	}
	s := x.Segment
	return &s
}

// indexAgain is how long a segment whose index could not be made is searched as a whole
// before it is tried again.
const indexAgain = time.Hour

// indexOne makes the index of one finished segment that has none.
func (l *Ledger) indexOne() {
	now := l.o.Now()
	l.mu.Lock()
	var number uint64
	for n, seg := range l.segments {
		if seg.ended && seg.IndexBytes == 0 && !now.Before(seg.retry) && n > number {
			number = n
		}
	}
	l.mu.Unlock()
	if number == 0 {
		return
	}
	seg, err := l.makeIndex(number)
	useless := errors.Is(err, errUnreadable) || errors.Is(err, errEmpty)
	if useless {
		l.setAside(number, err, now)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.segments[number] = &seg
	case useless, isGone(err):
		delete(l.segments, number)
	default:
		l.o.Logger.Warn("ledger segment has no index", "error", err)
		if seg.Number == number {
			seg.IndexBytes = 0
			l.segments[number] = &seg
		}
		l.segments[number].retry = now.Add(indexAgain)
	}
}

func (l *Ledger) makeIndex(number uint64) (Segment, error) {
	s, err := l.load(number)
	if err != nil {
		return Segment{}, err
	}
	seg, b := buildIndex(s)
	err = l.folder.Write(segmentName(number, indexSuffix), func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
	if err != nil {
		return seg, fmt.Errorf("index segment %d: %w", number, err)
	}
	return seg, nil
}
