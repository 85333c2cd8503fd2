package watermark

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"mailcutover/routing"
)

// ErrPlatform is wrapped by what a [Look] returns if it is the platform that doesn't answer,
// and not one mailbox: then nothing is taken.
var ErrPlatform = errors.New("the platform doesn't answer")

// Look returns the folders of a mailbox. It has its own time limits.
type Look func(ctx context.Context, row *routing.Row) ([]Folder, error)

// Take notes the state of mailboxes on a platform, at most workers at once (1 or more).
// progress, if not nil, is called after each one, by one caller at a time, with how many are
// done. A mailbox that can't be looked at is noted with the reason. It ends with an error, and
// without a Side, if ctx ends, or if look says ErrPlatform.
func Take(ctx context.Context, p routing.PlatformID, rows iter.Seq[routing.Row], workers int, look Look, progress func(done int)) (*Side, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	side := &Side{Platform: p, Mailboxes: make(map[routing.MailboxID]*Mailbox)}
	var mu sync.Mutex
	var all sync.WaitGroup
	next := make(chan routing.Row)
	for range max(1, workers) {
		all.Go(func() {
			for row := range next {
				m := &Mailbox{Mailbox: row.Mailbox}
				folders, err := look(ctx, &row)
				switch {
				case errors.Is(err, ErrPlatform):
					cancel(fmt.Errorf("look at mailbox %s on %s: %w", row.Mailbox, p, err))
					continue
				case err != nil:
					m.Error = err.Error()
				default:
					m.Folders = folders
				}
				mu.Lock()
				side.Mailboxes[row.Mailbox] = m
				if progress != nil {
					progress(len(side.Mailboxes))
				}
				mu.Unlock()
			}
		})
	}
	for row := range rows {
		select {
		case next <- row:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
	}
	close(next)
	all.Wait()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("take the watermarks on %s: %w", p, context.Cause(ctx))
	}
	return side, nil
}
