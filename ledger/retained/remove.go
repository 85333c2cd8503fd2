package retained

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"mailcutover/internal/durable"
	"mailcutover/routing"
)

// Why copies are removed.
const (
	ReasonAgencyBytes = "bound of the agency"
	ReasonTotalBytes  = "bound of all"
	ReasonDisk        = "room on the disk"
	ReasonAge         = "age"
	ReasonFinalised   = "finalised"
)

// Removal reports copies that were removed.
type Removal struct {
	Agency routing.AgencyID `json:"agency"`
	Time   time.Time        `json:"time"`
	Reason string           `json:"reason"`
	Copies int              `json:"copies"`
	Bytes  int64            `json:"bytes"` // on the disk
	First  time.Time        `json:"first"` // when the oldest of them was kept
	Last   time.Time        `json:"last"`  // and the newest
}

const (
	// roomLook is how often it is looked how much room the disk has.
	roomLook = time.Second

	// marginBytes and marginPart are what the copies leave free on their disk, the smaller of
	// the two: four times what the spool leaves, which has the first right to it.
	marginBytes = 1 << 30
	marginPart  = 5 // of the disk, 1/marginPart
)

// errNoRoom is why no copy is made on a disk that is nearly full.
var errNoRoom = errors.New("the disk has no more room than the spool may need")

// room is what was seen of the disk's room. It is the writer's.
type room struct {
	looked time.Time
	none   bool // nothing may be written, and there is nothing left to remove
}

// ownSpace is Options.Space of copies on the machine's own disk.
func ownSpace(o *Options) func() (free, size int64, err error) {
	if _, ok := o.Disk.(durable.OS); !ok {
		return nil
	}
	dir := o.Dir
	return func() (int64, int64, error) {
		var st syscall.Statfs_t
		if err := syscall.Statfs(dir, &st); err != nil {
			return 0, 0, fmt.Errorf("free room of %s: %w", dir, err)
		}
		block := int64(st.Bsize)
		return int64(st.Bavail) * block, int64(st.Blocks) * block, nil
	}
}

// makeRoom looks at the disk now and then, and removes the oldest copies while it is nearly
// full. A disk that doesn't tell bounds nothing.
func (s *Store) makeRoom() {
	now := s.o.Now()
	if age := now.Sub(s.room.looked); s.o.Space == nil || age >= 0 && age < roomLook {
		return
	}
	s.room.looked = now
	s.room.none = false
	for {
		free, size, err := s.o.Space()
		if err != nil || free >= min(marginBytes, size/marginPart) {
			return
		}
		s.flushAll()
		if a := s.oldest(); a == nil || !s.removeOldest(a, ReasonDisk) {
			s.room.none = true
			return
		}
	}
}

// oldest returns the agency with the oldest segment; nil if there is none.
func (s *Store) oldest() (found *agency) {
	for _, a := range s.agencies {
		if len(a.segments) > 0 && (found == nil || a.segments[0].oldest().Before(found.segments[0].oldest())) {
			found = a
		}
	}
	return found
}

// bytes returns how much an agency's copies take.
func (a *agency) bytes() (n int64) {
	for _, g := range a.segments {
		n += g.bytes
	}
	return n
}

// bound removes the oldest segments of an agency, and of all, beyond the bounds.
func (s *Store) bound(a *agency) {
	for a.bytes() > s.o.AgencyBytes && s.removeOldest(a, ReasonAgencyBytes) {
	}
	for {
		var all int64
		for _, one := range s.agencies {
			all += one.bytes()
		}
		if all <= s.o.TotalBytes || !s.removeOldest(s.oldest(), ReasonTotalBytes) {
			return
		}
	}
}

// upkeep removes what is too old, and the copies of agencies that are finalised.
func (s *Store) upkeep() {
	now := s.o.Now()
	for id, a := range s.agencies {
		if s.o.WayBack(id) == WayBackOver && a.something() {
			if _, err := s.erase(id, ReasonFinalised); err != nil {
				s.o.Logger.Error("retained copies of a finalised agency are not removed yet", "agency", id, "error", err)
			}
			continue
		}
		if w := a.writing; w != nil && s.full(w) {
			s.rotate(w)
		}
		for s.o.MaxAge > 0 && len(a.segments) > 0 && now.Sub(a.segments[0].newest()) > s.o.MaxAge && s.removeOldest(a, ReasonAge) {
		}
	}
}

// something reports whether there is anything of an agency on the disk.
func (a *agency) something() bool { return len(a.segments) > 0 || len(a.secrets) > 0 }

// removeOldest removes the oldest segment of an agency, written down before. It reports whether
// that was done.
func (s *Store) removeOldest(a *agency, reason string) bool {
	g := a.segments[0]
	for _, w := range slices.Clone(s.writings) {
		if w.seg == g {
			s.flush(w)
			s.abandon(w, ErrRemoved)
		}
	}
	if len(a.segments) == 0 || a.segments[0] != g {
		return true // the flush has found a bound, and that it goes
	}
	r := Removal{Agency: a.id, Time: s.o.Now(), Reason: reason, Copies: g.copies, Bytes: g.bytes, First: g.first, Last: g.last}
	var err error
	if g.copies > 0 {
		err = s.removals.add(s.folder, &r, g.number)
	}
	if err != nil && reason != ReasonDisk { // where nothing can be written any more, the log has it
		s.o.Logger.Error("retained copies are not removed, because that can't be written down", "agency", a.id, "error", err)
		return false
	}
	if err := s.removeSegment(a, g); err != nil {
		s.o.Logger.Error("retained copies can't be removed", "agency", a.id, "segment", g.number, "error", err)
		return false
	}
	s.mu.Lock()
	a.segments = a.segments[1:]
	s.mu.Unlock()
	s.report(&r)
	return true
}

// removeSegment removes a segment's files, the heads first: with them the segment is gone, and a
// start removes what is left.
func (s *Store) removeSegment(a *agency, g *segment) error {
	if err := s.remove(a.name(g.number, headsSuffix)); err != nil {
		return err
	}
	return s.remove(a.name(g.number, bodiesSuffix))
}

func (s *Store) report(r *Removal) {
	s.o.Logger.Info("retained copies removed", "agency", r.Agency, "copies", r.Copies, "bytes", r.Bytes, "first", r.First, "last", r.Last, "reason", r.Reason)
	if s.o.Removed != nil {
		s.o.Removed(*r)
	}
}

// Erase removes all copies of an agency, the data keys first, and returns what was there. On an
// error some may be left; the same call goes on. What is kept later is a new beginning.
func (s *Store) Erase(agency routing.AgencyID, reason string) (Removal, error) {
	o := newOp(opErase)
	o.agency, o.reason = agency, reason
	select {
	case s.ops <- o:
	case <-s.stop:
		return Removal{}, fmt.Errorf("remove retained copies of agency %s: %w", agency, ErrClosed)
	}
	select {
	case <-o.done:
		return o.removed, o.err
	case <-s.stop:
		return Removal{}, fmt.Errorf("remove retained copies of agency %s: %w", agency, ErrClosed)
	}
}

// Upkeep looks now for what has to go by age, or because its agency is finalised, and returns
// when that is done; it is looked by itself twice a minute.
func (s *Store) Upkeep() {
	o := newOp(opUpkeep)
	select {
	case s.ops <- o:
	case <-s.stop:
		return
	}
	select {
	case <-o.done:
	case <-s.stop:
	}
}

// erase is Erase on the writer's goroutine.
func (s *Store) erase(id routing.AgencyID, reason string) (Removal, error) {
	r := Removal{Agency: id, Time: s.o.Now(), Reason: reason}
	a := s.agencies[id]
	if a == nil || !a.something() {
		return r, nil
	}
	for _, w := range slices.Clone(s.writings) {
		if w.agency == a {
			s.abandon(w, ErrRemoved)
		}
	}
	for _, g := range a.segments {
		r.Copies += g.copies
		r.Bytes += g.bytes
		if r.First.IsZero() || !g.first.IsZero() && g.first.Before(r.First) {
			r.First = g.first
		}
		if g.last.After(r.Last) {
			r.Last = g.last
		}
	}
	what := fmt.Sprintf("remove retained copies of agency %s", id)
	if err := s.removals.add(s.folder, &r, a.next-1); err != nil {
		return r, fmt.Errorf("%s: write it down: %w", what, err)
	}
	for key := range a.secrets {
		if err := s.remove(a.keyName(key)); err != nil {
			return r, fmt.Errorf("%s: %w", what, err)
		}
	}
	if err := s.o.Disk.SyncDir(s.o.Dir); err != nil { // the keys are gone for good before anything else is
		return r, fmt.Errorf("%s: %w", what, err)
	}
	s.mu.Lock()
	clear(a.secrets)
	a.key = keyID{}
	s.mu.Unlock()
	for len(a.segments) > 0 {
		if err := s.removeSegment(a, a.segments[0]); err != nil {
			return r, fmt.Errorf("%s: %w", what, err)
		}
		s.mu.Lock()
		a.segments = a.segments[1:]
		s.mu.Unlock()
	}
	if err := s.o.Disk.SyncDir(s.o.Dir); err != nil {
		return r, fmt.Errorf("%s: %w", what, err)
	}
	s.report(&r)
	return r, nil
}
