package retained

import (
	"crypto/cipher"
	"encoding/binary"
	"hash/crc32"
	"time"
)

// A frame of a heads file is: sync byte, kind, length of the payload (3 bytes), CRC-32C over
// these five bytes and the payload (4 bytes), payload. The CRC of all but the first starts from
// the segment's salt.
const (
	frameHead  = 9
	frameSync  = 0xC8
	maxPayload = 8 << 20 // more than a head with the most recipients has
)

// kind is what a frame says.
type kind uint8

const (
	kindHeader kind = iota + 1 // the segment's; always the first
	kindCopy
	kindEnd // totals; nothing follows

	numKinds
)

// header is the first frame of a segment's heads.
type header struct {
	number uint64
	salt   [16]byte
	key    keyID // of the data key; zero: not encrypted
}

const segmentVersion = 1

func (h *header) append(b []byte) []byte {
	p := binary.AppendUvarint([]byte{segmentVersion}, h.number)
	p = append(append(p, h.salt[:]...), h.key[:]...)
	return appendFrame(b, 0, kindHeader, p)
}

func (h *header) seed() uint32 { return binary.LittleEndian.Uint32(h.salt[:]) }

// readHeader returns the header and how long its frame is; 0 if it can't be read, -1 if the file
// ends within it: then nothing was ever kept there.
func readHeader(data []byte) (h header, n int) {
	k, p, size := readFrame(data, 0)
	if size < 0 || len(data) == 0 {
		return h, -1
	}
	if size == 0 || k != kindHeader {
		return h, 0
	}
	r := reader{b: p}
	version := r.byte()
	h.number = r.uvarint()
	copy(h.salt[:], r.take(uint64(len(h.salt))))
	copy(h.key[:], r.take(uint64(len(h.key))))
	if version != segmentVersion || r.bad || len(r.b) > 0 {
		return h, 0
	}
	return h, size
}

// totals are what the last frame of a finished segment says, in a fixed length.
type totals struct {
	copies      uint64
	bytes       int64
	first, last time.Time
}

const (
	totalsBytes = 4 * 8
	endBytes    = frameHead + totalsBytes
)

func (t *totals) append(b []byte, seed uint32) []byte {
	var p []byte
	for _, n := range []uint64{t.copies, uint64(t.bytes), uint64(micros(t.first)), uint64(micros(t.last))} {
		p = binary.LittleEndian.AppendUint64(p, n)
	}
	return appendFrame(b, seed, kindEnd, p)
}

// readTotals reads the last frame of a segment, if it is one.
func readTotals(end []byte, seed uint32) (t totals, ok bool) {
	k, p, size := readFrame(end, seed)
	if size != endBytes || k != kindEnd || len(p) != totalsBytes {
		return t, false
	}
	n := func(i int) uint64 { return binary.LittleEndian.Uint64(p[8*i:]) }
	t.copies, t.bytes = n(0), int64(n(1))
	t.first, t.last = fromMicros(int64(n(2))), fromMicros(int64(n(3)))
	return t, true
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

func appendFrame(b []byte, seed uint32, k kind, payload []byte) []byte {
	at := len(b)
	n := len(payload)
	b = append(b, frameSync, byte(k), byte(n), byte(n>>8), byte(n>>16))
	sum := crc32.Update(seed, castagnoli, b[at:at+5])
	b = binary.LittleEndian.AppendUint32(b, crc32.Update(sum, castagnoli, payload))
	return append(b, payload...)
}

// readFrame reads the frame at the start of data. size is its length; 0: there is none, -1: the
// data end within it.
func readFrame(data []byte, seed uint32) (k kind, payload []byte, size int) {
	if len(data) == 0 || data[0] != frameSync {
		return 0, nil, 0
	}
	if len(data) < frameHead {
		return 0, nil, -1
	}
	k = kind(data[1])
	n := int(data[2]) | int(data[3])<<8 | int(data[4])<<16
	if k == 0 || k >= numKinds || n > maxPayload {
		return 0, nil, 0
	}
	if len(data) < frameHead+n {
		return 0, nil, -1
	}
	payload = data[frameHead : frameHead+n]
	sum := crc32.Update(seed, castagnoli, data[:5])
	if crc32.Update(sum, castagnoli, payload) != binary.LittleEndian.Uint32(data[5:]) {
		return 0, nil, 0
	}
	return k, payload, frameHead + n
}

// appendCopy appends the frame of a head, sealed if there is a cipher. at is where the frame
// begins in its file: no two frames of a file begin there.
func appendCopy(b []byte, seed uint32, aead cipher.AEAD, at int64, head []byte) []byte {
	if aead != nil {
		head = aead.Seal(nil, nonceOf(uint64(at)), head, []byte{byte(kindCopy)})
	}
	return appendFrame(b, seed, kindCopy, head)
}
