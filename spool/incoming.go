package spool

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"

	"mailcutover/internal/durable"
	"mailcutover/internal/seal"
)

// Incoming is a message on its way into the spool. It belongs to one goroutine.
type Incoming struct {
	s      *Store
	env    Envelope
	id     [16]byte
	buffer []byte       // the body, or what of it isn't in the file yet
	size   int64        // as it came; from the commit on, of what is on the disk
	crc    uint32       // of what is on the disk
	stored int64        // bytes in the file
	seal   *seal.Writer // of a file that is encrypted; nil: it isn't, or there is none
	file   durable.File // nil as long as the body fits in the journal
	state  uint8
	err    error // of a Write: Commit can't be
}

// States of an Incoming.
const (
	coming uint8 = iota
	committed
	discarded
)

// Begin begins a message. ErrFull, ErrBroken and ErrAdopted say so before the body is
// read. The caller calls Discard in the end, whatever else happens.
func (s *Store) Begin(env Envelope) (*Incoming, error) {
	id, err := env.Transaction.Bytes()
	if err != nil {
		return nil, fmt.Errorf("spool: begin: %w", err)
	}
	s.look()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ready(); err != nil {
		return nil, err
	}
	if err := s.beginBounds(); err != nil {
		return nil, err
	}
	if s.x.find(id) != nil {
		return nil, fmt.Errorf("spool %s: transaction %s is there already", s.o.Dir, env.Transaction)
	}
	s.coming++
	return &Incoming{s: s, env: env, id: id}, nil
}

// SetMessageID notes the Message-ID, which is known only once the header has passed. It
// is called before Commit.
func (in *Incoming) SetMessageID(id string) { in.env.MessageID = id }

// Write takes bytes of the body, as they are to be delivered. Nothing is durable yet.
func (in *Incoming) Write(p []byte) (int, error) {
	if in.state != coming {
		return 0, fmt.Errorf("spool: write message %s: %w", in.env.Transaction, ErrClosed)
	}
	if in.err == nil {
		in.err = in.s.reserve(int64(len(p)))
	}
	if in.err != nil {
		return 0, in.err
	}
	in.size += int64(len(p))
	if in.s.o.Keys == nil {
		in.crc = crc32.Update(in.crc, castagnoli, p)
	}
	limit := in.s.o.InlineBytes
	if in.file == nil {
		if in.size <= int64(limit) {
			if in.buffer == nil {
				in.buffer = in.s.buffer()
			}
			in.buffer = append(in.buffer, p...)
			return len(p), nil
		}
		if in.err = in.createFile(); in.err != nil {
			in.err = in.s.failed("spool: write message "+string(in.env.Transaction), in.err)
			return 0, in.err
		}
	}
	if in.buffer == nil {
		in.buffer = in.s.buffer()
	}
	in.buffer = append(in.buffer, p...)
	if len(in.buffer) >= defaultInlineBytes {
		in.spill()
	}
	return len(p), in.err
}

// spill writes the buffer into the body's file.
func (in *Incoming) spill() {
	if in.err != nil {
		return
	}
	var err error
	if in.seal != nil {
		_, err = in.seal.Write(in.buffer)
	} else {
		_, err = in.file.Write(in.buffer)
	}
	if err != nil {
		in.err = in.s.failed("spool: write message "+string(in.env.Transaction), err)
	}
	in.buffer = in.buffer[:0]
}

// createFile begins the body's file.
func (in *Incoming) createFile() error {
	var err error
	if in.file, err = in.s.createBody(in.id); err == nil && in.s.o.Keys != nil {
		in.seal = in.s.o.Keys.NewWriter(sealedFile{in}, bodyContext(in.id))
	}
	return err
}

// sealedFile is the file of a body that is encrypted.
type sealedFile struct{ *Incoming }

// Write takes encrypted bytes.
func (f sealedFile) Write(p []byte) (int, error) {
	f.crc = crc32.Update(f.crc, castagnoli, p)
	f.stored += int64(len(p))
	return f.file.Write(p)
}

// sealBody encrypts a body that fits in the journal.
func (in *Incoming) sealBody() error {
	sealed, err := in.s.o.Keys.Seal(in.s.buffer(), in.buffer, bodyContext(in.id))
	if err != nil {
		return err
	}
	if in.buffer != nil {
		in.s.putBuffer(in.buffer)
	}
	in.buffer, in.stored = sealed, int64(len(sealed))
	in.crc = crc32.Checksum(sealed, castagnoli)
	return nil
}

// grow makes the size the one on the disk: encryption adds to it.
func (in *Incoming) grow() error {
	if err := in.s.reserve(in.stored - in.size); err != nil {
		return err
	}
	in.size = in.stored
	return nil
}

// Commit makes the message durable, with its recipients. When it returns nil it is on
// the disk, and is found after any crash. After ErrFull or ErrBroken nothing is kept, after
// ErrUnsure perhaps. If
// ctx has ended nothing is begun; once it began its end is awaited, because only then it
// is known.
func (in *Incoming) Commit(ctx context.Context, rcpts []Recipient) error {
	j, err := in.stage(ctx, rcpts)
	if err == nil {
		if err = in.s.do(j); err != nil {
			in.err = err
		}
	}
	return err
}

// usualHead is how many bytes what follows the fixed part of a head seldom has more of.
const usualHead = 512

// stage does what needs no order: checks, the body's fsync, the head's encoding.
func (in *Incoming) stage(ctx context.Context, rcpts []Recipient) (*job, error) {
	switch {
	case in.state != coming:
		return nil, fmt.Errorf("spool: commit message %s: %w", in.env.Transaction, ErrClosed)
	case in.err != nil:
		return nil, in.err
	case ctx.Err() != nil:
		return nil, fmt.Errorf("spool: commit message %s: %w", in.env.Transaction, context.Cause(ctx))
	}
	if err := checkRecipients(rcpts, 0); err != nil {
		return nil, fmt.Errorf("spool: commit message %s: %w", in.env.Transaction, err)
	}
	if in.s.o.InlineBytes < 0 && in.file == nil { // an empty body
		if in.err = in.createFile(); in.err != nil {
			return nil, in.s.failed("spool: commit message "+string(in.env.Transaction), in.err)
		}
	}
	body := bodyHere
	switch {
	case in.file != nil:
		body = bodyInFile
		in.spill()
		if in.err == nil {
			in.err = in.finishBody()
		}
	case in.s.o.Keys != nil:
		if in.err = in.sealBody(); in.err == nil {
			in.err = in.grow()
		}
	}
	if in.err != nil {
		return nil, in.err
	}
	j := &job{kind: jobAccept, in: in, rcpts: rcpts, done: make(chan error, 1)}
	j.fixed = fixed{id: in.id, time: in.env.Time.UnixNano(), size: in.size, bodyCRC: in.crc, body: body, sealed: in.s.o.Keys != nil}
	j.head = appendHead(make([]byte, 0, usualHead), &in.env, rcpts)
	return j, nil
}

// finishBody writes the trailer and makes the file's bytes durable.
func (in *Incoming) finishBody() error {
	what := "spool: commit message " + string(in.env.Transaction)
	if in.seal != nil {
		if err := in.seal.Close(); err != nil {
			return in.s.failed(what, err)
		}
		if err := in.grow(); err != nil {
			return err
		}
	}
	if _, err := in.file.Write(appendTrailer(nil, in.size, in.crc)); err != nil {
		return in.s.failed(what, err)
	}
	if err := in.file.Sync(); err != nil {
		in.s.fail(err)
		return diskError(what+": fsync", err)
	}
	return nil
}

func checkRecipients(rcpts []Recipient, more int) error {
	if len(rcpts) == 0 || len(rcpts)+more > MaxRecipients {
		return fmt.Errorf("%d recipients", len(rcpts)+more)
	}
	for i := range rcpts {
		if s := rcpts[i].State; s == StateUnknown || s >= numStates {
			return fmt.Errorf("recipient %d is in %s", i, s)
		}
	}
	return nil
}

// Add puts further recipients to a committed message, and returns nil when that is
// durable. It can be called as long as Discard wasn't, even if all others are delivered;
// after an error of the disk not again.
func (in *Incoming) Add(ctx context.Context, rcpts []Recipient) error {
	if in.state != committed {
		return fmt.Errorf("spool: add to message %s: %w", in.env.Transaction, ErrClosed)
	}
	if in.err != nil { // an Add failed, and may be found after a start: its indices are taken
		return in.err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("spool: add to message %s: %w", in.env.Transaction, context.Cause(ctx))
	}
	m, err := in.s.Get(in.env.Transaction)
	if err != nil {
		return err
	}
	if err := checkRecipients(rcpts, len(m.Recipients)); err != nil {
		return fmt.Errorf("spool: add to message %s: %w", in.env.Transaction, err)
	}
	all := append(m.Recipients[:len(m.Recipients):len(m.Recipients)], rcpts...)
	in.err = in.s.do(&job{kind: jobAdd, in: in, rcpts: rcpts, head: appendHead(nil, &m.Envelope, all), done: make(chan error, 1)})
	return in.err
}

// Discard ends the Incoming. A message that wasn't committed leaves nothing; one that
// was stays, and only the right to Add ends. It may be called again.
func (in *Incoming) Discard() {
	s := in.s
	was := in.state
	in.state = discarded
	if in.file != nil && was != discarded {
		err := in.file.Close()
		if was == coming {
			err = errors.Join(err, s.disk.Remove(s.bodyPath(in.id)))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("spool: discard body", "transaction", in.env.Transaction, "error", err)
		}
	}
	if in.buffer != nil {
		s.putBuffer(in.buffer)
		in.buffer = nil
	}
	switch was {
	case coming:
		s.mu.Lock()
		s.coming--
		s.bytes -= in.size
		s.mu.Unlock()
	case committed:
		s.unpin(in.id)
	}
}

// buffer returns room for a body.
func (s *Store) buffer() []byte {
	if b, ok := s.buffers.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, 16<<10)
}

func (s *Store) putBuffer(b []byte) {
	if cap(b) <= 4*defaultInlineBytes {
		s.buffers.Put(&b)
	}
}
