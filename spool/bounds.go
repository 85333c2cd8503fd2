package spool

import (
	"fmt"

	"mailcutover/routing"
)

// Bounds are how much the spool takes. A bound of 0 is none. A message counts as long as
// it has a recipient whose state isn't final; for an agency, a recipient of that agency.
type Bounds struct {
	Bytes          int64 // of bodies; the disk needs up to twice as much
	Messages       int
	AgencyBytes    int64
	AgencyMessages int
}

// Room returns nil if there is room for one more message of an agency with a body of size
// bytes; 0 if the size isn't known yet. Otherwise the error wraps [ErrFull] and says of
// which agency there is how much. It is for whoever can still refuse one recipient of
// several: Commit takes all or none. It says nothing of the bounds on the whole spool,
// which are Begin's, promises nothing to a Commit that comes later, and costs a look into
// a map. The empty agency is that of fixed addresses.
func (s *Store) Room(agency routing.AgencyID, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var have Counts
	if n, ok := s.x.agencyNumber[agency]; ok {
		have = s.x.agencies[n].counts
	}
	return s.agencyRoom(agency, have.Messages, have.Bytes, size)
}

// agencyRoom refuses a message over the bounds of an agency that has so much.
func (s *Store) agencyRoom(agency routing.AgencyID, messages int, bytes, size int64) error {
	b := &s.o.Bounds
	switch {
	case b.AgencyMessages > 0 && messages >= b.AgencyMessages:
		return fmt.Errorf("spool %s: agency %q: %w: %d messages, %d are allowed", s.o.Dir, agency, ErrFull, messages, b.AgencyMessages)
	case b.AgencyBytes > 0 && (bytes >= b.AgencyBytes || size > b.AgencyBytes-bytes):
		return fmt.Errorf("spool %s: agency %q: %w: %d bytes, %d are allowed", s.o.Dir, agency, ErrFull, bytes, b.AgencyBytes)
	}
	return nil
}

// agencyBounds refuses a message over the bounds of an agency; more counts what else is
// in the group. s.mu is held.
func (s *Store) agencyBounds(j *job, more map[uint32]*Counts) error {
	b := &s.o.Bounds
	if b.AgencyBytes <= 0 && b.AgencyMessages <= 0 {
		return nil
	}
	seen := map[uint32]bool{}
	for i := range j.rcpts {
		n := s.x.agency(j.rcpts[i].Agency)
		if seen[n] {
			continue
		}
		seen[n] = true
		if more[n] == nil {
			more[n] = &Counts{}
		}
		a := &s.x.agencies[n]
		if err := s.agencyRoom(a.id, a.counts.Messages+more[n].Messages, a.counts.Bytes+more[n].Bytes, j.fixed.size); err != nil {
			return err
		}
	}
	for n := range seen {
		more[n].Messages++
		more[n].Bytes += j.fixed.size
	}
	return nil
}

// beginBounds refuses a message that the whole spool has no room for. s.mu is held.
func (s *Store) beginBounds() error {
	b := &s.o.Bounds
	switch {
	case b.Messages > 0 && s.x.counts.Messages+s.coming >= b.Messages:
		return fmt.Errorf("spool %s: %w: %d messages, %d are allowed", s.o.Dir, ErrFull, s.x.counts.Messages, b.Messages)
	case b.Bytes > 0 && s.x.counts.Bytes+s.bytes >= b.Bytes:
		return fmt.Errorf("spool %s: %w: %d bytes, %d are allowed", s.o.Dir, ErrFull, s.x.counts.Bytes+s.bytes, b.Bytes)
	}
	return s.diskRoom(0)
}

// reserve counts bytes of bodies that are coming.
func (s *Store) reserve(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.o.Bounds.Bytes; b > 0 && s.x.counts.Bytes+s.bytes+n > b {
		return fmt.Errorf("spool %s: %w: %d bytes are allowed", s.o.Dir, ErrFull, b)
	}
	if err := s.diskRoom(n); err != nil {
		return err
	}
	s.room.left -= n
	s.bytes += n
	return nil
}
