package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"mailcutover/internal/durable"
	"mailcutover/routing"
)

const (
	lockFile     = "node.lock"
	instanceFile = "instance"
	locksFile    = "locks"

	// mostInstances bounds the instances that are remembered: those of starts that never
	// reached the table, behind the one that the table may have.
	mostInstances = 8
)

// ErrInUse is wrapped by the error of [OpenKeeper] if another process has the directory.
var ErrInUse = errors.New("in use by another process")

// lives is what the instance file has: the instances of this directory that the table may
// know, the one that it took last first.
type lives struct {
	Instances []routing.InstanceID `json:"instances"`

	// File is the number of the lock's file in its file system. A copy of the directory has
	// another, so it isn't taken for the original, whose process may live. 0: not known.
	File uint64 `json:"file,omitempty"`
}

// openDir locks the keeper's directory and reads what the process before left there.
func (k *Keeper) openDir() error {
	disk := k.o.Disk
	if disk == nil {
		disk = durable.OS{}
	}
	var err error
	if k.folder, err = durable.Open(disk, k.o.Dir); err != nil {
		return err
	}
	if locker, ok := disk.(interface {
		Lock(path string) (io.Closer, error)
	}); ok {
		k.lock, err = locker.Lock(filepath.Join(k.o.Dir, lockFile))
		if errors.Is(err, durable.ErrLocked) {
			err = fmt.Errorf("%w: %w", ErrInUse, err)
		}
		if err != nil {
			return err
		}
		stamp, err := disk.Stamp(filepath.Join(k.o.Dir, lockFile))
		if err != nil {
			return fmt.Errorf("look at the lock: %w", err)
		}
		k.file = stamp.File
	}
	var before lives
	if err := k.read(instanceFile, &before); err != nil {
		return err
	}
	if before.File == k.file || before.File == 0 {
		k.before = before.Instances
	} else {
		k.o.Logger.Warn("directory is a copy: if the table knows a process of the original, this one has to wait for the end of its lease", "node", k.o.Node, "directory", k.o.Dir)
	}
	var locks []LocalLock
	if err := k.read(locksFile, &locks); err != nil {
		return err
	}
	for _, l := range locks {
		k.locks[l.Agency] = l
	}
	// A renewal whose answer is lost, and then this process, must not keep the next one
	// waiting for a lease: so what may be sent is written first.
	all := append(slices.Clone(k.before), k.instance)
	if n := len(all); n > mostInstances {
		all = append(all[:1:1], all[n-mostInstances+1:]...)
	}
	err = k.write(instanceFile, lives{all, k.file})
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		// Something else has filled the disk. A node that doesn't start for that can't say so.
		k.o.Logger.Error("the next start may have to wait for the end of this one's lease: the disk is full", "node", k.o.Node, "directory", k.o.Dir, "error", err)
		return nil
	}
	return err
}

// taken notes that the table knows this instance, so that none before it matters.
func (k *Keeper) taken() error {
	return k.write(instanceFile, lives{[]routing.InstanceID{k.instance}, k.file})
}

// read reads a file in JSON; one that isn't there leaves v as it is. One that can't be used
// is set aside: it only makes a start quicker, or is a list that its own alarms tell of.
func (k *Keeper) read(name string, v any) error {
	f, err := k.folder.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	text, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		if name == locksFile {
			return fmt.Errorf("read %s: %w: an agency may be locked on this node; see to that, then remove the file", filepath.Join(k.folder.Path(), name), err)
		}
		to, asideErr := k.folder.SetAside(name, time.Now())
		k.o.Logger.Error("file can't be used; it is set aside", "file", to, "error", err)
		return asideErr
	}
	return nil
}

func (k *Keeper) write(name string, v any) error {
	return k.folder.Write(name, func(w io.Writer) error { return json.NewEncoder(w).Encode(v) })
}
