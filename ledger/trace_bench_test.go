package ledger

import (
	"context"
	"flag"
	"testing"
	"time"
)

var traced = flag.Int("traced", 200_000, "deliveries in the ledger of BenchmarkTrace")

// BenchmarkTrace asks a ledger of -traced deliveries (10 million take about 3 GB and some
// minutes to make) for one message in every way that an operator has.
func BenchmarkTrace(b *testing.B) {
	l, err := Open(Options{Dir: b.TempDir(), Boot: "1"})
	if err != nil {
		b.Fatal(err)
	}
	tr := newTraffic(1)
	var wanted *Intent
	for n := range *traced {
		i := tr.intent()
		if n == *traced/3 {
			i.From, i.Recipients[0].Address = "once@rare.example", "seldom@rare.example"
			wanted = i
		}
		deliver(b, l, i, tr.answer(i))
	}
	for l.segmentsWithoutIndex() > 0 {
		l.indexOne()
	}
	s := l.Status()
	b.Logf("%d deliveries, %d segments, %.1f bytes each", *traced, len(s.Segments)+1, float64(s.Bytes)/float64(*traced))
	for name, q := range map[string]Query{
		"transaction": {Transaction: wanted.Transaction},
		"message-id":  {MessageID: wanted.MessageID},
		"from":        {From: wanted.From},
		"recipient":   {Recipient: string(wanted.Recipients[0].Address)},
		"nobody":      {Recipient: "nobody@health.example"},
	} {
		b.Run(name, func(b *testing.B) {
			want := 1
			if name == "nobody" {
				want = 0
			}
			for b.Loop() {
				n := 0
				for _, err := range l.Find(context.Background(), q) {
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
				if n != want {
					b.Fatalf("found %d", n)
				}
			}
		})
	}
	b.Run("agency, newest 100", func(b *testing.B) {
		for b.Loop() {
			n := 0
			for _, err := range l.Find(context.Background(), Query{Agency: "agency-07"}) {
				if err != nil {
					b.Fatal(err)
				}
				if n++; n == 100 {
					break
				}
			}
		}
	})
	b.Run("start", func(b *testing.B) {
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			begin := time.Now()
			m, err := Open(l.o)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(time.Since(begin).Milliseconds()), "open-ms")
			if err := m.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
