package memdisk

import (
	"bytes"
	"errors"
	"hash/fnv"
	"io"
	"io/fs"
	"maps"
	"slices"

	"mailcutover/internal/durable"
)

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

// CreateAppended implements [durable.Appender].
func (d *Disk) CreateAppended(path string) (durable.File, error) {
	f, err := d.Create(path)
	if err == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		f.(*file).node.room = true
	}
	return f, err
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

// Stamp implements [durable.Disk].
func (d *Disk) Stamp(path string) (durable.Stamp, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.crashed {
		return durable.Stamp{}, ErrCrashed
	}
	n, err := d.find(path)
	if err != nil {
		return durable.Stamp{}, err
	}
	if n.dir {
		return durable.Stamp{}, &fs.PathError{Op: "stat", Path: path, Err: errors.New("is a directory")}
	}
	h := fnv.New64a()
	_, _ = h.Write(n.data) // never fails
	return durable.Stamp{File: h.Sum64(), Size: int64(len(n.data))}, nil
}

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
