package retained

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"mailcutover/internal/durable"
	"mailcutover/ledger"
)

// Body is the content of a copy. It belongs to one goroutine, which closes it.
type Body struct {
	s      *Store
	c      Copy
	file   durable.Random
	aead   cipher.AEAD
	next   int // chunk
	room   []byte
	stored []byte
	plain  []byte // not returned yet
	read   int64
	digest ledger.Digester
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
	b := &Body{s: s, c: *c}
	b.digest.Reset()
	if b.aead, err = s.cipher(c.Agency, h.key, h.salt, "bodies"); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if b.file, err = s.o.Disk.OpenAt(s.path(a.name(c.place.segment, bodiesSuffix))); err != nil {
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
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return header{}, err
	}
	h, size := readHeader(begin[:n])
	if size <= 0 {
		return h, fmt.Errorf("%w: no readable header", ErrDamaged)
	}
	return h, nil
}

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	for len(b.plain) == 0 && b.err == nil {
		if b.err = b.fill(); b.err != nil && b.err != io.EOF {
			b.s.damaged()
			b.err = fmt.Errorf("read retained copy %s: %w", &b.c, b.err)
		}
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
	if b.next == len(b.c.place.chunks) {
		if b.read != b.c.Size || b.c.Digest != 0 && b.digest.Digest() != b.c.Digest {
			return fmt.Errorf("%w: another content", ErrDamaged)
		}
		return io.EOF
	}
	p := b.c.place.chunks[b.next]
	b.next++
	if int64(cap(b.stored)) < p.bytes {
		b.stored = make([]byte, chunkHead+mostStored)
	}
	b.stored = b.stored[:p.bytes]
	if n, err := b.file.ReadAt(b.stored, p.at); n < len(b.stored) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	head, rest := b.stored[:chunkHead], b.stored[chunkHead:]
	if chunkLength(head) != len(rest) {
		return fmt.Errorf("%w: a chunk of another length", ErrDamaged)
	}
	plain, err := b.s.unpack(b.room, head, rest, b.aead, uint64(p.at))
	if err != nil {
		return err
	}
	if head[0]&chunkCompressed != 0 {
		b.room = plain
	}
	b.plain = plain
	b.read += int64(len(plain))
	_, _ = b.digest.Write(plain) // never fails
	return nil
}

// damaged counts a body that isn't what was kept.
func (s *Store) damaged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.damaged++
}

// Close closes the body.
func (b *Body) Close() error { return b.file.Close() }
