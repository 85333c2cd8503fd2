// Package memdisk is a file system in memory that forgets what was not fsynced, for
// tests of code that writes through durable.Disk.
//
// It is as unkind as POSIX allows: the bytes of a file are safe only after its Sync, and
// that a name exists, points to another file, or is gone, only after SyncDir of its
// directory. [Disk.Crash] ends every further operation; [Disk.Restart] returns what a
// machine finds afterwards, in one of several [Loss]es. Operations are counted, so
// that a test can crash after each of them, and [Disk.Fail] makes chosen ones fail.
//
// A Disk is safe for concurrent use.
package memdisk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"mailcutover/internal/durable"
)

// ErrCrashed is what every operation returns after the crash.
var ErrCrashed = errors.New("the machine has crashed")

// Op is a kind of operation that changes something.
type Op string

// The operations that count.
const (
	OpCreate  Op = "create"
	OpWrite   Op = "write"
	OpSync    Op = "sync"
	OpRename  Op = "rename"
	OpRemove  Op = "remove"
	OpMakeDir Op = "mkdir"
	OpSyncDir Op = "syncdir"
	OpCut     Op = "truncate"
)

// Loss says what a crash takes with it, of all that was not fsynced.
type Loss uint8

const (
	LoseAll     Loss = iota // bytes and names: a power cut at its worst
	LoseNothing             // a killed process: the kernel still has everything, but no more of it is safe
	LoseBytes               // names are there, the bytes are not: files are short or empty
	LoseNames               // bytes are there, but under no name, or the old one
	LoseHalf                // half of the unsynced bytes of each file, all names: a torn write
	LoseFirst               // zeros for the first half of the unsynced bytes of each file, every second unsynced change of a name: no order is kept
	LoseSecond              // all bytes, and the other changes of names
)

// Losses lists them all.
func Losses() []Loss {
	return []Loss{LoseAll, LoseNothing, LoseBytes, LoseNames, LoseHalf, LoseFirst, LoseSecond}
}

// String names l.
func (l Loss) String() string {
	return [...]string{"lose-all", "lose-nothing", "lose-bytes", "lose-names", "lose-half", "lose-first", "lose-second"}[l]
}

// node is a file or a directory.
type node struct {
	dir bool

	data   []byte // of a file
	synced int    // how many bytes of data are on the disk
	onDisk []byte // what Truncate cut off of them, until the next Sync

	names map[string]*node // of a directory
	safe  map[string]*node // as on the disk
}

func newDir() *node { return &node{dir: true, names: map[string]*node{}, safe: map[string]*node{}} }

// Disk is a file system. Use [New].
type Disk struct {
	mu      sync.Mutex
	root    *node
	ops     int
	written int
	crashAt int // operation before which the crash comes; 0: none
	crashed bool
	fail    func(op Op, path string) error
}

var _ durable.Disk = (*Disk)(nil)

// New returns an empty disk.
func New() *Disk { return &Disk{root: newDir()} }

// CrashBefore makes the n-th operation from now on, counted from 1, the first that no
// longer happens.
func (d *Disk) CrashBefore(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.crashAt = d.ops + n
}

// Crash makes every further operation fail with [ErrCrashed].
func (d *Disk) Crash() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.crashed = true
}

// Crashed reports whether the crash has come.
func (d *Disk) Crashed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.crashed
}

// Operations returns how many operations have happened.
func (d *Disk) Operations() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// Fail makes operations fail for which f returns an error; nil ends that. A write that
// fails writes half of its bytes; a sync that fails leaves the bytes unsynced for ever,
// as Linux does, which marks the pages clean.
func (d *Disk) Fail(f func(op Op, path string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = f
}

// Restart returns the disk as it is found after a crash now. The old one stays as it is,
// so that each [Loss] of one moment can be looked at.
func (d *Disk) Restart(loss Loss) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &Disk{root: survive(d.root, loss, map[*node]*node{})}
}

// survive copies what is left of a node; done keeps hard facts: one node, one copy.
func survive(n *node, loss Loss, done map[*node]*node) *node {
	if c := done[n]; c != nil {
		return c
	}
	if !n.dir {
		c := &node{data: n.survive(loss)}
		c.synced = len(c.data)
		if loss == LoseNothing { // nor is it safer than it was
			c.synced, c.onDisk = n.synced, slices.Clone(n.onDisk)
		}
		done[n] = c
		return c
	}
	c := newDir()
	done[n] = c
	names := n.names
	switch loss {
	case LoseAll, LoseNames:
		names = n.safe
	case LoseFirst:
		names = everySecond(n.names, n.safe, true)
	case LoseSecond:
		names = everySecond(n.names, n.safe, false)
	}
	for name, child := range names {
		kept := survive(child, loss, done)
		c.names[name], c.safe[name] = kept, kept
	}
	if loss == LoseNothing {
		clear(c.safe)
		for name, child := range n.safe {
			c.safe[name] = survive(child, loss, done)
		}
	}
	return c
}

// survive returns what is left of a file's bytes.
func (n *node) survive(loss Loss) []byte {
	sure := slices.Concat(n.data[:n.synced], n.onDisk)
	switch loss {
	case LoseNothing, LoseNames, LoseSecond:
		return slices.Clone(n.data)
	case LoseHalf:
		if n.onDisk != nil {
			return sure
		}
		return slices.Clone(n.data[:n.synced+(len(n.data)-n.synced)/2])
	case LoseFirst:
		b := slices.Clone(n.data)
		clear(b[n.synced : n.synced+(len(b)-n.synced+1)/2])
		return b
	default:
		return sure
	}
}

// everySecond returns safe with every second of the changes that make it now; take tells
// whether the first is one of them.
func everySecond(now, safe map[string]*node, take bool) map[string]*node {
	some := maps.Clone(safe)
	changed := map[string]bool{}
	for name, n := range now {
		changed[name] = safe[name] != n
	}
	for name, n := range safe {
		changed[name] = now[name] != n
	}
	for _, name := range slices.Sorted(maps.Keys(changed)) {
		if !changed[name] {
			continue
		}
		if n := now[name]; !take {
		} else if n != nil {
			some[name] = n
		} else {
			delete(some, name)
		}
		take = !take
	}
	return some
}

// Change puts other bytes into a file, durably, as a broken disk or a human does; nil
// removes it. The directory must be there.
func (d *Disk) Change(path string, b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, name, err := d.parent(path)
	if err != nil {
		panic(err)
	}
	if b == nil {
		delete(dir.names, name)
		delete(dir.safe, name)
		return
	}
	n := &node{data: slices.Clone(b), synced: len(b)}
	dir.names[name], dir.safe[name] = n, n
}

// Flip inverts a bit of a file, as a bad disk does.
func (d *Disk) Flip(path string, at int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(path)
	if err != nil || n.dir || at >= len(n.data) {
		return fmt.Errorf("flip a bit of %s: %w", path, fs.ErrNotExist)
	}
	n.data[at] ^= 1 << (at % 8)
	return nil
}

// Written returns how many bytes were written so far.
func (d *Disk) Written() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.written
}

// Files returns the bytes of all files, by path.
func (d *Disk) Files() map[string][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := map[string][]byte{}
	var walk func(path string, n *node)
	walk = func(path string, n *node) {
		for name, child := range n.names {
			if p := path + "/" + name; child.dir {
				walk(p, child)
			} else {
				all[p] = slices.Clone(child.data)
			}
		}
	}
	walk("", d.root)
	return all
}

// FailAfter makes every operation fail with err after n more of them.
func (d *Disk) FailAfter(n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	last := d.ops + n
	d.fail = func(Op, string) error {
		if d.ops > last {
			return err
		}
		return nil
	}
}

// begin counts an operation and says whether it may happen. d.mu is held.
func (d *Disk) begin(op Op, path string) error {
	if !d.crashed && d.crashAt > 0 && d.ops+1 >= d.crashAt {
		d.crashed = true
	}
	if d.crashed {
		return ErrCrashed
	}
	d.ops++
	if d.fail != nil {
		return d.fail(op, path)
	}
	return nil
}

func split(path string) []string {
	return strings.FieldsFunc(filepath.Clean(path), func(r rune) bool { return r == '/' })
}

// find returns the node at path. d.mu is held.
func (d *Disk) find(path string) (*node, error) {
	n := d.root
	for _, name := range split(path) {
		if !n.dir || n.names[name] == nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		n = n.names[name]
	}
	return n, nil
}

// parent returns the directory that path lies in, and its name there. d.mu is held.
func (d *Disk) parent(path string) (*node, string, error) {
	dir, name := filepath.Split(filepath.Clean(path))
	n, err := d.find(dir)
	if err != nil {
		return nil, "", err
	}
	if !n.dir {
		return nil, "", &fs.PathError{Op: "open", Path: dir, Err: errors.New("not a directory")}
	}
	return n, name, nil
}

// Create implements [durable.Disk].
func (d *Disk) Create(path string) (durable.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(OpCreate, path); err != nil {
		return nil, err
	}
	dir, name, err := d.parent(path)
	if err != nil {
		return nil, err
	}
	if dir.names[name] != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	n := &node{}
	dir.names[name] = n
	return &file{disk: d, node: n, path: path}, nil
}

// Open implements [durable.Disk].
func (d *Disk) Open(path string) (io.ReadCloser, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.crashed {
		return nil, ErrCrashed
	}
	n, err := d.find(path)
	if err != nil {
		return nil, err
	}
	if n.dir {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("is a directory")}
	}
	return io.NopCloser(bytes.NewReader(slices.Clone(n.data))), nil
}

// OpenAt implements [durable.Disk].
func (d *Disk) OpenAt(path string) (durable.Random, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.crashed {
		return nil, ErrCrashed
	}
	n, err := d.find(path)
	if err != nil {
		return nil, err
	}
	if n.dir {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("is a directory")}
	}
	return &random{disk: d, node: n, path: path}, nil
}

// random is a file that is being read.
type random struct {
	disk *Disk
	node *node
	path string
}

// ReadAt implements [durable.Random].
func (r *random) ReadAt(p []byte, off int64) (int, error) {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	if r.disk.crashed {
		return 0, ErrCrashed
	}
	if off >= int64(len(r.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, r.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Size implements [durable.Random].
func (r *random) Size() (int64, error) {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	return int64(len(r.node.data)), nil
}

// Sync implements [durable.Random].
func (r *random) Sync() error {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	if err := r.disk.begin(OpSync, r.path); err != nil {
		return err
	}
	r.node.synced, r.node.onDisk = len(r.node.data), nil
	return nil
}

// Close implements [durable.Random].
func (r *random) Close() error { return nil }

// Rename implements [durable.Disk].
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(OpRename, to); err != nil {
		return err
	}
	a, nameA, err := d.parent(from)
	if err != nil {
		return err
	}
	b, nameB, err := d.parent(to)
	if err != nil {
		return err
	}
	n := a.names[nameA]
	if n == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	delete(a.names, nameA)
	b.names[nameB] = n
	return nil
}

// Remove implements [durable.Disk].
func (d *Disk) Remove(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(OpRemove, path); err != nil {
		return err
	}
	dir, name, err := d.parent(path)
	if err != nil {
		return err
	}
	n := dir.names[name]
	if n == nil {
		return &fs.PathError{Op: "remove", Path: path, Err: fs.ErrNotExist}
	}
	if n.dir && len(n.names) > 0 {
		return &fs.PathError{Op: "remove", Path: path, Err: errors.New("directory not empty")}
	}
	delete(dir.names, name)
	return nil
}

// Names implements [durable.Disk].
func (d *Disk) Names(path string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.crashed {
		return nil, ErrCrashed
	}
	n, err := d.find(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for name, child := range n.names {
		if !child.dir {
			names = append(names, name)
		}
	}
	return names, nil
}

// MakeDir implements [durable.Disk].
func (d *Disk) MakeDir(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n, err := d.find(path); err == nil && n.dir {
		return nil
	}
	if err := d.begin(OpMakeDir, path); err != nil {
		return err
	}
	n := d.root
	for _, name := range split(path) {
		if n.names[name] == nil {
			n.names[name] = newDir()
		}
		if n = n.names[name]; !n.dir {
			return &fs.PathError{Op: "mkdir", Path: path, Err: fs.ErrExist}
		}
	}
	return nil
}

// SyncDir implements [durable.Disk].
func (d *Disk) SyncDir(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.begin(OpSyncDir, path); err != nil {
		return err
	}
	n, err := d.find(path)
	if err != nil {
		return err
	}
	n.safe = maps.Clone(n.names)
	return nil
}

// file is a file that is being written.
type file struct {
	disk   *Disk
	node   *node
	path   string
	lost   bool // a sync failed: what was written before is never safe
	closed bool
}

// Write implements [durable.File].
func (f *file) Write(p []byte) (int, error) {
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if f.closed {
		return 0, fs.ErrClosed
	}
	if err := d.begin(OpWrite, f.path); err != nil {
		if errors.Is(err, ErrCrashed) {
			return 0, err
		}
		f.node.data = append(f.node.data, p[:len(p)/2]...)
		d.written += len(p) / 2
		return len(p) / 2, err
	}
	f.node.data = append(f.node.data, p...)
	d.written += len(p)
	return len(p), nil
}

// WriteString implements [durable.File].
func (f *file) WriteString(s string) (int, error) { return f.Write([]byte(s)) }

// Sync implements [durable.File].
func (f *file) Sync() error {
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if f.closed {
		return fs.ErrClosed
	}
	if err := d.begin(OpSync, f.path); err != nil {
		f.lost = f.lost || !errors.Is(err, ErrCrashed)
		return err
	}
	if !f.lost {
		f.node.synced, f.node.onDisk = len(f.node.data), nil
	}
	return nil
}

// Truncate implements [durable.File].
func (f *file) Truncate(size int64) error {
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if f.closed {
		return fs.ErrClosed
	}
	if err := d.begin(OpCut, f.path); err != nil {
		return err
	}
	n := f.node
	if int(size) < n.synced {
		n.onDisk = slices.Concat(n.data[size:n.synced], n.onDisk)
		n.synced = int(size)
	}
	n.data = n.data[:size]
	return nil
}

// Close implements [durable.File].
func (f *file) Close() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.closed {
		return fs.ErrClosed
	}
	f.closed = true
	return nil
}
