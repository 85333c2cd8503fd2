package spool

import (
	"errors"
	"sync"

	"mailcutover/internal/durable"
)

// maxOpened is how many segments stay open for reading though nobody reads them: a
// replay goes through one after the other.
const maxOpened = 8

// openSegments are the segments that are open for reading. To open and close one for each
// message took a seventh of a replay's CPU. The zero value is ready.
type openSegments struct {
	mu   sync.Mutex
	open map[uint32]*openSegment
}

// openSegment is one of them. It is a durable.Random whose Close gives it back.
type openSegment struct {
	durable.Random
	from  *openSegments
	users int
	gone  bool // from openSegments.open: the last user closes it
}

// segment opens a segment for reading. The caller closes it.
func (s *Store) segment(n uint32) (durable.Random, error) {
	all := &s.opened
	all.mu.Lock()
	defer all.mu.Unlock()
	r := all.open[n]
	if r == nil {
		file, err := s.disk.OpenAt(s.segmentPath(n))
		if err != nil {
			return nil, err
		}
		r = &openSegment{Random: file, from: all}
		if all.open == nil {
			all.open = make(map[uint32]*openSegment)
		}
		all.open[n] = r
	}
	r.users++
	for other, idle := range all.open {
		if len(all.open) <= maxOpened {
			break
		}
		if idle.users == 0 {
			if err := all.drop(other); err != nil {
				s.log.Warn("spool: close segment", "segment", other, "error", err)
			}
		}
	}
	return r, nil
}

// Close ends one use.
func (r *openSegment) Close() error {
	r.from.mu.Lock()
	defer r.from.mu.Unlock()
	if r.users--; r.users == 0 && r.gone {
		return r.Random.Close()
	}
	return nil
}

// drop forgets a segment: who reads it goes on, and nobody else begins to. mu is held.
func (all *openSegments) drop(n uint32) error {
	r := all.open[n]
	if r == nil {
		return nil
	}
	delete(all.open, n)
	if r.gone = true; r.users == 0 {
		return r.Random.Close()
	}
	return nil
}

// forget is drop for a segment that is about to be removed.
func (all *openSegments) forget(n uint32) error {
	all.mu.Lock()
	defer all.mu.Unlock()
	return all.drop(n)
}

// close drops all.
func (all *openSegments) close() error {
	all.mu.Lock()
	defer all.mu.Unlock()
	var err error
	for n := range all.open {
		err = errors.Join(err, all.drop(n))
	}
	return err
}
