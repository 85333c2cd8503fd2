package spool

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/internal/durable"
	"mailcutover/internal/durable/memdisk"
	"mailcutover/mail"
)

// BenchmarkAccept is 20 connections that hand over messages of 10 KiB, on the real disk
// below the working directory: bodies in the journal, and bodies in a file each.
func BenchmarkAccept(b *testing.B) {
	body := []byte(strings.Repeat("0123456789abcde\n", 640))
	for name, inline := range map[string]int{"in-journal": 0, "in-files": -1} {
		for _, writers := range []int{1, 20, 100} {
			b.Run(fmt.Sprintf("%s/%d-writers", name, writers), func(b *testing.B) {
				s := openStore(b, Options{Disk: durable.OS{}, Dir: b.TempDir(), InlineBytes: inline})
				rcpts := []Recipient{rcpt("anna", "health", StateHeld)}
				var left atomic.Int64
				left.Store(int64(b.N))
				b.ResetTimer()
				var writing sync.WaitGroup
				for range writers {
					writing.Go(func() {
						for left.Add(-1) >= 0 {
							env := envelope(b)
							in, err := s.Begin(env)
							if err == nil {
								in.Write(body)
								err = in.Commit(b.Context(), rcpts)
								in.Discard()
							}
							if err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				writing.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
				b.StopTimer()
				if err := s.Close(); err != nil {
					b.Error(err)
				}
			})
		}
	}
}

// BenchmarkOpen starts with 100,000 held messages of 10 KiB.
func BenchmarkOpen(b *testing.B) {
	const messages = 100_000
	dir := b.TempDir()
	fill(b, durable.OS{}, dir, messages, strings.Repeat("0123456789abcde\n", 640))
	for b.Loop() {
		began := time.Now()
		s := openStore(b, Options{Disk: durable.OS{}, Dir: dir})
		if c, _ := s.Counts(); c.Messages != messages {
			b.Errorf("%d messages", c.Messages)
		}
		b.ReportMetric(time.Since(began).Seconds(), "s/start")
		s.Close()
	}
}

// BenchmarkReplay reads held messages of 10 KiB back, proves them and records that they
// are delivered, as 20 connections of a platform do.
func BenchmarkReplay(b *testing.B) {
	dir := b.TempDir()
	fill(b, durable.OS{}, dir, b.N, strings.Repeat("0123456789abcde\n", 640))
	s := openStore(b, Options{Dir: dir})
	defer s.Close()
	list := make(chan Entry, b.N)
	s.Each(Filter{}, func(e Entry) bool { list <- e; return true })
	close(list)
	b.ResetTimer()
	var working sync.WaitGroup
	for range 20 {
		working.Go(func() {
			for e := range list {
				_, err := s.Get(e.Transaction)
				if err == nil {
					_, err = readBody(b, s, e.Transaction)
				}
				if err == nil {
					err = s.Set(Outcome{Transaction: e.Transaction, Recipient: e.Recipient, State: StateDelivered})
				}
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	working.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

// fill puts held messages into a spool, in few groups.
func fill(b testing.TB, disk durable.Disk, dir string, messages int, body string) {
	b.Helper()
	s := openStore(b, Options{Disk: disk, Dir: dir})
	var left atomic.Int64
	left.Store(int64(messages))
	var writing sync.WaitGroup
	for range 256 {
		writing.Go(func() {
			for {
				n := left.Add(-1)
				if n < 0 {
					return
				}
				accept(b, s, body, rcpt(fmt.Sprint("r", n%50_000), "health", StateHeld))
			}
		})
	}
	writing.Wait()
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// TestMemoryPerHeldMessage holds 100,000 messages to 300 bytes each, with a mailbox for
// every second one; what grows by doubling is filled as badly as it can be.
func TestMemoryPerHeldMessage(t *testing.T) {
	measure(t, 100_000, 300)
}

// BenchmarkMemory does so with 1,000,000.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(measure(b, 1_000_000, 300), "bytes/message")
	}
}

func measure(t testing.TB, messages int, most float64) float64 {
	s := openStore(t, Options{Disk: memdisk.New(), manual: true})
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	s.mu.Lock()
	for i := range messages {
		id, _ := mail.NewTransactionID().Bytes()
		r := rcpt(fmt.Sprint(i%(messages/2)), "health", StateHeld)
		m := &message{id: id, seq: uint64(i + 1), size: 10_000, head: position{1, uint32(i)}, body: position{1, uint32(i)}}
		s.x.add(m, []recipient{s.x.recipient(&r)})
	}
	s.mu.Unlock()
	per := float64(heap()-before) / float64(messages)
	runtime.KeepAlive(s)
	if per > most {
		t.Errorf("%.0f bytes per message, at most %.0f are allowed", per, most)
	}
	t.Logf("%.0f bytes per message", per)
	return per
}
