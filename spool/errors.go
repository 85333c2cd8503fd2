package spool

import (
	"errors"
	"fmt"
	"syscall"
)

// What callers tell apart.
var (
	// ErrFull: a bound is reached or the disk has no room. Later there may be: 452.
	ErrFull = errors.New("spool full")
	// ErrBroken: the disk failed; nothing new is taken until Resume: 451.
	ErrBroken = errors.New("spool out of service")
	// ErrUnsure, with ErrBroken: a commit of which nobody knows whether it is on the disk. The
	// message comes all the same if the process ends before the journal has another segment.
	ErrUnsure = errors.New("may be on the disk all the same")
	// ErrAdopted: the spool belongs to another node now.
	ErrAdopted = errors.New("spool was adopted by another node")
	// ErrUnknown: there is no such message or recipient, or it has ended.
	ErrUnknown = errors.New("not in the spool")
	// ErrDamaged: what was read isn't what was written.
	ErrDamaged = errors.New("damaged")
	// ErrClosed: the store is closed, or the Incoming discarded.
	ErrClosed = errors.New("closed")
	// ErrInUse: another process has the spool open.
	ErrInUse = errors.New("in use by another process")
)

// diskError says what a failed write means: no room, or a broken disk.
func diskError(what string, err error) error {
	switch {
	case errors.Is(err, ErrFull), errors.Is(err, ErrBroken), errors.Is(err, ErrAdopted), errors.Is(err, ErrClosed):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return fmt.Errorf("%s: %w: %w", what, ErrFull, err)
	}
	return fmt.Errorf("%s: %w: %w", what, ErrBroken, err)
}
