package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/internal/platformtest"
)

// delivery is one message for one recipient.
type delivery struct {
	id   int
	rcpt string
}

// idLine carries a message's id.
var idLine = regexp.MustCompile(`(?m)^X-Test-Id: (\d+)`)

// withID is a small message with an id.
func withID(id int) string {
	return fmt.Sprintf("From: sender@out.example\r\nSubject: %d\r\nMessage-ID: <%d@out.example>\r\nX-Test-Id: %d\r\n\r\nText of message %d.\r\n", id, id, id, id)
}

// idOf returns the id in a message, 0 if it has none.
func idOf(message []byte) int {
	m := idLine.FindSubmatch(message)
	if m == nil {
		return 0
	}
	id, _ := strconv.Atoi(string(m[1]))
	return id
}

// stream is a sending relay: what is answered 4yz, or not at all, is sent again until it
// is answered 250.
type stream struct {
	addr    string
	rcpts   []string
	workers int

	mu      sync.Mutex
	next    int
	taken   map[delivery]time.Time // answered 250
	refused []string               // answered 5yz, which is never right
	putOff  map[string]int         // answers 4yz, how often
	broken  int                    // connections that broke
	stop    bool
	running sync.WaitGroup
}

// pace is how long a sender waits between messages. Mail of a mailbox is replayed one after
// the other, and what comes meanwhile queues behind it: senders as fast as they can be
// would never let it come to an end.
const pace = 15 * time.Millisecond

// startStream begins to send; finish ends it.
func startStream(ctx context.Context, addr string, workers int, rcpts ...string) *stream {
	s := &stream{addr: addr, rcpts: rcpts, workers: workers, taken: make(map[delivery]time.Time), putOff: make(map[string]int)}
	for i := range workers {
		s.running.Go(func() { s.work(ctx, rand.New(rand.NewPCG(uint64(i), 1))) })
	}
	return s
}

// finish stops new messages and waits until all that were begun are taken.
func (s *stream) finish() {
	s.mu.Lock()
	s.stop = true
	s.mu.Unlock()
	s.running.Wait()
}

func (s *stream) work(ctx context.Context, random *rand.Rand) {
	var w *wire
	defer func() {
		if w != nil {
			w.conn.Close()
		}
	}()
	for {
		s.mu.Lock()
		stop := s.stop
		s.next++
		d := delivery{s.next, s.rcpts[random.IntN(len(s.rcpts))]}
		s.mu.Unlock()
		if stop || ctx.Err() != nil {
			return
		}
		for try := 0; ; try++ {
			if ctx.Err() != nil {
				return
			}
			if try > 0 { // as a relay does, only sooner
				time.Sleep(10 * time.Millisecond)
			}
			answer, err := s.send(&w, d)
			s.mu.Lock()
			switch {
			case err != nil:
				s.broken++
				w = nil
			case answer[0] == '4':
				s.putOff[answer]++
			case answer[0] == '5':
				s.refused = append(s.refused, fmt.Sprintf("%d for %s: %s", d.id, d.rcpt, answer))
			default:
				s.taken[d] = time.Now()
			}
			s.mu.Unlock()
			if err == nil && answer[0] != '4' {
				break
			}
		}
		time.Sleep(pace)
	}
}

// send sends one message and returns the answer that counts.
func (s *stream) send(w **wire, d delivery) (answer string, err error) {
	defer func() {
		if err == nil && strings.HasPrefix(answer, "421") {
			err = errAnswer
		}
		if err != nil && *w != nil {
			(*w).conn.Close()
		}
	}()
	if *w == nil {
		c, err := dial(s.addr)
		if err != nil {
			return "", err
		}
		*w = c
		if answer, err = c.ask("EHLO out.example"); err != nil || answer[0] != '2' {
			return answer, err
		}
	}
	for _, command := range []string{"RSET", "MAIL FROM:<sender@out.example>", "RCPT TO:<" + d.rcpt + ">", "DATA", withID(d.id) + "."} {
		if answer, err = (*w).ask(command); err != nil || answer[0] > '3' {
			return answer, err
		}
	}
	return answer, nil
}

// count returns how many messages were taken.
func (s *stream) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.taken)
}

// waitMore waits until n more messages were taken.
func (s *stream) waitMore(t testing.TB, n int) {
	t.Helper()
	want := s.count() + n
	waitFor(t, fmt.Sprintf("%d more messages answered 250", n), func() bool { return s.count() >= want })
}

// copied is a copy of a message at a platform.
type copied struct {
	platform string
	at       time.Time // when the platform's answer was decided
}

// copiesAt returns what platforms have stored.
func copiesAt(platforms map[string]*platformtest.Platform) map[delivery][]copied {
	all := make(map[delivery][]copied)
	for name, p := range platforms {
		for _, tx := range p.Stored() {
			id := idOf(tx.Body())
			for _, rcpt := range tx.Accepted() {
				d := delivery{id, rcpt}
				all[d] = append(all[d], copied{name, tx.Ended})
			}
		}
	}
	return all
}

// waitDelivered waits until all that was taken is on a platform: also what was held. It
// returns what the platforms have.
func (s *stream) waitDelivered(t testing.TB, platforms map[string]*platformtest.Platform) (copies map[delivery][]copied) {
	t.Helper()
	waitFor(t, "all that was answered 250 to be on a platform", func() bool {
		copies = copiesAt(platforms)
		s.mu.Lock()
		defer s.mu.Unlock()
		for d := range s.taken {
			if len(copies[d]) == 0 {
				return false
			}
		}
		return true
	})
	return copies
}

// check compares what the stream saw answered 250 with what the platforms have. Each
// message must be where home says, once; up to doubts of them may be there again.
func (s *stream) check(t testing.TB, copies map[delivery][]copied, doubts int, home func(d delivery, c copied) error) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.refused {
		t.Errorf("refused for good: %s", r)
	}
	lost, twice, wrong := 0, 0, 0
	for d := range s.taken {
		if len(copies[d]) == 0 {
			lost++
			t.Errorf("message %d for %s was answered 250 and is nowhere", d.id, d.rcpt)
		}
	}
	for d, found := range copies {
		twice += len(found) - 1
		if _, ok := s.taken[d]; !ok {
			wrong++
			t.Errorf("message %d for %s is at %v, but nobody saw a 250", d.id, d.rcpt, found)
		}
		for _, c := range found {
			if err := home(d, c); err != nil {
				wrong++
				t.Errorf("message %d for %s: %v", d.id, d.rcpt, err)
			}
		}
	}
	if twice > doubts {
		t.Errorf("%d copies too many, at most %d can come from answers that were lost", twice, doubts)
	}
	t.Logf("%d messages taken, %d lost, %d duplicates, %d misplaced; %d connections broke, put off: %v", len(s.taken), lost, twice, wrong, s.broken, s.putOff)
}

// movesWith says where mail for an agency may be, from the operations that moved it: up
// to the end of each switch on the old side, from its closing on the new one. agency
// must have begun on its source platform. Other agencies stay on exchange.
func movesWith(agency string, ops ...admin.Operation) func(delivery, copied) error {
	type span struct {
		platform    string
		first, last time.Time
	}
	spans := []span{{platform: "exchange"}}
	slices.SortFunc(ops, func(a, b admin.Operation) int { return a.Started.Compare(b.Started) })
	for _, op := range ops {
		if op.Step != "done" {
			continue
		}
		spans[len(spans)-1].last = *op.Opened
		to := "ox"
		if op.Kind == "rollback" {
			to = "exchange"
		}
		spans = append(spans, span{platform: to, first: *op.Closed})
	}
	return func(d delivery, c copied) error {
		if !strings.HasSuffix(d.rcpt, "@"+agency+".example") {
			if c.platform != "exchange" {
				return fmt.Errorf("is on %s, its agency never moved", c.platform)
			}
			return nil
		}
		for _, s := range spans {
			if c.platform == s.platform && !c.at.Before(s.first) && (s.last.IsZero() || !c.at.After(s.last)) {
				return nil
			}
		}
		return fmt.Errorf("is on %s since %s, when its agency was elsewhere: %v", c.platform, c.at.Format(time.RFC3339Nano), spans)
	}
}
