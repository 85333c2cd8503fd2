package retained

import (
	"errors"
	"slices"
	"time"

	"mailcutover/internal/durable"
)

const (
	// syncEvery is how often what was written is fsynced.
	syncEvery = 30 * time.Second
	// passBytes is how much of a segment's bodies is handed to the disk at a time.
	passBytes = 2 << 20
	// passAgain is how much before is named again: what was on its way to the disk the last time
	// is there by now.
	passAgain = 3 * passBytes
)

// keepSynced is the goroutine that fsyncs what was written.
func (s *Store) keepSynced() {
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.sync()
		case <-s.wake:
			s.closeEnded()
			s.letPass()
		case <-s.written:
			s.closeEnded()
			return
		}
	}
}

// closeEnded fsyncs and closes segments that have ended.
func (s *Store) closeEnded() {
	s.mu.Lock()
	all := s.ended
	s.ended = nil
	s.mu.Unlock()
	for _, w := range all {
		err := errors.Join(w.bodies.Sync(), w.heads.Sync())
		durable.LetPass(w.bodies, 0, w.bodiesAt)
		if err = errors.Join(err, w.bodies.Close(), w.heads.Close()); err != nil {
			s.o.Logger.Warn("retained copies are not fsynced: a power cut would cost them", "agency", w.agency.id, "segment", w.number, "error", err)
		}
	}
}

// letPass has bodies written to the disk, and then taken out of memory, soon after they came:
// nobody reads them unless the target dies. Left to the kernel they would push out of memory
// what is needed, and each would take memory that nothing has used for long, which costs several
// times what the write itself does.
func (s *Store) letPass() {
	type stretch struct {
		file     durable.File
		from, to int64
	}
	var all []stretch
	s.mu.Lock()
	for _, w := range s.writings {
		if w.bodiesAt-w.passed >= passBytes {
			all = append(all, stretch{w.bodies, max(0, w.passed-passAgain), w.bodiesAt})
			w.passed = w.bodiesAt
		}
	}
	s.mu.Unlock()
	for _, one := range all {
		durable.LetPass(one.file, one.from, one.to-one.from)
	}
}

// wakeSyncer has the other goroutine look at once.
func (s *Store) wakeSyncer() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// sync fsyncs the segments that are written.
func (s *Store) sync() {
	var all []*writing
	names := false
	s.mu.Lock()
	for _, w := range s.writings {
		if w.dirty {
			all = append(all, w)
			names = names || w.created
			w.dirty, w.created = false, false
		}
	}
	s.mu.Unlock()
	var errs []error
	if names {
		errs = append(errs, s.o.Disk.SyncDir(s.o.Dir))
	}
	for _, w := range all {
		err := errors.Join(w.bodies.Sync(), w.heads.Sync())
		s.mu.Lock()
		if slices.Contains(s.writings, w) {
			errs = append(errs, err)
		}
		s.mu.Unlock()
	}
	if err := errors.Join(errs...); err != nil {
		s.o.Logger.Warn("retained copies are not fsynced: a power cut would cost them", "error", err)
	}
}
