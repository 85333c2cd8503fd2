package login

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/node"
	"mailcutover/proxy/dial"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// TestClosingAtEachStep closes the agency at one moment of a login's handshake, and then moves
// it, or not.
func TestClosingAtEachStep(t *testing.T) {
	for _, test := range []struct {
		at     string // of the platform's or the dialogue's steps
		answer string // what the losing platform says to the credentials then
		end    string // publish, abort or lock
		want   string // what the client hears
		losing bool   // the losing platform saw the credentials
	}{
		{"dial", "", "publish", "yes", false},
		{"dial", "", "abort", "yes", false},
		{"dial", "", "lock", "no locked", false},
		{"accept", "", "publish", "yes", false},
		{"accept", "", "abort", "yes", false},
		{"accept", "", "lock", "no locked", false},
		{"login", "yes", "publish", "yes", true},
		{"login", "yes", "abort", "yes", true},
		// The hook of the losing platform denies logins: nobody has a wrong password.
		{"login", "no logins any more", "publish", "yes", true},
		{"login", "no logins any more", "abort", "yes", true},
		{"login", "what?", "publish", "yes", true},
	} {
		t.Run(fmt.Sprintf("%s, %q, %s", test.at, test.answer, test.end), func(t *testing.T) {
			w := newWorld(t, nil)
			var once sync.Once
			dialed := make(chan struct{})
			w.hookDial("exchange", func(ctx context.Context) {
				if test.at == "dial" {
					once.Do(func() {
						w.begin()
						if test.end == "lock" {
							w.lock()
						}
						<-ctx.Done() // the cut reaches it
						close(dialed)
					})
				}
			})
			w.exchange.setStep(func(at, _ string) string {
				answer := ""
				if at == test.at {
					once.Do(func() {
						answer = test.answer
						w.begin()
						if test.end == "lock" {
							w.lock()
						}
					})
				}
				return answer
			})
			p := w.dial()
			p.send("LOGIN anna s3cret")
			if test.end != "lock" {
				w.until("the login waits", func() bool { return w.proxy.Counts().Waiting == 1 })
				if l := w.gate.Load("health"); l.Open+l.Dotted != 0 {
					t.Errorf("the drain waits for %+v while the login does", l)
				}
			}
			if test.at == "dial" {
				<-dialed
			}
			w.until("the losing platform's connection is closed", func() bool { return w.exchange.opened.Load() == 0 })
			losing := len(w.exchange.seen())
			if (losing == 1) != test.losing {
				t.Errorf("the losing platform saw %q", w.exchange.seen())
			}
			winner, told := w.ox, "anna@ox.example s3cret"
			switch test.end {
			case "publish":
				w.publish()
			case "abort":
				w.abort()
				winner, told = w.exchange, `AMT\anna s3cret`
			}
			p.want(test.want)
			if test.want != "yes" {
				return
			}
			p.send("ping")
			p.want(winner.name + ": ping")
			if got := winner.seen(); got[len(got)-1] != told {
				t.Errorf("%s was told %q, want %q", winner.name, got, told)
			}
			if n := w.observed.get(func(o *observer) int { return o.causes["wrong"] }); n != 0 {
				t.Error("a wrong password was told")
			}
			w.proxy.failures.mu.Lock()
			defer w.proxy.failures.mu.Unlock()
			for i := range w.proxy.failures.buckets {
				for _, f := range w.proxy.failures.buckets[i] {
					if f.count > 0 {
						t.Error("a failure was counted")
					}
				}
			}
		})
	}
}

// Between the platform's yes and the join nobody reads the platform's socket; what the client
// has sent already must not reach it.
func TestClosingBeforeTheJoin(t *testing.T) {
	w := newWorld(t, nil)
	w.dialogue.told = func() {
		w.begin()
		if l := w.gate.Load("health"); l.Open+l.Dotted != 0 {
			t.Errorf("the drain waits for %+v", l)
		}
	}
	p := w.dial()
	if _, err := io.WriteString(p.nc, "LOGIN anna s3cret\r\nsecond\r\n"); err != nil {
		t.Fatal(err)
	}
	p.want("yes")
	p.want("bye moved true")
	if rest := p.ends(); rest != "" && !strings.Contains(rest, "reset") {
		t.Errorf("and then %q", rest)
	}
	w.until("the platform's end", func() bool { return w.exchange.opened.Load() == 0 })
	w.exchange.mu.Lock()
	defer w.exchange.mu.Unlock()
	if len(w.exchange.heard) != 0 {
		t.Errorf("the platform heard %q", w.exchange.heard)
	}
}

func TestClosingASession(t *testing.T) {
	w := newWorld(t, nil)
	p := w.logIn("anna")
	p.send("ping")
	p.want("exchange: ping")
	w.begin()
	p.want("bye moved true")
	if rest := p.ends(); rest != "" {
		t.Errorf("and then %q", rest)
	}
	w.until("drained", func() bool { return len(w.gate.Drained()) == 1 })
	w.until("the platform's end", func() bool { return w.exchange.opened.Load() == 0 })
	w.until("one session was opened, and ended", func() bool {
		return w.observed.get(func(o *observer) int { return o.opened*10 + o.ended }) == 11
	})
}

func TestAClientThatDoesNotRead(t *testing.T) {
	w := newWorld(t, nil)
	p := w.logIn("anna")
	line := strings.Repeat("x", 60000) + "\r\n"
	_ = p.nc.(*net.TCPConn).SetReadBuffer(4096)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for range 1000 {
			if _, err := io.WriteString(p.nc, line); err != nil {
				return
			}
		}
	}()
	w.until("nothing moves", func() bool {
		list, _ := w.proxy.Sessions(Filter{}, 0)
		before := list[0].ToClient
		time.Sleep(20 * time.Millisecond)
		list, _ = w.proxy.Sessions(Filter{}, 0)
		return before > 60000 && list[0].ToClient == before
	})
	w.begin()
	w.until("drained", func() bool { return len(w.gate.Drained()) == 1 })
	_ = p.nc.Close()
	<-sent
}

// TestEndingWhenSilent is about submission: a message under way may end.
func TestEndingWhenSilent(t *testing.T) {
	w := newWorld(t, nil)
	const silence = 500 * time.Millisecond
	w.dialogue.ending = Ending{Silence: silence, Within: patience}
	last := time.Now() // not after the last byte that moved
	p := w.logIn("anna")
	w.begin()
	ended := false
	for began := time.Now(); !ended && time.Since(began) < 3*silence; {
		sent := time.Now()
		p.send("part")
		line := p.line()
		drained := len(w.gate.Drained()) != 0
		switch ended = line == "bye moved true"; {
		// Since the last part that came back this test, or its machine, may have paused for so long; else nobody did.
		case (ended || drained) && time.Since(last) < silence:
			t.Fatalf("got %q, drained %v, %s after a part was sent", line, drained, time.Since(last))
		case !ended && line != "exchange: part":
			t.Fatalf("got %q", line)
		}
		last = sent
	}
	if !ended {
		p.want("bye moved true")
	}
	w.until("drained", func() bool { return len(w.gate.Drained()) == 1 })
}

// While it is waited for silence the right has to hold: without it nobody waits for this node.
func TestEndingWhenSilentWithoutTheRight(t *testing.T) {
	w := newWorld(t, nil)
	w.dialogue.ending = Ending{Silence: time.Hour, Within: time.Hour}
	p := w.logIn("anna")
	w.begin()
	p.send("part")
	p.want("exchange: part")
	w.rights.set(func(r *rights) { r.right.Armed = false })
	p.send("late")
	if got := p.ends(); strings.Contains(got, "late") {
		t.Errorf("got %q", got)
	}
	w.until("drained", func() bool { return len(w.gate.Drained()) == 1 })
}

func TestWaiting(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Options)
		before func(*world)
		while  func(*world) // it waits; nil: it doesn't wait
		want   string
		server string // that answers then
	}{
		{"published", nil, (*world).begin, (*world).publish, "yes", "ox"},
		{"aborted", nil, (*world).begin, (*world).abort, "yes", "exchange"},
		{"locked meanwhile", nil, (*world).begin, (*world).lock, "no locked", ""},
		{"locked", nil, (*world).lock, nil, "no locked", ""},
		{"too long", func(o *Options) { o.Wait = 50 * time.Millisecond }, (*world).begin, nil, "no closed", ""},
		{"no waiting", func(o *Options) { o.Wait = 0 }, (*world).begin, nil, "no closed", ""},
		{"too many", func(o *Options) { o.Waiters = 0 }, (*world).begin, nil, "no limit", ""},
		{
			"no right, and back", nil, func(w *world) { w.rights.set(func(r *rights) { r.right = node.Right{} }) },
			func(w *world) {
				w.rights.set(func(r *rights) { r.right = node.Right{Settled: true, Armed: true, SettledLife: 2, ArmedLife: 2} })
				w.change(func(a routing.Agency) (routing.Agency, error) { return a.Begin("op", 7, routing.EventBegin) })
				w.abort()
			}, "yes", "exchange",
		},
		{
			"no right for too long", func(o *Options) { o.Wait = 50 * time.Millisecond },
			func(w *world) { w.rights.set(func(r *rights) { r.right = node.Right{} }) }, nil, "no table", "",
		},
		{
			"the table says no", func(o *Options) { o.Wait = 300 * time.Millisecond },
			func(w *world) { w.rights.set(func(r *rights) { r.check = table.ErrStale }) }, nil, "no moved", "",
		},
		{
			"the table is silent", func(o *Options) { o.Wait = 300 * time.Millisecond },
			func(w *world) { w.rights.set(func(r *rights) { r.check = errors.New("silent") }) }, nil, "no table", "",
		},
		{
			"the table is silent, and back", nil,
			func(w *world) { w.rights.set(func(r *rights) { r.check = errors.New("silent") }) },
			func(w *world) { w.rights.set(func(r *rights) { r.check = nil }) }, "yes", "exchange",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, func(o *Options, _ *Listener, _ []Endpoint) {
				if test.change != nil {
					test.change(o)
				}
			})
			test.before(w)
			p := w.dial()
			p.send("LOGIN anna s3cret")
			if test.while != nil {
				w.until("it waits", func() bool { return w.proxy.Counts().Waiting == 1 })
				test.while(w)
			}
			p.want(test.want)
			if test.server != "" {
				p.send("ping")
				p.want(test.server + ": ping")
			}
			if n := len(w.exchange.seen()) + len(w.ox.seen()); test.server == "" && n != 0 {
				t.Errorf("%d platforms saw credentials", n)
			}
			if c := w.proxy.Counts(); c.Waiting != 0 {
				t.Errorf("%d still wait", c.Waiting)
			}
		})
	}
}

// A hundred wait for an agency: all of them get through, to the winner.
func TestManyWait(t *testing.T) {
	w := newWorld(t, nil)
	w.begin()
	var peers []*peer
	for range 101 {
		p := w.dial()
		p.send("LOGIN anna s3cret")
		peers = append(peers, p)
	}
	w.until("they wait, but for one", func() bool {
		return w.proxy.Counts().Waiting == 100 && w.observed.get(func(o *observer) int { return o.causes["limit"] }) == 1
	})
	w.publish()
	refused := 0
	for _, p := range peers {
		switch got := p.line(); got {
		case "yes":
			p.send("ping")
			p.want("ox: ping")
		case "no limit":
			refused++
		default:
			t.Errorf("got %q", got)
		}
	}
	if refused != 1 {
		t.Errorf("%d beyond the limit were refused, want 1", refused)
	}
	if n := len(w.exchange.seen()); n != 0 {
		t.Errorf("%d logins at the loser", n)
	}
}

func TestSuspended(t *testing.T) {
	lapse := func(w *world) { w.rights.set(func(r *rights) { r.right.Armed = false }) }
	back := func(w *world) { w.rights.set(func(r *rights) { r.right.Armed = true; r.right.ArmedLife++ }) }
	for _, test := range []struct {
		name    string
		suspend time.Duration
		then    func(*world)
		want    string
	}{
		{"back", patience, back, "exchange: ping"},
		{"closed", patience, (*world).begin, "bye moved true"},
		{"back, and the table says no", patience, func(w *world) {
			w.rights.set(func(r *rights) { r.check = table.ErrStale })
			back(w)
		}, "bye moved true"},
		{"too long", 50 * time.Millisecond, func(*world) {}, "bye table true"},
		{"not at all", 0, func(*world) {}, "bye table true"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, func(o *Options, _ *Listener, _ []Endpoint) { o.Suspend = test.suspend })
			p := w.logIn("anna")
			lapse(w)
			p.send("ping")
			w.until("suspended", func() bool { return w.observed.get(func(o *observer) int { return o.suspended }) == 1 })
			if test.suspend == patience {
				if c := w.proxy.Counts(); c.Suspended != 1 {
					t.Errorf("counts: %+v", c)
				}
				if l := w.gate.Load("health"); l.Dotted != 1 {
					t.Errorf("a suspended session is one of %+v", l)
				}
			}
			w.exchange.mu.Lock()
			heard := len(w.exchange.heard)
			w.exchange.mu.Unlock()
			if heard != 0 {
				t.Error("the platform heard what was sent without the right")
			}
			test.then(w)
			p.want(test.want)
			if strings.HasPrefix(test.want, "bye") {
				w.until("nothing is under way", func() bool { return w.gate.Load("health").Dotted == 0 })
			}
		})
	}
}

// A silent session doesn't ask by itself whether it may go on.
func TestSilentSessionsAreSuspended(t *testing.T) {
	w := newWorld(t, func(o *Options, _ *Listener, _ []Endpoint) { o.Suspend = 0 })
	p := w.logIn("anna")
	w.rights.set(func(r *rights) { r.right.Armed = false })
	p.want("bye table true")
	_ = p.nc.Close()
	w.until("nothing is under way", func() bool { return w.gate.Load("health").Dotted == 0 })
}

// TestSessionsDoNotMix logs in as many at once: each is with its own mailbox, whatever moves.
func TestSessionsDoNotMix(t *testing.T) {
	w := newWorld(t, func(o *Options, _ *Listener, _ []Endpoint) { o.Spread = 0 })
	mailboxes := map[string][2]string{
		"anna": {`AMT\anna`, "anna@ox.example"}, "info@health.example": {`AMT\info`, "info@ox.example"}, "bert": {"bert", "bert"},
	}
	var group sync.WaitGroup
	for name, is := range mailboxes {
		for range 10 {
			group.Go(func() {
				for range 10 {
					p := w.dial()
					_, _ = io.WriteString(p.nc, "LOGIN "+name+" s3cret\r\nwhoami\r\n")
					if got := p.line(); got != "yes" && got != "no limit" {
						t.Errorf("%s: got %q", name, got)
					}
					if got := p.line(); got != is[0] && got != is[1] && got != "bye moved true" && !strings.HasPrefix(got, "(") {
						t.Errorf("%s: is with %q", name, got)
					}
					_ = p.nc.Close()
				}
			})
		}
	}
	for range 5 {
		time.Sleep(5 * time.Millisecond) // not to settle: to spread the changes over the logins
		w.begin()
		w.until("drained", func() bool { return len(w.gate.Drained()) == 1 })
		w.abort()
	}
	w.begin()
	w.publish()
	group.Wait()
}

// TestAThousandSessions closes them all by an epoch change, and looks for what is left.
func TestAThousandSessions(t *testing.T) {
	const sessions, spread = 1000, time.Second
	w := newWorld(t, func(o *Options, _ *Listener, _ []Endpoint) { o.Spread = spread })
	before := descriptors(t)
	peers := make([]*peer, sessions)
	var group sync.WaitGroup
	next := make(chan int)
	for range 20 {
		group.Go(func() {
			for i := range next {
				peers[i] = w.dial()
				peers[i].send("LOGIN anna s3cret")
				peers[i].want("yes")
			}
		})
	}
	for i := range sessions {
		next <- i
	}
	close(next)
	group.Wait()
	w.until("joined", func() bool { return w.proxy.Counts().Joined == sessions })
	for _, p := range peers {
		_ = p.nc.SetDeadline(time.Now().Add(patience))
	}
	if open := descriptors(t); open != 0 && open < 4*sessions {
		t.Errorf("%d descriptors for %d sessions: they are not counted right", open, sessions)
	}
	began := time.Now()
	w.begin()
	w.until("drained", func() bool { return len(w.gate.Drained()) == 1 })
	drained := time.Since(began)
	early := 0
	for _, p := range peers {
		p.want("bye moved true")
		if time.Since(began) < spread/4 {
			early++
		}
		_ = p.nc.Close()
	}
	told := time.Since(began)
	w.until("all have left", func() bool { return w.proxy.Counts() == Counts{} && w.server.Connections() == 0 })
	w.until("the platform has none", func() bool { return w.exchange.opened.Load() == 0 })
	// The listener's epoll set and the like come with the first session.
	w.until("the descriptors are closed", func() bool { return descriptors(t) <= before+8 })
	t.Logf("drained after %s, all told after %s", drained, told)
	if early == sessions {
		t.Error("all were told at once")
	}
	if told > spread+30*time.Second { // the machine may be busy
		t.Errorf("told after %s, want within %s", told, spread)
	}
}

// descriptors returns how many this process has; 0 where that can't be said.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(all)
}

// hookDial has before called before each dial of a platform, with the dial's context.
func (w *world) hookDial(platform routing.PlatformID, before func(context.Context)) {
	w.t.Helper()
	ep := w.proxy.endpoint(platform, "toy")
	dialer, err := dial.New(ep.Way, dial.Options{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		before(ctx)
		return new(net.Dialer).DialContext(ctx, network, address)
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	ep.dialer = dialer // nobody has logged in yet
}

// TestLapseWhileThePlatformAnswers: an answer counts only under a right without a gap. Neither a session
// nor a wrong password comes of another one (P2, P5): the platform is asked again.
func TestLapseWhileThePlatformAnswers(t *testing.T) {
	for name, answer := range map[string]string{"yes": "", "no": "no"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			var asked atomic.Int64
			w.exchange.setStep(func(at, _ string) string {
				if at != "login" || asked.Add(1) > 1 {
					return ""
				}
				w.rights.set(func(r *rights) { r.right.SettledLife, r.right.ArmedLife = 2, 2 }) // gone, and back
				return answer
			})
			p := w.dial()
			p.send("LOGIN anna s3cret")
			p.want("yes")
			p.send("ping")
			p.want("exchange: ping")
			if n := len(w.exchange.seen()); n != 2 {
				t.Errorf("%d logins at the platform, want one more after the lapse", n)
			}
			if n := w.observed.get(func(o *observer) int { return o.causes["wrong"] }); n != 0 {
				t.Errorf("%d wrong passwords", n)
			}
		})
	}
}
