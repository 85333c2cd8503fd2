package retained

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"mailcutover/internal/durable"
	"mailcutover/internal/seal"
	"mailcutover/routing"
)

var (
	// ErrDamaged is wrapped where a copy isn't what was kept, or can't be read.
	ErrDamaged = errors.New("retained copy is damaged")
	// ErrRemoved is wrapped where a copy was there, and was removed meanwhile.
	ErrRemoved = errors.New("retained copy was removed")
	// ErrClosed is wrapped after Close.
	ErrClosed = errors.New("retained copies are closed")
)

// WayBack is how the way back of an agency stands.
type WayBack uint8

const (
	// WayBackUnknown: nothing is known of the agency. No copy is made, and none is removed.
	WayBackUnknown WayBack = iota
	// WayBackNone: the agency is on its source, or closed. No copy is made, and none is removed:
	// after a rollback they are what recall may still need.
	WayBackNone
	// WayBackOpen: it is on its target and can go back. Copies are made.
	WayBackOpen
	// WayBackOver: it is finalised. Copies are removed.
	WayBackOver
)

// Defaults of [Options].
const (
	DefaultAgencyBytes  = 20 << 30
	DefaultTotalBytes   = 100 << 30
	DefaultSegmentBytes = 64 << 20
	DefaultPatience     = 2 * time.Second
)

// mostOrdered is how many orders may wait for the writer, each with a chunk at most.
const mostOrdered = 64

// segmentAge is when a segment ends though it isn't full, so that age can remove it.
const segmentAge = 24 * time.Hour

// Options say where copies are and how many are kept.
type Options struct {
	Disk durable.Disk // nil: the machine's
	Dir  string       // of the copies alone; made if it isn't there

	AgencyBytes  int64         // most of one agency, on the disk; 0: [DefaultAgencyBytes]
	TotalBytes   int64         // most of all; 0: [DefaultTotalBytes]
	MaxAge       time.Duration // of a segment's last copy; 0: none is too old
	SegmentBytes int64         // a segment ends at this size; 0: [DefaultSegmentBytes], or an eighth of AgencyBytes if that is less

	Uncompressed bool       // bodies are kept as they are
	Keys         *seal.Keys // nil: nothing is encrypted

	// WayBack says how the way back of an agency stands now; it must not block. nil: open.
	WayBack func(routing.AgencyID) WayBack
	// Patience is how long a message waits for a copy at most. 0: [DefaultPatience]
	Patience time.Duration
	// Space returns how many bytes the disk has free, and in all. nil: the disk of Dir is asked
	// if Disk is the machine's.
	Space func() (free, size int64, err error)

	Removed func(Removal) // is told of each removal, after it; may be nil. It must not call the Store
	Logger  *slog.Logger  // nil: none
	Now     func() time.Time
}

// Store has the retained copies of this node. Use [Open].
type Store struct {
	o         Options
	folder    *durable.Folder
	encoder   *zstd.Encoder // nil: bodies are kept as they are
	decoder   *zstd.Decoder
	allowance *allowance // for compressing
	chunks    sync.Pool  // of *[]byte

	ops     chan *op
	stop    chan struct{}
	wake    chan struct{} // for who fsyncs: a segment has ended, or much of one was written
	written chan struct{} // closed when nothing is written any more
	done    sync.WaitGroup
	closing sync.Once
	passing atomic.Int64 // messages of which a copy is being made, and not ordered yet
	stalled atomic.Bool  // the disk hasn't answered in time, and not since
	retry   atomic.Int64 // nothing is kept before, unix nanoseconds: the disk has just refused

	mu       sync.Mutex
	agencies map[routing.AgencyID]*agency
	counts   counts
	removals *removals
	ended    []*writing // not fsynced and closed yet

	// These are the writer's alone.
	room     room
	kept     []*op      // that wait for the next write
	writings []*writing // of all agencies; altered under mu
}

// counts are those of [Status]. Guarded by mu.
type counts struct {
	kept, failed, damaged uint64
	failedOf              map[routing.AgencyID]uint64
	err                   error
	since                 time.Time
}

// Open opens the copies in a folder. What can't be read is counted and passed over.
func Open(o Options) (*Store, error) {
	if o.Disk == nil {
		o.Disk = durable.OS{}
	}
	o.AgencyBytes = cmp.Or(o.AgencyBytes, DefaultAgencyBytes)
	o.TotalBytes = cmp.Or(o.TotalBytes, DefaultTotalBytes)
	o.SegmentBytes = cmp.Or(o.SegmentBytes, min(DefaultSegmentBytes, o.AgencyBytes/8))
	o.Patience = cmp.Or(o.Patience, DefaultPatience)
	if o.WayBack == nil {
		o.WayBack = func(routing.AgencyID) WayBack { return WayBackOpen }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Space == nil {
		o.Space = ownSpace(&o)
	}
	folder, err := durable.Open(o.Disk, o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open retained copies: %w", err)
	}
	s := &Store{
		o: o, folder: folder, agencies: make(map[routing.AgencyID]*agency),
		ops: make(chan *op, mostOrdered), stop: make(chan struct{}), wake: make(chan struct{}, 1), written: make(chan struct{}), allowance: newAllowance(),
	}
	s.counts.failedOf = make(map[routing.AgencyID]uint64)
	if s.decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(4*chunkBytes)); err != nil {
		return nil, fmt.Errorf("open retained copies: %w", err)
	}
	if !o.Uncompressed {
		s.encoder, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)),
			zstd.WithWindowSize(chunkBytes), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return nil, fmt.Errorf("open retained copies: %w", err)
		}
	}
	if err := s.recover(); err != nil {
		return nil, fmt.Errorf("open retained copies in %s: %w", o.Dir, err)
	}
	s.done.Go(s.write)
	s.done.Go(s.keepSynced)
	return s, nil
}

// Close ends the segments that are written, fsyncs them, and ends the goroutines. Copies that
// come later aren't kept.
func (s *Store) Close() error {
	s.closing.Do(func() { close(s.stop) })
	s.done.Wait()
	s.stalled.Store(true)
	s.decoder.Close()
	if s.encoder != nil {
		_ = s.encoder.Close()
	}
	return nil
}
