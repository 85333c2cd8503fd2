package spool

import (
	"fmt"
	"syscall"
	"time"

	"mailcutover/internal/durable"
)

const (
	// roomLook is how long what was seen of the disk's room is believed.
	roomLook = 250 * time.Millisecond

	// marginBytes and marginPart are what the spool leaves free on its disk, the smaller of
	// the two: the ledger, the table and the journal's own outcomes and compaction go on in
	// it. Without it a disk that held mail has filled could never be emptied again, for each
	// delivery is written to the ledger first.
	marginBytes = 256 << 20
	marginPart  = 20 // of the disk, 1/marginPart
)

// Space is what there is on a disk, in bytes.
type Space struct {
	Free int64 // for this process' user
	Size int64
}

// margin is what stays free of it.
func (p Space) margin() int64 { return min(marginBytes, p.Size/marginPart) }

// space asks the machine about the disk that dir lies on.
func space(dir string) (Space, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return Space{}, fmt.Errorf("free room of %s: %w", dir, err)
	}
	block := int64(st.Bsize)
	return Space{Free: int64(st.Bavail) * block, Size: int64(st.Blocks) * block}, nil
}

// room is what was seen of the disk's room. Guarded by Store.mu.
type room struct {
	at    time.Time // of the last look; zero: never
	known bool
	left  int64 // above the margin, less what was taken since
	seen  Space
}

// look sees how much room the disk has, if that isn't known well enough. It may wait for
// the disk, and so is called without s.mu. A disk that doesn't tell bounds nothing.
func (s *Store) look() {
	if s.o.Space == nil {
		return
	}
	now := s.o.Now()
	s.mu.Lock()
	if age := now.Sub(s.room.at); !s.room.at.IsZero() && age >= 0 && age < roomLook {
		s.mu.Unlock()
		return
	}
	s.room.at = now
	s.mu.Unlock()
	p, err := s.o.Space()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room.known, s.room.seen, s.room.left = err == nil, p, p.Free-p.margin()
}

// diskRoom refuses n more bytes that the disk has no room for; 0 asks whether it has any.
// s.mu is held.
func (s *Store) diskRoom(n int64) error {
	switch r := &s.room; {
	case s.justFull():
		return fmt.Errorf("spool %s: %w: the disk had no room a moment ago", s.o.Dir, ErrFull)
	case r.known && (r.left <= 0 || n > r.left):
		return fmt.Errorf("spool %s: %w: %d bytes are free on the disk, %d stay free", s.o.Dir, ErrFull, r.seen.Free, r.seen.margin())
	}
	return nil
}

// justFull reports whether a write found no room a moment ago. If the clock was set back
// since, that moment is over. s.mu is held.
func (s *Store) justFull() bool {
	left := s.full.Sub(s.o.Now())
	return left > 0 && left <= fullPause
}

// ownSpace is Options.Space of a spool on the machine's own disk.
func ownSpace(o *Options) func() (Space, error) {
	if _, ok := o.Disk.(durable.OS); !ok {
		return nil
	}
	dir := o.Dir
	return func() (Space, error) { return space(dir) }
}
