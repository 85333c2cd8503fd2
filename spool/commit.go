package spool

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"mailcutover/internal/durable"
)

// jobKind says what the committer is to do.
type jobKind uint8

const (
	jobAccept jobKind = iota // a new message
	jobAdd                   // further recipients
	jobMove                  // records of an old segment into the newest
	jobFlush                 // only what waits
	jobResume                // as jobFlush, though the spool is out of service
)

// job is something that has to be durable before its caller goes on.
type job struct {
	kind  jobKind
	in    *Incoming
	rcpts []Recipient // new ones
	fixed fixed
	head  []byte // what follows the fixed part
	moves []*move
	done  chan error

	err error    // why it isn't written
	at  position // of its record
	n   uint32   // bytes of frame and head
}

const (
	maxGroup      = 512     // jobs of one fsync
	maxGroupBytes = 8 << 20 // of bodies and heads
	keptRecords   = 1 << 20 // bytes of memory that are kept from one group for the next
	maxIdle       = 4       // times that the committer steps aside in vain
)

// do lets the committer do a job and waits for the end.
func (s *Store) do(j *job) error {
	if s.o.manual {
		if s.o.before != nil {
			s.o.before(j)
		}
		s.group([]*job{j})
		return <-j.done
	}
	if !s.jobs.put(j) {
		return fmt.Errorf("spool %s: %w", s.o.Dir, ErrClosed)
	}
	s.wake(s.arrived)
	return <-j.done
}

// jobQueue has the jobs that wait for the committer. A channel would wake each who brings
// one twice: when it is taken, and when it is done.
type jobQueue struct {
	mu    sync.Mutex
	jobs  []*job
	ended bool
}

// put appends a job; false if nobody takes jobs any more.
func (q *jobQueue) put(j *job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.ended {
		q.jobs = append(q.jobs, j)
	}
	return !q.ended
}

func (q *jobQueue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.jobs)
}

// take returns the first jobs, as many as go together: moves of records may not be mixed
// with an Add to the same message, so they go alone.
func (q *jobQueue) take() []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, bytes := 0, 0
	for n < len(q.jobs) && n < maxGroup && bytes < maxGroupBytes {
		j := q.jobs[n]
		if n > 0 && (j.kind == jobMove || q.jobs[0].kind != jobAccept) {
			break
		}
		bytes += len(j.head)
		if j.in != nil {
			bytes += len(j.in.buffer)
		}
		n++
	}
	group := slices.Clone(q.jobs[:n])
	q.jobs = slices.Delete(q.jobs, 0, n)
	return group
}

// end returns the jobs that nobody took, and takes no more.
func (q *jobQueue) end() []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	return q.jobs
}

// committer owns the journal: it writes for all who wait at once, and fsyncs once.
func (s *Store) committer() {
	defer func() {
		for _, j := range s.jobs.end() {
			j.done <- fmt.Errorf("spool %s: %w", s.o.Dir, ErrClosed)
		}
	}()
	var timer <-chan time.Time
	for {
		select {
		case <-s.arrived:
			for group := s.gather(); len(group) > 0; group = s.gather() {
				s.group(group)
			}
		case <-s.dirty:
			if timer == nil {
				timer = time.After(flushAfter)
			}
		case <-timer:
			timer = nil
			if err := s.flush(); err != nil && !errors.Is(err, ErrAdopted) {
				s.log.Warn("spool: flush outcomes", "error", err)
				s.wake(s.dirty)
			}
		case <-s.stop:
			return
		}
	}
}

// gather returns jobs to be done together; none if none waits.
//
// Those who were told of the last group's end are about to come back with their next
// messages: without letting them run first, the first of them would have an fsync for
// itself. So as long as more messages have begun than have come, it steps aside, until
// that brings nobody any more. It doesn't look at a clock: what else wants to run gets the
// processor, and if nothing does, the fsync begins.
func (s *Store) gather() []*job {
	for waiting, idle := s.jobs.len(), 0; waiting > 0 && waiting < maxGroup && idle < maxIdle; {
		s.mu.Lock()
		coming := s.coming
		s.mu.Unlock()
		if waiting >= coming {
			break
		}
		runtime.Gosched()
		if now := s.jobs.len(); now > waiting {
			waiting, idle = now, 0
		} else {
			idle++
		}
	}
	return s.jobs.take()
}

func (s *Store) wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// flush makes durable what was written, and writes what the disk refused before.
func (s *Store) flush() error {
	j := &job{kind: jobFlush, done: make(chan error, 1)}
	s.group([]*job{j})
	return <-j.done
}

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
			if err = file.Sync(); err != nil {
				s.fail(fmt.Errorf("fsync the journal: %w", err))
				err = diskError("spool: fsync the journal", err)
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
	head := append(j.fixed.append(make([]byte, 0, fixedBytes+len(j.head))), j.head...)
	j.n = uint32(frameBytes + len(head))
	return s.id.appendRecord(b, j.at, recordMessage, head, body, j.fixed.bodyCRC)
}

// fixed returns the fixed part of a head of m that is written without the body.
func (m *message) fixed() fixed {
	return fixed{id: m.id, seq: m.seq, first: m.first, time: m.time, size: m.size, bodyCRC: m.bodyCRC, body: m.body}
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

// rotate begins a new segment. s.write is held.
func (s *Store) rotate() error {
	if s.w.file != nil {
		if s.w.dirty && !s.w.bad {
			if err := s.w.file.Sync(); err != nil {
				s.w.bad = true
				s.fail(fmt.Errorf("fsync the journal: %w", err))
			} else {
				s.settled(len(s.unsynced))
				s.w.dirty = false
			}
		}
		if s.w.bad { // what it should have kept is written again
			if err := s.cutSegment(s.w.number, s.w.safe); err != nil {
				return err
			}
			s.pending = append(s.unsynced[:len(s.unsynced):len(s.unsynced)], s.pending...)
			s.unsynced = nil
		}
		if err := s.w.file.Close(); err != nil {
			s.log.Warn("spool: close segment", "error", err)
		}
		s.w = writer{}
	}
	s.mu.Lock()
	s.last++
	n := s.last
	s.mu.Unlock()
	file, err := s.disk.Create(s.segmentPath(n))
	if err != nil {
		return err
	}
	_, err = file.Write(appendHeader(nil, s.id, n))
	if err == nil {
		if err = s.disk.SyncDir(s.path(journalDir)); err != nil {
			s.fail(fmt.Errorf("fsync directory %s: %w", s.path(journalDir), err))
		}
	}
	if err != nil {
		return errors.Join(err, file.Close(), s.disk.Remove(s.segmentPath(n)))
	}
	s.w = writer{number: n, file: file, size: headerBytes, dirty: true}
	s.mu.Lock()
	s.segments[n] = &segment{size: headerBytes}
	s.mu.Unlock()
	s.wake(s.compact)
	return nil
}

// cutSegment notes that a segment counts only up to an offset, in a file beside it: what
// stands behind was never made durable, though it may still be there at the next start.
func (s *Store) cutSegment(n uint32, safe int64) error {
	folder, err := durable.Open(s.disk, s.path(journalDir))
	if err == nil {
		err = folder.Write(cutName(n), func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "%s %d\n", cutMagic, safe)
			return err
		})
	}
	return err
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
		head: j.at, body: f.body, headBytes: j.n, first: f.first, pinned: true,
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

// abandon gives up the segment after a failed fsync: nobody knows what of it is on the
// disk. Where the sure part of it ends is noted by rotate.
func (s *Store) abandon() {
	s.write.Lock()
	s.w.bad = true
	s.write.Unlock()
	s.wake(s.dirty)
}

// Resume puts a spool back into service after a failed write or fsync, if a new segment
// of the journal can be written and fsynced. It is for an operator who has seen to the
// disk.
func (s *Store) Resume() error {
	j := &job{kind: jobResume, done: make(chan error, 1)}
	s.write.Lock()
	if s.w.file != nil {
		s.w.bad = true // whatever it was: nothing goes behind it
	}
	s.write.Unlock()
	if err := s.do(j); err != nil {
		return fmt.Errorf("resume spool %s: %w", s.o.Dir, err)
	}
	s.mu.Lock()
	s.broken, s.full = nil, time.Time{}
	s.mu.Unlock()
	if s.o.Alarms != nil {
		s.o.Alarms.Clear("spool-broken")
		s.o.Alarms.Clear("spool-disk-full")
	}
	s.log.Info("spool: resumed", "dir", s.o.Dir)
	return nil
}
