package spool

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mailcutover/internal/durable"
	"mailcutover/internal/seal"
	"mailcutover/mail"
	"mailcutover/routing"
)

// Alarms takes what a human has to see.
type Alarms interface {
	Raise(key, text string)
	Clear(key string) bool
}

// Options are what a store needs.
type Options struct {
	Disk   durable.Disk // nil: the machine's
	Dir    string
	Node   string // this node's name: whose spool it is
	Bounds Bounds
	// Space tells what room there is on the disk of Dir; nil: the machine is asked if Disk
	// is the machine's. The smaller of 256 MiB and 1/20 of the disk stays free: beyond that
	// new mail meets ErrFull, so that what is there can still go. It may be called by several
	// goroutines, four times a second at most. After an error nothing is bounded by it.
	Space  func() (Space, error)
	Logger *slog.Logger     // nil: none
	Alarms Alarms           // nil: none
	Now    func() time.Time // nil: time.Now

	// QuarantineAge is after how long a file of quarantine/ is removed, which nothing of
	// the spool needs, though a human may; 0: never. What is removed is logged and stands
	// in [Status].
	QuarantineAge time.Duration

	// Keys seal the bodies that come in, and open those that were sealed. nil: bodies are on the
	// disk as they came, and a sealed one can't be opened until its key is here.
	Keys *seal.Keys

	// SegmentBytes is how large a file of the journal grows; 0: 64 MiB. At most 1 GiB.
	SegmentBytes int64
	// InlineBytes is the largest body that is kept in the journal; larger ones have a
	// file each. 0: 64 KiB; negative: all have a file each.
	InlineBytes int

	readOnly bool // Check without repair

	manual bool       // tests drive the committer step by step
	before func(*job) // and may do something before each
}

// Store is a spool. Its methods are safe for concurrent use. Use [Open].
type Store struct {
	o      Options
	disk   durable.Disk
	log    *slog.Logger
	id     spoolID
	folder *durable.Folder // of the id
	lock   io.Closer
	report Report // of Open

	jobs    jobQueue
	arrived chan struct{} // a job is in the queue
	synced  time.Duration // what the last fsync took; the committer's
	dirty   chan struct{} // something waits for an fsync
	compact chan struct{} // a segment may be worth compacting
	stop    chan struct{}
	owned   sync.WaitGroup // committer and compactor
	buffers sync.Pool
	opened  openSegments

	// write is held while the journal is written or fsynced from elsewhere than the
	// committer; it comes before mu.
	write    sync.Mutex
	w        writer
	records  []byte     // room for the records of a group
	head     []byte     // and for the head of one
	last     uint32     // highest number that a segment ever had; written with both locks held
	unsynced []*outcome // written, not fsynced
	pending  []*outcome // not written: the disk refused
	unlink   [][16]byte // bodies whose end is on the disk
	after    []func()   // wait until nothing is pending

	moves atomic.Uint64 // of held mail to another key

	mu       sync.Mutex
	x        index
	segments map[uint32]*segment
	seq      uint64
	coming   int       // messages begun, not committed
	bytes    int64     // of their bodies
	broken   error     // why nothing new is taken
	full     time.Time // until then the disk is believed to have no room, since a write found none
	room     room
	adopted  bool
	closed   bool
	removals []Removal // the last
	removed  int       // in all

	ownerStamp durable.Stamp // of the id file when it last named this node; zero: it wasn't read yet
}

const (
	defaultSegmentBytes = 64 << 20
	defaultInlineBytes  = 64 << 10

	// flushAfter bounds how long an outcome waits for its fsync.
	flushAfter = time.Second
	// fullPause is how long Begin refuses after the disk had no room.
	fullPause = time.Second
)

func (s *Store) path(names ...string) string {
	return filepath.Join(append([]string{s.o.Dir}, names...)...)
}

func (s *Store) segmentPath(n uint32) string { return s.path(journalDir, segmentName(n)) }

func (s *Store) bodyPath(id [16]byte) string {
	return s.path(bodiesDir, string(mail.TransactionIDOf(id))+bodySuffix)
}

const (
	journalDir    = "journal"
	bodiesDir     = "bodies"
	quarantineDir = "quarantine"
	bodySuffix    = ".body"
)

func unixTime(ns int64) time.Time { return time.Unix(0, ns).UTC() }

func (s *Store) raise(key, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.log.Error(text, "alarm", key)
	if s.o.Alarms != nil {
		s.o.Alarms.Raise(key, text)
	}
}

// ready returns why nothing new is taken; nil if it is. s.mu is held.
func (s *Store) ready() error {
	switch {
	case s.closed:
		return fmt.Errorf("spool %s: %w", s.o.Dir, ErrClosed)
	case s.adopted:
		return fmt.Errorf("spool %s: %w", s.o.Dir, ErrAdopted)
	case s.broken != nil:
		return s.broken
	}
	return nil
}

// fail takes the spool out of service.
func (s *Store) fail(err error) {
	s.mu.Lock()
	first := s.broken == nil
	if first {
		s.broken = fmt.Errorf("spool %s: %w: %w", s.o.Dir, ErrBroken, err)
	}
	s.mu.Unlock()
	if first {
		s.raise("spool-broken", "spool %s takes nothing more until an operator resumes it: %v", s.o.Dir, err)
	}
}

// failed tells the store about a write that failed, and returns what the caller is to
// be told.
func (s *Store) failed(what string, err error) error {
	err = diskError(what, err)
	switch {
	case errors.Is(err, ErrFull):
		s.mu.Lock()
		s.full = s.o.Now().Add(fullPause)
		s.mu.Unlock()
		s.raise("spool-disk-full", "no room on the disk of spool %s: %v", s.o.Dir, err)
	case errors.Is(err, ErrBroken):
		s.fail(err)
	}
	return err
}

// Status is what an operator wants to know at once.
type Status struct {
	Broken  error // why nothing new is taken; nil if it is
	Full    error // the disk has no room for new mail at present, wraps ErrFull; nil if it has
	Counts  Counts
	Agency  map[routing.AgencyID]Counts // the empty id counts fixed addresses
	Pending int                         // outcomes that the disk did not take yet
	Files   int                         // of the journal
	Disk    int64                       // bytes of the journal
	Removed int                         // files of quarantine/, for their age, since Open

	Removals []Removal // the last 100 of them
	Opened   Report    // what Open found
}

// Status returns the state of the store.
func (s *Store) Status() Status {
	s.look()
	s.write.Lock()
	pending := len(s.pending)
	s.write.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Broken: s.ready(), Full: s.diskRoom(0), Counts: s.x.counts, Agency: s.agencies(), Pending: pending, Files: len(s.segments), Opened: s.report}
	st.Removed, st.Removals = s.removed, slices.Clone(s.removals)
	for _, seg := range s.segments {
		st.Disk += seg.size
	}
	return st
}

// Counts returns how much there is, in all and per agency; agencies without any are left
// out. The empty agency counts fixed addresses.
func (s *Store) Counts() (Counts, map[routing.AgencyID]Counts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.x.counts, s.agencies()
}

func (s *Store) agencies() map[routing.AgencyID]Counts {
	all := make(map[routing.AgencyID]Counts, len(s.x.agencies))
	for i := range s.x.agencies {
		if a := &s.x.agencies[i]; a.counts.Messages > 0 {
			all[a.id] = a.counts
		}
	}
	return all
}

// Held reports whether there is held mail for a key.
func (s *Store) Held(k Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.x.keyNumber[k]
	return ok && s.x.keys[n].held > 0
}

// Each calls f with the entries that the filter chooses, whose state isn't final, in
// order of acceptance, until f returns false. What changes meanwhile is seen or not. f
// may call the store.
func (s *Store) Each(filter Filter, f func(Entry) bool) {
	if filter.Transaction != "" {
		id, err := filter.Transaction.Bytes()
		if err != nil {
			return
		}
		var list []Entry
		s.mu.Lock()
		if m := s.x.find(id); m != nil && m.seq > filter.After {
			list = s.x.entries(nil, m, &filter)
		}
		s.mu.Unlock()
		for _, e := range list {
			if !f(e) {
				return
			}
		}
		return
	}
	var list []Entry
	for more := true; more; {
		list = list[:0]
		s.mu.Lock()
		from := s.x.after(filter.After)
		to := min(from+1024, len(s.x.order))
		for _, row := range s.x.order[from:to] {
			m := s.x.rows.at(row)
			filter.After = m.seq
			if !m.gone {
				list = s.x.entries(list, m, &filter)
			}
		}
		more = to < len(s.x.order)
		s.mu.Unlock()
		for _, e := range list {
			if !f(e) {
				return
			}
		}
	}
}

// Aside lists the files in quarantine/, sorted: what could not be read, kept for a human.
func (s *Store) Aside() ([]string, error) {
	names, err := s.disk.Names(s.path(quarantineDir))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", s.path(quarantineDir), err)
	}
	slices.Sort(names)
	return names, nil
}

// ID returns the identity of the spool, as 32 hexadecimal digits.
func (s *Store) ID() string { return fmt.Sprintf("%x", s.id[:]) }

// Close makes everything durable that was written, and ends the store. Bodies that are
// open can be read on. It returns the first error.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	s.owned.Wait()
	err := s.flush()
	s.write.Lock()
	for err == nil && (s.w.dirty || len(s.pending) > 0) { // a Set came meanwhile
		s.write.Unlock()
		err = s.flush()
		s.write.Lock()
	}
	if s.w.file != nil {
		err = errors.Join(err, s.w.file.Close())
		s.w.file = nil
	}
	s.write.Unlock()
	err = errors.Join(err, s.opened.close())
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	if err != nil {
		return fmt.Errorf("close spool %s: %w", s.o.Dir, err)
	}
	return nil
}
