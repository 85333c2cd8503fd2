package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"mailcutover/bench/figure"
	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
	"mailcutover/test/peers"
)

// nodeName is that of the configuration: whose the spool is.
const nodeName = "mx1.bench.example"

// fillers is how many put messages into a spool at once: fsyncs are shared.
const fillers = 256

// starts measures the start of a node whose spool has held mail, for an agency that is
// open: until it is ready, and until the first message was delivered.
func starts(t peers.TB, o options) []figure.Figure {
	s := newSettings(t, peers.StartSink(t).Addr)
	program := build(t, s.dir, "./cmd/mailcutover")
	_, kill := s.launch(t, program)
	s.fill(t)
	kill()
	s.store(t, o.starts, messageBytes)
	var ready, sends []float64
	for range o.nodes {
		began := time.Now()
		_, kill := s.launch(t, program)
		ctx, cancel := context.WithTimeout(t.Context(), startWithin)
		s.until(t, ctx, func() bool {
			_, err := s.get(ctx, "/readyz")
			return err == nil
		})
		ready = append(ready, time.Since(began).Seconds())
		s.until(t, ctx, func() bool {
			n, err := s.sum(ctx, "mailcutover_spool_attempts_total", `kind="replay"`, `result="delivered"`)
			return err == nil && n > 0
		})
		sends = append(sends, time.Since(began).Seconds())
		cancel()
		kill()
	}
	name := fmt.Sprintf("start with %d held messages", o.starts)
	return []figure.Figure{
		figure.New(name+", until ready", "s", ready...).AtMost(10),
		figure.New(name+", until the queue sends", "s", sends...).AtMost(10),
	}
}

// memories measures what held messages add to a node's memory, while their platform is
// down.
func memories(t peers.TB, o options) []figure.Figure {
	var figures []figure.Figure
	for _, messages := range o.held {
		if err := peers.Run(t.Context(), "held messages", o.progress, func(t peers.TB) {
			s := newSettings(t, closedPort(t))
			s.target = peers.StartSink(t).Addr
			program := build(t, s.dir, "./cmd/mailcutover")
			pid, kill := s.launch(t, program)
			s.fill(t)
			kill()
			measure := func() (rss, heap float64) {
				pid, kill = s.launch(t, program)
				defer kill()
				ctx, cancel := context.WithTimeout(t.Context(), startWithin)
				defer cancel()
				s.until(t, ctx, func() bool { return s.scrape(ctx) == nil })
				rss = settled(t, o.settle, s, pid)
				heap, err := s.leastHeap(ctx)
				if err != nil {
					t.Fatalf("%v", err)
				}
				return rss, heap
			}
			rss, heap := measure()
			s.store(t, messages, 512)
			rssHeld, heapHeld := measure()
			each := func(a, b float64) float64 { return (b - a) / float64(messages) }
			name := fmt.Sprintf("memory of a held message, of %d", messages)
			figures = append(figures,
				figure.New(name+", VmRSS", "bytes", each(rss, rssHeld)).AtMost(300),
				figure.New(name+", heap in use", "bytes", each(heap, heapHeld)))
		}); err != nil {
			t.Fatalf("%v", err)
		}
	}
	return figures
}

// leastHeap returns the least heap in use over a second of scrapes.
func (s *settings) leastHeap(ctx context.Context) (least float64, err error) {
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(scrapeEvery) {
		v, err := s.sum(ctx, "go_memstats_heap_alloc_bytes")
		if err != nil {
			return 0, err
		}
		if least == 0 || v < least {
			least = v
		}
	}
	return least, nil
}

// until waits for a condition.
func (s *settings) until(t peers.TB, ctx context.Context, done func() bool) {
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("the node is not there: %v", ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// store puts held messages into the spool of a node that doesn't run.
func (s *settings) store(t peers.TB, messages, size int) {
	from, err := mail.ParsePath("sender@elsewhere.example", false)
	if err != nil {
		t.Fatalf("fill the spool: %v", err)
	}
	store, err := spool.Open(spool.Options{Dir: filepath.Join(s.data(), "spool"), Node: nodeName})
	if err != nil {
		t.Fatalf("fill the spool: %v", err)
	}
	body := append([]byte("Subject: held\r\n\r\n"), bytes.Repeat([]byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n"), size/64)...)
	var next atomic.Int64
	errs := make([]error, fillers)
	var all sync.WaitGroup
	for f := range fillers {
		all.Go(func() {
			for errs[f] == nil {
				i := int(next.Add(1)) - 1
				if i >= messages {
					return
				}
				errs[f] = put(t.Context(), store, from, body, i)
			}
		})
	}
	all.Wait()
	if err := errors.Join(append(errs, store.Close())...); err != nil {
		t.Fatalf("fill the spool: %v", err)
	}
}

// put stores the message with a number.
func put(ctx context.Context, store *spool.Store, from mail.Path, body []byte, i int) error {
	mailbox := i % tableMailboxes
	id, err := routing.ParseMailboxID(mailboxID(mailbox))
	if err != nil {
		return err
	}
	in, err := store.Begin(spool.Envelope{
		Transaction: mail.NewTransactionID(), Time: time.Now(), From: from,
		Client:    mail.Client{Session: "bench", Listener: "mx", Origin: mail.OriginOutside, Helo: "client.bench.example", With: "ESMTP"},
		MessageID: fmt.Sprintf("<%d@elsewhere.example>", i),
	})
	if err != nil {
		return err
	}
	defer in.Discard()
	if _, err := in.Write(body); err != nil {
		return err
	}
	return in.Commit(ctx, []spool.Recipient{{
		Address: routing.Address(fmt.Sprintf("person%d@agency.example", mailbox)), Agency: "agency", Mailbox: id,
		State: spool.StateHeld, Reason: "agency closed",
	}})
}

// closedPort returns an address where nobody listens.
func closedPort(t peers.TB) string {
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(peers.Port(t)))
}
