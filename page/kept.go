package page

import (
	"context"
	"errors"
	"sync"
	"time"
)

// kept are answers that are given again while they are young, to all who look at the same
// thing. Safe for concurrent use.
type kept[T any] struct {
	age time.Duration

	mu    sync.Mutex // never held while anybody is asked
	all   map[string]keptOne[T]
	asked map[string]*asking[T]
}

type keptOne[T any] struct {
	is T
	at time.Time
}

// asking is a question under way. Its answer may be read once done is closed.
type asking[T any] struct {
	done chan struct{}
	is   T
	err  error
	left bool // err is because whoever asked doesn't want to know any more
}

// maxKept bounds the answers: then all are forgotten.
const maxKept = 10_000

// errUnasked is the answer to those who waited for a question that ended without one.
var errUnasked = errors.New("it could not be asked")

// of returns what is known by a name, asked for anew if the last answer is too old. Who comes
// meanwhile for the same name waits, until ctx ends, and gets the same answer, an error too, which isn't
// kept; who asks for another one doesn't wait. Where whoever asks leaves before the answer, the next who waits asks.
func (k *kept[T]) of(ctx context.Context, name string, ask func() (T, error)) (T, error) {
	for {
		k.mu.Lock()
		if last, ok := k.all[name]; ok && time.Since(last.at) < k.age {
			k.mu.Unlock()
			return last.is, nil
		}
		a, waits := k.asked[name]
		if !waits {
			a = &asking[T]{done: make(chan struct{}), err: errUnasked}
			if k.asked == nil {
				k.asked = make(map[string]*asking[T])
			}
			k.asked[name] = a
		}
		k.mu.Unlock()
		if !waits {
			k.ask(ctx, name, a, ask)
			return a.is, a.err
		}
		select {
		case <-a.done:
			if !a.left {
				return a.is, a.err
			}
		case <-ctx.Done():
			var none T
			return none, context.Cause(ctx)
		}
	}
}

// ask asks, and lets go of those who wait also if that panics.
func (k *kept[T]) ask(ctx context.Context, name string, a *asking[T], ask func() (T, error)) {
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.asked, name)
		if a.err == nil {
			if k.all == nil || len(k.all) >= maxKept {
				k.all = make(map[string]keptOne[T])
			}
			k.all[name] = keptOne[T]{a.is, time.Now()}
		}
		close(a.done)
	}()
	a.is, a.err = ask()
	a.left = a.err != nil && ctx.Err() != nil
}
