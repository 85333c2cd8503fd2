package ledger

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"mailcutover/mail"
	"mailcutover/routing"
)

// traffic makes intents and answers as they are in a public administration: one platform
// of each kind, senders from a few hundred domains, Message-IDs of Exchange's length.
type traffic struct {
	r    *rand.Rand
	ids  int
	when time.Time
}

func newTraffic(seed uint64) *traffic {
	return &traffic{r: rand.New(rand.NewPCG(seed, 1)), when: time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)}
}

func (t *traffic) intent() *Intent {
	t.ids++
	agency := routing.AgencyID(fmt.Sprintf("agency-%02d", t.r.IntN(60)))
	i := &Intent{
		Time:        t.when,
		Transaction: mail.NewTransactionID(),
		Platform:    "exchange",
		Host:        "ex1.mail.state.example:2525",
		From:        fmt.Sprintf("firstname.lastname%d@department%d.partner.example", t.r.IntN(20000), t.r.IntN(300)),
		MessageID:   fmt.Sprintf("<AM0PR05MB%012d@AM0PR05MB%04d.eurprd05.prod.outlook.example>", t.ids, t.r.IntN(9000)),
		Size:        int64(t.r.IntN(200_000)),
		Recipients:  []Recipient{{Agency: agency, Epoch: routing.Epoch{Term: 1, Number: uint32(t.r.IntN(40))}}},
	}
	to := &i.Recipients[0]
	to.Address = routing.Address(fmt.Sprintf("erika.mustermann-%d@%s.state.example", t.r.IntN(30000), agency))
	for n := 0; n < 16; n += 8 {
		v := t.r.Uint64()
		for b := range 8 {
			to.Mailbox[n+b] = byte(v >> (8*b + 3))
		}
	}
	i.Digest = Digest(t.r.Uint64())
	t.when = t.when.Add(100 * time.Microsecond)
	return i
}

func (t *traffic) answer(i *Intent) Answer {
	if t.ids%2 == 0 {
		return Answer{ResultDelivered, 250, fmt.Sprintf("2.6.0 %s [InternalId=%d, Hostname=ex1.mail.state.example] 12345 bytes in 0.101, 118.9 KB/sec Queued mail for delivery", i.MessageID, t.r.Int64())}
	}
	return Answer{ResultDelivered, 250, fmt.Sprintf("2.0.0 <%s> %012xAAAA Saved", i.Recipients[0].Address, t.r.Int64())}
}

// BenchmarkDelivery is one intent and its outcome on the machine's disk, with everything
// that the ledger's goroutine does meanwhile.
func BenchmarkDelivery(b *testing.B) {
	for _, hashed := range []bool{false, true} {
		for _, parallel := range []int{1, 20} {
			b.Run(fmt.Sprintf("hashed=%t/transfers=%d", hashed, parallel), func(b *testing.B) {
				o := Options{Dir: b.TempDir(), Boot: "b"}
				if hashed {
					o.HashKey = []byte("key")
				}
				l, err := Open(o)
				if err != nil {
					b.Fatal(err)
				}
				t := newTraffic(1)
				intents := make([]*Intent, 10000)
				answers := make([]Answer, len(intents))
				for n := range intents {
					intents[n] = t.intent()
					answers[n] = t.answer(intents[n])
				}
				b.SetParallelism(parallel)
				b.ReportAllocs()
				b.ResetTimer()
				before := cpuTime(b)
				deliver := func(n int) {
					ticket, err := l.Intend(intents[n%len(intents)])
					if err != nil {
						b.Error(err)
					}
					l.Outcome(ticket, answers[n%len(intents)])
				}
				if parallel == 1 {
					for n := range b.N {
						deliver(n)
					}
				} else {
					b.RunParallel(func(pb *testing.PB) {
						for n := rand.IntN(10000); pb.Next(); n++ {
							deliver(n)
						}
					})
				}
				b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
				b.StopTimer()
				if err := l.Close(); err != nil {
					b.Fatal(err)
				}
				for n := l.segmentsWithoutIndex(); n > 0; n-- {
					l.indexOne()
				}
				b.ReportMetric(float64(l.Status().Bytes)/float64(b.N), "disk-B/op")
			})
		}
	}
}

// cpuTime is what this process has used. A delivery that waits for other processes of the
// machine takes longer, but costs the proxy no more.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (l *Ledger) segmentsWithoutIndex() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, s := range l.segments {
		if s.IndexBytes == 0 {
			n++
		}
	}
	return n
}
