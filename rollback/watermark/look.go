package watermark

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mailcutover/rollback/mailstore"
	"mailcutover/routing"
)

// lookTries is how often a mailbox is tried whose connection breaks, and lookPause the pause
// between two tries: a platform that ends one connection isn't gone.
const (
	lookTries = 3
	lookPause = time.Second
)

// At returns how the mailboxes of a platform are looked at.
func At(store mailstore.Store, side mailstore.Side) Look {
	return func(ctx context.Context, row *routing.Row) (folders []Folder, err error) {
		for try := 1; ; try++ {
			if folders, err = lookOnce(ctx, store, side, row); err == nil || !errors.Is(err, mailstore.ErrUnavailable) || try == lookTries {
				break
			}
			select {
			case <-time.After(lookPause):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if mailstore.Platform(err) {
			err = fmt.Errorf("%w: %w", ErrPlatform, err)
		}
		return folders, err
	}
}

func lookOnce(ctx context.Context, store mailstore.Store, side mailstore.Side, row *routing.Row) ([]Folder, error) {
	s, err := store.Open(ctx, *row, side)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	all, err := s.Folders(ctx)
	if err != nil {
		return nil, err
	}
	var folders []Folder
	for i := range all {
		if f := &all[i]; !f.NoSelect {
			folders = append(folders, Folder{Name: f.Name, UIDValidity: f.UIDValidity, UIDNext: f.UIDNext, HighestModSeq: f.HighestModSeq, Messages: f.Messages})
		}
	}
	return folders, nil
}
