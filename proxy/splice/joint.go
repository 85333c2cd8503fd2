package splice

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Joint is a pair that an engine has. Its methods may be called from any goroutine, also
// from the owner's methods, and never wait for I/O.
type Joint struct {
	e     *Engine
	owner Owner

	toPlatform, toClient atomic.Int64
	last                 atomic.Int64 // of a byte moved; nanoseconds since the engine's start
	deadline             atomic.Int64 // as last; 0: none

	// gate is held over each write, which never waits, so that CutPlatform returns between two.
	gate sync.Mutex
	cut  bool // guarded by gate

	mu        sync.Mutex
	news      news    // not seen by run yet
	scheduled bool    // in the queue, or run is under way
	began     bool    // Start
	over      bool    // Done was called
	parting   parting // what EndClient asked for
	quiet     quiet   // what CutWhenSilent asked for

	// The rest belongs to run, which is one at a time.
	up, down         flow // client to platform, platform to client
	client, platform side
	suspended        bool
	by               By
	err              error
	stage            stage

	slot, turn uint32 // its place in the engine's table
	next       *Joint // in the queue
}

// news is what happened since run looked last.
type news uint16

const (
	clientIn news = 1 << iota
	clientOut
	clientHup
	platformIn
	platformOut
	platformHup
	started
	resumed
	wasCut
	parted
	silence  // look whether both directions are silent
	due      // a timer of the end
	expired  // the deadline may be over
	closing  // Engine.Close
	deferred // work that the poller leaves to a worker

	sockets = clientIn | clientOut | clientHup | platformIn | platformOut | platformHup
)

// stage is how far the client's end is, after the platform was cut.
type stage uint8

const (
	joined   stage = iota
	dropping       // what it sends is dropped, until its last words are due
	telling        // the words are on their way
	leaving        // the end was sent; its own is awaited
)

// parting is how the client is to end.
type parting struct {
	asked bool
	words func() []byte
	at    time.Time
	timer *time.Timer
	said  bool
}

// quiet is how long the cut waits for silence.
type quiet struct {
	silence time.Duration
	until   time.Time
	timer   *time.Timer
}

// Start lets bytes flow. It has to be called, once; what was asked for before happens then. It
// does what there is to do at first itself, and may so call the owner's methods, Done too.
func (j *Joint) Start() {
	j.mu.Lock()
	j.began = true
	j.mu.Unlock()
	if !j.note(started) {
		return
	}
	j.e.active.Add(1)
	more := j.run(false)
	j.e.active.Add(-1)
	if more {
		j.e.push(j)
	}
}

// CutPlatform ends the platform's side at once, with a reset. When it returns no write of
// bytes from or to the platform begins any more, and none is under way; the socket is closed
// soon after, which Owner.PlatformGone tells. What the client sends from now on is dropped;
// its side stays open until EndClient, or Options.HalfOpen has passed.
func (j *Joint) CutPlatform() {
	j.gate.Lock()
	was := j.cut
	j.cut = true
	j.gate.Unlock()
	if !was {
		j.post(wasCut)
	}
}

// CutWhenSilent calls CutPlatform when no byte has moved in either direction, nor waits, for
// silence; after within in any case.
func (j *Joint) CutWhenSilent(silent, within time.Duration) {
	j.mu.Lock()
	until := time.Now().Add(within)
	if j.quiet.until.IsZero() || until.Before(j.quiet.until) {
		j.quiet.until = until
	}
	j.quiet.silence = silent
	j.mu.Unlock()
	j.post(silence)
}

// Resume goes on after Owner.Flow has returned ErrSuspended; it will be asked again.
func (j *Joint) Resume() { j.post(resumed) }

// EndClient cuts the platform and, when after has passed, tells the client words and closes its
// side. words is asked then, once, if what the client was sent until now can be followed by
// more; it may return nil, and may be nil. A second call only brings the end forward.
func (j *Joint) EndClient(words func() []byte, after time.Duration) {
	j.CutPlatform()
	at := time.Now().Add(after)
	j.mu.Lock()
	p := &j.parting
	if !p.asked {
		p.asked, p.words, p.at = true, words, at
	} else if at.Before(p.at) {
		p.at = at
	}
	j.mu.Unlock()
	j.post(parted)
}

// By returns what ended the pair. It is for Owner.PlatformGone only; Done is told.
func (j *Joint) By() By { return j.by }

// Stats returns the counts until now.
func (j *Joint) Stats() Stats {
	return Stats{ToPlatform: j.toPlatform.Load(), ToClient: j.toClient.Load(), Last: j.e.born.Add(time.Duration(j.last.Load()))}
}

// post adds news, and has run called if it isn't anyway.
func (j *Joint) post(n news) {
	if j.note(n) {
		j.e.push(j)
	}
}

// note adds news and reports whether the caller has to see to run.
func (j *Joint) note(n news) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.over {
		return false
	}
	j.news |= n
	if j.scheduled || !j.began {
		return false
	}
	j.scheduled = true
	return true
}

// run does what the news ask for, and moves bytes. more: it is to be called again. brief says
// that it must not call back what may take longer, nor go on for long.
func (j *Joint) run(brief bool) (more bool) {
	for rounds := 0; ; rounds++ {
		j.mu.Lock()
		n := j.news
		if n == 0 || j.over {
			j.scheduled = false
			j.mu.Unlock()
			return false
		}
		if rounds > 0 && brief || rounds > 1 || brief && n&^sockets != 0 {
			j.mu.Unlock()
			return true // still scheduled, with the news kept
		}
		j.news = 0
		j.mu.Unlock()
		j.hear(n)
		steps := 8
		if brief {
			steps = 4
		}
		again := j.move(steps)
		switch {
		case !brief:
			j.settle(n)
		case j.unsettled():
			again |= deferred
		default:
			j.limit()
		}
		if again != 0 {
			j.mu.Lock()
			j.news |= again
			j.mu.Unlock()
		}
		j.e.watch.await(j)
	}
}

// hear takes the news into the sides.
func (j *Joint) hear(n news) {
	j.client.hear(n&clientIn != 0, n&clientOut != 0, n&clientHup != 0)
	j.platform.hear(n&platformIn != 0, n&platformOut != 0, n&platformHup != 0)
	if n&resumed != 0 {
		j.suspended = false
	}
	if n&closing != 0 {
		j.because(ByClose, nil)
	}
	if n&wasCut != 0 {
		j.because(ByOwner, nil)
	}
}

func (s *side) hear(in, out, hup bool) {
	if in || hup {
		s.ready = true
		if s.wire != nil {
			s.wire.in = true
		}
	}
	if hup {
		s.hup = true
		if s.wire != nil {
			s.wire.hup = true
		}
	}
	if out || hup {
		s.open = true
	}
}

// move pumps both directions, or drops what the client sends after the cut.
func (j *Joint) move(steps int) (again news) {
	if j.isCut() || j.platform.closed {
		return 0
	}
	for range 2 { // reading from one side can give TLS something to say to it
		up := j.pump(&j.up, &j.client, &j.platform, steps)
		down := j.pump(&j.down, &j.platform, &j.client, steps)
		if !up && !down {
			return 0
		}
	}
	return started // more may be there
}

// ended notes that nothing more comes from src.
func (j *Joint) ended(f *flow, src *side, err error) {
	f.eof = true
	by := ByPlatform
	if src == &j.client {
		by = ByClient
	}
	if err == io.EOF {
		j.because(by, nil)
		return
	}
	j.because(by, err)
	j.broken(src, err)
}

// broken notes that a connection can't be used any more. What the other side sends is
// dropped; what came from it before goes on to the other.
func (j *Joint) broken(s *side, err error) {
	if s.failed {
		return
	}
	s.failed = true
	s.ready = true // until its end, or nothing
	if s == &j.client {
		j.because(ByClient, err)
		j.down.dead = true
	} else {
		j.because(ByPlatform, err)
		j.up.dead = true
	}
}

// refused is for an error of Flow.
func (j *Joint) refused(err error) {
	if errors.Is(err, ErrSuspended) {
		j.suspended = true
		return
	}
	j.because(ByFlow, err)
	j.setCut()
}

// setCut is what CutPlatform does, for run itself.
func (j *Joint) setCut() {
	j.gate.Lock()
	j.cut = true
	j.gate.Unlock()
}

func (j *Joint) because(by By, err error) {
	if j.by == ByUnknown {
		j.by, j.err = by, err
	}
}

func (j *Joint) isCut() bool {
	j.gate.Lock()
	defer j.gate.Unlock()
	return j.cut
}

// touch notes that a byte moved, and returns how long none had.
func (j *Joint) touch() time.Duration {
	now := time.Since(j.e.born)
	return now - time.Duration(j.last.Swap(int64(now)))
}
