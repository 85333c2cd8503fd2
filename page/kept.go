package page

import (
	"sync"
	"time"
)

// kept are answers that are given again while they are young, to all who look at the same
// thing. Safe for concurrent use.
type kept[T any] struct {
	age time.Duration

	mu  sync.Mutex
	all map[string]keptOne[T]
}

type keptOne[T any] struct {
	is T
	at time.Time
}

// maxKept bounds the answers: then all are forgotten.
const maxKept = 10_000

// of returns what is known by a name, asked for anew if the last answer is too old. Who comes
// meanwhile waits. An error isn't kept.
func (k *kept[T]) of(name string, ask func() (T, error)) (T, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if last, ok := k.all[name]; ok && time.Since(last.at) < k.age {
		return last.is, nil
	}
	is, err := ask()
	if err != nil {
		return is, err
	}
	if k.all == nil || len(k.all) >= maxKept {
		k.all = make(map[string]keptOne[T])
	}
	k.all[name] = keptOne[T]{is, time.Now()}
	return is, nil
}
