// Package durabletest has a file system in memory that loses power.
//
// A [Disk] keeps apart what was written and what is durable: a file's bytes are durable
// after Sync, names after SyncDir. [Disk.PowerCut] returns what a machine finds after its
// start. FailAfter makes calls fail from a given one on, as a full or broken disk does.
// It is for the tests of packages that write through package durable. Safe for concurrent
// use.
package durabletest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"sync"

	"mailcutover/internal/durable"
)

// ErrFailed is what calls answer after FailAfter.
var ErrFailed = errors.New("disk failed")

// Disk is a file system in memory. The zero value is an empty one.
type Disk struct {
	mu      sync.Mutex
	names   map[string]*content // as programs see them
	durable map[string]*content // as after a power cut
	calls   int
	limit   int // calls that succeed; 0: all
	written int
}

type content struct{ now, synced []byte }

// Calls returns how many calls changed something, or tried to.
func (d *Disk) Calls() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls
}

// Written returns how many bytes were written.
func (d *Disk) Written() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.written
}

// FailAfter makes every changing call fail after n more of them; a write that fails
// leaves half of its bytes. A negative n ends that.
func (d *Disk) FailAfter(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit = d.calls + n + 1
	if n < 0 {
		d.limit = 0
	}
}

// PowerCut returns the file system that the machine finds after losing power now: with
// nothing that was not made durable or, if lucky, with all names and half of the bytes.
func (d *Disk) PowerCut(lucky bool) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	after := &Disk{names: map[string]*content{}, durable: map[string]*content{}}
	from := d.durable
	if lucky {
		from = d.names
	}
	for name, c := range from {
		b := c.synced
		if lucky && len(c.now) > len(b) {
			b = c.now[:(len(b)+len(c.now)+1)/2]
		}
		after.names[name] = &content{now: bytes.Clone(b), synced: bytes.Clone(b)}
		after.durable[name] = after.names[name]
	}
	return after
}

// Change puts other bytes into a file, durably, as a broken disk or a human does; nil
// removes it.
func (d *Disk) Change(path string, b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.init()
	if b == nil {
		delete(d.names, path)
		delete(d.durable, path)
		return
	}
	d.names[path] = &content{now: bytes.Clone(b), synced: bytes.Clone(b)}
	d.durable[path] = d.names[path]
}

// Files returns the contents of all files by path.
func (d *Disk) Files() map[string][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := map[string][]byte{}
	for name, c := range d.names {
		all[name] = bytes.Clone(c.now)
	}
	return all
}

func (d *Disk) init() {
	if d.names == nil {
		d.names, d.durable = map[string]*content{}, map[string]*content{}
	}
}

// step counts a changing call. The caller holds mu.
func (d *Disk) step() error {
	d.init()
	d.calls++
	if d.limit > 0 && d.calls >= d.limit {
		return ErrFailed
	}
	return nil
}

// Create implements durable.Disk.
func (d *Disk) Create(path string) (durable.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return nil, err
	}
	if d.names[path] != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	d.names[path] = &content{}
	return &file{d, d.names[path]}, nil
}

// Open implements durable.Disk.
func (d *Disk) Open(path string) (io.ReadCloser, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, ok := d.names[path]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return io.NopCloser(bytes.NewReader(bytes.Clone(c.now))), nil
}

// Rename implements durable.Disk.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	c, ok := d.names[from]
	if !ok {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	delete(d.names, from)
	d.names[to] = c
	return nil
}

// Remove implements durable.Disk.
func (d *Disk) Remove(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	if _, ok := d.names[path]; !ok {
		return &fs.PathError{Op: "remove", Path: path, Err: fs.ErrNotExist}
	}
	delete(d.names, path)
	return nil
}

// Names implements durable.Disk.
func (d *Disk) Names(dir string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for path := range d.names {
		if filepath.Dir(path) == filepath.Clean(dir) {
			names = append(names, filepath.Base(path))
		}
	}
	return names, nil
}

// MakeDir implements durable.Disk; directories are not kept apart.
func (d *Disk) MakeDir(string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.step()
}

// SyncDir implements durable.Disk.
func (d *Disk) SyncDir(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	inDir := func(path string, _ *content) bool { return filepath.Dir(path) == filepath.Clean(dir) }
	maps.DeleteFunc(d.durable, inDir)
	for path, c := range d.names {
		if inDir(path, c) {
			d.durable[path] = c
		}
	}
	return nil
}

type file struct {
	disk *Disk
	c    *content
}

func (f *file) Write(b []byte) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.step(); err != nil {
		f.c.now = append(f.c.now, b[:len(b)/2]...)
		return len(b) / 2, err
	}
	f.disk.written += len(b)
	f.c.now = append(f.c.now, b...)
	return len(b), nil
}

func (f *file) WriteString(s string) (int, error) { return f.Write([]byte(s)) }

func (f *file) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.step(); err != nil {
		return err
	}
	f.c.synced = bytes.Clone(f.c.now)
	return nil
}

func (f *file) Close() error { return nil }
