package splice

import (
	"sync"
	"sync/atomic"
)

// Classes of buffers. A chunk is what is read at once: a direction that fills one gets the next
// class, and begins anew after a pause.
const (
	small = iota
	large
	huge
	sizes
)

// chunk is how much of a buffer a read fills, and slack what it has beyond, for what TLS adds
// in the worst case, with crypto/tls's small first records.
var chunk = [sizes]int{16 << 10, 64 << 10, 256 << 10}

// lent is how many buffers of a class are lent at once; beyond that it is the class below.
// So many slow peers can't hold much memory: 32 MiB each of the upper classes, and 16 KiB for
// each direction.
var lent = [sizes]int64{1 << 62, 512, 128}

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

// append adds p, in more memory if need be.
func (b *buffer) append(p []byte) {
	if need := b.to + len(p); need > len(b.p) {
		b.p = append(make([]byte, 0, 2*need), b.p[:b.to]...)
		b.p = b.p[:cap(b.p)]
	}
	b.to += copy(b.p[b.to:], p)
}

// class returns the smallest class whose chunk is n bytes or more, or the greatest.
func class(n int) int {
	c := small
	for c < huge && n > chunk[c] {
		c++
	}
	return c
}

// pool lends buffers, and calls. What is not lent is the garbage collector's.
type pool struct {
	calls   calls
	buffers [sizes]struct {
		sync.Pool
		lent atomic.Int64
	}
}

// get lends a buffer of this class, or of a lower one.
func (l *pool) get(class int) *buffer {
	for class > small && l.buffers[class].lent.Load() >= lent[class] {
		class--
	}
	l.buffers[class].lent.Add(1)
	if b, ok := l.buffers[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{p: make([]byte, chunk[class]+slack), class: class}
}

// put takes a buffer back, if there is one, and forgets it there.
func (l *pool) put(at **buffer) {
	b := *at
	*at = nil
	if b == nil || b.class == sizes {
		return
	}
	l.buffers[b.class].lent.Add(-1)
	if len(b.p) == chunk[b.class]+slack {
		b.from, b.to = 0, 0
		l.buffers[b.class].Put(b)
	}
}
