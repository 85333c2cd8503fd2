package sim

import (
	"container/heap"
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing/synctest"
	"time"
)

// World is what production code meets in a run instead of network, disk and clock. One
// goroutine drives it: whenever all others wait, it takes the next event, and the seed
// has said when that is.
type World struct {
	mu     sync.Mutex // held while an event happens, and by who hands something to the world
	rng    *rand.Rand
	began  time.Time
	events events
	serial uint64
	outbox []func() // what was handed over since the last event; run in order
	kick   chan struct{}
	digest hash.Hash64
	log    io.Writer // nil: no trace is written
	wire   bool      // the trace has all that hosts send
	count  int

	Faults map[string]int // what was injected, by kind
	bad    []string       // violated invariants, in order
}

func newWorld(seed uint64, log io.Writer) *World {
	return &World{
		rng: rand.New(rand.NewPCG(seed, 0x5eed)), began: time.Now(), kick: make(chan struct{}, 1),
		digest: fnv.New64a(), log: log, Faults: map[string]int{},
	}
}

// event is something that happens at a moment.
type event struct {
	at     time.Time
	tie    uint64 // drawn: the order of events of one moment is the seed's
	serial uint64
	what   string
	do     func()
	off    bool
}

type events []*event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	switch {
	case !e[i].at.Equal(e[j].at):
		return e[i].at.Before(e[j].at)
	case e[i].tie != e[j].tie:
		return e[i].tie < e[j].tie
	}
	return e[i].serial < e[j].serial
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(*event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	old[len(old)-1] = nil
	*e = old[:len(old)-1]
	return x
}

// after makes do happen d from now. mu is held.
func (w *World) after(d time.Duration, what string, do func()) *event {
	w.serial++
	e := &event{at: time.Now().Add(max(d, 0)), tie: w.rng.Uint64(), serial: w.serial, what: what, do: do}
	heap.Push(&w.events, e)
	return e
}

// hand gives the world something to do before its next event. mu is held.
func (w *World) hand(do func()) {
	w.outbox = append(w.outbox, do)
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// note writes a line of the trace. mu is held.
func (w *World) note(format string, args ...any) {
	line := fmt.Sprintf("%12.6f ", time.Since(w.began).Seconds()) + fmt.Sprintf(format, args...) + "\n"
	_, _ = io.WriteString(w.digest, line)
	if w.log != nil {
		_, _ = io.WriteString(w.log, line)
	}
}

// segment takes what a host sends into the digest. mu is held.
func (w *World) segment(host, name string, b []byte) {
	fmt.Fprintf(w.digest, "%d %s %s ", time.Since(w.began), host, name)
	_, _ = w.digest.Write(b)
	if w.wire && w.log != nil {
		fmt.Fprintf(w.log, "%12.6f   %s > %s %.300q\n", time.Since(w.began).Seconds(), host, name, b)
	}
}

// fault counts a fault that takes effect. mu is held.
func (w *World) fault(kind string) {
	w.Faults[kind]++
	w.note("FAULT %s", kind)
}

// violated notes that an invariant doesn't hold. mu is held.
func (w *World) violated(invariant, format string, args ...any) {
	text := invariant + ": " + fmt.Sprintf(format, args...)
	w.note("VIOLATED %s", text)
	w.bad = append(w.bad, fmt.Sprintf("%.3f s: %s", time.Since(w.began).Seconds(), text))
}

// run lets events happen until done says so, or the time is over; it reports which.
func (w *World) run(limit time.Duration, done func() bool) bool {
	end := time.Now().Add(limit)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		synctest.Wait()
		w.mu.Lock()
		for len(w.outbox) > 0 {
			batch := w.outbox
			w.outbox = nil
			for _, do := range batch {
				do()
			}
		}
		select {
		case <-w.kick:
		default:
		}
		now := time.Now()
		if done != nil && done() {
			w.mu.Unlock()
			return true
		}
		if !now.Before(end) {
			w.mu.Unlock()
			return false
		}
		next := end
		if len(w.events) > 0 {
			if e := w.events[0]; !e.at.After(now) {
				heap.Pop(&w.events)
				if !e.off {
					w.count++
					if e.what != "" {
						w.note("%s", e.what)
					}
					e.do()
				}
				w.mu.Unlock()
				continue
			}
			if w.events[0].at.Before(next) {
				next = w.events[0].at
			}
		}
		w.mu.Unlock()
		timer.Reset(next.Sub(now))
		select {
		case <-timer.C:
		case <-w.kick:
		}
	}
}

// between draws a time, most of them near least.
func (w *World) between(least, most time.Duration) time.Duration {
	f := w.rng.Float64()
	return least + time.Duration(f*f*float64(most-least))
}

// evenly draws a time.
func (w *World) evenly(least, most time.Duration) time.Duration {
	return least + time.Duration(w.rng.Float64()*float64(most-least))
}

func (w *World) chance(p float64) bool { return w.rng.Float64() < p }

// hex draws n hexadecimal digits.
func (w *World) hex(n int) string {
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "%016x", w.rng.Uint64())
	}
	return b.String()[:n]
}
