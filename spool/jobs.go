package spool

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
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
	keptRecords   = 1 << 20 // bytes of memory that are kept from one group for the next, and from one head

	// maxPatience is how long a group waits for messages that are under way.
	maxPatience = time.Millisecond
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
	full  chan struct{} // closed when there are want of them; nil: nobody waits for that
	want  int
	ended bool
}

// put appends a job; false if nobody takes jobs any more.
func (q *jobQueue) put(j *job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.ended {
		q.jobs = append(q.jobs, j)
		if q.full != nil && len(q.jobs) >= q.want {
			close(q.full)
			q.full = nil
		}
	}
	return !q.ended
}

// await returns what is closed when n jobs wait; nil if none does, or n already do.
func (q *jobQueue) await(n int) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.full, q.want = nil, n
	if len(q.jobs) == 0 || len(q.jobs) >= n {
		return nil
	}
	q.full = make(chan struct{})
	return q.full
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
// messages: without waiting for them the first would have an fsync for itself. So as long
// as more messages have begun than have come, it waits for them, as long as the last fsync
// took and [maxPatience] at most: a sender may take minutes for a message.
func (s *Store) gather() []*job {
	s.mu.Lock()
	coming := s.coming
	s.mu.Unlock()
	if full := s.jobs.await(min(coming, maxGroup)); full != nil {
		timer := time.NewTimer(min(s.synced, maxPatience))
		select {
		case <-full:
		case <-timer.C:
		case <-s.stop:
		}
		timer.Stop()
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
