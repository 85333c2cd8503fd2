package queue

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"
	"time"

	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// many is a Store that has very many messages, and no memory for them.
type many struct {
	*memory
	messages, boxes int
	state           spool.State
}

func (s *many) entry(i int) spool.Entry {
	var id [16]byte
	binary.BigEndian.PutUint64(id[8:], uint64(i))
	n := i % s.boxes
	box := routing.MailboxID{0: 1, 12: byte(n >> 16), 13: byte(n >> 8), 14: byte(n)}
	return spool.Entry{Transaction: mail.TransactionIDOf(id), Sequence: uint64(i) + 1, Agency: "health", Key: spool.KeyOf(box, ""), State: s.state}
}

func (s *many) Each(f spool.Filter, yield func(spool.Entry) bool) {
	if f.State != spool.StateUnknown && f.State != s.state {
		return
	}
	for i := int(f.After); i < s.messages; i++ {
		if !yield(s.entry(i)) {
			return
		}
	}
}

func (s *many) Get(id mail.TransactionID) (*spool.Message, error) {
	b, err := id.Bytes()
	if err != nil {
		return nil, err
	}
	e := s.entry(int(binary.BigEndian.Uint64(b[8:])))
	return &spool.Message{
		Envelope: spool.Envelope{Transaction: id, Time: time.Now()}, Sequence: e.Sequence,
		Recipients: []spool.Recipient{{Address: address(1), Agency: "health", Mailbox: e.Key.Mailbox(), State: s.state}},
	}, nil
}

// TestMemory: mail of a closed agency, and waiting mail, takes little memory besides the
// spool's own index.
func TestMemory(t *testing.T) {
	for _, c := range []struct {
		state           spool.State
		messages, boxes int
		most            float64 // bytes for each message
	}{
		{spool.StateHeld, 100_000, 5_000, 30},
		{spool.StateWaiting, 50_000, 5_000, 120},
	} {
		t.Run(c.state.String(), func(t *testing.T) {
			w := newWorld(t, nil)
			w.shut("health", 1)
			store := &many{memory: w.store, messages: c.messages, boxes: c.boxes, state: c.state}
			w.q.o.Store = store
			w.q.o.Retry.First = time.Hour // what waits isn't due during the test
			before := heapBytes()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- w.q.Run(ctx) }()
			loaded := func() bool {
				w.q.mu.Lock()
				defer w.q.mu.Unlock()
				if c.state == spool.StateWaiting {
					return len(w.q.waiting) >= c.messages*9/10
				}
				p := w.q.parked["health"]
				return p != nil && len(p.boxes) >= c.boxes-1 && w.q.cursor == uint64(c.messages)
			}
			for end := time.Now().Add(2 * time.Minute); !loaded(); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("not loaded")
				}
			}
			each := float64(heapBytes()-before) / float64(c.messages)
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			report := fmt.Sprintf("%d %s messages in %d mailboxes: %.1f bytes each", c.messages, c.state, c.boxes, each)
			t.Log(report)
			if each > c.most {
				t.Errorf("%s, want %g at most", report, c.most)
			}
		})
	}
}

// heapBytes returns the bytes in use.
func heapBytes() int64 {
	var m runtime.MemStats
	for range 3 { // what is in pools goes with the second
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
