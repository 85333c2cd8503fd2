package campaign

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"mailcutover/test/cluster"
)

// Storm does things to a cluster, and has people operate it meanwhile. Its methods are called from
// the test's goroutine.
type Storm struct {
	c     *cluster.Cluster
	w     *World  // nil: without networks and disks
	disks []*Disk // of the nodes; with a world
	dir   *Directory
	no    *Refusals
	pace  time.Duration // of senders to new mailboxes
	tally *Tally
	log   func(format string, args ...any)

	mu      sync.Mutex
	random  *rand.Rand
	busy    map[int]bool    // nodes that something is being done to
	known   map[string]bool // operations that have ended
	held    map[string]bool // agencies that our own people keep locked
	locks   []Lock
	entered map[string]int // people in each agency's directory since the beginning
	holder  map[string]int // which mailbox has an agency's shared address; 0: the first
	there   map[string][]newcomer
	roster  Roster
	errs    []error
	working sync.WaitGroup
}

// NewStorm is a storm over c, whose agencies are in dir. The seed draws.
func NewStorm(c *cluster.Cluster, w *World, disks []*Disk, dir *Directory, no *Refusals, pace time.Duration, seed uint64, tally *Tally, log func(string, ...any)) *Storm {
	return &Storm{
		c: c, w: w, disks: disks, dir: dir, no: no, pace: pace, tally: tally, log: log, random: rand.New(rand.NewPCG(seed, 0x5eed)),
		busy: make(map[int]bool), known: make(map[string]bool), held: make(map[string]bool),
		entered: make(map[string]int), holder: make(map[string]int), there: make(map[string][]newcomer), roster: Roster{Complete: make(map[string]time.Time), Armed: make(map[string]time.Time)},
	}
}

// A storm comes in gusts: nothing is begun between them, but by people.
const (
	gust = 25 * time.Second
	lull = 6 * time.Second
)

// comeToRest is how long all that was begun may take to end once nothing is done any more.
const comeToRest = 5 * time.Minute

// Rage goes on for so long, with operations on these agencies, heals everything, and returns when
// all that was begun has ended. The error says what did not.
func (s *Storm) Rage(ctx context.Context, lasts time.Duration, agencies ...string) error {
	ctx, cancel := context.WithTimeout(ctx, lasts+comeToRest)
	defer cancel()
	end := time.Now().Add(lasts)
	goOn := func() bool { return time.Now().Before(end) && ctx.Err() == nil && !s.failed() }
	people, home := context.WithCancel(ctx)
	defer home()
	var attending sync.WaitGroup
	attending.Go(func() { s.attend(people) })

	began := time.Now()
	trouble := func(pause time.Duration, what func(context.Context) error) {
		s.again(ctx, goOn, pause, func(ctx context.Context) error {
			if time.Since(began)%(gust+lull) >= gust {
				return nil
			}
			return what(ctx)
		})
	}
	for range 2 {
		trouble(300*time.Millisecond, s.troubleNode)
	}
	trouble(3*time.Second, s.troublePlatform)
	trouble(6*time.Second, s.troubleDirectory)
	if s.w != nil {
		trouble(6*time.Second, s.troubleRedis)
	}
	for _, id := range agencies {
		s.again(ctx, goOn, 300*time.Millisecond, func(ctx context.Context) error { return s.operate(ctx, id) })
	}
	s.working.Wait()
	if err := s.rest(ctx, agencies); err != nil {
		s.fail(err)
	}
	home()
	attending.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.errs...)
}

// again does something again and again, with pauses of about this length.
func (s *Storm) again(ctx context.Context, goOn func() bool, pause time.Duration, what func(context.Context) error) {
	s.working.Go(func() {
		for wait(ctx, s.upTo(pause)) && goOn() {
			if err := what(ctx); err != nil {
				s.fail(err)
			}
		}
	})
}

func (s *Storm) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs = append(s.errs, err)
}

func (s *Storm) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.errs) > 0
}

// draw returns a number below n.
func (s *Storm) draw(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.random.IntN(n)
}

// upTo returns a time between 0 and d.
func (s *Storm) upTo(d time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(s.random.Int64N(int64(d) + 1))
}

// rest waits until all nodes decide for all agencies, and know whose mailbox is whose as the
// directory does. What a failover of Redis has lost of that, people bring once more.
func (s *Storm) rest(ctx context.Context, agencies []string) error {
	for _, n := range s.c.Nodes {
		if !s.until(ctx, func() bool { return s.c.Serving(ctx, n) }) {
			return fmt.Errorf("%s does not serve after all was healed: %w", n.Name, n.Ready(context.WithoutCancel(ctx)))
		}
	}
	for _, id := range agencies {
		holder := cluster.Mailbox(id, cmp.Or(s.holder[id], 1))
		if err := s.bring(ctx, id, shared(id), holder); err != nil {
			return err
		}
		for _, n := range s.c.Nodes {
			last := ""
			if !s.until(ctx, func() bool {
				call, cancel := context.WithTimeout(ctx, callPatience)
				defer cancel()
				otherwise, err := s.agreed(call, n, id, shared(id), holder)
				last = otherwise + sayError(err)
				return last == ""
			}) {
				return fmt.Errorf("%s doesn't agree with the directory after all was healed: %s", n.Name, last)
			}
		}
	}
	return nil
}

// Roster is what people have said about mailboxes.
func (s *Storm) Roster() *Roster {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &s.roster
}

// Empty waits until all spools are. A platform that refuses what it says it had to take keeps a
// mailbox's mail for a while, one message after the other.
func (s *Storm) Empty(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, comeToRest)
	defer cancel()
	for _, n := range s.c.Nodes {
		held, err := 0.0, error(nil)
		if !s.until(ctx, func() bool { held, err = n.Held(ctx); return err == nil && held == 0 }) {
			return fmt.Errorf("%s still has %g messages in its spool, %s after all was healed (%v)", n.Name, held, comeToRest, err)
		}
	}
	return nil
}

// until waits for done, no longer than ctx.
func (s *Storm) until(ctx context.Context, done func() bool) bool {
	for !done() {
		if !wait(ctx, 50*time.Millisecond) {
			return false
		}
	}
	return true
}

// wait reports whether ctx is still there after d.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// anyNode is a node that nothing is being done to, if there is one.
func (s *Storm) anyNode() *cluster.Node {
	first := s.draw(len(s.c.Nodes))
	for i := range s.c.Nodes {
		if n := s.c.Nodes[(first+i)%len(s.c.Nodes)]; !s.c.Down(n.Index) {
			return n
		}
	}
	return s.c.Nodes[first]
}
