package spool

import (
	"errors"
	"io/fs"
	"slices"
	"time"
)

const (
	// retainEvery is how often it is looked for files of quarantine/ that are too old.
	retainEvery = time.Hour
	// maxRemovals is how many removals Status reports; the log has all.
	maxRemovals = 100
)

// Removal reports a file of quarantine/ that was removed for its age.
type Removal struct {
	Name   string
	Bytes  int64
	Aside  time.Time // since when nothing had changed it: when it was set aside
	Time   time.Time // of the removal
	Reason string    // "age"
}

// retainer removes what has been in quarantine/ for longer than the operator wants.
func (s *Store) retainer() {
	look := time.NewTicker(retainEvery)
	defer look.Stop()
	for {
		s.retain()
		select {
		case <-look.C:
		case <-s.stop:
			return
		}
	}
}

// retain removes files of quarantine/ that are too old. What was read in a segment that
// is still there stays: the next start would set it aside again. Messages whose recipients
// are in StateQuarantined are none of its business: only an operator ends those.
func (s *Store) retain() {
	if err := s.checkOwner(); err != nil {
		return // nothing is changed in what is another's
	}
	now, dir := s.o.Now(), s.path(quarantineDir)
	names, err := s.disk.Names(dir)
	if err != nil {
		s.log.Warn("spool: look for files that are too old", "directory", dir, "error", err)
		return
	}
	slices.Sort(names)
	var removed []Removal
	for _, name := range names {
		stamp, err := s.disk.Stamp(s.path(quarantineDir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a human was faster
		}
		aside := unixTime(max(stamp.Modified, stamp.Changed))
		if err == nil && (stamp.Modified == 0 || now.Sub(aside) <= s.o.QuarantineAge || s.hasSegmentOf(name)) {
			continue
		}
		if err == nil {
			if s.checkOwner() != nil {
				break // it became another's while we looked
			}
			err = s.disk.Remove(s.path(quarantineDir, name))
		}
		if err != nil {
			s.log.Warn("spool: remove a file that is too old", "file", name, "error", err)
			continue
		}
		s.log.Info("spool: file in quarantine removed", "file", name, "bytes", stamp.Size, "aside", aside, "reason", "age")
		removed = append(removed, Removal{Name: name, Bytes: stamp.Size, Aside: aside, Time: now, Reason: "age"})
	}
	if len(removed) == 0 {
		return
	}
	if err := s.disk.SyncDir(dir); err != nil { // then a power cut brings some back, and they go again
		s.log.Warn("spool: fsync a directory", "directory", dir, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed += len(removed)
	s.removals = append(s.removals, removed...)
	s.removals = slices.Clone(s.removals[max(0, len(s.removals)-maxRemovals):])
}

// hasSegmentOf reports whether a file of quarantine/ came from a segment that is still in
// the journal.
func (s *Store) hasSegmentOf(name string) bool {
	n := segmentOf(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	return n != 0 && s.segments[n] != nil
}

// segmentOf returns the number of the segment from which a file of quarantine/ came; 0 for
// other files.
func segmentOf(name string) uint32 {
	if len(name) < len(segmentName(1)) {
		return 0
	}
	return parseSegmentName(name[:len(segmentName(1))])
}
