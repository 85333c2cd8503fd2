package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/mail"
)

func open(ctx context.Context, t testing.TB, p *Pool) *Transaction {
	t.Helper()
	tx, err := p.Open(ctx, mail.Client{}, path(t, "a@out.example"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// deadAddress returns an address of this machine where nobody listens.
func deadAddress(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestConnectionsNeverExceedTheLimit(t *testing.T) {
	peer := startPeer(t, new(peer))
	ep := endpoint(peer.addr)
	ep.Limits.Connections = 3
	p := newPool(t, ep, Options{})
	ctx := testContext(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 10 {
				if err := deliver(ctx, t, p, "x\r\n", "b@x.example").err(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	peer.mu.Lock()
	peak := peer.peak
	peer.mu.Unlock()
	if peak > 3 || len(peer.bodies()) != 200 {
		t.Errorf("%d connections at once, %d messages", peak, len(peer.bodies()))
	}
	if s := p.Stats(); s.Open > 3 || s.InUse != 0 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
}

func TestWaitersAreServedInOrder(t *testing.T) {
	peer := startPeer(t, new(peer))
	ep := endpoint(peer.addr)
	ep.Limits.Connections = 1
	p := newPool(t, ep, Options{})
	ctx := testContext(t)
	first := open(ctx, t, p)
	var mu sync.Mutex
	var order []int
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			tx, err := p.Open(ctx, mail.Client{}, mail.Path{}, nil)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			if i%3 == 0 { // a broken connection passes its place on as well
				p.discard(tx.conn, "error")
				tx.end()
			}
			tx.Abort()
		})
		eventually(t, "waiting", func() bool { return p.Stats().Waiting == i+1 })
	}
	first.Abort()
	wg.Wait()
	if got := fmt.Sprint(order); got != "[0 1 2 3 4 5 6 7 8 9]" {
		t.Errorf("order %s", got)
	}
	if s := p.Stats(); s.InUse != 0 || s.Open > 1 {
		t.Errorf("%+v", s)
	}
}

func TestBusy(t *testing.T) {
	peer := startPeer(t, new(peer))
	ep := endpoint(peer.addr)
	ep.Limits.Connections, ep.Limits.QueueWait = 1, 20*time.Millisecond
	p := newPool(t, ep, Options{})
	ctx := testContext(t)
	tx := open(ctx, t, p)
	_, err := p.Open(ctx, mail.Client{}, mail.Path{}, nil)
	if !errors.Is(err, ErrBusy) || mail.AsReply(err).EnhancedCode != [3]int{4, 4, 5} {
		t.Errorf("got %v", err)
	}
	tx.Abort()
	open(ctx, t, p).Abort()
	if s := p.Stats(); s.Open != 1 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
	// Its own end ends a wait, too.
	ep.Limits.QueueWait = time.Hour
	p = newPool(t, ep, Options{})
	tx = open(ctx, t, p)
	cctx, cancel := context.WithCancel(ctx)
	time.AfterFunc(time.Millisecond, cancel)
	if _, err := p.Open(cctx, mail.Client{}, mail.Path{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	tx.Abort()
	open(ctx, t, p).Abort()
	if s := p.Stats(); s.Open != 1 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
}

// A wait that ends in the moment in which its turn comes must not lose the connection.
func TestCancelledWaitersLeakNothing(t *testing.T) {
	peer := startPeer(t, new(peer))
	ep := endpoint(peer.addr)
	ep.Limits.Connections, ep.Limits.QueueWait = 2, time.Millisecond
	p := newPool(t, ep, Options{})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for range 100 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i*50)*time.Microsecond)
				if tx, err := p.Open(ctx, mail.Client{}, mail.Path{}, nil); err == nil {
					tx.Abort()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if s := p.Stats(); s.InUse != 0 || s.Waiting != 0 || s.Open > 2 {
		t.Errorf("%+v", s)
	}
}

// The same at the exact moment, with what the waiter was given: a connection or a place.
func TestTurnAndCancellationAtOnce(t *testing.T) {
	peer := startPeer(t, new(peer))
	p := newPool(t, endpoint(peer.addr), Options{})
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	for i := range 100 {
		w := &waiter{ready: make(chan struct{})}
		if i%2 == 0 {
			w.conn = open(testContext(t), t, p).conn
		} else {
			p.mu.Lock()
			p.open++
			p.mu.Unlock()
			w.slot = true
		}
		close(w.ready)
		c, err := p.wait(ctx, w, time.Now().Add(time.Minute))
		switch {
		case c != nil:
			p.put(c)
		case err == nil:
			p.freeSlot()
		case !errors.Is(err, context.Canceled):
			t.Error(err)
		}
		if s := p.Stats(); s.InUse != 0 {
			t.Fatalf("%+v", s)
		}
	}
}

// When the last connection breaks and its host is left alone, nobody waits in vain.
func TestWaitersLearnThatAllHostsAreDown(t *testing.T) {
	peer := startPeer(t, &peer{answer: func(_ *session, verb, _ string) string {
		return map[string]string{"MAIL": cut}[verb]
	}})
	ep := endpoint(peer.addr)
	ep.Limits.Connections, ep.Limits.Backoff, ep.Limits.BackoffMax = 1, time.Hour, time.Hour
	p := newPool(t, ep, Options{})
	ctx := testContext(t)
	tx := open(ctx, t, p)
	waited := make(chan error)
	go func() {
		_, err := p.Open(ctx, mail.Client{}, mail.Path{}, nil)
		waited <- err
	}()
	eventually(t, "waiting", func() bool { return p.Stats().Waiting == 1 })
	tx.Rcpts(ctx, []Recipient{{To: path(t, "b@x.example")}})
	select {
	case err := <-waited:
		if err == nil || !strings.Contains(err.Error(), "every host failed lately") {
			t.Errorf("got %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("still waiting")
	}
}

// A message whose answer is lost is in doubt; those behind it, which find the host left
// alone, are not.
func TestDoubtIsOfOneMessage(t *testing.T) {
	peer := startPeer(t, &peer{answer: func(_ *session, verb, _ string) string {
		return map[string]string{".": cut}[verb]
	}})
	ep := endpoint(peer.addr)
	ep.Limits.Backoff, ep.Limits.BackoffMax = time.Hour, time.Hour
	p := newPool(t, ep, Options{})
	ctx := testContext(t)
	for range 2 {
		if err := deliver(ctx, t, p, "x\r\n", "b@x.example").err(); !errors.Is(err, ErrInDoubt) {
			t.Errorf("got %v", err)
		}
	}
	_, err := p.Open(ctx, mail.Client{}, mail.Path{}, nil)
	var ce *ConnectionError
	if !errors.As(err, &ce) || ce.InDoubt || errors.Is(err, ErrInDoubt) || !strings.Contains(err.Error(), "every host failed lately") {
		t.Errorf("got %v", err)
	}
}

// Connections that broke say nothing more of their host once another has worked.
func TestOneBrokenConnectionKeepsNobodyWaiting(t *testing.T) {
	var broken atomic.Int32
	peer := startPeer(t, &peer{answer: func(s *session, verb, _ string) string {
		if verb == "." && s.number%2 == 0 {
			broken.Add(1)
			return cut
		}
		return ""
	}})
	ep := endpoint(peer.addr)
	ep.Limits.Backoff, ep.Limits.BackoffMax, ep.Limits.MaxMessages = time.Hour, time.Hour, 1
	p := newPool(t, ep, Options{})
	ctx := testContext(t)
	for n := range 10 {
		err := deliver(ctx, t, p, "x\r\n", "b@x.example").err()
		if want := n%2 == 0; errors.Is(err, ErrInDoubt) != want || !want && err != nil {
			t.Errorf("message %d: %v", n, err)
		}
	}
	if broken.Load() != 5 {
		t.Errorf("%d connections broke", broken.Load())
	}
}

func TestStaleConnectionIsReplaced(t *testing.T) {
	for _, c := range []struct {
		name string
		kill func(s *session)
	}{
		{"closed", func(s *session) { s.raw.Close() }},
		{"421 and closed", func(s *session) { s.say("421 4.4.1 timeout"); s.raw.Close() }},
		{"answer too many", func(s *session) { s.say("250 2.0.0 queued") }},
	} {
		for _, seen := range []bool{true, false} { // before MAIL is sent, or by its failure
			if !seen && c.name == "answer too many" {
				continue // that one can only be seen before
			}
			t.Run(fmt.Sprint(c.name, " seen ", seen), func(t *testing.T) {
				peer := startPeer(t, new(peer))
				p := newPool(t, endpoint(peer.addr), Options{})
				ctx := testContext(t)
				if err := deliver(ctx, t, p, "x\r\n", "b@x.example").err(); err != nil {
					t.Fatal(err)
				}
				var err error
				if seen {
					c.kill(peer.sessions()[0])
					eventually(t, "stale", p.idle[0].stale)
					err = deliver(ctx, t, p, "y\r\n", "b@x.example").err()
				} else {
					tx := open(ctx, t, p)
					c.kill(peer.sessions()[0])
					eventually(t, "stale", tx.conn.stale)
					if err = tx.Rcpts(ctx, []Recipient{{To: path(t, "b@x.example")}})[0]; err == nil {
						err = tx.Data(ctx)
					}
					if err == nil {
						tx.Write([]byte("y\r\n"))
						err = tx.Finish(ctx)[0]
					}
				}
				if err != nil {
					t.Fatal(err)
				}
				if n := len(peer.sessions()); n != 2 || len(peer.bodies()) != 2 {
					t.Errorf("%d sessions, %q", n, peer.bodies())
				}
				if s := p.Stats(); s.Open != 1 || !s.Hosts[0].Healthy {
					t.Errorf("%+v", s)
				}
			})
		}
	}
}

func TestConnectionsAreLetGo(t *testing.T) {
	for _, c := range []struct {
		reason   string
		set      func(*Limits)
		sessions int
	}{
		{"messages", func(l *Limits) { l.MaxMessages = 2 }, 2},
		{"age", func(l *Limits) { l.MaxAge = time.Nanosecond }, 4},
		{"idle", func(l *Limits) { l.MaxIdle = 20 * time.Millisecond }, 1},
	} {
		t.Run(c.reason, func(t *testing.T) {
			peer := startPeer(t, new(peer))
			ep := endpoint(peer.addr)
			c.set(&ep.Limits)
			obs := new(counts)
			p := newPool(t, ep, Options{Observer: obs})
			n := 4
			if c.reason == "idle" {
				n = 1
			}
			for range n {
				if err := deliver(testContext(t), t, p, "x\r\n", "b@x.example").err(); err != nil {
					t.Fatal(err)
				}
			}
			if c.reason == "idle" {
				eventually(t, "idle connection closed", func() bool { return p.Stats().Open == 0 })
			}
			eventually(t, "QUIT", func() bool { return strings.HasSuffix(strings.Split(peer.commands(), "|")[0], ";QUIT") })
			if len(peer.sessions()) != c.sessions || obs.get("closed "+c.reason) == 0 {
				t.Errorf("%d sessions, %v", len(peer.sessions()), obs)
			}
		})
	}
}

// counts counts what an observer is told.
type counts struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counts) add(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = make(map[string]int)
	}
	c.n[what]++
}

func (c *counts) get(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[what]
}

func (c *counts) Dialled(_ string, _ time.Duration, err error) {
	c.add(fmt.Sprint("dialled ", err == nil))
}
func (c *counts) Waited(_ time.Duration, err error) { c.add(fmt.Sprint("waited ", err == nil)) }
func (c *counts) Answered(_, verb string, code int) { c.add(fmt.Sprint(verb, " ", code)) }
func (c *counts) Closed(_, reason string)           { c.add("closed " + reason) }

func TestObserver(t *testing.T) {
	peer := startPeer(t, &peer{answer: func(_ *session, verb, line string) string {
		if strings.Contains(line, "<no@") {
			return "550 5.1.1 no"
		}
		return ""
	}})
	obs := new(counts)
	p := newPool(t, endpoint(peer.addr), Options{Observer: obs})
	deliver(testContext(t), t, p, "x\r\n", "b@x.example", "no@x.example")
	p.Close()
	for what, n := range map[string]int{"dialled true": 1, "waited true": 1, "MAIL 250": 1, "RCPT 250": 1, "RCPT 550": 1, "DATA 354": 1, ". 250": 1, "closed shutdown": 1} {
		if got := obs.get(what); got != n {
			t.Errorf("%s: %d times, want %d", what, got, n)
		}
	}
}

func TestFailover(t *testing.T) {
	for _, c := range []struct {
		name string
		bad  func(t *testing.T) string
	}{
		{"nobody listens", func(t *testing.T) string { return deadAddress(t) }},
		{"421 greeting", func(t *testing.T) string { return startPeer(t, &peer{greeting: "421 4.3.2 not now"}).addr }},
		{"554 greeting", func(t *testing.T) string { return startPeer(t, &peer{greeting: "554 5.3.2 go away"}).addr }},
		{"EHLO refused", func(t *testing.T) string {
			return startPeer(t, &peer{answer: func(_ *session, v, _ string) string { return map[string]string{"EHLO": "502 5.5.1 no"}[v] }}).addr
		}},
		{"421 to MAIL", func(t *testing.T) string {
			return startPeer(t, &peer{answer: func(_ *session, v, _ string) string { return map[string]string{"MAIL": "421 4.3.2 no"}[v] }}).addr
		}},
		{"closes at MAIL", func(t *testing.T) string {
			return startPeer(t, &peer{answer: func(_ *session, v, _ string) string { return map[string]string{"MAIL": cut}[v] }}).addr
		}},
		{"not SMTP", func(t *testing.T) string { return startPeer(t, &peer{greeting: "* OK IMAP4rev1"}).addr }},
	} {
		t.Run(c.name, func(t *testing.T) {
			good := startPeer(t, new(peer))
			bad := c.bad(t)
			ep := endpoint(bad, good.addr)
			ep.Limits.MaxMessages, ep.Limits.Backoff = 1, time.Hour
			p := newPool(t, ep, Options{})
			ctx := testContext(t)
			for range 4 {
				out := deliver(ctx, t, p, "x\r\n", "b@x.example")
				if err := out.err(); err != nil {
					t.Fatal(err)
				}
				if out.tx.Host() != good.addr {
					t.Errorf("host %s", out.tx.Host())
				}
			}
			s := p.Stats()
			if s.Hosts[0].Healthy || s.Hosts[0].Failures != 1 || s.Hosts[0].RetryAt.IsZero() || !s.Hosts[1].Healthy {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestRoundRobin(t *testing.T) {
	a, b := startPeer(t, new(peer)), startPeer(t, new(peer))
	p := newPool(t, endpoint(a.addr, b.addr), Options{})
	ctx := testContext(t)
	for range 6 {
		defer open(ctx, t, p).Abort()
	}
	if na, nb := len(a.sessions()), len(b.sessions()); na != 3 || nb != 3 {
		t.Errorf("%d and %d connections", na, nb)
	}
}

func TestAllHostsDownFailsAtOnceAndComesBack(t *testing.T) {
	var mu sync.Mutex
	up, asked := false, 0
	peer := startPeer(t, &peer{answer: func(_ *session, verb, _ string) string {
		mu.Lock()
		defer mu.Unlock()
		if verb == "greeting" {
			asked++
			if !up {
				return "421 4.3.2 down"
			}
		}
		return ""
	}})
	ep := endpoint(peer.addr)
	ep.Limits.Backoff, ep.Limits.BackoffMax = 500*time.Millisecond, time.Second
	p := newPool(t, ep, Options{})
	ctx := testContext(t)
	for range 50 {
		_, err := p.Open(ctx, mail.Client{}, mail.Path{}, nil)
		if r := mail.AsReply(err); r.Code != 451 || !strings.Contains(err.Error(), "421") {
			t.Fatalf("got %v", err)
		}
	}
	mu.Lock()
	if asked > 10 {
		t.Errorf("%d attempts in spite of the back-off", asked)
	}
	up = true
	mu.Unlock()
	eventually(t, "platform is back", func() bool {
		tx, err := p.Open(ctx, mail.Client{}, mail.Path{}, nil)
		if err == nil {
			tx.Abort()
		}
		return err == nil
	})
	if s := p.Stats(); !s.Hosts[0].Healthy {
		t.Errorf("%+v", s)
	}
}

// A platform that refuses one more connection doesn't take away those that we have.
func TestPlatformsOwnConnectionLimit(t *testing.T) {
	var admitted atomic.Int32
	peer := startPeer(t, &peer{answer: func(_ *session, verb, _ string) string {
		if verb == "greeting" && admitted.Add(1) > 2 {
			return "421 4.3.2 The maximum number of concurrent connections has exceeded a limit, closing transmission channel"
		}
		return ""
	}})
	ep := endpoint(peer.addr)
	ep.Limits.Backoff = time.Hour
	p := newPool(t, ep, Options{})
	ctx := testContext(t)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 10 {
				if err := deliver(ctx, t, p, "x\r\n", "b@x.example").err(); err != nil {
					t.Error(err)
				}
				if s := p.Stats(); !s.Hosts[0].Healthy {
					t.Errorf("not ready, though it works: %+v", s)
				}
			}
		})
	}
	wg.Wait()
	if n := len(peer.bodies()); n != 100 {
		t.Errorf("%d messages", n)
	}
	if n := len(peer.sessions()); n > 20 {
		t.Errorf("%d connections tried within a back-off", n)
	}
}

// When the others are gone, a 421 is a failure like any.
func TestFullAndThenDown(t *testing.T) {
	var admitted atomic.Int32
	peer := startPeer(t, &peer{answer: func(_ *session, verb, _ string) string {
		if verb == "greeting" && admitted.Add(1) > 1 {
			return "421 4.3.2 too many"
		}
		return ""
	}})
	ep := endpoint(peer.addr)
	ep.Limits.Backoff, ep.Limits.BackoffMax, ep.Limits.QueueWait = time.Hour, time.Hour, 50*time.Millisecond
	p := newPool(t, ep, Options{})
	ctx := testContext(t)
	tx := open(ctx, t, p)
	for range 3 {
		if _, err := p.Open(ctx, mail.Client{}, mail.Path{}, nil); !errors.Is(err, ErrBusy) {
			t.Errorf("got %v", err)
		}
	}
	if s := p.Stats(); !s.Hosts[0].Healthy || len(peer.sessions()) != 2 {
		t.Errorf("%+v, %d connections tried", s, len(peer.sessions()))
	}
	p.discard(tx.conn, "error")
	tx.end()
	_, err := p.Open(ctx, mail.Client{}, mail.Path{}, nil)
	if s := p.Stats(); err == nil || s.Hosts[0].Healthy || s.Open != 0 {
		t.Errorf("%v, %+v", err, s)
	}
}

func TestCloseSaysGoodbye(t *testing.T) {
	peer := startPeer(t, new(peer))
	p := newPool(t, endpoint(peer.addr), Options{})
	ctx := testContext(t)
	a, b := open(ctx, t, p), open(ctx, t, p)
	a.Abort()
	p.Close()
	b.Abort()
	eventually(t, "QUIT on both", func() bool { return peer.commands() == "EHLO node.example;QUIT|EHLO node.example;QUIT" })
}

func TestClose(t *testing.T) {
	peer := startPeer(t, new(peer))
	ep := endpoint(peer.addr)
	ep.Limits.Connections = 2
	p := newPool(t, ep, Options{})
	ctx := testContext(t)
	a, b := open(ctx, t, p), open(ctx, t, p)
	waited := make(chan error)
	go func() {
		_, err := p.Open(ctx, mail.Client{}, mail.Path{}, nil)
		waited <- err
	}()
	eventually(t, "waiting", func() bool { return p.Stats().Waiting == 1 })
	p.Close()
	p.Close()
	if err := <-waited; !errors.Is(err, ErrClosed) {
		t.Errorf("waiter: %v", err)
	}
	if _, err := p.Open(ctx, mail.Client{}, mail.Path{}, nil); !errors.Is(err, ErrClosed) || mail.AsReply(err).Code != 451 {
		t.Errorf("got %v", err)
	}
	// What is under way goes on.
	if err := a.Rcpts(ctx, []Recipient{{To: path(t, "b@x.example")}})[0]; err != nil {
		t.Fatal(err)
	}
	if err := a.Data(ctx); err != nil {
		t.Fatal(err)
	}
	if err := a.Finish(ctx)[0]; err != nil {
		t.Fatal(err)
	}
	b.Abort()
	if s := p.Stats(); s.Open != 0 {
		t.Errorf("%+v", s)
	}
}

func TestProbe(t *testing.T) {
	peer := startPeer(t, new(peer))
	p := newPool(t, endpoint(peer.addr), Options{})
	ctx := testContext(t)
	if p.Capabilities().Known {
		t.Error("capabilities known before any connection")
	}
	if err := p.Probe(ctx); err != nil {
		t.Fatal(err)
	}
	if c := p.Capabilities(); !c.Known || !c.Pipelining || c.Size != 1000000 || c.DSN {
		t.Errorf("%+v", c)
	}
	if got := peer.commands(); got != "EHLO node.example;NOOP" {
		t.Errorf("commands %s", got)
	}
	ep := endpoint(deadAddress(t))
	ep.Limits.Backoff = time.Hour
	bad := newPool(t, ep, Options{})
	for range 3 { // each dials, whatever the back-off
		if err := bad.Probe(ctx); err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v", err)
		}
	}
	if s := bad.Stats(); s.Hosts[0].Failures != 1 || s.Open != 0 {
		t.Errorf("%+v", s)
	}
}

// No read lasts beyond the platform's own limit: what the platform has closed by then can't
// still be taken.
func TestNoAnswerIsAwaitedBeyondThePlatformsLimit(t *testing.T) {
	peer := startPeer(t, &peer{answer: func(_ *session, verb, _ string) string {
		if verb == "." {
			return hang
		}
		return ""
	}})
	ep := endpoint(peer.addr)
	const limit = 2 * time.Second // far longer than the way to the dot
	ep.Limits.PlatformLimit = limit
	p := newPool(t, ep, Options{})
	start := time.Now()
	err := deliver(testContext(t), t, p, "x\r\n", "b@x.example").err()
	if !errors.Is(err, ErrInDoubt) || !strings.Contains(err.Error(), "platform's connection limit has passed") {
		t.Errorf("got %v", err)
	}
	if s := p.Stats(); s.Open != 0 || !s.Hosts[0].Healthy {
		t.Errorf("a slow message is not the host's fault: %+v", s)
	}
	if took := time.Since(start); took < limit*9/10 || took > time.Minute {
		t.Errorf("took %s", took)
	}
}
