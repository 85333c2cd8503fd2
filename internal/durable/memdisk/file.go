package memdisk

import (
	"errors"
	"io"
	"io/fs"
	"slices"
)

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
	f.node.room = false
	return nil
}
