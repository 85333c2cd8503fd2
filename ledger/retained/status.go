package retained

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"mailcutover/routing"
)

// Status is how the copies are.
type Status struct {
	Agencies []Agency // with copies, or of which some were removed or not kept; by id

	Copies int
	Bytes  int64 // on the disk

	// Since the start.
	Kept    uint64
	Failed  uint64 // copies of delivered messages that could not be kept
	Damaged uint64 // bodies that were met and are not what was kept

	// Err is why the last copy was not kept; nil if it was.
	Err      error
	ErrSince time.Time

	Key string // name of the operator's key that seals; empty: copies are not encrypted
}

// Agency is how the copies of one agency are.
type Agency struct {
	ID       routing.AgencyID
	Copies   int
	Bytes    int64     // on the disk
	First    time.Time // when the oldest was kept; zero: there is none
	Last     time.Time
	Damaged  int // heads that can't be read, and segments whose header can't
	Segments int
	Failed   uint64 // copies of delivered messages that could not be kept since the start

	// Removed is what is no longer there; its Copies are 0 if all is.
	Removed Removed
}

// Status returns how the copies are. It waits for no disk.
func (s *Store) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Kept: s.counts.kept, Failed: s.counts.failed, Damaged: s.counts.damaged, Err: s.counts.err, ErrSince: s.counts.since}
	if s.o.Keys != nil {
		st.Key = s.o.Keys.Current()
	}
	ids := slices.Collect(maps.Keys(s.agencies))
	for id := range s.counts.failedOf { // one of which no copy was ever kept
		if s.agencies[id] == nil {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		one := s.agencyStatus(id)
		if one.Segments == 0 && one.Removed.Copies == 0 && one.Failed == 0 {
			continue
		}
		st.Agencies = append(st.Agencies, one)
		st.Copies += one.Copies
		st.Bytes += one.Bytes
	}
	slices.SortFunc(st.Agencies, func(x, y Agency) int { return cmp.Compare(x.ID, y.ID) })
	return st
}

// Agency returns how the copies of one agency are.
func (s *Store) Agency(id routing.AgencyID) Agency {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.agencyStatus(id)
}

// agencyStatus is Agency; s.mu is held.
func (s *Store) agencyStatus(id routing.AgencyID) Agency {
	one := Agency{ID: id}
	if a := s.agencies[id]; a != nil {
		one = a.status()
	}
	one.Removed, _ = s.removals.of(id)
	one.Failed = s.counts.failedOf[id]
	return one
}

// status returns how an agency's copies are, but for Removed and Failed. Store.mu is held.
func (a *agency) status() Agency {
	one := Agency{ID: a.id, Segments: len(a.segments)}
	for _, g := range a.segments {
		one.Copies += g.copies
		one.Bytes += g.bytes
		one.Damaged += g.damaged
		if one.First.IsZero() || !g.first.IsZero() && g.first.Before(one.First) {
			one.First = g.first
		}
		if g.last.After(one.Last) {
			one.Last = g.last
		}
	}
	return one
}
