package memdisk

import (
	"fmt"
	"io/fs"
	"slices"
)

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
