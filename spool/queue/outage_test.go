package queue

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

var outageLasts = flag.Duration("queue.outage", 30*time.Second, "how long a platform is away while mail comes in")

// Of a platform that is away, while so many messages come in a second.
const (
	outageRate  = 100
	outageBoxes = 500
)

// TestOutage: a platform is away while mail for it comes in at 100 messages a second, and
// comes back. All of it arrives, once, what was held in order, within the time that the
// platform's connections need; the memory grows by a few hundred bytes for each message
// that waits, and is given back. The spool is a real one, on the disk; only the time isn't.
func TestOutage(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := &outage{T: t, sender: &outageSender{t: t, boxes: make(map[routing.Address]*taken)}}
		var err error
		if o.store, err = spool.Open(spool.Options{Dir: dir, Node: "mx1"}); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := o.store.Close(); err != nil {
				t.Error(err)
			}
		}()
		if o.q, err = New(Options{Store: FromSpool(o.store), Router: o, Sender: o.sender, Alarms: o}); err != nil {
			t.Fatal(err)
		}
		o.play()
	})
}

// outage is one run of the test. It is its queue's router and takes its alarms.
type outage struct {
	*testing.T
	store  *spool.Store
	q      *Queue
	sender *outageSender
	accept int // messages so far
}

func (o *outage) Raise(key, text string) { o.Errorf("alarm %s: %s", key, text) }
func (o *outage) Clear(string) bool      { return false }

func (o *outage) Address(a routing.Address) routing.Decision {
	var n int
	if _, err := fmt.Sscanf(string(a), "m%d@", &n); err != nil {
		o.Errorf("address %q: %v", a, err)
	}
	return routing.Decision{Reason: routing.ReasonOpen, Agency: "health", Mailbox: box1(n), Platform: "ox", Address: a}
}

func (o *outage) play() {
	// Half of the mailboxes have held mail when the platform goes away: what comes for them
	// is held behind it. What comes for the others waits.
	o.second(outageBoxes/2, func(int) spool.State { return spool.StateHeld })
	o.sender.away.Store(true)
	base := heapBytes()
	ctx, cancel := context.WithCancel(o.Context())
	done := make(chan error, 1)
	go func() { done <- o.q.Run(ctx) }()
	began := time.Now()
	for time.Since(began) < *outageLasts {
		o.arrive()
	}
	waiting := o.accept
	if got := o.sender.total.Load(); got > 0 {
		o.Errorf("%d messages were taken by a platform that is away", got)
	}
	if asked, most := o.sender.asked.Load(), int64(*outageLasts/time.Second)+outageBoxes; asked > most {
		o.Errorf("a platform that is away was asked %d times in %s", asked, *outageLasts)
	}
	full := heapBytes()
	each := float64(full-base) / float64(waiting)
	o.Logf("%d messages wait after %s: %.0f bytes of memory each", waiting, *outageLasts, each)
	if most := 400 + 4e6/float64(waiting); each > most { // buffers, whatever the number
		o.Errorf("%.0f bytes each, want %.0f at most", each, most)
	}

	o.sender.away.Store(false)
	back := time.Now()
	for !o.empty() {
		// The platform takes 1,000 a second and is asked again within 30 s; 100 come meanwhile.
		if limit := 40*time.Second + time.Duration(waiting)*time.Second/500; time.Since(back) > limit {
			c, _ := o.store.Counts()
			o.Fatalf("%d held and %d waiting after %s", c.Of(spool.StateHeld), c.Of(spool.StateWaiting), limit)
		}
		o.arrive()
	}
	o.Logf("drained after %s, with %d messages that came meanwhile", time.Since(back).Round(time.Second), o.accept-waiting)
	cancel()
	if err := <-done; err != nil {
		o.Error(err)
	}
	if got := int(o.sender.total.Load()); got != o.accept {
		o.Errorf("%d messages arrived of %d", got, o.accept)
	}
	if left := heapBytes() - base; left > 4e6+int64(waiting)*60 { // maps and heaps don't shrink; the sender counts
		o.Errorf("%d bytes more than before are in use at the end", left)
	}
}

// empty lets what was begun end, and reports whether all was delivered.
func (o *outage) empty() bool {
	synctest.Wait()
	c, _ := o.store.Counts()
	return c.Messages == 0
}

// arrive lets a second's mail come in as from transfer.
func (o *outage) arrive() {
	o.second(outageRate, func(n int) spool.State {
		if o.store.Held(spool.KeyOf(box1(n), "")) {
			return spool.StateHeld
		}
		return spool.StateWaiting
	})
	time.Sleep(time.Second)
}

// second puts messages into the spool, all at once, so that they share fsyncs.
func (o *outage) second(messages int, state func(mailbox int) spool.State) {
	var all sync.WaitGroup
	for range messages {
		n := o.accept % outageBoxes
		o.accept++
		s := state(n)
		all.Go(func() {
			env := spool.Envelope{Transaction: mail.NewTransactionID(), Time: time.Now()}
			rcpt := spool.Recipient{Address: address(n), Agency: "health", Mailbox: box1(n), State: s}
			if s == spool.StateWaiting && o.sender.away.Load() { // as after an attempt that didn't get through
				rcpt.Last = spool.Result{Time: env.Time, Platform: "ox", Attempts: 1, Cause: spool.CauseUnavailable}
			}
			in, err := o.store.Begin(env)
			if err != nil {
				o.Error(err)
				return
			}
			defer in.Discard()
			if _, err := fmt.Fprintf(in, "Subject: %s\r\n\r\nbody\r\n", env.Transaction); err != nil {
				o.Error(err)
			}
			if err := in.Commit(context.Background(), []spool.Recipient{rcpt}); err != nil {
				o.Error(err)
				return
			}
			o.q.AddedFrom(env.Transaction, 0)
		})
	}
	all.Wait()
}

// outageSender is a platform with 20 connections, each of which takes 50 messages a second.
type outageSender struct {
	t            *testing.T
	away         atomic.Bool
	asked, total atomic.Int64
	mu           sync.Mutex
	boxes        map[routing.Address]*taken
}

// taken is what arrived in a mailbox.
type taken struct {
	held    uint64          // sequence of the last that was held
	waiting map[uint64]bool // that waited
}

func (s *outageSender) Connections(routing.PlatformID) int { return 20 }

func (s *outageSender) Send(_ context.Context, d *Delivery) []Result {
	if s.away.Load() {
		s.asked.Add(1)
		return []Result{{Status: Unavailable, Err: errDown, Slow: true}}
	}
	time.Sleep(20 * time.Millisecond)
	content, err := io.ReadAll(d.Body)
	if err = errors.Join(err, d.Body.Verify()); err != nil || string(content) != fmt.Sprintf("Subject: %s\r\n\r\nbody\r\n", d.Message.Transaction) {
		s.t.Errorf("message %s is %q: %v", d.Message.Transaction, content, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total.Add(1)
	r := &d.Message.Recipients[0]
	b := s.boxes[r.Address]
	if b == nil {
		b = &taken{waiting: make(map[uint64]bool)}
		s.boxes[r.Address] = b
	}
	switch seq := d.Message.Sequence; {
	case r.State == spool.StateHeld && seq <= b.held, b.waiting[seq]:
		s.t.Errorf("%s got message %d twice, or after %d", r.Address, seq, b.held)
	case r.State == spool.StateHeld:
		b.held = seq
	default:
		b.waiting[seq] = true
	}
	return []Result{{Status: Delivered}}
}
