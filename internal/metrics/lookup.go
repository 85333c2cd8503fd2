package metrics

import (
	"maps"
	"sync"
	"sync/atomic"
)

// lookup is a small map that is read for each message and hardly ever grows. Reading
// takes no lock and allocates nothing; growing copies it.
type lookup[K comparable, V any] struct {
	current atomic.Pointer[map[K]V]
	mu      sync.Mutex // held while it grows
}

// get returns the value of k, made by make when k is asked for the first time.
func (l *lookup[K, V]) get(k K, make func() V) V {
	if m := l.current.Load(); m != nil {
		if v, ok := (*m)[k]; ok {
			return v
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	next := map[K]V{}
	if m := l.current.Load(); m != nil {
		if v, ok := (*m)[k]; ok {
			return v
		}
		maps.Copy(next, *m)
	}
	v := make()
	next[k] = v
	l.current.Store(&next)
	return v
}
