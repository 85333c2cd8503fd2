package retained

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// recover finds out what is in the folder.
func (s *Store) recover() error {
	names, err := s.folder.Names()
	if err != nil {
		return err
	}
	if s.removals, err = s.readRemovals(); err != nil {
		return err
	}
	gone := s.removals.upTo()
	for id, up := range gone { // numbers are never used again
		s.agency(id).next = up + 1
	}
	for _, name := range names {
		f, ok := parseName(name)
		if !ok {
			continue
		}
		a := s.agency(f.agency)
		a.next = max(a.next, f.number+1)
		switch f.suffix {
		case keySuffix:
			if err := s.getKey(a, f.key); err != nil {
				s.o.Logger.Error("data key of retained copies can't be opened: they can't be read", "agency", a.id, "file", name, "error", err)
			}
		case headsSuffix:
			if f.number <= gone[a.id] { // its removal was interrupted
				if err := s.remove(name); err != nil {
					return fmt.Errorf("remove what was to be removed: %w", err)
				}
				continue
			}
			a.segments = append(a.segments, &segment{number: f.number})
		}
	}
	for _, a := range s.agencies {
		slices.SortFunc(a.segments, func(x, y *segment) int { return int(x.number) - int(y.number) })
		for _, g := range a.segments {
			if err := s.measure(a, g); err != nil {
				s.o.Logger.Error("retained copies can't be read", "agency", a.id, "segment", g.number, "error", err)
			}
		}
	}
	if err := s.secure(); err != nil {
		s.o.Logger.Warn("retained copies of the process before can't be fsynced: a power cut would cost them", "error", err)
	}
	return s.removeRest(names)
}

// securedSpan is how far behind its agency's newest copy a segment may end and not be fsynced
// yet, by far: what was written is, twice a minute.
const securedSpan = time.Hour

// secure makes durable what the process before wrote in its last half minute and, since it was
// killed, did not fsync. Nobody else does: its segments get no more copies.
func (s *Store) secure() error {
	var errs []error
	found := false
	for _, a := range s.agencies {
		var newest time.Time
		for _, g := range a.segments {
			if g.last.After(newest) {
				newest = g.last
			}
		}
		for _, g := range a.segments {
			if !g.last.IsZero() && newest.Sub(g.last) > securedSpan {
				continue
			}
			found = true
			errs = append(errs, s.fsync(a.name(g.number, bodiesSuffix)), s.fsync(a.name(g.number, headsSuffix)))
		}
	}
	if found {
		errs = append(errs, s.o.Disk.SyncDir(s.o.Dir))
	}
	return errors.Join(errs...)
}

func (s *Store) fsync(name string) error {
	f, err := s.o.Disk.OpenAt(s.path(name))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// removeRest removes files of segments without heads: a removal was interrupted.
func (s *Store) removeRest(names []string) error {
	for _, name := range names {
		f, ok := parseName(name)
		if !ok || f.suffix != bodiesSuffix {
			continue
		}
		if !slices.ContainsFunc(s.agencies[f.agency].segments, func(g *segment) bool { return g.number == f.number }) {
			if err := s.remove(name); err != nil {
				return fmt.Errorf("remove what was left of removed copies: %w", err)
			}
		}
	}
	return nil
}

// measure finds out what is in a segment: by its last frame, or else by all of them.
func (s *Store) measure(a *agency, g *segment) error {
	f, err := s.o.Disk.OpenAt(s.path(a.name(g.number, headsSuffix)))
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	g.bytes = size
	begin := make([]byte, min(size, 256))
	if _, err := f.ReadAt(begin, 0); err != nil && err != io.EOF {
		return err
	}
	h, n := readHeader(begin)
	if n < 0 {
		return nil
	}
	if n == 0 || h.number != g.number {
		g.damaged = 1
		return fmt.Errorf("%w: no readable header", ErrDamaged)
	}
	if size >= endBytes {
		end := make([]byte, endBytes)
		if _, err := f.ReadAt(end, size-endBytes); err != nil && err != io.EOF {
			return err
		}
		if t, ok := readTotals(end, h.seed()); ok {
			g.copies, g.bytes, g.first, g.last = int(t.copies), t.bytes, t.first, t.last
			return nil
		}
	}
	return s.count(a, g)
}

// count reads a segment that wasn't finished.
func (s *Store) count(a *agency, g *segment) error {
	damaged, err := s.scan(a.id, g.number, func(c *Copy) bool {
		g.add(c)
		return true
	})
	g.damaged = damaged
	b, again := s.o.Disk.OpenAt(s.path(a.name(g.number, bodiesSuffix)))
	if again != nil {
		return errors.Join(err, again)
	}
	defer b.Close()
	size, again := b.Size()
	g.bytes += size
	return errors.Join(err, again)
}
