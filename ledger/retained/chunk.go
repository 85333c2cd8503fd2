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
	flags byte
	bytes []byte
}

// pack compresses a part of a body, if that makes it shorter and there is time for it; the result
// is in to, or is plain.
func (s *Store) pack(to, plain []byte) packed {
	if s.encoder == nil || !s.allowance.has() {
		return packed{0, plain}
	}
	began := time.Now()
	z := s.encoder.EncodeAll(plain, to[:0])
	s.allowance.spend(time.Since(began))
	if len(z) < len(plain) {
		return packed{chunkCompressed, z}
	}
	return packed{0, plain}
}

// append appends the chunk to b. A sealed one has a nonce that its key has not seen.
func (p packed) append(b []byte, aead cipher.AEAD, nonce uint64) []byte {
	at := len(b)
	b = append(b, make([]byte, chunkHead)...)
	if aead == nil {
		b = append(b, p.bytes...)
	} else {
		p.flags |= chunkSealed
		b = aead.Seal(b, nonceOf(nonce), p.bytes, []byte{p.flags})
	}
	head, stored := b[at:], b[at+chunkHead:]
	head[0] = p.flags
	head[1], head[2], head[3] = byte(len(stored)), byte(len(stored)>>8), byte(len(stored)>>16)
	binary.LittleEndian.PutUint32(head[4:], crc32.Checksum(stored, castagnoli))
	return b
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
