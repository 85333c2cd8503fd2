package retained

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"
)

// A chunk is: flags, length of what follows the head (3 bytes), its CRC-32C (4 bytes), bytes.
// Numbers are little-endian.
const (
	chunkBytes = 64 << 10 // of a body
	chunkHead  = 8

	// mostStored is the longest chunk: one that isn't compressed, sealed.
	mostStored = chunkBytes + 16
)

// Flags of a chunk.
const (
	chunkCompressed = 1 << iota
	chunkSealed
	chunkFlags = chunkCompressed | chunkSealed
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// packed is a chunk before it is sealed.
type packed struct {
	flags  byte
	framed []byte // room for the head, then what the chunk holds
}

// pack makes a chunk of a part of a body, which stands behind room for the head. It is compressed
// if that makes it shorter and there is time for it. plain belongs to the chunk then.
func (s *Store) pack(plain []byte) packed {
	if s.encoder == nil || !s.allowance.has() {
		return packed{0, plain}
	}
	began := time.Now()
	z := s.encoder.EncodeAll(plain[chunkHead:], s.buffer())
	s.allowance.spend(time.Since(began))
	if len(z) < len(plain) {
		s.putBuffer(plain)
		return packed{chunkCompressed, z}
	}
	s.putBuffer(z)
	return packed{0, plain}
}

// plain returns the chunk as it stands in a file where nothing is sealed. It is the packed one's
// own memory.
func (p packed) plain() []byte {
	putHead(p.framed, p.flags)
	return p.framed
}

// seal appends the sealed chunk to b, with a nonce that its key has not seen.
func (p packed) seal(b []byte, aead cipher.AEAD, nonce uint64) []byte {
	at := len(b)
	flags := p.flags | chunkSealed
	b = append(b, make([]byte, chunkHead)...)
	b = aead.Seal(b, nonceOf(nonce), p.framed[chunkHead:], []byte{flags})
	putHead(b[at:], flags)
	return b
}

// putHead writes the head of a chunk that stands behind room for it.
func putHead(framed []byte, flags byte) {
	stored := framed[chunkHead:]
	framed[0] = flags
	framed[1], framed[2], framed[3] = byte(len(stored)), byte(len(stored)>>8), byte(len(stored)>>16)
	binary.LittleEndian.PutUint32(framed[4:], crc32.Checksum(stored, castagnoli))
}

func nonceOf(n uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 4, 12), n) }

// chunkLength returns how many bytes follow a chunk's head.
func chunkLength(head []byte) int { return int(head[1]) | int(head[2])<<8 | int(head[3])<<16 }

// unpack returns the part of a body that a chunk has. room may be used for it.
func (s *Store) unpack(room, head, stored []byte, aead cipher.AEAD, nonce uint64) ([]byte, error) {
	flags := head[0]
	switch {
	case flags&^byte(chunkFlags) != 0:
		return nil, fmt.Errorf("%w: a chunk of another version", ErrDamaged)
	case crc32.Checksum(stored, castagnoli) != binary.LittleEndian.Uint32(head[4:]):
		return nil, fmt.Errorf("%w: wrong checksum of a chunk", ErrDamaged)
	case flags&chunkSealed != 0 && aead == nil:
		return nil, fmt.Errorf("%w: its key can't be opened", ErrDamaged)
	case flags&chunkSealed == 0 && aead != nil:
		return nil, fmt.Errorf("%w: a chunk that isn't sealed", ErrDamaged)
	}
	if aead != nil {
		var err error
		if stored, err = aead.Open(stored[:0], nonceOf(nonce), stored, []byte{flags}); err != nil {
			return nil, fmt.Errorf("%w: a chunk doesn't open with its key", ErrDamaged)
		}
	}
	if flags&chunkCompressed == 0 {
		return stored, nil
	}
	plain, err := s.decoder.DecodeAll(stored, room[:0])
	if err != nil || len(plain) > chunkBytes {
		return nil, fmt.Errorf("%w: a chunk can't be decompressed", ErrDamaged)
	}
	return plain, nil
}
