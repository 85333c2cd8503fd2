package login

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// failures counts failed logins, in memory that doesn't grow: a table of buckets, of which
// each key has one. The hash is keyed, so that nobody can pick names that share a bucket. A
// full bucket forgets the key with the lowest count, and none that is at its limit: so
// whoever wants to lift the limit of a name has to fail with others more often than that
// one did, in all buckets.
type failures struct {
	o     Failures
	seed  maphash.Seed
	start time.Time

	mu      sync.Mutex
	buckets [buckets][ways]failure
}

const (
	buckets = 4096
	ways    = 8
)

// failure is the count of one key. It is forgotten evenly.
type failure struct {
	key   uint64 // 0: free
	kind  failureKind
	count float64
	at    time.Duration // since failures.start, when count was right
}

type failureKind uint8

const (
	failedName failureKind = iota // a name, from wherever: delays, and never refuses, or strangers could lock it
	failedFrom                    // a name from one net
	failedNet
)

func newFailures(o Failures) *failures {
	if o.Window <= 0 {
		o.Window = 10 * time.Minute
	}
	o.MaxDelay = max(o.MaxDelay, o.Delay)
	return &failures{o: o, seed: maphash.MakeSeed(), start: time.Now()}
}

// netOf returns the net that an address counts for.
func netOf(a netip.Addr) netip.Prefix {
	bits := 64
	if a = a.Unmap(); a.Is4() {
		bits = 24
	}
	p, _ := a.Prefix(bits)
	return p
}

// limit returns how many failures of a kind there may be; 0: any number.
func (f *failures) limit(k failureKind) int {
	switch k {
	case failedFrom:
		return f.o.PerName
	case failedNet:
		return f.o.PerNet
	default:
		return 0
	}
}

// key is not 0.
func (f *failures) key(k failureKind, name string, net netip.Prefix) uint64 {
	var h maphash.Hash
	h.SetSeed(f.seed)
	h.WriteByte(byte(k))
	if k != failedName {
		b, _ := net.MarshalBinary()
		h.Write(b)
	}
	if k != failedNet {
		h.WriteString(name)
	}
	return h.Sum64() | 1
}

// now returns e's count at this moment.
func (f *failures) now(e *failure) float64 {
	per := f.limit(e.kind)
	if per == 0 {
		per = 20
	}
	forgotten := float64(f.at()-e.at) * float64(per) / float64(f.o.Window)
	return max(0, e.count-forgotten)
}

func (f *failures) at() time.Duration { return time.Since(f.start) }

// full reports whether e is at its limit.
func (f *failures) full(e *failure) bool {
	l := f.limit(e.kind)
	return l > 0 && f.now(e) > float64(l-1)
}

func (f *failures) find(key uint64) *failure {
	b := &f.buckets[key>>1%buckets]
	for i := range b {
		if b[i].key == key {
			return &b[i]
		}
	}
	return nil
}

// refused reports whether no more tries are taken of this name from this net.
func (f *failures) refused(name string, net netip.Prefix) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range []failureKind{failedFrom, failedNet} {
		if e := f.find(f.key(k, name, net)); e != nil && f.full(e) {
			return true
		}
	}
	return false
}

// failed counts a failure, and returns for how long its answer is held back.
func (f *failures) failed(name string, net netip.Prefix) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	most := 0.0
	for _, k := range []failureKind{failedName, failedFrom, failedNet} {
		most = max(most, f.add(k, f.key(k, name, net)))
	}
	delay := f.o.Delay
	for n := 1.5; n < most && delay < f.o.MaxDelay; n++ {
		delay *= 2
	}
	return min(delay, f.o.MaxDelay)
}

// add counts one for a key and returns its count.
func (f *failures) add(k failureKind, key uint64) float64 {
	e := f.find(key)
	if e == nil {
		b := &f.buckets[key>>1%buckets]
		for i := range b {
			c := &b[i]
			if c.key == 0 || f.now(c) == 0 {
				e = c
				break
			}
			if !f.full(c) && (e == nil || f.now(c) < f.now(e)) {
				e = c
			}
		}
		if e == nil {
			return 1e9 // nothing but limits that are reached: the longest delay
		}
		*e = failure{key: key, kind: k}
	}
	e.count, e.at = f.now(e)+1, f.at()
	return e.count
}

// succeeded forgets the name's failures, and those from this net.
func (f *failures) succeeded(name string, net netip.Prefix) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range []failureKind{failedName, failedFrom} {
		if e := f.find(f.key(k, name, net)); e != nil {
			*e = failure{}
		}
	}
}
