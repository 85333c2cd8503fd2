package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// ErrLocked is wrapped by the error of [OS.Lock] if somebody else has the lock.
var ErrLocked = errors.New("locked by another process")

// Lock takes a lock that other processes of this machine respect, on a file that is made
// if it isn't there. It ends with Close, and with the process. The file stays.
func (OS) Lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrLocked
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}
