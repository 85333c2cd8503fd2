package ledger

import (
	"encoding/binary"
	"hash/crc32"
	"strings"
)

// A record is: sync byte, kind, length of the payload (3 bytes), CRC-32C over these five
// bytes and the payload (4 bytes), payload. Numbers are little-endian. The CRC starts
// from the segment's salt, so that records left on the disk by another segment don't
// pass for this one's.
const (
	frameHead  = 9
	frameSync  = 0xC7
	maxPayload = 4 << 20 // 10,000 recipients with the longest addresses are below
)

// kind is what a record says.
type kind uint8

const (
	kindHeader  kind = iota + 1 // the segment's; always the first
	kindDefine                  // a name that later records refer to by number
	kindIntent                  // before a dot
	kindCarried                 // an intent of an earlier segment that was still open
	kindOutcome                 // after the answer
	kindMark                    // everything before a point in time has been fsynced
	kindClosed                  // the ledger was closed in order; nothing follows
	kindOver                    // what the header says is unknown can't arrive any more

	numKinds
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendFrame appends a record to b.
func appendFrame(b []byte, salt uint32, k kind, payload []byte) []byte {
	at := len(b)
	n := len(payload)
	b = append(b, frameSync, byte(k), byte(n), byte(n>>8), byte(n>>16))
	sum := crc32.Update(salt, castagnoli, b[at:at+5])
	sum = crc32.Update(sum, castagnoli, payload)
	b = binary.LittleEndian.AppendUint32(b, sum)
	return append(b, payload...)
}

// frameState is what was found where a record should be.
type frameState uint8

const (
	frameOK   frameState = iota
	frameTorn            // the data end within it
	frameBad             // not a record, or a damaged one
)

// readFrame reads the record at the start of data.
func readFrame(data []byte, salt uint32) (k kind, payload []byte, state frameState) {
	if len(data) == 0 || data[0] != frameSync {
		return 0, nil, frameBad
	}
	if len(data) < frameHead {
		return 0, nil, frameTorn
	}
	k = kind(data[1])
	n := int(data[2]) | int(data[3])<<8 | int(data[4])<<16
	if k == 0 || k >= numKinds || n > maxPayload {
		return 0, nil, frameBad
	}
	if len(data) < frameHead+n {
		return 0, nil, frameTorn
	}
	payload = data[frameHead : frameHead+n]
	sum := crc32.Update(salt, castagnoli, data[:5])
	if crc32.Update(sum, castagnoli, payload) != binary.LittleEndian.Uint32(data[5:]) {
		return 0, nil, frameBad
	}
	return k, payload, frameOK
}

// fields takes a payload apart. After a field that isn't whole, bad is set and all
// further ones are zero.
type fields struct {
	rest string
	bad  bool
}

func (f *fields) fail() { f.rest, f.bad = "", true }

func (f *fields) byte() byte {
	if f.rest == "" {
		f.bad = true
		return 0
	}
	c := f.rest[0]
	f.rest = f.rest[1:]
	return c
}

func (f *fields) uvarint() uint64 {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		if f.rest == "" {
			break
		}
		c := f.byte()
		if c < 0x80 {
			return v | uint64(c)<<shift
		}
		v |= uint64(c&0x7f) << shift
	}
	f.fail()
	return 0
}

func (f *fields) varint() int64 {
	u := f.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (f *fields) bytes(n uint64) string {
	if n > uint64(len(f.rest)) {
		f.fail()
		return ""
	}
	s := f.rest[:n]
	f.rest = f.rest[n:]
	return s
}

func (f *fields) uint64() uint64 {
	var b [8]byte
	f.array(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

func (f *fields) string() string { return f.bytes(f.uvarint()) }

// array fills b.
func (f *fields) array(b []byte) { copy(b, f.bytes(uint64(len(b)))) }

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// cutMark ends what was cut.
const cutMark = "…"

// cut returns s, or as much of it as fits into n bytes with the mark behind it.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-len(cutMark)], "") + cutMark
}
