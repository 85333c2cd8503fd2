package mailstore

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// creditRate is how many bytes buy a command another second: a line that is slower than
// this isn't worth waiting for.
const creditRate = 16 << 10

// maxAnswer is how many bytes a platform may send before what it sent is used, in bytes: go-imap keeps all of a
// line, and of a listing, in memory. It is some 50,000 folders, or the UIDs of two million messages.
const maxAnswer = 16 << 20

// errFlood is what a connection ends with whose other side sends more than anything asked for has.
var errFlood = errors.New("the answer doesn't end")

// guard is a connection with a time limit for what is asked over it. While it is armed, the
// other side has until the deadline; bytes that move put it off, and time in which this side
// neither reads nor writes doesn't count. go-imap's own deadlines, which are about a response
// as a whole whatever its size, are ignored.
type guard struct {
	net.Conn
	limit   time.Duration
	limiter *rate.Limiter // nil: none
	closed  chan struct{}
	once    sync.Once // closes it

	mu       sync.Mutex
	room     int64 // bytes that may come
	flooded  bool  // more came
	armed    bool
	expired  bool
	deadline time.Time
	set      time.Time // what the connection was told
	busy     int       // reads and writes that wait
	idle     time.Time // since when none does, if busy is 0
}

// Close implements net.Conn.
func (g *guard) Close() error {
	g.once.Do(func() { close(g.closed) })
	return g.Conn.Close()
}

// arm begins a command: it may take limit, or the guard's own if that is 0.
func (g *guard) arm(limit time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if limit == 0 {
		limit = g.limit
	}
	g.room = maxAnswer
	g.armed, g.deadline = true, time.Now().Add(limit)
	g.idle = time.Now()
	g.tell(true)
}

// disarm ends it.
func (g *guard) disarm() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed, g.set = false, time.Time{}
	if !g.expired {
		_ = g.Conn.SetDeadline(time.Time{}) // fails on a closed connection only
	}
}

// late reports whether a command wasn't done in time.
func (g *guard) late() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.expired
}

// allow is called when a message has come that is used and not kept, before its n bytes that come as a stream.
func (g *guard) allow(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.room = maxAnswer + max(0, n)
}

// take counts bytes that came.
func (g *guard) take(n int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.room -= int64(n); g.room >= 0 {
		return nil
	}
	g.flooded = true
	return errFlood
}

// flood reports whether more came than anything that was asked for has.
func (g *guard) flood() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.flooded
}

// tell sets the connection's deadline if it has moved by much. mu is held.
func (g *guard) tell(always bool) {
	if d := g.deadline.Sub(g.set); always || d > g.limit/20 || d < 0 {
		g.set = g.deadline
		_ = g.Conn.SetDeadline(g.deadline) // fails on a closed connection only
	}
}

// enter is called before a read or write waits.
func (g *guard) enter() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy++; g.armed && g.busy == 1 {
		g.deadline = g.deadline.Add(time.Since(g.idle))
		g.tell(false)
	}
}

// leave is called after it, with the bytes that moved.
func (g *guard) leave(n int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if g.busy--; g.busy == 0 {
		g.idle = now
	}
	if !g.armed {
		return
	}
	if os.IsTimeout(err) && !now.Before(g.set) {
		g.expired = true
		return
	}
	credit := time.Duration(n) * time.Second / creditRate
	if g.deadline = g.deadline.Add(credit); g.deadline.After(now.Add(g.limit)) {
		g.deadline = now.Add(g.limit)
	}
	g.tell(false)
}

// Read implements net.Conn.
func (g *guard) Read(p []byte) (int, error) {
	g.enter()
	n, err := g.Conn.Read(p)
	g.leave(n, err)
	if err := g.take(n); err != nil {
		_ = g.Close() // what is asked ends with errFlood
		return 0, err
	}
	g.spend(n)
	return n, err
}

// Write implements net.Conn.
func (g *guard) Write(p []byte) (int, error) {
	g.enter()
	n, err := g.Conn.Write(p)
	g.leave(n, err)
	g.spend(n)
	return n, err
}

// spend waits until n more bytes fit the rate, or the connection is closed. It is the rate's
// fault, not the platform's.
func (g *guard) spend(n int) {
	for g.limiter != nil && n > 0 {
		part := min(n, g.limiter.Burst())
		n -= part
		wait := g.limiter.ReserveN(time.Now(), part).Delay()
		if wait == 0 {
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-g.closed:
			timer.Stop()
			return
		}
	}
}

// SetDeadline, SetReadDeadline and SetWriteDeadline do nothing: the guard sets them.
func (g *guard) SetDeadline(time.Time) error      { return nil }
func (g *guard) SetReadDeadline(time.Time) error  { return nil }
func (g *guard) SetWriteDeadline(time.Time) error { return nil }
