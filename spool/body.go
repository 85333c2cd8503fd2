package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"mailcutover/internal/durable"
	"mailcutover/internal/seal"
	"mailcutover/mail"
)

// A body's file is one line, the bytes of the message, and a trailer.
const (
	bodyMagic    = "mailcutover body 1 "
	trailerMagic = "\nend of body\n"
	trailerBytes = len(trailerMagic) + 8 + 4
)

func bodyLine(id [16]byte) string { return bodyMagic + string(mail.TransactionIDOf(id)) + "\n" }

func appendTrailer(b []byte, size int64, crc uint32) []byte {
	b = append(b, trailerMagic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(size))
	return binary.LittleEndian.AppendUint32(b, crc)
}

// bodyContext is what the encrypted body of a message is.
func bodyContext(id [16]byte) string { return "body in the spool " + string(mail.TransactionIDOf(id)) }

// plainSize returns how long the body is that is delivered; of one whose length on the disk
// can't be right, that length.
func (m *message) plainSize() int64 {
	f := fixed{size: m.size, sealed: m.sealed}
	if n, err := f.plainSize(); err == nil {
		return n
	}
	return m.size
}

// createBody begins a body's file.
func (s *Store) createBody(id [16]byte) (durable.File, error) {
	f, err := s.disk.Create(s.bodyPath(id))
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteString(bodyLine(id)); err != nil {
		return nil, errors.Join(err, f.Close(), s.disk.Remove(s.bodyPath(id)))
	}
	return f, nil
}

// Body is the bytes of a message. It belongs to one goroutine, which closes it.
type Body struct {
	id     mail.TransactionID
	file   durable.Random
	at     int64 // where the next byte is
	left   int64
	size   int64
	crc    uint32
	want   uint32
	sealed *seal.Reader // over what is on the disk; nil: it isn't encrypted
	path   string       // of the file that has an encrypted one
	failed error
}

// Open opens the body of a message. What is read is proven only when [Body.Verify]
// returns nil.
func (s *Store) Open(transaction mail.TransactionID) (*Body, error) {
	id, err := transaction.Bytes()
	if err != nil {
		return nil, fmt.Errorf("spool: open: %w", err)
	}
	if err := s.checkOwner(); err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		s.mu.Lock()
		m := s.x.find(id)
		var c message
		if m != nil {
			c = *m
		}
		s.mu.Unlock()
		if m == nil {
			return nil, fmt.Errorf("spool: open message %s: %w", transaction, ErrUnknown)
		}
		b, err := s.openBody(&c)
		if errors.Is(err, fs.ErrNotExist) && try < 3 {
			continue // it moved meanwhile
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if err != nil {
			return nil, fmt.Errorf("spool: open message %s: %w", transaction, err)
		}
		return b, nil
	}
}

func (s *Store) openBody(m *message) (*Body, error) {
	b, err := s.openStored(m)
	if err != nil || !m.sealed {
		return b, err
	}
	if b.path = s.segmentPath(m.body.segment); m.body == bodyInFile {
		b.path = s.bodyPath(m.id)
	}
	if s.o.Keys != nil {
		b.sealed = s.o.Keys.NewReader(stored{b}, bodyContext(m.id))
		return b, nil
	}
	header := make([]byte, seal.HeaderBytes)
	if _, err = b.file.ReadAt(header, b.at); err == nil {
		key, _ := seal.KeyOf(header)
		err = fmt.Errorf("%w: %s has a body for key %q, and there are no keys", seal.ErrUnknownKey, b.path, key)
	}
	return nil, errors.Join(err, b.file.Close())
}

// openStored opens a body as it is on the disk.
func (s *Store) openStored(m *message) (*Body, error) {
	b := &Body{id: mail.TransactionIDOf(m.id), left: m.size, size: m.plainSize(), want: m.bodyCRC}
	var err error
	if m.body == bodyInFile {
		if b.file, err = s.disk.OpenAt(s.bodyPath(m.id)); err != nil {
			return nil, err
		}
		if b.at, err = checkBodyFile(b.file, m.id, m.size, m.bodyCRC); err != nil {
			return nil, errors.Join(err, b.file.Close())
		}
		return b, nil
	}
	if b.file, err = s.segment(m.body.segment); err != nil {
		return nil, err
	}
	// Behind the head that Get reads and proves, memory knows where the body begins; what
	// is read there is proven by Verify.
	if m.body == m.head {
		b.at = int64(m.body.offset) + int64(m.headBytes)
		return b, nil
	}
	f, _, err := s.id.readRecord(b.file, m.body)
	if err == nil && (int64(f.body) != m.size || f.bodyCRC != m.bodyCRC) {
		err = fmt.Errorf("%w: another body at %s", ErrDamaged, m.body)
	}
	if err != nil {
		return nil, errors.Join(err, b.file.Close())
	}
	b.at = int64(m.body.offset) + frameBytes + int64(f.head)
	return b, nil
}

// checkBodyFile compares a body's file with what the journal says of it, all but the
// bytes of the message, and returns where they begin.
func checkBodyFile(f durable.Random, id [16]byte, size int64, crc uint32) (at int64, err error) {
	line := bodyLine(id)
	have, err := f.Size()
	if err != nil {
		return 0, err
	}
	if have != int64(len(line))+size+int64(trailerBytes) {
		return 0, fmt.Errorf("%w: file of %d bytes for a body of %d", ErrDamaged, have, size)
	}
	first, last := make([]byte, len(line)), make([]byte, trailerBytes)
	if _, err := f.ReadAt(first, 0); err != nil {
		return 0, err
	}
	if _, err := f.ReadAt(last, have-int64(len(last))); err != nil && err != io.EOF {
		return 0, err
	}
	if string(first) != line || string(last) != string(appendTrailer(nil, size, crc)) {
		return 0, fmt.Errorf("%w: first line or trailer", ErrDamaged)
	}
	return int64(len(line)), nil
}

// Size returns how many bytes there are.
func (b *Body) Size() int64 { return b.size }

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	if b.sealed == nil {
		return b.readStored(p)
	}
	n, err := b.sealed.Read(p)
	if err != nil && err != io.EOF && b.failed == nil {
		b.failed = fmt.Errorf("spool: read message %s in %s: %w", b.id, b.path, err)
		if errors.Is(err, seal.ErrDamaged) {
			b.failed = fmt.Errorf("spool: read message %s in %s: %w: %w", b.id, b.path, ErrDamaged, err)
		}
	}
	if b.failed != nil {
		return n, b.failed
	}
	return n, err
}

// stored is what of a body is on the disk.
type stored struct{ *Body }

func (s stored) Read(p []byte) (int, error) { return s.readStored(p) }

func (b *Body) readStored(p []byte) (int, error) {
	if b.failed != nil {
		return 0, b.failed
	}
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.file.ReadAt(p[:min(int64(len(p)), b.left)], b.at)
	b.at += int64(n)
	b.left -= int64(n)
	b.crc = crc32.Update(b.crc, castagnoli, p[:n])
	if n > 0 || err == nil {
		return n, nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	b.failed = fmt.Errorf("spool: read message %s: %w: %w", b.id, ErrDamaged, err)
	return 0, b.failed
}

// Verify returns nil if all bytes were read and are the ones that were accepted. A dot
// may be sent only then. Otherwise the error wraps ErrDamaged.
func (b *Body) Verify() error {
	switch {
	case b.failed != nil:
		return b.failed
	case b.left > 0:
		return fmt.Errorf("spool: message %s: %w: %d bytes were not read", b.id, ErrDamaged, b.left)
	case b.crc != b.want:
		return fmt.Errorf("spool: message %s: %w: wrong checksum of the body", b.id, ErrDamaged)
	}
	return nil
}

// Close closes the body.
func (b *Body) Close() error { return b.file.Close() }

// Get returns a message, with what happened to its recipients, as the journal has it.
func (s *Store) Get(transaction mail.TransactionID) (*Message, error) {
	id, err := transaction.Bytes()
	if err != nil {
		return nil, fmt.Errorf("spool: get: %w", err)
	}
	for try := 0; ; try++ {
		s.mu.Lock()
		m := s.x.find(id)
		var head position
		var rcpts []recipient
		var keys []Key // of those that have another one than at acceptance
		if m != nil {
			head = m.head
			rcpts = append(rcpts, s.x.recipients(m)...)
			keys = s.x.moved(rcpts)
		}
		s.mu.Unlock()
		if m == nil {
			return nil, fmt.Errorf("spool: get message %s: %w", transaction, ErrUnknown)
		}
		msg, err := s.readMessage(head, rcpts)
		if errors.Is(err, fs.ErrNotExist) && try < 3 {
			continue // it moved meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("spool: get message %s: %w", transaction, err)
		}
		for i, k := range keys {
			msg.Recipients[i].key = k
		}
		return msg, nil
	}
}

func (s *Store) readMessage(at position, rcpts []recipient) (*Message, error) {
	head, err := s.readHead(at)
	if err != nil {
		return nil, err
	}
	msg, err := parseHead(head)
	if err != nil {
		return nil, err
	}
	if len(msg.Recipients) < len(rcpts) {
		return nil, fmt.Errorf("%w: %d recipients of %d", ErrDamaged, len(msg.Recipients), len(rcpts))
	}
	msg.Recipients = msg.Recipients[:len(rcpts)]
	for i := range rcpts {
		r := &msg.Recipients[i]
		if rcpts[i].out != (position{}) {
			head, err := s.readHead(rcpts[i].out)
			if err != nil {
				return nil, err
			}
			o, err := parseOutcome(head)
			if err != nil {
				return nil, err
			}
			r.Reason, r.Last = o.Reason, o.Result
		}
		r.State = rcpts[i].state
	}
	return msg, nil
}
