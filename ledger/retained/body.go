package retained

import (
	"crypto/cipher"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"

	"mailcutover/internal/durable"
)

// Body is the content of a copy. It belongs to one goroutine, which closes it.
type Body struct {
	s      *Store
	c      Copy
	file   durable.Random
	aead   cipher.AEAD
	at     int64 // where the next chunk is
	left   int64 // stored bytes from there on
	nonce  uint64
	room   []byte
	stored []byte
	plain  []byte // not returned yet
	read   int64
	sum    hash.Hash
	err    error
}

// Open opens the body of a copy that [Store.Find] yielded: the message as it went to the
// platform, with our Received line. Only io.EOF says that it is whole and the one that was kept;
// any other error wraps [ErrDamaged], or [ErrRemoved] if the copy is gone.
func (s *Store) Open(c *Copy) (*Body, error) {
	b, err := s.open(c)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", ErrRemoved, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open retained copy %s: %w", c, err)
	}
	return b, nil
}

func (s *Store) open(c *Copy) (*Body, error) {
	a := &agency{id: c.Agency}
	h, err := s.header(a, c.place.segment)
	if err != nil {
		return nil, err
	}
	b := &Body{s: s, c: *c, at: c.place.offset, left: c.place.stored, sum: sha256.New()}
	name, salt, context := a.name(c.place.segment, bodiesSuffix), h.salt, "bodies"
	if c.place.large > 0 {
		name, salt, context = a.largeName(c.place.segment, c.place.large), c.place.salt, "body"
	} else {
		b.nonce = uint64(c.place.offset)
	}
	if b.aead, err = s.cipher(c.Agency, h.key, salt, context); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if b.file, err = s.o.Disk.OpenAt(s.path(name)); err != nil {
		return nil, err
	}
	return b, nil
}

// header reads the header of a segment.
func (s *Store) header(a *agency, number uint64) (header, error) {
	f, err := s.o.Disk.OpenAt(s.path(a.name(number, headsSuffix)))
	if err != nil {
		return header{}, err
	}
	begin := make([]byte, 256)
	n, err := f.ReadAt(begin, 0)
	if err = errors.Join(err, f.Close()); err != nil && !errors.Is(err, io.EOF) {
		return header{}, err
	}
	h, size := readHeader(begin[:n])
	if size == 0 {
		return h, fmt.Errorf("%w: no readable header", ErrDamaged)
	}
	return h, nil
}

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	for len(b.plain) == 0 && b.err == nil {
		b.err = b.fill()
	}
	if len(b.plain) == 0 {
		return 0, b.err
	}
	n := copy(p, b.plain)
	b.plain = b.plain[n:]
	return n, nil
}

// fill reads the next chunk, or proves the whole at its end.
func (b *Body) fill() error {
	if b.left == 0 {
		var d Digest
		b.sum.Sum(d[:0])
		if b.read != b.c.Size || d != b.c.Digest {
			return b.damaged(fmt.Errorf("%w: another content", ErrDamaged))
		}
		return io.EOF
	}
	head := make([]byte, chunkHead)
	if err := b.readAt(head); err != nil {
		return err
	}
	n := chunkLength(head)
	if n > mostStored {
		return b.damaged(fmt.Errorf("%w: a chunk of %d bytes", ErrDamaged, n))
	}
	if cap(b.stored) < n {
		b.stored = make([]byte, n, mostStored)
	}
	b.stored = b.stored[:n]
	if err := b.readAt(b.stored); err != nil {
		return err
	}
	plain, err := b.s.unpack(b.room, head, b.stored, b.aead, b.nonce)
	if err != nil {
		return b.damaged(err)
	}
	if head[0]&chunkCompressed != 0 {
		b.room = plain
	}
	b.nonce++
	b.plain = plain
	b.read += int64(len(plain))
	b.sum.Write(plain)
	return nil
}

// readAt fills p with what comes next.
func (b *Body) readAt(p []byte) error {
	if int64(len(p)) > b.left {
		return b.damaged(fmt.Errorf("%w: it ends within a chunk", ErrDamaged))
	}
	n, err := b.file.ReadAt(p, b.at)
	if n < len(p) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return b.damaged(fmt.Errorf("%w: %w", ErrDamaged, err))
	}
	b.at += int64(n)
	b.left -= int64(n)
	return nil
}

// damaged counts a body that isn't what was kept.
func (b *Body) damaged(err error) error {
	b.s.mu.Lock()
	b.s.counts.damaged++
	b.s.mu.Unlock()
	return fmt.Errorf("read retained copy %s: %w", &b.c, err)
}

// Close closes the body.
func (b *Body) Close() error { return b.file.Close() }
