package spool

import (
	"errors"
	"fmt"
	"io/fs"

	"mailcutover/mail"
)

// Set changes the states of recipients. The changes are visible at once and written at
// once, so that a kill loses none; they are fsynced with the next group, at the latest
// after a second.
//
// ErrUnknown: one of the recipients isn't there or its state is final already; then
// nothing is changed, nor is it after ErrAdopted. After any other error the changes stand in memory and are written
// as soon as the disk takes them.
func (s *Store) Set(changes ...Outcome) error {
	s.write.Lock()
	list, err := s.change(changes)
	if err != nil {
		s.write.Unlock()
		return err
	}
	wait := s.w.file == nil || s.w.bad || len(s.pending) > 0 || s.w.size >= s.o.SegmentBytes+maxGroupBytes
	if !wait {
		err = s.append(s.encodeOutcomes(nil, list))
		if err == nil {
			s.placed(list)
		}
	}
	if wait || err != nil {
		s.pending = append(s.pending, list...)
	}
	s.write.Unlock()
	s.wake(s.dirty)
	if err != nil {
		return s.failed("spool: write outcomes", err)
	}
	if wait {
		return s.do(&job{kind: jobFlush, done: make(chan error, 1)})
	}
	return nil
}

// Written calls f once every Set before it is written, so that a kill loses none: at once, as
// a rule; later, from the store's own goroutine, if the disk took no writes. A store that is
// closed, or whose process ends, before that never calls it. f must not wait for the store.
func (s *Store) Written(f func()) {
	s.write.Lock()
	later := len(s.pending) > 0
	if later {
		s.after = append(s.after, f)
	}
	s.write.Unlock()
	if !later {
		f()
	}
}

// takeAfter returns what waits for Written, if nothing is pending any more.
func (s *Store) takeAfter() []func() {
	s.write.Lock()
	defer s.write.Unlock()
	if len(s.pending) > 0 {
		return nil
	}
	after := s.after
	s.after = nil
	return after
}

// change makes changes in memory, or none. s.write is held.
func (s *Store) change(changes []Outcome) ([]*outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.adopted {
		return nil, fmt.Errorf("spool %s: set: %w", s.o.Dir, ErrAdopted)
	}
	list := make([]*outcome, len(changes))
	for i := range changes {
		c := &changes[i]
		id, err := c.Transaction.Bytes()
		if err != nil {
			return nil, fmt.Errorf("spool: set: %w", err)
		}
		m := s.x.find(id)
		if rcpts := s.x.recipientsOf(m); c.Recipient < 0 || c.Recipient >= len(rcpts) || rcpts[c.Recipient].state.Final() {
			return nil, fmt.Errorf("spool: set message %s recipient %d: %w", c.Transaction, c.Recipient, ErrUnknown)
		}
		if c.State == StateUnknown || c.State >= numStates {
			return nil, fmt.Errorf("spool: set message %s recipient %d: to %s", c.Transaction, c.Recipient, c.State)
		}
		list[i] = &outcome{id: id, rcpt: uint32(c.Recipient), Outcome: *c}
		if list[i].Time.IsZero() {
			list[i].Time = s.o.Now()
		}
	}
	for _, o := range list {
		m := s.x.find(o.id)
		if m == nil {
			continue // twice in one call, and ended by the first
		}
		s.x.count(m, -1)
		s.x.recipients(m)[o.rcpt].state = o.State
		s.x.count(m, 1)
		if !m.pinned && s.x.ended(m) {
			s.end(m, o)
		}
	}
	return list, nil
}

// end takes a message out of memory; o is the outcome that says so. s.write and s.mu
// are held.
func (s *Store) end(m *message, o *outcome) {
	o.ended, o.first, o.last = true, m.first, max(s.w.number, s.last)
	s.live(m, -1)
	rcpts := s.x.recipients(m)
	for i := range rcpts {
		s.superseded(&rcpts[i])
	}
	o.file = m.body == bodyInFile
	head := m.head.segment
	s.x.remove(m)
	s.wakeIfWorth(head)
}

// superseded subtracts a recipient's last outcome from what is needed. s.mu is held.
func (s *Store) superseded(r *recipient) {
	if seg := s.segments[r.out.segment]; seg != nil {
		seg.live -= int64(r.outBytes)
	}
	r.out, r.outBytes = position{}, 0
}

// encodeOutcomes appends records that are going to stand at the end of the segment, and
// remembers where. s.write is held.
func (s *Store) encodeOutcomes(b []byte, list []*outcome) []byte {
	for _, o := range list {
		o.at = position{s.w.number, uint32(s.w.size + int64(len(b)))}
		head := appendOutcome(nil, o)
		n := len(b)
		b = s.id.appendRecord(b, o.at, recordOutcome, head, nil, 0)
		o.bytes = uint16(len(b) - n)
	}
	return b
}

// placed notes where outcomes stand that were written. s.write is held.
func (s *Store) placed(list []*outcome) {
	if len(list) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range list {
		s.unsynced = append(s.unsynced, o)
		s.place(o)
	}
}

// place notes where an outcome stands. s.mu is held.
func (s *Store) place(o *outcome) {
	seg := s.segments[o.at.segment]
	if seg == nil {
		return
	}
	if o.ended {
		seg.keepEnded(o)
		return
	}
	if rcpts := s.x.recipientsOf(s.x.find(o.id)); int(o.rcpt) < len(rcpts) {
		r := &rcpts[o.rcpt]
		s.superseded(r)
		r.out, r.outBytes = o.at, o.bytes
		seg.live += int64(o.bytes)
	}
}

// keepEnded counts an outcome that ended a message.
func (g *segment) keepEnded(o *outcome) {
	if g.ended == 0 || o.first < g.first {
		g.first = o.first
	}
	g.last = max(g.last, o.last)
	g.ended += int64(o.bytes)
}

// unpin ends the right to add recipients to a message.
func (s *Store) unpin(id [16]byte) {
	s.write.Lock()
	s.mu.Lock()
	m := s.x.find(id)
	var o *outcome
	if m != nil {
		m.pinned = false
		if s.x.ended(m) {
			o = &outcome{id: id}
			o.State, o.Time = s.x.recipients(m)[0].state, s.o.Now()
			s.end(m, o)
		}
	}
	s.mu.Unlock()
	if o == nil {
		s.write.Unlock()
		return
	}
	list := []*outcome{o}
	if s.w.file == nil || s.w.bad || s.append(s.encodeOutcomes(nil, list)) != nil {
		s.pending = append(s.pending, o) // nobody waits: the committer tries again
	} else {
		s.placed(list)
	}
	s.write.Unlock()
	s.wake(s.dirty)
}

// settled notes that the first n unsynced outcomes are on the disk. s.write is held.
func (s *Store) settled(n int) {
	for _, o := range s.unsynced[:n] {
		if o.file {
			s.unlink = append(s.unlink, o.id)
		}
	}
	s.unsynced = s.unsynced[n:]
	if len(s.unsynced) == 0 {
		s.unsynced = nil
	}
}

// removeBodies unlinks bodies whose messages have ended.
func (s *Store) removeBodies(ids [][16]byte) {
	for _, id := range ids {
		if err := s.disk.Remove(s.bodyPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("spool: remove body", "transaction", mail.TransactionIDOf(id), "error", err)
		}
	}
}
