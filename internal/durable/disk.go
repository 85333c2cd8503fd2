package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Disk is what a [Folder] asks of a file system. [OS] is the real one; tests put in
// others that fail or forget what was not fsynced.
type Disk interface {
	// Create makes a file for writing; it is an error if it exists.
	Create(path string) (File, error)
	Open(path string) (io.ReadCloser, error)
	// OpenAt opens a file for reading at any place; what is appended later can be read.
	OpenAt(path string) (Random, error)
	// Stamp tells which file stands at path, and in which state, without reading it. A
	// network file system asks its server for that, and doesn't answer from what it
	// remembers.
	Stamp(path string) (Stamp, error)
	Rename(from, to string) error
	Remove(path string) error
	// Names lists a directory in no order, subdirectories left out.
	Names(dir string) ([]string, error)
	// MakeDir makes a directory that only this user may enter; one that exists is left
	// as it is.
	MakeDir(dir string) error
	// SyncDir makes durable what was created, renamed and removed in a directory.
	SyncDir(dir string) error
}

// File is a file that is being written.
type File interface {
	io.WriteCloser
	io.StringWriter
	// Sync returns when everything written is on the disk. After an error, what was
	// written since the last Sync may be lost whatever a later Sync says.
	Sync() error
	// Truncate cuts the file to size bytes; what is written next follows there.
	Truncate(size int64) error
}

// Appender is a [Disk] that can append without a system call for each Write: the file has
// room behind its end, mapped into memory. What was written survives the death of the
// process as ever; then the file ends in zeros, room that wasn't used, until somebody cuts
// it. Close cuts it off.
type Appender interface {
	// CreateAppended is Create.
	CreateAppended(path string) (File, error)
}

// Random is a file that is read at any place. It is safe for concurrent use.
type Random interface {
	io.ReaderAt
	io.Closer
	// Size returns how many bytes the file has now.
	Size() (int64, error)
	// Sync returns when what anybody wrote to the file is on the disk: after a kill, what
	// the process before wrote is in the kernel only.
	Sync() error
}

// Stamp is what a directory entry and its inode tell of a file. A file that another took
// the place of, as [Folder.Write] has it, has another stamp.
type Stamp struct {
	Device, File      uint64
	Size              int64 // bytes
	Modified, Changed int64 // nanoseconds since 1970; Changed is 0 where it isn't known
}

// OS is the file system of the machine.
type OS struct{}

// Create implements [Disk].
func (OS) Create(path string) (File, error) {
	// O_APPEND: after a Truncate the next write goes to the new end.
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
}

// Open implements [Disk].
func (OS) Open(path string) (io.ReadCloser, error) { return os.Open(path) }

// OpenAt implements [Disk].
func (OS) OpenAt(path string) (Random, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return random{f}, nil
}

type random struct{ *os.File }

// Size implements [Random].
func (r random) Size() (int64, error) {
	info, err := r.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Rename implements [Disk].
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements [Disk].
func (OS) Remove(path string) error { return os.Remove(path) }

// Names implements [Disk].
func (OS) Names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// MakeDir implements [Disk]. Directories above that it makes as well are durable; of dir
// itself, as of every entry, the caller sees to that with SyncDir.
func (o OS) MakeDir(dir string) error {
	above := filepath.Dir(dir)
	if _, err := os.Stat(above); errors.Is(err, fs.ErrNotExist) && above != dir {
		if err := o.MakeDir(above); err != nil {
			return err
		}
		if err := o.SyncDir(filepath.Dir(above)); err != nil {
			return err
		}
	}
	return os.MkdirAll(dir, 0o700)
}

// SyncDir implements [Disk].
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil // a file system whose directories need no fsync says so
	}
	return errors.Join(err, d.Close())
}
