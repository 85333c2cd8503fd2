package spool

import (
	"errors"
	"fmt"
	"io"
	"time"

	"mailcutover/internal/durable"
)

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
