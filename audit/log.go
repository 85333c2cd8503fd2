package audit

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"mailcutover/internal/durable"
)

// ErrUnwritten is wrapped by the errors of [Log.Append]: the record isn't durable, and
// what it tells must not be done.
var ErrUnwritten = errors.New("audit record can't be written")

// segmentBytes is the size at which a new file is begun.
const segmentBytes = 16 << 20

// Options are what a log needs.
type Options struct {
	Disk durable.Disk // nil: [durable.OS]
	Dir  string       // of the log alone
	Node string       // whose log it is; a log that has records keeps the name of its first
	Now  func() time.Time
}

// Log is a node's audit log. Use [Open].
type Log struct {
	disk durable.Disk
	dir  string
	node string
	now  func() time.Time

	damage string

	mu      sync.Mutex // also during the write of a record: there is one after the other
	head    Head
	file    durable.File  // nil: the next record begins a new one
	size    int64         // of file
	attempt uint64        // to begin a file with record head.Number+1
	changed chan struct{} // closed and replaced with each record
	closed  bool
}

// Open reads the log in a folder, which is made if it isn't there, to its end. Damage
// doesn't keep it from being opened, see [Log.Damage]: the chain goes on behind the last
// record that is whole.
func Open(o Options) (*Log, error) {
	l := &Log{disk: o.Disk, dir: o.Dir, node: o.Node, now: o.Now, changed: make(chan struct{})}
	if l.disk == nil {
		l.disk = durable.OS{}
	}
	if l.now == nil {
		l.now = time.Now
	}
	if err := l.disk.MakeDir(l.dir); err != nil {
		return nil, fmt.Errorf("make the folder of the audit log: %w", err)
	}
	if err := l.disk.SyncDir(filepath.Dir(l.dir)); err != nil {
		return nil, fmt.Errorf("make the folder of the audit log durable: %w", err)
	}
	report, err := VerifyDir(l.disk, l.dir, nil)
	if _, bad := errors.AsType[*BadRecord](err); bad {
		l.damage = err.Error()
		report.Head, err = l.lastWhole(report.Head)
	}
	if err != nil {
		return nil, err
	}
	l.head = report.Head
	if l.head.Chain == "" {
		l.head = Head{Node: o.Node, Chain: rand.Text()[:16]}
	}
	if err := l.takeOver(); err != nil {
		return nil, err
	}
	return l, nil
}

// Damage says what Open found wrong with the log; empty: nothing. A log whose end was cut
// shows nothing here: compare it with a [Head] from elsewhere, by [Log.Has].
func (l *Log) Damage() string { return l.damage }

// lastWhole returns the last record of a damaged log that is whole in itself.
func (l *Log) lastWhole(head Head) (Head, error) {
	segments, err := list(l.disk, l.dir)
	if err != nil {
		return head, err
	}
	for _, s := range segments {
		file, err := l.disk.Open(filepath.Join(l.dir, s.name))
		if err != nil {
			return head, fmt.Errorf("open the audit log: %w", err)
		}
		for in := bufio.NewReaderSize(file, 64<<10); err == nil; {
			var line []byte
			line, err = readLine(in)
			if r, h, bad := decode(bytes.TrimSuffix(line, []byte("\n"))); bad == nil && err == nil && r.Number >= head.Number {
				head = Head{Node: r.Node, Chain: r.Chain, Number: r.Number, Hash: h}
			}
			if errors.Is(err, errLong) {
				err = nil // somewhere behind it comes the end of a line
			}
		}
		_ = file.Close()
		if err != io.EOF {
			return head, fmt.Errorf("read the audit log %s: %w", s.name, err)
		}
	}
	return head, nil
}

// takeOver makes durable what a killed process left in the kernel, since the next record
// builds on it, and finds a name that no file has for that one to begin.
func (l *Log) takeOver() error {
	segments, err := list(l.disk, l.dir)
	if err != nil {
		return err
	}
	for _, s := range slices.Backward(segments) {
		if s.first == l.head.Number+1 {
			l.attempt = max(l.attempt, s.attempt+1)
			continue
		}
		if err := l.sync(s.name); err != nil {
			return fmt.Errorf("make the audit log %s durable: %w", s.name, err)
		}
		break
	}
	if err := l.disk.SyncDir(l.dir); err != nil {
		return fmt.Errorf("make the audit log durable: %w", err)
	}
	return nil
}

func (l *Log) sync(name string) error {
	file, err := l.disk.OpenAt(filepath.Join(l.dir, name))
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// Append writes an entry, and returns when it is on the disk. An error wraps
// [ErrUnwritten]; then a later call begins a new file.
func (l *Log) Append(e Entry) (Head, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.head, fmt.Errorf("%w: the log is closed", ErrUnwritten)
	}
	r := Record{Number: l.head.Number + 1, Previous: l.head.Hash, Chain: l.head.Chain, Node: l.head.Node, Time: l.now().UTC().Round(0), Entry: e}
	line, hash, err := encode(&r)
	if err != nil {
		return l.head, fmt.Errorf("%w: %w", ErrUnwritten, err)
	}
	if err := l.write(line); err != nil {
		if l.file != nil {
			_ = l.file.Close()
		}
		l.file = nil
		return l.head, fmt.Errorf("%w: %w", ErrUnwritten, err)
	}
	l.head.Number, l.head.Hash = r.Number, hash
	l.attempt = 0
	close(l.changed)
	l.changed = make(chan struct{})
	return l.head, nil
}

func (l *Log) write(line []byte) error {
	fresh := l.file == nil || l.size+int64(len(line)) > segmentBytes
	if fresh {
		if l.file != nil {
			_ = l.file.Close() // all of it is on the disk
			l.file = nil
		}
		name := segmentName(l.head.Number+1, l.attempt)
		l.attempt++
		file, err := l.disk.Create(filepath.Join(l.dir, name))
		if err != nil {
			return err
		}
		l.file, l.size = file, 0
	}
	if _, err := l.file.Write(line); err != nil {
		return err
	}
	l.size += int64(len(line))
	if err := l.file.Sync(); err != nil {
		return err
	}
	if fresh {
		return l.disk.SyncDir(l.dir)
	}
	return nil
}

// Head returns that of the last record.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Changed returns a channel that is closed with the next record.
func (l *Log) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Has returns nil if the log has the record that head names, and nothing is wrong with it
// up to its end; else a [*BadRecord].
func (l *Log) Has(head Head) error {
	_, err := VerifyDir(l.disk, l.dir, nil, head)
	return err
}

// errEnough ends an export at the head of its beginning.
var errEnough = errors.New("enough")

// Export writes the log as it is now, one record in each line, in the form that Verify
// takes, and returns its head. Where the log is damaged, it ends with a [*BadRecord].
func (l *Log) Export(w io.Writer) (Head, error) {
	end := l.Head()
	if end.Number == 0 {
		return end, nil
	}
	report, err := VerifyDir(l.disk, l.dir, func(r *Record, line []byte) error {
		if _, err := w.Write(line); err != nil {
			return fmt.Errorf("export the audit log: %w", err)
		}
		if r.Number == end.Number {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return report.Head, err
}

// Close ends the log; what was appended is on the disk.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if l.file == nil {
		return nil
	}
	file := l.file
	l.file = nil
	return file.Close()
}
