package campaign

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"mailcutover/internal/durable"
)

// diskSize is that of a node's disk, in bytes: small, so that it is soon full.
const diskSize = 64 << 20

// Disk is an ext4 file system in a file, with a journal, as a node's own disk. It can be full, fail
// at once for good, and lose power. Mounts belong to this process's mount namespace, which has to be
// its own. The methods must not be called at the same time.
type Disk struct {
	image string
	At    string // where it is mounted
}

// NewDisk makes an empty disk with its files in dir.
func NewDisk(dir, name string) (*Disk, error) {
	d := &Disk{image: filepath.Join(dir, name+".img"), At: filepath.Join(dir, name)}
	f, err := os.Create(d.image)
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", name, err)
	}
	defer f.Close()
	if err := f.Truncate(diskSize); err != nil {
		return nil, fmt.Errorf("disk %s: %w", name, err)
	}
	if err := os.Mkdir(d.At, 0o755); err != nil {
		return nil, fmt.Errorf("disk %s: %w", name, err)
	}
	if err := do("mkfs.ext4 -q -m 0 -E lazy_itable_init=0,lazy_journal_init=0 " + d.image); err != nil {
		return nil, err
	}
	return d, d.mount()
}

func (d *Disk) mount() error { return do("mount -o loop " + d.image + " " + d.At) }

// Close unmounts it.
func (d *Disk) Close() error { return do("umount " + d.At) }

// filler is what fills the disk.
func (d *Disk) filler() string { return filepath.Join(d.At, "filler") }

// Fill leaves no byte.
func (d *Disk) Fill() error {
	f, err := os.OpenFile(d.filler(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("fill a disk: %w", err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4 << 10} {
		for zeros := make([]byte, size); ; {
			_, err := f.Write(zeros)
			if errors.Is(err, syscall.ENOSPC) {
				break
			}
			if err != nil {
				return fmt.Errorf("fill a disk: %w", err)
			}
		}
	}
	return nil
}

// Free ends Fill, and the disk doesn't forget that when its power is lost.
func (d *Disk) Free() error {
	if err := os.Remove(d.filler()); err != nil {
		return fmt.Errorf("make room on a disk: %w", err)
	}
	return durable.OS{}.SyncDir(d.At)
}

// What FS_IOC_SHUTDOWN (include/uapi/linux/fs.h) may do with what is not on the disk yet.
const (
	shutdownIoctl   = 0x8004587d
	shutdownNoFlush = 2 // it is lost
)

// Fail makes all that is done with the disk an error from now on, fsync included, until Power. What
// was not synced by then is lost.
func (d *Disk) Fail() error {
	f, err := os.Open(d.At)
	if err != nil {
		return fmt.Errorf("fail a disk: %w", err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), shutdownIoctl, shutdownNoFlush); err != nil {
		return fmt.Errorf("fail disk %s: %w", d.At, err)
	}
	return nil
}

// Power mounts a disk again that failed, as after the power was gone: its journal is played back. No
// process may use it.
func (d *Disk) Power() error {
	if err := d.Close(); err != nil {
		return err
	}
	return d.mount()
}

var _ io.Closer = (*Disk)(nil)
