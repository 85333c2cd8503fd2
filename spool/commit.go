package spool

import (
	"errors"
	"fmt"
	"time"
)

// group makes jobs durable together. It is the order of writes that doc.go states.
func (s *Store) group(jobs []*job) {
	if err := s.admit(jobs); errors.Is(err, ErrAdopted) { // nothing is written into what is another's
		for _, j := range jobs {
			j.done <- err
		}
		return
	}
	s.syncBodies(jobs)
	err := s.writeGroup(jobs)
	for _, f := range s.takeAfter() {
		f()
	}
	var outcomes int
	var safe int64
	if err == nil {
		s.write.Lock()
		file, dirty, size := s.w.file, s.w.dirty, s.w.size
		outcomes = len(s.unsynced)
		s.w.dirty, safe = false, size
		s.write.Unlock()
		// Not under the lock: outcomes go on being written while the disk works. Only
		// this goroutine replaces the file.
		if dirty {
			began := time.Now()
			err = file.Sync()
			s.synced = time.Since(began)
			if err != nil {
				s.fail(fmt.Errorf("fsync the journal: %w", err))
				err = fmt.Errorf("%w: %w", ErrUnsure, diskError("spool: fsync the journal", err))
				s.abandon()
			}
		}
	}
	if err == nil {
		s.write.Lock()
		s.w.safe = max(s.w.safe, safe)
		s.settled(outcomes)
		ended := s.unlink
		s.unlink = nil
		s.write.Unlock()
		s.removeBodies(ended)
		s.apply(jobs)
	}
	for _, j := range jobs {
		if j.err == nil {
			j.err = err
		}
		if j.err != nil && j.kind == jobMove {
			s.revert(j)
		}
		j.done <- j.err
	}
}

// admit refuses jobs that may not be. Its error says that the spool isn't this node's.
func (s *Store) admit(jobs []*job) (owner error) {
	owner = s.checkOwner()
	s.mu.Lock()
	defer s.mu.Unlock()
	more := map[uint32]*Counts{}
	for _, j := range jobs {
		switch j.kind {
		case jobResume:
		case jobFlush:
			j.err = owner
		default:
			if j.err = owner; j.err == nil && s.broken != nil {
				j.err = s.broken
			}
		}
		if j.kind != jobAccept || j.err != nil {
			continue
		}
		if s.x.find(j.in.id) != nil {
			j.err = fmt.Errorf("spool %s: transaction %s is there already", s.o.Dir, j.in.env.Transaction)
			continue
		}
		j.err = s.agencyBounds(j, more)
	}
	return owner
}

// syncBodies makes the names of the group's body files durable; their bytes are.
func (s *Store) syncBodies(jobs []*job) {
	needed := false
	for _, j := range jobs {
		needed = needed || j.kind == jobAccept && j.err == nil && j.fixed.body == bodyInFile
	}
	if !needed {
		return
	}
	err := s.disk.SyncDir(s.path(bodiesDir))
	if err == nil {
		return
	}
	s.fail(fmt.Errorf("fsync directory %s: %w", s.path(bodiesDir), err))
	for _, j := range jobs {
		if j.kind == jobAccept && j.err == nil && j.fixed.body == bodyInFile {
			j.err = diskError("spool: fsync the directory of bodies", err)
		}
	}
}

// writeGroup appends the records of jobs, behind the outcomes that the disk refused
// before.
func (s *Store) writeGroup(jobs []*job) error {
	s.write.Lock()
	defer s.write.Unlock()
	needed := len(s.pending) > 0 || len(s.unsynced) > 0 || len(s.unlink) > 0 || s.w.dirty
	for _, j := range jobs {
		needed = needed || j.err == nil && j.kind != jobFlush
	}
	if !needed {
		return nil
	}
	if s.w.file == nil || s.w.bad || s.w.size >= s.o.SegmentBytes {
		if err := s.rotate(); err != nil {
			return s.failed("spool: new segment of the journal", err)
		}
	}
	pending := s.pending
	b := s.encodeOutcomes(s.records[:0], pending)
	for _, j := range jobs {
		if j.err == nil {
			b = s.encode(b, j)
		}
	}
	if cap(b) <= keptRecords {
		s.records = b
	}
	if cap(s.head) > keptRecords {
		s.head = nil
	}
	if err := s.append(b); err != nil {
		return s.failed("spool: write the journal", err)
	}
	s.pending = nil
	s.placed(pending)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range jobs {
		if j.kind == jobMove && j.err == nil {
			s.moved(j)
		}
	}
	return nil
}

// encode appends the record of a job to b, which is going to stand at the end of the
// segment. s.write is held.
func (s *Store) encode(b []byte, j *job) []byte {
	j.at = position{s.w.number, uint32(s.w.size + int64(len(b)))}
	s.mu.Lock()
	defer s.mu.Unlock()
	var body []byte
	switch j.kind {
	case jobAccept:
		s.seq++
		j.fixed.seq, j.fixed.first = s.seq, s.w.number
		if j.fixed.body == bodyHere {
			body = j.in.buffer
		}
	case jobAdd:
		m := s.x.find(j.in.id)
		if m == nil {
			j.err = fmt.Errorf("spool: add to message %s: %w", j.in.env.Transaction, ErrUnknown)
			return b
		}
		j.fixed = m.fixed()
	case jobMove:
		return s.encodeMoves(b, j)
	default:
		return b
	}
	s.head = append(j.fixed.append(s.head[:0]), j.head...)
	j.n = uint32(frameBytes + len(s.head))
	return s.id.appendRecord(b, j.at, recordMessage, s.head, body, j.fixed.bodyCRC)
}

// fixed returns the fixed part of a head of m that is written without the body.
func (m *message) fixed() fixed {
	return fixed{id: m.id, seq: m.seq, first: m.first, time: m.time, size: m.size, bodyCRC: m.bodyCRC, body: m.body, sealed: m.sealed}
}

// append writes b at the end of the segment, or leaves the segment as it was; if it
// can't, nothing is appended to the segment any more. s.write is held.
func (s *Store) append(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	_, err := s.w.file.Write(b)
	if err != nil {
		if cut := s.w.file.Truncate(s.w.size); cut != nil {
			s.w.bad = true
			err = errors.Join(err, cut)
		}
		return err
	}
	s.w.size += int64(len(b))
	s.w.dirty = true
	s.mu.Lock()
	s.segments[s.w.number].size = s.w.size
	s.mu.Unlock()
	return nil
}

// apply makes jobs visible that are durable.
func (s *Store) apply(jobs []*job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range jobs {
		switch {
		case j.err != nil:
		case j.kind == jobAccept:
			s.accepted(j)
		case j.kind == jobAdd:
			s.added(j)
		}
	}
}

func (s *Store) accepted(j *job) {
	in, f := j.in, &j.fixed
	m := message{
		id: f.id, seq: f.seq, time: f.time, size: f.size, bodyCRC: f.bodyCRC,
		head: j.at, body: f.body, headBytes: j.n, first: f.first, pinned: true, sealed: f.sealed,
	}
	if m.body == bodyHere {
		m.body = j.at
	}
	rcpts := make([]recipient, len(j.rcpts))
	for i := range j.rcpts {
		rcpts[i] = s.x.recipient(&j.rcpts[i])
	}
	s.live(s.x.add(&m, rcpts), 1)
	in.state = committed
	s.coming--
	s.bytes -= in.size
}

// added gives a message its further recipients. It is still there, though an operator may
// have dropped all that it had: its Incoming pins it until Discard. What they became while
// the record was written stands in memory, and in records of their own.
func (s *Store) added(j *job) {
	m := s.x.find(j.in.id)
	if m == nil {
		return
	}
	s.live(m, -1)
	s.x.count(m, -1)
	known := s.x.recipients(m)
	rcpts := append(make([]recipient, 0, len(known)+len(j.rcpts)), known...)
	for i := range j.rcpts {
		rcpts = append(rcpts, s.x.recipient(&j.rcpts[i]))
	}
	s.x.setRecipients(m, rcpts)
	m.head, m.headBytes = j.at, j.n
	s.x.count(m, 1)
	s.live(m, 1)
}

// live adds m's records to the bytes of their segments that are needed, or subtracts
// them. s.mu is held.
func (s *Store) live(m *message, sign int64) {
	if seg := s.segments[m.head.segment]; seg != nil {
		seg.live += sign * int64(m.headBytes)
	}
	if seg := s.segments[m.body.segment]; seg != nil && m.body != bodyInFile {
		seg.live += sign * m.size
	}
}
