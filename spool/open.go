package spool

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"mailcutover/internal/durable"
)

// Open opens the spool in o.Dir, or makes one. What can't be read is put into
// quarantine/, listed in Status and raised as an alarm; it is no error. Errors are: the
// directory can't be written, ErrAdopted, ErrInUse.
func Open(o Options) (*Store, error) {
	s, err := prepare(o)
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	if err := s.start(); err != nil {
		if s.lock != nil {
			err = errors.Join(err, s.lock.Close())
		}
		return nil, fmt.Errorf("open spool %s: %w", o.Dir, err)
	}
	return s, nil
}

func prepare(o Options) (*Store, error) {
	if o.Disk == nil {
		o.Disk = durable.OS{}
	}
	if o.Space == nil {
		o.Space = ownSpace(&o)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = defaultSegmentBytes
	}
	if o.InlineBytes == 0 {
		o.InlineBytes = defaultInlineBytes
	}
	if o.SegmentBytes < headerBytes || o.SegmentBytes > 1<<30 {
		return nil, fmt.Errorf("segments of %d bytes: want at most 1 GiB", o.SegmentBytes)
	}
	if o.InlineBytes > 16<<20 {
		return nil, fmt.Errorf("bodies of %d bytes in the journal: want at most 16 MiB", o.InlineBytes)
	}
	if err := checkNode(o.Node); err != nil {
		return nil, err
	}
	s := &Store{
		o: o, disk: o.Disk, log: o.Logger, x: newIndex(), segments: map[uint32]*segment{},
		arrived: make(chan struct{}, 1), dirty: make(chan struct{}, 1), compact: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	return s, nil
}

func (s *Store) start() error {
	var err error
	if s.folder, err = durable.Open(s.disk, s.o.Dir); err != nil {
		return err
	}
	if s.lock, err = lockDir(s.disk, s.o.Dir); err != nil {
		return err
	}
	r := &recovery{s: s, early: map[[16]byte][]*outcome{}, bad: map[[16]byte]position{}, cuts: map[uint32]int64{}}
	if s.o.readOnly {
		return r.run()
	}
	for _, dir := range []string{journalDir, bodiesDir, quarantineDir} {
		if err := s.disk.MakeDir(s.path(dir)); err != nil {
			return err
		}
	}
	if err := s.disk.SyncDir(s.o.Dir); err != nil {
		return fmt.Errorf("fsync directory %s: %w", s.o.Dir, err)
	}
	if err := r.run(); err != nil {
		return err
	}
	if !s.o.manual {
		s.owned.Go(s.committer)
		s.owned.Go(s.compactor)
		if s.o.QuarantineAge > 0 {
			s.owned.Go(s.retainer)
		}
	}
	r.finish()
	s.wake(s.compact)
	return nil
}
