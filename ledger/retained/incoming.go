package retained

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"mailcutover/ledger"
	"mailcutover/routing"
)

// errStalled is why no copy is made while the disk doesn't answer.
var errStalled = errors.New("the disk doesn't answer")

// errRefused is why no copy is made right after a failure.
var errRefused = errors.New("the disk has just refused one")

// Incoming is a copy that is being made of a message that passes. It belongs to one goroutine.
// All methods of a nil Incoming do nothing.
type Incoming struct {
	s      *Store
	to     []routing.AgencyID
	buf    []byte  // of the body, not yet handed on
	parts  []*part // of a body that is longer than that, by agency; nil: there are none. The writer's
	size   int64
	failed error // nothing is kept any more
}

// Begin begins a copy of a message that goes to agencies; those whose way back isn't open are
// left out, and if none is left it returns nil. The caller calls Discard in the end, whatever
// else happens.
func (s *Store) Begin(agencies ...routing.AgencyID) *Incoming {
	var in *Incoming
	for _, id := range agencies {
		if s.o.WayBack(id) != WayBackOpen || in != nil && slices.Contains(in.to, id) {
			continue
		}
		if in == nil {
			in = &Incoming{s: s}
		}
		in.to = append(in.to, id)
	}
	if in == nil {
		return nil
	}
	switch {
	case s.stalled.Load():
		in.failed = errStalled
	case s.o.Now().UnixNano() < s.retry.Load():
		in.failed = errRefused
	}
	return in
}

// Write takes bytes of the message, as they go to the platform. It never fails.
func (in *Incoming) Write(p []byte) {
	if in == nil || in.failed != nil {
		return
	}
	in.size += int64(len(p))
	for len(p) > 0 && in.failed == nil {
		if len(in.buf) == chunkBytes { // more follows, so it goes to the disk in parts
			in.flush()
			continue
		}
		if in.buf == nil {
			in.buf = in.s.buffer()
		}
		n := min(len(p), chunkBytes-len(in.buf))
		in.buf = append(in.buf, p[:n]...)
		p = p[n:]
	}
}

// flush hands a part of a longer body on.
func (in *Incoming) flush() {
	if in.parts == nil {
		in.parts = make([]*part, len(in.to))
		for i, id := range in.to {
			in.parts[i] = &part{agency: id}
		}
	}
	o := in.op(opPart)
	in.failed = in.s.do(o, in.s.o.Patience)
	in.reuse(o)
}

// op makes an order with what is in the buffer.
func (in *Incoming) op(k opKind) *op {
	o := newOp(k)
	o.parts = in.parts
	if in.s.encoder != nil {
		o.room = in.s.buffer()
	}
	o.plain = in.buf
	o.chunk = in.s.pack(o.room, o.plain)
	return o
}

// reuse takes the buffers back, unless the writer may still have them.
func (in *Incoming) reuse(o *op) {
	if !o.ended() {
		in.buf = nil
		return
	}
	if o.room != nil {
		in.s.putBuffer(o.room)
	}
	in.buf = in.buf[:0]
}

// Keep keeps the copy for these recipients, whom the platform has taken the message for. Those
// of an agency that was not named to Begin are left out. It waits until the copies are with the
// kernel, for Options.Patience at most; a copy that can't be kept is counted.
func (in *Incoming) Keep(m *Message, rcpts []ledger.Recipient) {
	if in == nil {
		return
	}
	now := in.s.o.Now().Truncate(time.Microsecond)
	copies := make([]*Copy, len(in.to))
	n := 0
	for i, id := range in.to {
		for _, r := range rcpts {
			if r.Agency != id {
				continue
			}
			if copies[i] == nil {
				copies[i] = &Copy{Message: *m, Agency: id, Kept: now, Size: in.size}
				n++
			}
			copies[i].Recipients = append(copies[i].Recipients, r)
		}
	}
	if n == 0 {
		return
	}
	if in.failed == nil {
		o := in.op(opKeep)
		o.copies = copies
		in.failed = in.s.do(o, in.s.o.Patience)
		in.reuse(o)
		if o.ended() { // then the writer has counted what it couldn't keep
			in.parts = nil
			return
		}
	}
	in.s.notKept(in.to[0], n, in.failed)
}

// Discard ends the copy. What was not kept leaves nothing. It may be called again.
func (in *Incoming) Discard() {
	if in == nil {
		return
	}
	if in.parts != nil {
		o := newOp(opDrop)
		o.parts = in.parts
		in.parts = nil
		select {
		case in.s.ops <- o:
		default: // then its segment lasts until the next start
		}
	}
	if in.buf != nil {
		in.s.putBuffer(in.buf)
		in.buf = nil
	}
	in.failed = ErrClosed
}

// notKept counts copies that were not kept.
func (s *Store) notKept(agency routing.AgencyID, n int, err error) {
	now := s.o.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.failed += uint64(n)
	if s.counts.err == nil {
		s.counts.since = now
		s.o.Logger.Error("retained copy not kept; the mail itself is delivered", "agency", agency, "error", err)
	}
	s.counts.err = fmt.Errorf("keep a copy for agency %s: %w", agency, err)
}

// buffer returns room for a chunk, or a part of it.
func (s *Store) buffer() []byte {
	if b, ok := s.chunks.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, 16<<10)
}

func (s *Store) putBuffer(b []byte) {
	if cap(b) <= 2*chunkBytes {
		s.chunks.Put(&b)
	}
}
