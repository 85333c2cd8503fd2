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
	"errors"
	"io/fs"
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

// node is a file or a directory.
type node struct {
	dir bool

	data   []byte // of a file
	synced int    // how many bytes of data are on the disk
	onDisk []byte // what Truncate cut off of them, until the next Sync
	room   bool   // behind data is room, as long as the file is open

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

var (
	_ durable.Disk     = (*Disk)(nil)
	_ durable.Appender = (*Disk)(nil)
)

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
