package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// move is a record of an old segment that is written again in the newest.
type move struct {
	id [16]byte

	// A message: what was read, and from where.
	fromHead, fromBody position
	rest               []byte // of the head, behind the fixed part
	body               []byte // nil if it stays where it is
	// What was before and is now, for when it fails.
	now      position
	n        uint32
	done     bool
	withBody bool

	out *outcome // or an outcome, with the place it was at
	was position
}

const (
	moveBytes     = 1 << 20 // of one group of moves
	emptyingPause = 200 * time.Millisecond
)

// compactor rewrites segments of which little is needed, and removes them.
func (s *Store) compactor() {
	for {
		select {
		case <-s.compact:
		case <-s.stop:
			return
		}
		for {
			n := s.worth()
			if n == 0 {
				break
			}
			if s.emptying(n) {
				continue
			}
			if err := s.compactSegment(n); err != nil {
				if !errors.Is(err, ErrClosed) {
					s.log.Warn("spool: compact", "segment", n, "error", err)
				}
				select { // a sick disk is not asked at once again
				case <-time.After(flushAfter):
				case <-s.stop:
					return
				}
				break
			}
			select {
			case <-s.stop:
				return
			default:
			}
		}
	}
}

// emptying waits a moment, and reports whether meanwhile an eighth of what was needed of a
// segment ended: a replay is going through it, and soon there will be nothing to write
// again.
func (s *Store) emptying(n uint32) bool {
	needed := func() int64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		if g := s.segments[n]; g != nil {
			return s.needed(n, g)
		}
		return 0
	}
	before := needed()
	if before == 0 {
		return false
	}
	select {
	case <-time.After(emptyingPause):
	case <-s.stop:
		return false
	}
	return needed() <= before-max(before/8, 1)
}

// wakeIfWorth wakes the compactor if a segment is worth it. s.mu is held.
func (s *Store) wakeIfWorth(n uint32) {
	if seg := s.segments[n]; seg != nil && n != s.last && s.needed(n, seg) < seg.size/2 {
		s.wake(s.compact)
	}
}

// needed returns how many bytes of a segment would be written again. s.mu is held.
func (s *Store) needed(n uint32, g *segment) int64 {
	if g.ended > 0 && s.between(g.first, g.last, n) {
		return g.live + g.ended
	}
	return g.live
}

// between reports whether there is a segment other than n from first to last. s.mu is
// held.
func (s *Store) between(first, last, n uint32) bool {
	if int(last-first) < len(s.segments) {
		for i := first; i <= last && i >= first; i++ {
			if i != n && s.segments[i] != nil {
				return true
			}
		}
		return false
	}
	for i := range s.segments {
		if i != n && i >= first && i <= last {
			return true
		}
	}
	return false
}

// worth returns the segment of which the least is needed, if that is less than half;
// else 0.
func (s *Store) worth() uint32 {
	s.write.Lock()
	current := s.w.number
	s.write.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil || s.adopted {
		return 0
	}
	var best uint32
	share := 0.5
	for n, g := range s.segments {
		if n == current || n == s.last {
			continue
		}
		if have := float64(s.needed(n, g)) / float64(max(g.size, 1)); have < share || have == share && best != 0 && n < best {
			best, share = n, have
		}
	}
	return best
}

// compactSegment writes again what is needed of a segment, fsyncs that and what took the
// place of the rest, and removes it.
func (s *Store) compactSegment(n uint32) error {
	path := s.segmentPath(n)
	for {
		skipped, err := s.moveAll(n)
		if err != nil {
			return err
		}
		if !skipped {
			break
		}
	}
	// What made a record of this segment needless may not be on the disk yet.
	if err := s.do(&job{kind: jobFlush, done: make(chan error, 1)}); err != nil {
		return err
	}
	if err := s.disk.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	// Before the next segment may go: what ended messages of this one may be there.
	if err := s.disk.SyncDir(s.path(journalDir)); err != nil {
		s.fail(fmt.Errorf("fsync directory %s: %w", s.path(journalDir), err))
		return err
	}
	s.mu.Lock()
	delete(s.segments, n)
	s.mu.Unlock()
	if err := s.opened.forget(n); err != nil {
		s.log.Warn("spool: close a segment that is gone", "segment", n, "error", err)
	}
	cut := s.path(journalDir, cutName(n))
	if r, err := s.disk.Open(cut); err == nil {
		if err := errors.Join(r.Close(), s.disk.Remove(cut)); err != nil {
			s.log.Warn("spool: remove the cut of a segment that is gone", "segment", n, "error", err)
		}
	}
	return nil
}

// moveAll moves what is needed of a segment; skipped tells that something changed on
// the way, and has to be looked at again.
func (s *Store) moveAll(n uint32) (skipped bool, err error) {
	file, err := s.disk.OpenAt(s.segmentPath(n))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // removed before, but the directory's fsync failed
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	var moves []*move
	bytes := 0
	send := func() error {
		if len(moves) == 0 {
			return nil
		}
		j := &job{kind: jobMove, moves: moves, done: make(chan error, 1)}
		if err := s.do(j); err != nil {
			return err
		}
		for _, v := range moves {
			skipped = skipped || !v.done
		}
		moves, bytes = nil, 0
		return nil
	}
	_, err = s.id.scan(file, n, true, func(rec *record) error {
		v, err := s.plan(rec, file)
		if err != nil || v == nil {
			return err
		}
		moves = append(moves, v)
		if bytes += len(v.rest) + len(v.body) + 64; bytes >= moveBytes {
			return send()
		}
		return nil
	})
	if err == nil {
		err = send()
	}
	return skipped, err
}

// plan returns the move for a record, or nil if it isn't needed.
func (s *Store) plan(rec *record, file interface {
	ReadAt([]byte, int64) (int, error)
}) (*move, error) {
	switch rec.frame.kind {
	case recordOutcome:
		o, err := parseOutcome(rec.head)
		if err != nil {
			return nil, nil // Open has set it aside
		}
		if s.outcomeNeeded(&o, rec.at) {
			return &move{id: o.id, out: &o, was: rec.at}, nil
		}
	case recordMessage:
		f, rest, err := parseFixed(rec.head)
		if err != nil {
			return nil, nil
		}
		s.mu.Lock()
		m := s.x.find(f.id)
		if m == nil || m.head != rec.at && m.body != rec.at {
			s.mu.Unlock()
			return nil, nil
		}
		v := &move{id: f.id, fromHead: m.head, fromBody: m.body}
		s.mu.Unlock()
		if v.fromHead == rec.at {
			v.rest = slices.Clone(rest)
		} else {
			head, err := s.readHead(v.fromHead)
			if err != nil {
				return nil, err
			}
			if _, v.rest, err = parseFixed(head); err != nil {
				return nil, err
			}
		}
		if v.fromBody == rec.at {
			v.withBody = true
			v.body = make([]byte, rec.frame.body)
			if _, err := file.ReadAt(v.body, int64(rec.at.offset)+frameBytes+int64(rec.frame.head)); err != nil {
				return nil, err
			}
		}
		return v, nil
	}
	return nil, nil
}

func (s *Store) outcomeNeeded(o *outcome, at position) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.outcomeNeededLocked(o, at)
}

func (s *Store) outcomeNeededLocked(o *outcome, at position) bool {
	if o.ended {
		return s.between(o.first, o.last, at.segment)
	}
	m := s.x.find(o.id)
	if m == nil {
		return false
	}
	rcpts := s.x.recipients(m)
	return int(o.rcpt) < len(rcpts) && rcpts[o.rcpt].out == at
}

// encodeMoves appends the records that are still needed as planned. s.write and s.mu are
// held.
func (s *Store) encodeMoves(b []byte, j *job) []byte {
	moved := map[[16]byte]bool{}
	for _, v := range j.moves {
		at := position{s.w.number, uint32(s.w.size + int64(len(b)))}
		if v.out != nil {
			v.done = true
			if !s.outcomeNeededLocked(v.out, v.was) {
				continue
			}
			n := len(b)
			b = s.id.appendRecord(b, at, recordOutcome, appendOutcome(nil, v.out), nil, 0)
			v.out.at, v.out.bytes = at, uint16(len(b)-n)
			continue
		}
		m := s.x.find(v.id)
		if m == nil {
			v.done = true
			continue
		}
		if m.head != v.fromHead || m.body != v.fromBody || moved[v.id] {
			continue // not done: planned again, from where it is then
		}
		moved[v.id] = true
		f := m.fixed()
		if v.withBody {
			f.body = bodyHere
		}
		head := append(f.append(nil), v.rest...)
		// The body's checksum is the one it came with: damage stays visible.
		b = s.id.appendRecord(b, at, recordMessage, head, v.body, m.bodyCRC)
		v.now, v.n, v.done = at, uint32(frameBytes+len(head)), true
	}
	return b
}

// moved notes where records stand now. It does so before the fsync, since what ends a
// message from now on must know of this copy. s.write and s.mu are held.
func (s *Store) moved(j *job) {
	for _, v := range j.moves {
		switch {
		case v.out != nil && v.out.bytes > 0:
			s.place(v.out)
		case v.now != position{}:
			if m := s.x.find(v.id); m != nil && m.head == v.fromHead && m.body == v.fromBody {
				s.relocate(m, v.now, v.n, v.withBody, v.now)
			}
		}
	}
}

func (s *Store) relocate(m *message, head position, n uint32, withBody bool, body position) {
	s.live(m, -1)
	m.head, m.headBytes = head, n
	if withBody {
		m.body = body
	}
	s.live(m, 1)
}

// revert notes that moved records stand where they stood, after a failed fsync.
func (s *Store) revert(j *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range j.moves {
		m := s.x.find(v.id)
		if m == nil {
			continue
		}
		switch {
		case v.out != nil && v.out.bytes > 0:
			if r := &s.x.recipients(m)[v.out.rcpt]; !v.out.ended && r.out == v.out.at {
				o := *v.out
				o.at = v.was
				s.place(&o)
			}
		case v.now != position{} && m.head == v.now:
			s.relocate(m, v.fromHead, v.n, v.withBody, v.fromBody)
		}
	}
}

// readHead reads the head of the record at p.
func (s *Store) readHead(p position) ([]byte, error) {
	file, err := s.segment(p.segment)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	_, head, err := s.id.readRecord(file, p)
	return head, err
}
