package localtable

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// readAtOnce bounds the log entries that are in memory at a time.
const readAtOnce = 500

// Follow implements table.Table. It runs in the caller's goroutine.
func (t *Table) Follow(ctx context.Context, from routing.Position, interval time.Duration, apply func(table.Entry) error, alive func(at time.Time, pos routing.Position)) error {
	interval = max(interval, time.Millisecond)
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for last := from; ; {
		changed := t.nextChange()
		at := time.Now()
		entries, pos, err := t.since(ctx, last)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("follow table %s from revision %d: %w", t.path, last.Revision, err)
		}
		for _, e := range entries {
			if err := apply(e); err != nil {
				return err
			}
			last = e.Position
		}
		if last.Revision != pos.Revision {
			continue // there is more
		}
		alive(at, pos)
		timer.Reset(interval)
		select {
		case <-changed:
		case <-timer.C:
		case <-t.closed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// since reads the next changes after last, and where the table stands.
func (t *Table) since(ctx context.Context, last routing.Position) (entries []table.Entry, pos routing.Position, err error) {
	err = t.view(ctx, func(tx *bolt.Tx) error {
		if pos, err = position(tx); err != nil {
			return err
		}
		switch {
		case pos.Incarnation != last.Incarnation:
			return fmt.Errorf("%w: %s, followed was %q", table.ErrIncarnation, pos.Incarnation, last.Incarnation)
		}
		book, err := loadBook(tx, pos)
		if err != nil {
			return err
		}
		if err := book.MayFollow(last); err != nil {
			return err
		}
		next := last.Revision + 1
		c := tx.Bucket(bucketLog).Cursor()
		for key, value := c.Seek(revisionKey(next)); key != nil && len(entries) < readAtOnce; key, value = c.Next() {
			rev := routing.Revision(binary.BigEndian.Uint64(key))
			if rev != next {
				break
			}
			var e entry
			if err := decode(value, &e); err != nil {
				return fmt.Errorf("log entry %d: %w", rev, err)
			}
			entries = append(entries, e.entry(routing.Position{Incarnation: pos.Incarnation, Revision: rev, Mapped: e.Mapped, Term: e.Term}))
			next++
		}
		if len(entries) == 0 && pos.Revision != last.Revision {
			return fmt.Errorf("%w: revision %d is not in it", table.ErrGap, next)
		}
		return nil
	})
	return entries, pos, err
}

// nextChange returns a channel that is closed after the next change.
func (t *Table) nextChange() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// broadcast wakes all who follow.
func (t *Table) broadcast() {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.changed)
	t.changed = make(chan struct{})
}
