package seal

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	magic     = "mcseal1\n"
	saltBytes = 16

	// HeaderBytes is how long the header of a stream is.
	HeaderBytes = len(magic) + nameBytes + saltBytes

	chunkBytes = 64 << 10
	tagBytes   = 16
)

// ErrDamaged is wrapped where a stream isn't what was sealed: altered, cut, or another one.
var ErrDamaged = errors.New("sealed data are damaged")

// SealedSize returns how many bytes a stream of n bytes has once it is sealed.
func SealedSize(n int64) int64 {
	return int64(HeaderBytes) + n + tagBytes*max(1, (n+chunkBytes-1)/chunkBytes)
}

// PlainSize returns how many bytes are in a sealed stream of n bytes, or an error that wraps
// [ErrDamaged] if no stream is that long.
func PlainSize(n int64) (int64, error) {
	rest := n - int64(HeaderBytes)
	chunks := (rest + chunkBytes + tagBytes - 1) / (chunkBytes + tagBytes)
	plain := rest - tagBytes*chunks
	if rest < tagBytes || plain < 0 || SealedSize(plain) != n {
		return 0, fmt.Errorf("%w: %d bytes", ErrDamaged, n)
	}
	return plain, nil
}

// KeyOf returns the name of the key that a stream with this beginning was sealed with; false
// if it isn't the beginning of one.
func KeyOf(header []byte) (string, bool) {
	if len(header) < HeaderBytes || string(header[:len(magic)]) != magic {
		return "", false
	}
	name := string(bytes.TrimRight(header[len(magic):len(magic)+nameBytes], "\x00"))
	return name, isName(name)
}

// state is what both directions have in common.
type state struct {
	aead  cipher.AEAD
	nonce [12]byte // number of the chunk, big-endian, in the first 11 bytes; 1 in the last one: it is the last
}

// next moves on to the following chunk.
func (s *state) next() {
	n := binary.BigEndian.Uint64(s.nonce[3:11])
	binary.BigEndian.PutUint64(s.nonce[3:11], n+1)
}

func (s *state) last() { s.nonce[11] = 1 }

// Writer seals a stream. Use [Keys.NewWriter]; Close has to be called in the end.
type Writer struct {
	state
	to     io.Writer
	header []byte // not written yet
	buf    []byte // plain bytes of the chunk to come
	out    []byte
	err    error
}

// NewWriter returns a Writer that writes to w, with the first of k. context says what the
// stream is; who opens it has to know it.
func (k *Keys) NewWriter(w io.Writer, context string) *Writer {
	s := &Writer{to: w}
	s.header, s.aead, s.err = k.begin(context)
	return s
}

// begin makes a header and the cipher that belongs to it.
func (k *Keys) begin(context string) ([]byte, cipher.AEAD, error) {
	one := &k.all[0]
	header := make([]byte, HeaderBytes)
	copy(header, magic)
	copy(header[len(magic):], one.name)
	copy(header[len(magic)+nameBytes:], random(saltBytes))
	aead, err := Derive(one.secret, header[len(magic):], context)
	return header, aead, err
}

// Write implements io.Writer. After an error all further ones are the same.
func (s *Writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 && s.err == nil {
		if len(s.buf) == chunkBytes { // more follows, so it isn't the last
			s.flush()
		}
		if s.buf == nil {
			s.buf = make([]byte, 0, chunkBytes)
		}
		took := min(len(p), chunkBytes-len(s.buf))
		s.buf = append(s.buf, p[:took]...)
		p, n = p[took:], n+took
	}
	return n, s.err
}

// flush writes a chunk.
func (s *Writer) flush() {
	s.out = append(s.out[:0], s.header...)
	s.header = nil
	s.out = s.aead.Seal(s.out, s.nonce[:], s.buf, nil)
	if _, err := s.to.Write(s.out); err != nil {
		s.err = err
	}
	s.buf = s.buf[:0]
	s.next()
}

// Close writes the last chunk. It doesn't close what it writes to.
func (s *Writer) Close() error {
	if s.err == nil {
		s.last()
		s.flush()
		if s.err == nil {
			s.err = errClosed
			return nil
		}
	}
	if s.err == errClosed {
		return nil
	}
	return s.err
}

var errClosed = errors.New("sealed stream is closed")

// Seal appends plain to dst as a stream of its own.
func (k *Keys) Seal(dst, plain []byte, context string) ([]byte, error) {
	header, aead, err := k.begin(context)
	if err != nil {
		return dst, err
	}
	s := state{aead: aead}
	dst = append(dst, header...)
	for ; len(plain) > chunkBytes; plain = plain[chunkBytes:] {
		dst = s.aead.Seal(dst, s.nonce[:], plain[:chunkBytes], nil)
		s.next()
	}
	s.last()
	return s.aead.Seal(dst, s.nonce[:], plain, nil), nil
}

// Open returns what Seal was given. The error wraps [ErrUnknownKey] or [ErrDamaged].
func (k *Keys) Open(sealed []byte, context string) ([]byte, error) {
	return io.ReadAll(k.NewReader(bytes.NewReader(sealed), context))
}

// Reader opens a sealed stream. What it returned is what was sealed; that it is all of it is
// certain only with io.EOF.
type Reader struct {
	state
	keys    *Keys
	context string
	from    io.Reader
	chunk   []byte // room for one, and a byte of the next
	ahead   byte   // the first byte of the next chunk, if any is there
	has     int    // how many such bytes there are
	plain   []byte // not returned yet
	over    bool
	err     error
}

// NewReader returns a Reader of the stream that r has. Nothing is read yet.
func (k *Keys) NewReader(r io.Reader, context string) *Reader {
	return &Reader{keys: k, context: context, from: r}
}

// Read implements io.Reader. Errors wrap [ErrUnknownKey] or [ErrDamaged], or are of the
// reader below.
func (s *Reader) Read(p []byte) (int, error) {
	for len(s.plain) == 0 && s.err == nil {
		if s.over {
			s.err = io.EOF
			break
		}
		s.err = s.fill()
	}
	if s.err != nil && len(s.plain) == 0 {
		return 0, s.err
	}
	n := copy(p, s.plain)
	s.plain = s.plain[n:]
	return n, nil
}

// begin reads the header.
func (s *Reader) begin() error {
	header := make([]byte, HeaderBytes)
	if _, err := io.ReadFull(s.from, header); err != nil {
		return cutOr(err)
	}
	name, ok := KeyOf(header)
	if !ok {
		return fmt.Errorf("%w: no header", ErrDamaged)
	}
	one, ok := s.keys.find(name)
	if !ok {
		return fmt.Errorf("%w: %s", ErrUnknownKey, name)
	}
	var err error
	s.aead, err = Derive(one.secret, header[len(magic):], s.context)
	s.chunk = make([]byte, chunkBytes+tagBytes+1) // one more, to see whether it is the last
	return err
}

// fill opens the next chunk.
func (s *Reader) fill() error {
	if s.aead == nil {
		if err := s.begin(); err != nil {
			return err
		}
	}
	s.chunk[0] = s.ahead
	n, err := io.ReadFull(s.from, s.chunk[s.has:])
	n += s.has
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		s.last()
		s.over = true
	case err != nil:
		return err
	default:
		n--
		s.ahead, s.has = s.chunk[n], 1
	}
	if n < tagBytes {
		return fmt.Errorf("%w: cut", ErrDamaged)
	}
	if s.plain, err = s.aead.Open(s.chunk[:0], s.nonce[:], s.chunk[:n], nil); err != nil {
		s.plain = nil
		return fmt.Errorf("%w: chunk %d", ErrDamaged, binary.BigEndian.Uint64(s.nonce[3:11]))
	}
	if len(s.plain) == 0 && binary.BigEndian.Uint64(s.nonce[3:11]) > 0 {
		return fmt.Errorf("%w: an empty chunk", ErrDamaged)
	}
	s.next()
	return nil
}

// cutOr says that a stream ends too early, or err.
func cutOr(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: cut", ErrDamaged)
	}
	return err
}
