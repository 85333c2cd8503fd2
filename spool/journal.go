package spool

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"mailcutover/internal/durable"
)

// Kinds of records.
const (
	recordMessage byte = 1 // head of a message, its body behind it or elsewhere
	recordOutcome byte = 2 // new state of one recipient
)

// A record begins with a frame, at a multiple of align bytes in its segment:
//
//	 0  magic
//	 4  kind, then three zeros
//	 8  bytes of the head
//	12  bytes of the body behind it
//	16  CRC-32C of that body
//	20  CRC-32C of the spool's id, the segment, the offset, the frame up to here, the head
//
// Then follow head, body and zeros up to the next multiple. Place and spool are part of
// the checksum, so that a body with bytes that look like a record, or an old block that
// a disk brings back, isn't one.
const (
	frameBytes = 24
	frameMagic = 0xca2d5f31
	align      = 8

	maxHead = 64 << 20
)

// A segment begins with a header: magic, spool id, number, CRC-32C, zeros.
const (
	headerBytes = 48
	headerMagic = "mailcutover journal 1\n\x00\x00"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// position is a place in the journal. Segments count from 1.
type position struct{ segment, offset uint32 }

func (p position) String() string { return fmt.Sprintf("segment %d offset %d", p.segment, p.offset) }

// spoolID is the identity of a spool.
type spoolID [16]byte

func segmentName(n uint32) string { return fmt.Sprintf("%08d.log", n) }

// A file NNNNNNNN.cut beside a segment says up to where it counts.
const cutMagic = "mailcutover cut 1"

func cutName(n uint32) string { return fmt.Sprintf("%08d.cut", n) }

func parseCutName(name string) (n uint32) {
	if _, err := fmt.Sscanf(name, "%d.cut", &n); err != nil || cutName(n) != name {
		return 0
	}
	return n
}

// limited is a file of which only a part counts.
type limited struct {
	durable.Random
	size int64
}

// Size implements durable.Random.
func (l limited) Size() (int64, error) { return l.size, nil }

// parseSegmentName returns the number in a segment's name; 0 for other names.
func parseSegmentName(name string) (n uint32) {
	if _, err := fmt.Sscanf(name, "%d.log", &n); err != nil || segmentName(n) != name {
		return 0
	}
	return n
}

func appendHeader(b []byte, id spoolID, segment uint32) []byte {
	n := len(b)
	b = append(b, headerMagic...)
	b = append(b, id[:]...)
	b = binary.LittleEndian.AppendUint32(b, segment)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[n:], castagnoli))
}

// parseHeader returns whose segment it is; ok tells whether b is a header.
func parseHeader(b []byte) (id spoolID, segment uint32, ok bool) {
	if len(b) < headerBytes || string(b[:len(headerMagic)]) != headerMagic ||
		binary.LittleEndian.Uint32(b[44:]) != crc32.Checksum(b[:44], castagnoli) {
		return id, 0, false
	}
	copy(id[:], b[24:])
	return id, binary.LittleEndian.Uint32(b[40:]), true
}

// frame is what stands before a record.
type frame struct {
	kind    byte
	head    uint32
	body    uint32
	bodyCRC uint32
	crc     uint32
}

// padded returns how much of a segment the record takes up.
func (f *frame) padded() int64 {
	return (frameBytes + int64(f.head) + int64(f.body) + align - 1) &^ (align - 1)
}

func (s spoolID) seed(p position) uint32 {
	var b [24]byte
	copy(b[:], s[:])
	binary.LittleEndian.PutUint32(b[16:], p.segment)
	binary.LittleEndian.PutUint32(b[20:], p.offset)
	return crc32.Checksum(b[:], castagnoli)
}

// appendRecord appends a record that is going to stand at p.
func (s spoolID) appendRecord(b []byte, p position, kind byte, head, body []byte, bodyCRC uint32) []byte {
	n := len(b)
	le := binary.LittleEndian
	b = le.AppendUint32(b, frameMagic)
	b = append(b, kind, 0, 0, 0)
	b = le.AppendUint32(b, uint32(len(head)))
	b = le.AppendUint32(b, uint32(len(body)))
	b = le.AppendUint32(b, bodyCRC)
	crc := crc32.Update(s.seed(p), castagnoli, b[n:])
	b = le.AppendUint32(b, crc32.Update(crc, castagnoli, head))
	b = append(b, head...)
	b = append(b, body...)
	for (len(b)-n)%align != 0 {
		b = append(b, 0)
	}
	return b
}

// parseFrame returns the frame at the beginning of b, which isn't proven yet; ok tells
// whether it can be one.
func parseFrame(b []byte) (f frame, ok bool) {
	le := binary.LittleEndian
	if len(b) < frameBytes || le.Uint32(b) != frameMagic || b[5]|b[6]|b[7] != 0 {
		return f, false
	}
	f = frame{kind: b[4], head: le.Uint32(b[8:]), body: le.Uint32(b[12:]), bodyCRC: le.Uint32(b[16:]), crc: le.Uint32(b[20:])}
	return f, f.head <= maxHead
}

// proves reports whether frame and head, which stood at p, are as they were written.
func (s spoolID) proves(p position, f *frame, raw, head []byte) bool {
	crc := crc32.Update(s.seed(p), castagnoli, raw[:frameBytes-4])
	return crc32.Update(crc, castagnoli, head) == f.crc
}

// readRecord reads frame and head of the record at p.
func (s spoolID) readRecord(r io.ReaderAt, p position) (f frame, head []byte, err error) {
	b := make([]byte, 1024)
	n, err := r.ReadAt(b, int64(p.offset))
	if err != nil && err != io.EOF {
		return f, nil, fmt.Errorf("read %s: %w", p, err)
	}
	f, ok := parseFrame(b[:n])
	if !ok {
		return f, nil, fmt.Errorf("read %s: %w: no record", p, ErrDamaged)
	}
	head = b[frameBytes:n]
	if uint32(len(head)) < f.head {
		head = make([]byte, f.head)
		if _, err := r.ReadAt(head, int64(p.offset)+frameBytes); err != nil {
			return f, nil, fmt.Errorf("read %s: %w", p, err)
		}
	}
	head = head[:f.head]
	if !s.proves(p, &f, b, head) {
		return f, nil, fmt.Errorf("read %s: %w: wrong checksum", p, ErrDamaged)
	}
	return f, head, nil
}

// segment is what is known of a file of the journal.
type segment struct {
	size int64 // bytes, header included
	live int64 // bytes of records that are needed
	// Records that tell of messages that ended: their bytes, and the range of segments
	// for which they are needed.
	ended       int64
	first, last uint32
}

// writer is the segment to which records are appended.
type writer struct {
	number uint32
	file   durable.File
	size   int64
	safe   int64 // bytes that are fsynced
	dirty  bool  // something is not fsynced
	bad    bool  // nothing may be appended any more
}
