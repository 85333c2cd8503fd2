package desk

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"mailcutover/notice"
	"mailcutover/notice/outbox"
)

const (
	// gather is how long a channel that bundles waits for what comes at the same time.
	gather = 2 * time.Second

	// The pauses between attempts double from the desk's pace to the last; when they come to
	// giveUp in all, the events are given up. What counts is the sum of pauses, not the clock.
	lastRetry = 15 * time.Minute
	giveUp    = 24 * time.Hour

	// mostRejections is how often an event is tried that its receiver refuses for what it says.
	mostRejections = 5

	// failuresAlarm is how many failures in a row are an alarm.
	failuresAlarm = 4

	// readAtOnce is how many events are read from the disk at a time.
	readAtOnce = 100
)

// sender tells one channel.
type sender struct {
	*Channel
	d     *Desk
	woken chan struct{}

	mu       sync.Mutex
	failures int       // in a row
	failure  string    // the last one
	next     time.Time // when it is tried again; zero: at once
	sent     time.Time // when it last succeeded; zero: not since the start
	told     uint64    // events since it was made
	missed   uint64    // attempts that failed since then
	lost     uint64    // events that were given up or dropped since then
	ofTable  uint64    // batches with events of the table that it was told
	marked   uint64    // ofTable, before the table is told
	noted    uint64    // ofTable, as the table was told
}

func newSender(d *Desk, c *Channel) *sender {
	return &sender{Channel: c, d: d, woken: make(chan struct{}, 1)}
}

func (s *sender) wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// batch is what is sent at once.
type batch struct {
	events []notice.Event
	upTo   [2]uint64 // settled with it, of both streams; 0: nothing
}

// run sends until ctx ends.
func (s *sender) run(ctx context.Context) {
	for ctx.Err() == nil {
		b, ok := s.collect(ctx)
		if !ok {
			return
		}
		if len(b.events) == 0 {
			select {
			case <-s.woken:
			case <-ctx.Done():
			}
			continue
		}
		if s.Every > 0 {
			if !pause(ctx, max(gather, time.Until(s.lastSent().Add(s.Every)))) {
				return
			}
			if b, ok = s.collect(ctx); !ok || len(b.events) == 0 {
				continue // another node has told them
			}
		}
		s.deliver(ctx, &b)
	}
}

func (s *sender) lastSent() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent
}

// collect returns what is to be sent next. What the channel doesn't want is settled. It is
// false when ctx has ended.
func (s *sender) collect(ctx context.Context) (b batch, ok bool) {
	for _, stream := range []outbox.Stream{outbox.Node, outbox.Table} {
		if stream == outbox.Table && !s.d.myTurn() {
			continue
		}
		for after := uint64(0); len(b.events) < s.Most; {
			var list []outbox.Entry
			if !s.d.persist(ctx, "read events", func() (err error) {
				list, err = s.d.box.After(s.Name, stream, after, readAtOnce)
				return err
			}) {
				return b, false
			}
			for i := range list {
				if text := list[i].Damage; text != "" {
					s.damaged(text)
				} else if s.Filter.Wants(&list[i].Event) {
					if len(b.events) == s.Most {
						break
					}
					b.events = append(b.events, list[i].Event)
				}
				after = list[i].Number
				b.upTo[stream] = after
			}
			if len(list) < readAtOnce {
				break
			}
		}
	}
	if len(b.events) == 0 && b.upTo != [2]uint64{} {
		return b, s.settle(ctx, &b)
	}
	return b, true
}

func (s *sender) settle(ctx context.Context, b *batch) bool {
	for stream, n := range b.upTo {
		if n == 0 {
			continue
		}
		if !s.d.persist(ctx, "settle events", func() error { return s.d.box.Settle(s.Name, outbox.Stream(stream), n) }) {
			return false
		}
	}
	return true
}

// deliver sends a batch until it is taken or given up, or ctx ends, or it is another
// node's turn.
func (s *sender) deliver(ctx context.Context, b *batch) {
	waited, wait := time.Duration(0), s.d.o.Pace
	for rejections := 0; ; {
		attempt, cancel := context.WithTimeout(ctx, s.Timeout)
		err := s.Send(attempt, b.events)
		cancel()
		if ctx.Err() != nil && err != nil {
			return
		}
		if err == nil {
			s.settle(ctx, b)
			s.succeeded(b)
			return
		}
		if errors.Is(err, notice.ErrRejected) {
			rejections++
		}
		s.failed(err, wait)
		if waited >= giveUp || rejections >= mostRejections {
			s.abandon(b, err)
			s.settle(ctx, b)
			return
		}
		if !pause(ctx, wait) {
			return
		}
		waited += wait
		wait = min(2*wait, lastRetry)
		if b.upTo[outbox.Table] != 0 && !s.d.myTurn() {
			return
		}
	}
}

// mark remembers what was told before the table is told of it.
func (s *sender) mark() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marked = s.ofTable
}

// note says that the table was told of what was marked.
func (s *sender) note() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noted = s.marked
}

// unnoted reports whether something was told of which the table wasn't.
func (s *sender) unnoted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.marked != s.noted
}

func (s *sender) succeeded(b *batch) {
	n := len(b.events)
	s.mu.Lock()
	if b.upTo[outbox.Table] != 0 {
		s.ofTable++
	}
	s.failures, s.failure, s.next, s.sent = 0, "", time.Time{}, time.Now()
	s.told += uint64(n)
	s.mu.Unlock()
	s.d.o.Alarms.Clear(failingAlarm + s.Name)
	s.d.o.Logger.Info("notice sent", "channel", s.Name, "events", n)
}

func (s *sender) failed(err error, wait time.Duration) {
	s.mu.Lock()
	s.failures++
	s.missed++
	s.failure, s.next = notice.OneLine(err.Error()), time.Now().Add(wait)
	n := s.failures
	s.mu.Unlock()
	s.d.o.Logger.Warn("notice not sent", "channel", s.Name, "attempt", n, "error", err)
	if n >= failuresAlarm {
		s.d.o.Alarms.Raise(failingAlarm+s.Name, fmt.Sprintf("The channel %s takes no events, after %d attempts: %v. They are kept and tried for a day.", s.Name, n, err))
	}
}

// lose counts events that the channel never gets.
func (s *sender) lose(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost += uint64(n)
}

// damaged says that an event can't be read, and that nobody is told of it.
func (s *sender) damaged(text string) {
	s.lose(1)
	s.d.o.Logger.Error("an event can't be read", "channel", s.Name, "error", text)
	s.d.o.Alarms.Raise(refusedAlarm+s.Name, fmt.Sprintf("An event for the channel %s can't be read from this node's disk, and is not told: %s", s.Name, text))
}

// abandon says that events are given up.
func (s *sender) abandon(b *batch, err error) {
	s.lose(len(b.events))
	ids := make([]string, len(b.events))
	for i := range b.events {
		ids[i] = b.events[i].ID
	}
	s.d.o.Logger.Error("notice given up", "channel", s.Name, "events", ids, "error", err)
	s.d.o.Alarms.Raise(refusedAlarm+s.Name, fmt.Sprintf("%d events for the channel %s were given up, the first is %s (%s): %v", len(b.events), s.Name, ids[0], b.events[0].Type, err))
}
