package splice

import (
	"io"
	"sync"

	"mailcutover/internal/nonblock"
)

// Sizes of buffers. A chunk is what is read at once. The slack is for what TLS adds to a
// chunk, in the worst case with crypto/tls's small first records.
const (
	small = iota // the first read of a direction that was idle
	large        // of one that filled a small buffer
	sizes

	smallChunk = 16 << 10
	largeChunk = 64 << 10
)

// chunk is how much of a buffer is filled by a read, and slack what it has beyond.
var chunk = [sizes]int{smallChunk, largeChunk}

const slack = 4 << 10

// buffer holds bytes on their way: p[from:to].
type buffer struct {
	p        []byte
	from, to int
	class    int // sizes: not to be pooled
}

func (b *buffer) bytes() []byte { return b.p[b.from:b.to] }

// room is where the next read goes.
func (b *buffer) room() []byte { return b.p[b.to:chunk[b.class]] }

// append adds p, for which a larger buffer is borrowed if need be.
func (b *buffer) append(pool *pool, p []byte) {
	if need := b.to + len(p); need > len(b.p) {
		grown := b.p
		if c := class(need); c < sizes {
			other := pool.get(c)
			grown, other.p = other.p, b.p
			other.class, b.class = b.class, c
			copy(grown, b.p[:b.to])
			b.p = grown
			pool.put(&other)
		} else {
			b.p = append(make([]byte, 0, 2*need), b.p[:b.to]...)
			b.p = b.p[:cap(b.p)]
			b.class = sizes
		}
	}
	b.to += copy(b.p[b.to:], p)
}

// class returns the smallest class that holds n bytes; sizes: none does.
func class(n int) int {
	for c, size := range chunk {
		if n <= size+slack {
			return c
		}
	}
	return sizes
}

// pool lends buffers. What is not lent is the garbage collector's.
type pool [sizes]sync.Pool

func (l *pool) get(class int) *buffer {
	if class < sizes {
		if b, ok := l[class].Get().(*buffer); ok {
			return b
		}
		return &buffer{p: make([]byte, chunk[class]+slack), class: class}
	}
	panic("no such class")
}

// put takes a buffer back, if there is one, and forgets it there.
func (l *pool) put(at **buffer) {
	b := *at
	*at = nil
	if b != nil && b.class < sizes {
		b.from, b.to = 0, 0
		l[b.class].Put(b)
	}
}

// receive reads what is there. io.EOF: the peer's end; EAGAIN: nothing.
func receive(fd uintptr, p []byte) (int, error) {
	n, err := nonblock.Read(fd, p)
	if n == 0 && err == nil && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}
