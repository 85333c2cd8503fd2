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
	buf    []byte  // room for a chunk's head, then of the body what is not yet handed on; nil: nothing
	parts  []*part // of a body that is longer than that, by agency; nil: there are none. The writer's
	passes bool    // it is counted among those of which no copy is ordered yet
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
	default:
		in.passes = true
		s.passing.Add(1)
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
		if len(in.buf) == chunkHead+chunkBytes { // more follows, so it goes to the disk in parts
			in.flush()
			continue
		}
		if in.buf == nil {
			in.buf = in.s.buffer()
		}
		n := min(len(p), chunkHead+chunkBytes-len(in.buf))
		in.buf = append(in.buf, p[:n]...)
		p = p[n:]
	}
}

// flush hands a part of a longer body on. It waits for a place only, not until it is written.
func (in *Incoming) flush() {
	if in.parts == nil {
		in.parts = make([]*part, len(in.to))
		for i, id := range in.to {
			in.parts[i] = &part{agency: id}
		}
	}
	in.failed = in.s.order(in.op(opPart), in.s.o.Patience)
}

// op makes an order with what is in the buffer, which is the order's then.
func (in *Incoming) op(k opKind) *op {
	o := newOp(k)
	o.parts = in.parts
	if in.buf == nil { // an empty message
		in.buf = in.s.buffer()
	}
	o.chunk = in.s.pack(in.buf)
	in.buf = nil
	return o
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
		in.passed()
		if in.failed = in.s.order(o, in.s.o.Patience); in.failed == nil {
			in.failed = in.s.wait(o, in.s.o.Patience)
		}
		if o.ended() { // then the writer has counted what it couldn't keep
			in.parts = nil
			return
		}
	}
	for _, c := range copies {
		if c != nil {
			in.s.notKept(c.Agency, in.failed)
		}
	}
}

// Discard ends the copy. What was not kept leaves nothing. It may be called again.
func (in *Incoming) Discard() {
	if in == nil {
		return
	}
	in.passed()
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

// passed says that nobody has to wait for its copy any more.
func (in *Incoming) passed() {
	if in.passes {
		in.passes = false
		in.s.passing.Add(-1)
	}
}

// notKept counts a copy that was not kept.
func (s *Store) notKept(agency routing.AgencyID, err error) {
	now := s.o.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.failed++
	s.counts.failedOf[agency]++
	if s.counts.err == nil {
		s.counts.since = now
		s.o.Logger.Error("retained copy not kept; the mail itself is delivered", "agency", agency, "error", err)
	}
	s.counts.err = fmt.Errorf("keep a copy for agency %s: %w", agency, err)
}

// buffer returns room for a chunk, or a part of it, behind its head.
func (s *Store) buffer() []byte {
	if b, ok := s.chunks.Get().(*[]byte); ok {
		return (*b)[:chunkHead]
	}
	return make([]byte, chunkHead, 16<<10)
}

func (s *Store) putBuffer(b []byte) {
	if cap(b) >= chunkHead && cap(b) <= 2*chunkBytes {
		s.chunks.Put(&b)
	}
}
