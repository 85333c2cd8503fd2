package localtable

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"mailcutover/internal/durable"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Defaults of [Options].
const (
	DefaultLockTimeout = time.Second
	DefaultLogLength   = 100_000
)

// format is that of the file. A program refuses files of a newer one.
const format = 2

// Options of [Open]. The zero value is usable.
type Options struct {
	// LockTimeout is how long Open waits for another process to release the file; 0
	// means DefaultLockTimeout.
	LockTimeout time.Duration

	// LogLength is the number of changes that the log keeps; 0 means DefaultLogLength.
	// Who follows from further back gets table.ErrGap.
	LogLength int
}

// Table is an open state table.
type Table struct {
	path      string
	db        *bolt.DB
	logLength int
	keptIDs   int

	keptOperations int

	turn   chan struct{} // holds a token while somebody writes
	closed chan struct{}

	mu      sync.Mutex
	changed chan struct{} // closed and replaced after each change; mu
	ended   bool          // mu
	calls   sync.WaitGroup

	checked atomic.Pointer[version] // that the last check saw; nil: none
}

var (
	bucketMeta    = []byte("meta")
	bucketAgency  = []byte("agency")
	bucketDomain  = []byte("domain")
	bucketFixed   = []byte("fixed")
	bucketMapping = []byte("mapping")
	bucketLog     = []byte("log")
	bucketApplied = []byte("applied")
	bucketIDAt    = []byte("id_at")

	bucketOperation = []byte("operation")
	bucketEnded     = []byte("ended") // ids of operations by the revision at which they ended
	bucketFreeze    = []byte("freeze")
	bucketDocument  = []byte("document")

	buckets = [][]byte{bucketMeta, bucketAgency, bucketDomain, bucketFixed, bucketMapping, bucketLog, bucketApplied, bucketIDAt,
		bucketOperation, bucketEnded, bucketFreeze, bucketDocument}

	keyFormat      = []byte("format")
	keyIncarnation = []byte("incarnation")
	keyRevision    = []byte("revision")
	keyMapped      = []byte("mapped")
	keyTerm        = []byte("term")
	keyBook        = []byte("book") // a table.Book
)

// Open opens the table in the file at path, and makes the file if there is none. The
// directory must exist: a forgotten mount must not become an empty table unnoticed.
func Open(path string, o Options) (*Table, error) {
	if o.LockTimeout == 0 {
		o.LockTimeout = DefaultLockTimeout
	}
	if o.LogLength == 0 {
		o.LogLength = DefaultLogLength
	}
	if o.LogLength < 1 || o.LockTimeout < 0 {
		return nil, fmt.Errorf("open table %s: log length %d, lock timeout %v: want more than 0", path, o.LogLength, o.LockTimeout)
	}
	t := &Table{
		path: path, logLength: o.LogLength, keptIDs: table.KeptIDs, keptOperations: table.KeptOperations,
		turn: make(chan struct{}, 1), closed: make(chan struct{}), changed: make(chan struct{}),
	}
	_, statErr := os.Stat(path)
	var file *os.File
	if err := guard(func() error { return t.open(o.LockTimeout, &file) }); err != nil {
		if t.db != nil {
			t.db.Close()
		}
		file.Close() // bbolt keeps it, and the lock, when it panics
		return nil, fmt.Errorf("open table %s: %w", path, err)
	}
	if errors.Is(statErr, os.ErrNotExist) {
		if err := (durable.OS{}).SyncDir(filepath.Dir(path)); err != nil {
			t.db.Close()
			return nil, fmt.Errorf("open table %s: %w", path, err)
		}
	}
	return t, nil
}

func (t *Table) open(lockTimeout time.Duration, file **os.File) (err error) {
	t.db, err = bolt.Open(t.path, 0o600, &bolt.Options{
		Timeout: lockTimeout, FreelistType: bolt.FreelistMapType,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(name, flag, mode)
			*file = f
			return f, err
		},
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("in use by %s", holder(t.path))
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch), errors.Is(err, bolterrors.ErrChecksum):
		return fmt.Errorf("no table, or damaged: %w", err)
	case err != nil:
		return err
	}
	fresh := false
	err = t.db.View(func(tx *bolt.Tx) error {
		if info, err := os.Stat(t.path); err != nil {
			return err
		} else if info.Size() < tx.Size() {
			return fmt.Errorf("damaged: the file has %d bytes of %d", info.Size(), tx.Size())
		}
		name, _ := tx.Cursor().First()
		if fresh = name == nil; fresh {
			return nil
		}
		return checkFormat(tx)
	})
	if err == nil && fresh {
		err = t.db.Update(makeBuckets)
	}
	return err
}

func checkFormat(tx *bolt.Tx) error {
	meta := tx.Bucket(bucketMeta)
	if meta == nil || meta.Get(keyFormat) == nil {
		return errors.New("a database of something else")
	}
	if f, err := strconv.Atoi(string(meta.Get(keyFormat))); err != nil || f != format {
		return fmt.Errorf("its format is %q, this program knows %d", meta.Get(keyFormat), format)
	}
	for _, name := range buckets {
		if tx.Bucket(name) == nil {
			return fmt.Errorf("damaged: no bucket %s", name)
		}
	}
	return nil
}

func makeBuckets(tx *bolt.Tx) error {
	for _, name := range buckets {
		if _, err := tx.CreateBucket(name); err != nil {
			return fmt.Errorf("make bucket %s: %w", name, err)
		}
	}
	return tx.Bucket(bucketMeta).Put(keyFormat, []byte(strconv.Itoa(format)))
}

// guard turns what bbolt does about a damaged file, a panic or a read beyond the file's
// end, into an error.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("damaged: %v", r)
		}
	}()
	return f()
}

// Close implements table.Table. It waits for calls under way.
func (t *Table) Close() error {
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		return nil
	}
	t.ended = true
	close(t.closed)
	t.mu.Unlock()
	t.calls.Wait()
	if err := t.db.Close(); err != nil {
		return fmt.Errorf("close table %s: %w", t.path, err)
	}
	return nil
}

// begin announces a call; its end must be announced by t.calls.Done.
func (t *Table) begin() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return fmt.Errorf("%w: %s is closed", table.ErrUnavailable, t.path)
	}
	t.calls.Add(1)
	return nil
}

// view runs f on one revision of the table.
func (t *Table) view(ctx context.Context, f func(tx *bolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", table.ErrUnavailable, err)
	}
	if err := t.begin(); err != nil {
		return err
	}
	defer t.calls.Done()
	return translate(guard(func() error { return t.db.View(f) }))
}

// update runs f alone and writes what it did, as a whole and with fsync.
func (t *Table) update(ctx context.Context, f func(tx *bolt.Tx) error) error {
	if err := t.begin(); err != nil {
		return err
	}
	defer t.calls.Done()
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", table.ErrUnavailable, ctx.Err())
	case <-t.closed:
		return fmt.Errorf("%w: %s is closed", table.ErrUnavailable, t.path)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", table.ErrUnavailable, err)
	}
	return translate(guard(func() error { return t.db.Update(f) }))
}

// translate makes everything that isn't one of the contract's errors ErrUnavailable.
func translate(err error) error {
	if err == nil || table.Known(err) {
		return err
	}
	return fmt.Errorf("%w: %w", table.ErrUnavailable, err)
}

// Init implements table.Table.
func (t *Table) Init(ctx context.Context) (routing.Position, error) {
	var pos routing.Position
	err := t.update(ctx, func(tx *bolt.Tx) error {
		var err error
		pos, err = position(tx)
		if !errors.Is(err, table.ErrEmpty) {
			return err
		}
		pos = routing.Position{Incarnation: routing.Incarnation(uuid.NewString()), Revision: 1, Mapped: 1, Term: 1}
		if err := tx.Bucket(bucketMeta).Put(keyIncarnation, []byte(pos.Incarnation)); err != nil {
			return err
		}
		now := t.now()
		return t.record(tx, now, table.NewBook(pos, table.Server{}, now), &table.Change{ID: "init", What: "init"})
	})
	if err != nil {
		return routing.Position{}, fmt.Errorf("init table %s: %w", t.path, err)
	}
	t.broadcast()
	return pos, nil
}

// Position implements table.Table.
func (t *Table) Position(ctx context.Context) (routing.Position, error) {
	var pos routing.Position
	err := t.view(ctx, func(tx *bolt.Tx) (err error) {
		pos, err = position(tx)
		return err
	})
	if err != nil {
		return routing.Position{}, fmt.Errorf("position of table %s: %w", t.path, err)
	}
	return pos, nil
}

// Snapshot implements table.Table.
func (t *Table) Snapshot(ctx context.Context) (routing.Update, error) {
	var u routing.Update
	err := t.view(ctx, func(tx *bolt.Tx) (err error) {
		if u.Position, err = position(tx); err != nil {
			return err
		}
		if u.Agencies, err = all[routing.Agency](tx, bucketAgency); err != nil {
			return err
		}
		if u.Domains, err = all[routing.Domain](tx, bucketDomain); err != nil {
			return err
		}
		if u.Fixed, err = all[routing.Fixed](tx, bucketFixed); err != nil {
			return err
		}
		return nodeRecords(tx, &u)
	})
	if err != nil {
		return routing.Update{}, fmt.Errorf("snapshot of table %s: %w", t.path, err)
	}
	return u, nil
}

// Confirm implements table.Table: what was acknowledged is on disk already, and there are
// no replicas.
func (t *Table) Confirm(ctx context.Context) error {
	if err := t.view(ctx, func(*bolt.Tx) error { return nil }); err != nil {
		return fmt.Errorf("confirm table %s: %w", t.path, err)
	}
	return nil
}

// position reads where the table stands.
func position(tx *bolt.Tx) (routing.Position, error) {
	meta := tx.Bucket(bucketMeta)
	inc := meta.Get(keyIncarnation)
	if inc == nil {
		return routing.Position{}, table.ErrEmpty
	}
	rev, mapped, term := meta.Get(keyRevision), meta.Get(keyMapped), meta.Get(keyTerm)
	if len(rev) != 8 || len(mapped) != 8 || len(term) != 4 {
		return routing.Position{}, errors.New("damaged: its revision can't be read")
	}
	return routing.Position{
		Incarnation: routing.Incarnation(inc),
		Revision:    routing.Revision(binary.BigEndian.Uint64(rev)),
		Mapped:      routing.Revision(binary.BigEndian.Uint64(mapped)),
		Term:        binary.BigEndian.Uint32(term),
	}, nil
}

func revisionKey(r routing.Revision) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(r))
}
