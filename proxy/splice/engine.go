package splice

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"mailcutover/internal/nonblock"
)

// Engine passes bytes for any number of pairs. Its methods may be called by any goroutine.
type Engine struct {
	o     Options
	born  time.Time
	pool  pool
	watch watcher

	active atomic.Int64

	mu      sync.Mutex
	table   []place // of all pairs; a pair's slot is its place here
	free    []uint32
	pairs   int
	closing bool
	empty   chan struct{} // closed when closing and no pair is left

	first, last *Joint // the queue of pairs that have something to do
	work        sync.Cond
	workers     int // running
	waiting     int // of these, for work
	ended       bool

	group sync.WaitGroup
	stop  chan struct{} // ends the sweeper
}

// place is one of the table. Its turn counts the pairs that had it, so that an event that comes
// late is not taken for another pair's.
type place struct {
	j    *Joint
	turn uint32
}

// watcher tells joints when their sockets can be read or written.
type watcher interface {
	// add begins to watch both sockets; what is in them already is told too.
	add(j *Joint) error
	// await is called by run when it has moved what it could. A socket that is closed is
	// forgotten.
	await(j *Joint)
	// close ends the watcher and waits for its goroutines.
	close()
}

// New starts an engine. Close ends it.
func New(o Options) (*Engine, error) { return start(o, newWatcher) }

func start(o Options, watcher func(*Engine) (watcher, error)) (*Engine, error) {
	set := func(d *time.Duration, usual time.Duration) {
		if *d <= 0 {
			*d = usual
		}
	}
	if o.Workers <= 0 {
		o.Workers = 2 * runtime.GOMAXPROCS(0)
	}
	set(&o.Write, 5*time.Minute)
	set(&o.HalfOpen, time.Minute)
	set(&o.Linger, 5*time.Second)
	e := &Engine{o: o, born: time.Now(), empty: make(chan struct{}), stop: make(chan struct{})}
	e.work.L = &e.mu
	w, err := watcher(e)
	if err != nil {
		return nil, fmt.Errorf("start an engine: %w", err)
	}
	e.watch = w
	e.group.Go(e.sweep)
	return e, nil
}

// Join takes over two connections. Nothing is read or written, and the owner is not called,
// before Start, which has to be called. On an error, ErrClosed or ErrUnfit among others, both connections are still
// the caller's.
func (e *Engine) Join(p Pair) (*Joint, error) {
	if _, _, _, err := parts(p.Client); err != nil {
		return nil, err
	}
	if _, _, _, err := parts(p.Platform); err != nil {
		return nil, err
	}
	for _, nc := range []net.Conn{p.Client, p.Platform} {
		if err := nc.SetDeadline(time.Time{}); err != nil {
			return nil, fmt.Errorf("join: %w", err)
		}
	}
	j := &Joint{e: e, owner: p.Owner, up: rest(p.ToPlatform), down: rest(p.ToClient)}
	var err error
	if j.client, err = newSide(p.Client, &e.pool); err == nil {
		j.platform, err = newSide(p.Platform, &e.pool)
	}
	if err == nil {
		err = e.enter(j)
	}
	if err == nil {
		if err = e.watch.add(j); err != nil {
			e.forget(j)
		}
	}
	if err != nil {
		for _, w := range []*wire{j.client.wire, j.platform.wire} {
			if w != nil {
				w.pool, w.waits = nil, nonblock.New(w.TCPConn)
			}
		}
		return nil, fmt.Errorf("join: %w", err)
	}
	j.touch()
	return j, nil
}

// Counts returns how many pairs there are.
func (e *Engine) Counts() Counts {
	e.mu.Lock()
	defer e.mu.Unlock()
	return Counts{Pairs: e.pairs, Active: int(e.active.Load())}
}

// Close ends all pairs and waits for them. Those for which EndClient was called end as they
// were told to, until ctx ends; the others are cut, on both sides, at once. The error is ctx's.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	if !e.closing {
		e.closing = true
		if e.pairs == 0 {
			close(e.empty)
		}
	}
	e.mu.Unlock()
	e.each(func(j *Joint) {
		j.mu.Lock()
		parting := j.parting.asked
		j.mu.Unlock()
		if !parting {
			j.shut()
		}
	})
	var err error
	select {
	case <-e.empty:
	case <-ctx.Done():
		err = ctx.Err()
		e.each((*Joint).shut)
		<-e.empty // nothing waits but an owner
	}
	e.mu.Lock()
	if !e.ended {
		e.ended = true
		e.work.Broadcast()
		close(e.stop)
	}
	e.mu.Unlock()
	e.watch.close()
	e.group.Wait()
	return err
}

// shut cuts both sides.
func (j *Joint) shut() {
	j.CutPlatform()
	j.post(closing)
}

// enter gives a pair its place.
func (e *Engine) enter(j *Joint) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return ErrClosed
	}
	if n := len(e.free); n > 0 {
		j.slot = e.free[n-1]
		e.free = e.free[:n-1]
	} else {
		j.slot = uint32(len(e.table))
		e.table = append(e.table, place{})
	}
	at := &e.table[j.slot]
	at.turn++
	at.j, j.turn = j, at.turn
	e.pairs++
	return nil
}

// forget frees a pair's place.
func (e *Engine) forget(j *Joint) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.table[j.slot].j = nil
	e.free = append(e.free, j.slot)
	if e.pairs--; e.pairs == 0 && e.closing {
		close(e.empty)
	}
}

// each calls f for all pairs there are.
func (e *Engine) each(f func(*Joint)) {
	e.mu.Lock()
	all := make([]*Joint, 0, e.pairs)
	for _, p := range e.table {
		if p.j != nil {
			all = append(all, p.j)
		}
	}
	e.mu.Unlock()
	for _, j := range all {
		f(j)
	}
}

// push puts pairs into the queue, and has workers take them.
func (e *Engine) push(pairs ...*Joint) {
	if len(pairs) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, j := range pairs {
		e.append(j)
		switch {
		case e.waiting > 0:
			e.work.Signal()
		case e.workers < e.o.Workers:
			e.workers++
			e.group.Go(e.serve)
		}
	}
}

// append puts a pair at the end of the queue. The lock is held.
func (e *Engine) append(j *Joint) {
	if e.last == nil {
		e.first = j
	} else {
		e.last.next = j
	}
	e.last = j
	e.active.Add(1)
}

// serve is a worker.
func (e *Engine) serve() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		for e.first == nil && !e.ended {
			e.waiting++
			e.work.Wait()
			e.waiting--
		}
		j := e.first
		if j == nil {
			e.workers--
			return
		}
		if e.first = j.next; e.first == nil {
			e.last = nil
		}
		j.next = nil
		e.mu.Unlock()
		more := j.run(false)
		e.active.Add(-1)
		e.mu.Lock()
		if more {
			e.append(j) // this worker goes on with what is first
		}
	}
}

// sweep looks for pairs whose deadline is over.
func (e *Engine) sweep() {
	every := min(e.o.Linger, e.o.HalfOpen, e.o.Write)
	if e.o.Idle > 0 {
		every = min(every, e.o.Idle)
	}
	t := time.NewTicker(min(max(every/8, time.Millisecond), time.Second))
	defer t.Stop()
	for {
		select {
		case <-e.stop:
			return
		case <-t.C:
		}
		var late []*Joint
		now := time.Since(e.born)
		e.mu.Lock()
		for _, p := range e.table {
			if p.j != nil && p.j.late(now) {
				late = append(late, p.j)
			}
		}
		e.mu.Unlock()
		for _, j := range late {
			j.post(expired)
		}
	}
}
