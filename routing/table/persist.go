package table

import (
	"context"
	"errors"
	"time"
)

const (
	persistFirst = 50 * time.Millisecond // the first pause between two calls
	persistMost  = time.Second           // the longest one; they double
)

// Persist calls f until it returns something else than [ErrUnavailable], or ctx ends; then it returns
// what f said last. What was sent without an answer may have happened: f has to send the same
// again, with the same [Change].ID, so that it happens once.
func Persist(ctx context.Context, f func() error) error {
	for pause := persistFirst; ; pause = min(2*pause, persistMost) {
		err := f()
		if !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// Confirm makes sure that what was acknowledged outlives the table's server, before anybody is told of it:
// a mailbox that only a dead server knew of would be denied with a 550. It goes on until the table
// answers, or ctx ends. [ErrRegressed] is returned only if it is said twice: once it may be about
// another change, from before a failover; of this one it is said again.
func Confirm(ctx context.Context, t interface{ Confirm(context.Context) error }) error {
	err := Persist(ctx, func() error { return t.Confirm(ctx) })
	if errors.Is(err, ErrRegressed) {
		err = Persist(ctx, func() error { return t.Confirm(ctx) })
	}
	return err
}
