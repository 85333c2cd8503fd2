//go:build !linux

package durable

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// Stamp implements [Disk]. When a file changed otherwise than in its bytes isn't known
// here.
func (OS) Stamp(path string) (Stamp, error) {
	f, err := os.Open(path)
	if err != nil {
		return Stamp{}, err
	}
	info, err := f.Stat()
	if err = errors.Join(err, f.Close()); err != nil {
		return Stamp{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Stamp{}, &fs.PathError{Op: "stat", Path: path, Err: errors.ErrUnsupported}
	}
	return Stamp{Device: uint64(st.Dev), File: uint64(st.Ino), Size: info.Size(), Modified: info.ModTime().UnixNano()}, nil
}
