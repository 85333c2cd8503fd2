package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"
)

// ErrBadName is wrapped by the errors about names that a [Folder] doesn't take.
var ErrBadName = errors.New("bad file name")

// temporary begins the names of files that are being written.
const temporary = ".writing-"

// aside stands in the names of files that were set aside, before the time.
const aside = ".aside-"

// Folder is a directory whose files are written whole or not at all. It belongs to one
// process.
type Folder struct {
	disk Disk
	path string
}

// Open makes the directory if it isn't there, and removes what a crash left half
// written. A disk of nil is [OS].
func Open(disk Disk, path string) (*Folder, error) {
	if disk == nil {
		disk = OS{}
	}
	f := &Folder{disk: disk, path: path}
	if err := disk.MakeDir(path); err != nil {
		return nil, fmt.Errorf("make directory %s: %w", path, err)
	}
	if err := disk.SyncDir(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("fsync directory %s: %w", filepath.Dir(path), err)
	}
	names, err := disk.Names(path)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", path, err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, temporary) {
			if err := disk.Remove(f.join(name)); err != nil {
				return nil, fmt.Errorf("remove what was half written: %w", err)
			}
		}
	}
	return f, nil
}

// Path returns the directory.
func (f *Folder) Path() string { return f.path }

func (f *Folder) join(name string) string { return filepath.Join(f.path, name) }

// Write makes name a file with what write writes, in the place of one of this name. When
// it returns nil, the file is on the disk.
func (f *Folder) Write(name string, write func(io.Writer) error) error {
	if err := checkName(name); err != nil {
		return err
	}
	temp := f.join(temporary + name)
	if err := f.fill(temp, write); err != nil {
		return fmt.Errorf("write %s: %w", f.join(name), err)
	}
	if err := f.disk.Rename(temp, f.join(name)); err != nil {
		return fmt.Errorf("write %s: %w", f.join(name), errors.Join(err, f.disk.Remove(temp)))
	}
	if err := f.disk.SyncDir(f.path); err != nil {
		return fmt.Errorf("write %s: fsync directory: %w", f.join(name), err)
	}
	return nil
}

func (f *Folder) fill(temp string, write func(io.Writer) error) error {
	file, err := f.disk.Create(temp)
	if errors.Is(err, fs.ErrExist) { // left by a write that failed, and then couldn't be removed
		if err = f.disk.Remove(temp); err == nil {
			file, err = f.disk.Create(temp)
		}
	}
	if err != nil {
		return err
	}
	err = write(file)
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err != nil {
		return errors.Join(err, f.disk.Remove(temp))
	}
	return nil
}

// Open opens a file for reading; fs.ErrNotExist if there is none.
func (f *Folder) Open(name string) (io.ReadCloser, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return f.disk.Open(f.join(name))
}

// Names lists the files, those that were set aside left out, in no order.
func (f *Folder) Names() ([]string, error) {
	names, err := f.disk.Names(f.path)
	kept := names[:0]
	for _, name := range names {
		if checkName(name) == nil && !strings.Contains(name, aside) {
			kept = append(kept, name)
		}
	}
	return kept, err
}

// Remove removes files, and returns when that is durable. It goes on after an error.
func (f *Folder) Remove(names ...string) error {
	var errs []error
	for _, name := range names {
		if err := checkName(name); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, f.disk.Remove(f.join(name)))
	}
	if len(names) > 0 {
		errs = append(errs, f.disk.SyncDir(f.path))
	}
	return errors.Join(errs...)
}

// SetAside renames a file that can't be used, and returns its new name. It is kept until
// a human removes it.
func (f *Folder) SetAside(name string, now time.Time) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	to := name + aside + now.UTC().Format("20060102T150405.000000000")
	if err := f.disk.Rename(f.join(name), f.join(to)); err != nil {
		return "", fmt.Errorf("set aside %s: %w", f.join(name), err)
	}
	if err := f.disk.SyncDir(f.path); err != nil {
		return "", fmt.Errorf("set aside %s: fsync directory: %w", f.join(name), err)
	}
	return to, nil
}

// checkName leaves room for what is put before and after a name, in the 255 bytes that
// file systems take.
func checkName(name string) error {
	if name == "" || len(name) > 200 || name[0] == '.' || strings.ContainsAny(name, "/\\\x00") {
		return fmt.Errorf("%w: %q", ErrBadName, name)
	}
	return nil
}
