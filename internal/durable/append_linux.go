package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// roomBytes is how much room an appended file gets at a time: a multiple of every
// machine's page.
const roomBytes = 256 << 10

// CreateAppended implements [Appender]. A file system that can't reserve room, or a disk
// that is nearly full, is written to by system calls instead.
func (OS) CreateAppended(path string) (File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	return &appended{file: f}, nil
}

// appended is a file that is appended to in memory that the kernel writes back.
type appended struct {
	file *os.File

	mu    sync.Mutex
	size  int64  // bytes written
	at    int64  // where room begins
	room  []byte // mapped, and its blocks are reserved; nil: none
	plain bool   // no more room: by system calls
}

// Write implements [File].
func (a *appended) Write(p []byte) (n int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for n < len(p) && !a.plain {
		if a.size == a.at+int64(len(a.room)) && !a.reserve() {
			break
		}
		stored, err := store(a.room[a.size-a.at:], p[n:])
		n += stored
		a.size += int64(stored)
		if err != nil {
			return n, &fs.PathError{Op: "write", Path: a.file.Name(), Err: err}
		}
	}
	if n < len(p) {
		var wrote int
		wrote, err = a.file.WriteAt(p[n:], a.size)
		n += wrote
		a.size += int64(wrote)
	}
	return n, err
}

// reserve gives the file room behind its end; if it can't, all that follows is plain. mu
// is held.
func (a *appended) reserve() bool {
	a.unmap()
	a.plain = true
	if a.size%roomBytes != 0 {
		return false
	}
	fd := int(a.file.Fd())
	if err := unix.Fallocate(fd, 0, a.size, roomBytes); err != nil {
		return false
	}
	room, err := unix.Mmap(fd, a.size, roomBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		_ = a.file.Truncate(a.size) // readers know zeros for room
		return false
	}
	a.at, a.room, a.plain = a.size, room, false
	return true
}

// unmap gives the room back. What was stored in it is in the file. mu is held.
func (a *appended) unmap() {
	if a.room != nil {
		_ = unix.Munmap(a.room) // fails for what isn't mapped only
		a.room = nil
	}
}

// store copies what fits, from the beginning on: whatever ends the process, what is there
// is the first bytes, and zeros. A page that the kernel can't bring is an error.
func store(room, p []byte) (n int, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			fault, ok := r.(interface {
				runtime.Error
				Addr() uintptr
			})
			if !ok {
				panic(r)
			}
			err = fmt.Errorf("%w: %w", syscall.EIO, fault)
		}
	}()
	p = p[:min(len(p), len(room))]
	for n < len(p) {
		n += copy(room[n:], p[n:min(n+16, len(p))])
	}
	return n, nil
}

// WriteString implements [File].
func (a *appended) WriteString(s string) (int, error) { return a.Write([]byte(s)) }

// Sync implements [File]. Writes go on meanwhile.
func (a *appended) Sync() error { return a.file.Sync() }

// Truncate implements [File].
func (a *appended) Truncate(size int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unmap()
	a.plain = true
	if err := a.file.Truncate(size); err != nil {
		return err
	}
	a.size = size
	return nil
}

// Close implements [File]. It gives back the room that wasn't needed.
func (a *appended) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var err error
	if a.room != nil {
		a.unmap()
		err = a.file.Truncate(a.size)
	}
	a.plain = true
	return errors.Join(err, a.file.Close())
}
