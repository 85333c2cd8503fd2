package ledger

import (
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"sync"
	"time"

	"mailcutover/internal/durable"
)

// Errors of [Ledger.Intend].
var (
	// ErrUnavailable is wrapped while the disk takes no writes, with its error.
	ErrUnavailable = errors.New("ledger can't be written")
	// ErrClosed is wrapped after Close.
	ErrClosed = errors.New("ledger is closed")
	// ErrTooManyRecipients is wrapped for more than [MaxRecipients].
	ErrTooManyRecipients = errors.New("too many recipients for one intent")
)

// Defaults of [Options].
const (
	DefaultSegmentBytes = 16 << 20
	DefaultSegmentAge   = 24 * time.Hour
	DefaultSyncEvery    = time.Second
	DefaultDoubtFor     = 15 * time.Minute
)

// maxSegmentBytes keeps offsets within what an index holds.
const maxSegmentBytes = 1 << 30

// Options say where a ledger is and how much is kept.
type Options struct {
	Disk durable.Disk // nil: the machine's
	Dir  string       // of this ledger alone; made if it isn't there
	Boot string       // another one once what was not fsynced may be gone, see [BootID]; empty: not known, each start without a Close before it is taken for one after a power cut

	SegmentBytes int64         // a segment ends at this size; 0: [DefaultSegmentBytes]
	SegmentAge   time.Duration // and at this age, if anything is in it; 0: [DefaultSegmentAge]
	MaxAge       time.Duration // segments whose last record is older are removed; 0: none is
	MaxBytes     int64         // the oldest segments beyond are removed, never the one that is written; 0: no bound

	SyncEvery time.Duration // between fsyncs while there is mail; 0: [DefaultSyncEvery]
	// DoubtFor is how long what is in doubt may still arrive: the longest connection limit
	// of the platforms. Starts report it until the ledger was open for this long
	// (docs/architecture/switch.md, node rule 8). 0: [DefaultDoubtFor]
	DoubtFor time.Duration

	// HashKey turns addresses into keyed hashes; nil: they are written in clear. With
	// another key what was written before isn't found by address any more.
	HashKey []byte

	Removed func(Removal)    // is told of each segment that was removed for its age or the size of the whole; may be nil
	Logger  *slog.Logger     // nil: none
	Now     func() time.Time // nil: time.Now
}

// Ledger is the record of deliveries in one folder. It belongs to one process.
type Ledger struct {
	o      Options
	folder *durable.Folder
	mac    hash.Hash // guarded by mu; nil: addresses are in clear

	// writing is held while bytes go to the file. It is taken before mu, never within.
	writing sync.Mutex
	file    durable.File // of the segment fileOf; nil: none
	fileOf  uint64
	bad     bool // a write to file failed: nothing is appended any more

	mu      sync.Mutex
	closed  bool
	segment *segment // that records are added to; nil: one has to be begun
	last    uint64   // highest number of a segment ever seen
	queue   []*batch // not written yet, in order
	spare   []*batch // to be used again
	open    entries  // intents that a new segment has to carry
	unused  *entry   // to be used again
	tickets uint64
	trouble trouble
	written uint64 // records added, so that an idle ledger isn't fsynced
	counts  Counts

	sealed    []sealed            // files that are to be fsynced and closed
	segments  map[uint64]*Segment // all but the one that is written
	dirty     bool                // a file was created since the directory was fsynced
	synced    time.Time           // of the last mark
	syncErr   error
	syncSince time.Time

	aside        []string // unreadable files
	doubts       []Intent // found at the start
	unknown      bool
	since        time.Time // start of what is unknown
	unknownUntil time.Time // segments say so until then; zero: they don't

	stop chan struct{}
	done sync.WaitGroup
}

// segment is the one that is written.
type segment struct {
	encoder
	size    int64
	limit   int64
	begun   time.Time
	records int // besides what was carried
}

// sealed is a file that nothing is appended to any more.
type sealed struct {
	file   durable.File
	number uint64
}

// trouble is a failure of the disk.
type trouble struct {
	err   error
	since time.Time
	retry time.Time // not before
}

// Open opens the ledger, finds out what is in doubt, and begins a new segment. What can't
// be read is set aside; a disk that can't be written makes Intend fail, not Open, as long
// as the folder is there.
func Open(o Options) (*Ledger, error) {
	l, err := open(o)
	if err != nil {
		return nil, err
	}
	l.done.Go(l.run)
	return l, nil
}

// open is Open without the goroutine.
func open(o Options) (*Ledger, error) {
	if o.Disk == nil {
		o.Disk = durable.OS{}
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	o.SegmentBytes = min(o.SegmentBytes, maxSegmentBytes)
	if o.SegmentAge <= 0 {
		o.SegmentAge = DefaultSegmentAge
	}
	if o.SyncEvery <= 0 {
		o.SyncEvery = DefaultSyncEvery
	}
	if o.DoubtFor <= 0 {
		o.DoubtFor = DefaultDoubtFor
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	folder, err := durable.Open(o.Disk, o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &Ledger{o: o, folder: folder, mac: newMAC(o.HashKey), segments: map[uint64]*Segment{}, stop: make(chan struct{})}
	if err := l.recover(); err != nil {
		return nil, fmt.Errorf("open ledger %s: %w", o.Dir, err)
	}
	l.mu.Lock()
	l.begin(o.Now())
	b := l.batch()
	l.mu.Unlock()
	// Durable before the first intent: else a power cut in the first second would leave the
	// ledger as it was closed, or none, and nobody would know that there was one since. A
	// disk that takes no writes is Intend's to tell.
	if l.flush(b) == nil {
		_ = l.sync(kindMark)
	}
	return l, nil
}

// Close writes what is left, fsyncs, and ends the ledger's goroutine. Intents without an
// outcome stay open, and are in doubt at the next start.
func (l *Ledger) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	close(l.stop)
	l.done.Wait()
	return l.finish()
}

// InDoubt returns the intents that the start found without an outcome, or in doubt for less
// than Options.DoubtFor of running time: possible duplicates. They are reported until the
// ledger was open for that long. The slice is the caller's.
func (l *Ledger) InDoubt() []Intent {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Intent(nil), l.doubts...)
}

// Unknown reports whether the start found that records may be missing: the machine lost
// power, or the end of the ledger couldn't be read. Then all that was under way since that
// time, besides [Ledger.InDoubt], is in doubt; a zero time means that nothing is known.
// The next starts report it, too, within Options.DoubtFor.
func (l *Ledger) Unknown() (since time.Time, unknown bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.since, l.unknown
}
