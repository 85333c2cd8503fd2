package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/mail"
)

// paused opens a transaction and brings it to where its client falls silent.
func paused(ctx context.Context, t testing.TB, p *Pool, to ...string) *Transaction {
	t.Helper()
	tx := open(ctx, t, p)
	var rcpts []Recipient
	for _, r := range to {
		rcpts = append(rcpts, Recipient{To: path(t, r)})
	}
	for _, err := range tx.Rcpts(ctx, rcpts) {
		if err != nil {
			t.Fatal(err)
		}
	}
	return tx
}

// goOn ends a transaction as a client does that comes back.
func goOn(ctx context.Context, tx *Transaction, body string) error {
	defer tx.Abort()
	if err := tx.Data(ctx); err != nil {
		return err
	}
	if _, err := io.WriteString(tx, body); err != nil {
		return err
	}
	return errors.Join(tx.Finish(ctx)...)
}

// Clients that fall silent behind their RCPT keep nobody else from a platform, and their own
// mail is not lost when they go on.
func TestSilentClientsBlockNobody(t *testing.T) {
	for _, lmtp := range []bool{false, true} {
		peer := startPeer(t, &peer{lmtp: lmtp})
		ep := endpoint(peer.addr)
		if lmtp {
			ep.Protocol = ProtocolLMTP
		}
		ep.Limits.Connections, ep.Limits.MaxPause = 2, 20*time.Millisecond
		p := newPool(t, ep, Options{})
		ctx := testContext(t)
		silent := []*Transaction{paused(ctx, t, p, "b0@x.example"), paused(ctx, t, p, "b1@x.example", "c1@x.example")}
		for range 3 {
			if err := deliver(ctx, t, p, "other\r\n", "d@x.example").err(); err != nil {
				t.Fatal(err)
			}
		}
		if s := p.Stats(); s.Open > 2 || s.Paused != 1 {
			t.Errorf("%+v", s)
		}
		if got := peer.sessions()[0].commands(); got != "MAIL RCPT RSET MAIL RCPT DATA MAIL RCPT DATA MAIL RCPT DATA" {
			t.Errorf("first connection: %s", got)
		}
		for i, tx := range silent {
			if err := goOn(ctx, tx, fmt.Sprintf("silent %d\r\n", i)); err != nil {
				t.Error(err)
			}
			if n := len(tx.given); n != i+1 {
				t.Errorf("%d accepted", n)
			}
		}
		if got := fmt.Sprintf("%q", peer.bodies()); !strings.Contains(got, "silent 0") || !strings.Contains(got, "silent 1") || len(peer.bodies()) != 5 {
			t.Errorf("platform has %s", got)
		}
		if s := p.Stats(); s.InUse != 0 || s.Paused != 0 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// commands returns the verbs after EHLO.
func (s *session) commands() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var verbs []string
	for _, l := range s.lines[1:] {
		v, _, _ := strings.Cut(l, " ")
		verbs = append(verbs, v)
	}
	return strings.Join(verbs, " ")
}

// As long as nobody waits, or the pause is short, a transaction keeps its connection.
func TestPausesThatHurtNobody(t *testing.T) {
	peer := startPeer(t, new(peer))
	ep := endpoint(peer.addr)
	ep.Limits.Connections, ep.Limits.MaxPause = 2, time.Nanosecond
	p := newPool(t, ep, Options{})
	ctx := testContext(t)
	tx := paused(ctx, t, p, "b@x.example")
	for range 3 {
		if err := deliver(ctx, t, p, "other\r\n", "d@x.example").err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := goOn(ctx, tx, "x\r\n"); err != nil {
		t.Error(err)
	}
	ep.Limits.Connections, ep.Limits.MaxPause, ep.Limits.QueueWait = 1, time.Hour, 50*time.Millisecond
	short := newPool(t, ep, Options{})
	tx = paused(ctx, t, short, "b@x.example")
	if _, err := short.Open(ctx, mail.Client{}, mail.Path{}, nil); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	if err := goOn(ctx, tx, "x\r\n"); err != nil {
		t.Error(err)
	}
	if strings.Contains(peer.commands(), "RSET") {
		t.Errorf("commands %s", peer.commands())
	}
}

// Pauses between single RCPTs add up.
func TestManyShortPauses(t *testing.T) {
	peer := startPeer(t, new(peer))
	ep := endpoint(peer.addr)
	ep.Limits.Connections, ep.Limits.MaxPause = 1, 100*time.Millisecond
	p := newPool(t, ep, Options{})
	ctx := testContext(t)
	tx := paused(ctx, t, p, "b@x.example")
	done := make(chan error)
	go func() { done <- deliver(ctx, t, p, "other\r\n", "d@x.example").err() }()
	n := 1
	for end := time.Now().Add(time.Minute); time.Now().Before(end); n++ {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			if err := goOn(ctx, tx, "x\r\n"); err != nil {
				t.Error(err)
			}
			if len(tx.given) != n || n > 1000 {
				t.Errorf("%d accepted of %d", len(tx.given), n)
			}
			return
		case <-time.After(20 * time.Millisecond): // the client's own slowness
			if err := tx.Rcpts(ctx, []Recipient{{To: path(t, "c@x.example")}})[0]; err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Error("the one who waits has waited in vain")
}

// What the platform does not take again, or not at once, is put off as a whole.
func TestPlatformChangesItsMind(t *testing.T) {
	for _, c := range []struct{ verb, answer string }{
		{"MAIL", "550 5.7.1 sender unwanted"}, {"MAIL", "451 4.3.0 later"}, {"RCPT", "550 5.1.1 gone"}, {"RCPT", "452 4.2.2 full"}, {"RCPT", cut}, {"DATA", cut},
	} {
		t.Run(c.verb+"/"+c.answer, func(t *testing.T) {
			var mu sync.Mutex
			changed := false
			peer := startPeer(t, &peer{answer: func(_ *session, verb, line string) string {
				mu.Lock()
				defer mu.Unlock()
				if changed && verb == c.verb && !strings.Contains(line, "<b@") {
					return c.answer
				}
				return ""
			}})
			ep := endpoint(peer.addr)
			ep.Limits.Connections, ep.Limits.MaxPause = 1, time.Millisecond
			p := newPool(t, ep, Options{})
			ctx := testContext(t)
			tx := paused(ctx, t, p, "b@x.example", "c@x.example")
			open(ctx, t, p).Abort()
			mu.Lock()
			changed = true
			mu.Unlock()
			err := tx.Data(ctx)
			var ce *ConnectionError
			if !errors.As(err, &ce) || mail.AsReply(err).Code != 451 || errors.Is(err, ErrInDoubt) {
				t.Errorf("got %v", err)
			}
			if again := tx.Dot(ctx)[0]; !errors.Is(again, err) {
				t.Errorf("afterwards: %v", again)
			}
			tx.Abort()
			if s := p.Stats(); s.InUse != 0 || s.Paused != 0 || (s.Idle == 1) != (c.answer != cut) || len(peer.bodies()) != 0 {
				t.Errorf("%+v, platform has %q", s, peer.bodies())
			}
		})
	}
}

// A connection that doesn't take RSET, that nobody has time for, or that has told the platform
// of another client, is replaced.
func TestReclaimedConnectionIsOfNoUse(t *testing.T) {
	for _, c := range []struct {
		name string
		rset string
		end  bool // the context of the silent one
		set  func(*Endpoint)
	}{
		{"refused", "502 5.5.1 no", false, func(*Endpoint) {}},
		{"cut", cut, false, func(*Endpoint) {}},
		{"hang", hang, false, func(*Endpoint) {}},
		{"an answer too many", "250 2.0.0 ok\r\n250 2.0.0 stray", false, func(*Endpoint) {}},
		{"context has ended", "", true, func(*Endpoint) {}},
		{"too old", "", false, func(ep *Endpoint) { ep.Limits.MaxAge = time.Millisecond }},
		{"other client", "", false, func(ep *Endpoint) { ep.Identity = IdentityXCLIENT }},
	} {
		t.Run(c.name, func(t *testing.T) {
			peer := startPeer(t, &peer{ehlo: []string{"PIPELINING", "XCLIENT ADDR"}, answer: func(_ *session, verb, _ string) string {
				return map[string]string{"RSET": c.rset, "XCLIENT": "220 again"}[verb]
			}})
			ep := endpoint(peer.addr)
			ep.Limits.Connections, ep.Limits.MaxPause = 1, 10*time.Millisecond
			ep.Timeouts.Reset = 50 * time.Millisecond
			c.set(&ep)
			p := newPool(t, ep, Options{})
			ctx := testContext(t)
			cctx, cancel := context.WithCancel(ctx)
			defer cancel()
			first := client
			tx, err := p.Open(cctx, first, path(t, "a@out.example"), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := tx.Rcpts(cctx, []Recipient{{To: path(t, "b@x.example")}})[0]; err != nil {
				t.Fatal(err)
			}
			if c.end {
				cancel()
			}
			other := client
			other.Addr = netip.MustParseAddrPort("192.0.2.8:1")
			if err := deliverFrom(ctx, t, p, other, nil, "other\r\n", "d@x.example").err(); err != nil {
				t.Fatal(err)
			}
			if err := goOn(cctx, tx, "x\r\n"); (err != nil) != c.end || errors.Is(err, ErrInDoubt) {
				t.Errorf("the silent one: %v", err)
			}
			if n := len(peer.sessions()); n < 2 {
				t.Errorf("%d connections", n)
			}
			if s := p.Stats(); s.InUse != 0 || s.Paused != 0 || s.Open > 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestAbortAfterReclaim(t *testing.T) {
	peer := startPeer(t, new(peer))
	ep := endpoint(peer.addr)
	ep.Limits.Connections, ep.Limits.MaxPause = 1, time.Millisecond
	p := newPool(t, ep, Options{})
	ctx := testContext(t)
	tx := paused(ctx, t, p, "b@x.example")
	other := open(ctx, t, p)
	tx.Abort()
	tx.Abort()
	if err := tx.Data(ctx); !errors.Is(err, ErrState) {
		t.Errorf("got %v", err)
	}
	if s := p.Stats(); s.InUse != 1 {
		t.Errorf("%+v", s)
	}
	other.Abort()
	// One who goes on waits no longer than one who comes.
	ep.Limits.QueueWait = 3 * time.Second // so long that it is there for who comes first, also on a busy machine
	p = newPool(t, ep, Options{})
	tx = paused(ctx, t, p, "b@x.example")
	other = open(ctx, t, p)
	if err := tx.Data(ctx); !errors.Is(err, ErrBusy) || mail.AsReply(err).Code != 451 {
		t.Errorf("got %v", err)
	}
	tx.Abort()
	other.Abort()
	if s := p.Stats(); s.InUse != 0 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
}

// Many clients that pause at all moments, with few connections: each message arrives once,
// for its own recipient, and nothing is left behind.
func TestPausesUnderLoad(t *testing.T) {
	peer := startPeer(t, new(peer))
	ep := endpoint(peer.addr)
	ep.Limits.Connections, ep.Limits.MaxPause = 3, time.Microsecond
	p := newPool(t, ep, Options{})
	ctx := testContext(t)
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			for j := range 15 {
				ctx, cancel := context.WithCancel(ctx)
				to := fmt.Sprintf("b%d-%d@x.example", i, j)
				tx := open(ctx, t, p)
				err := tx.Rcpts(ctx, []Recipient{{To: path(t, to)}})[0]
				if err == nil && j%3 == 0 {
					err = tx.Rcpts(ctx, []Recipient{{To: path(t, to)}})[0]
				}
				if err != nil {
					t.Error(err)
				}
				time.Sleep(time.Duration((i*j)%7) * 100 * time.Microsecond) // the client's
				switch {
				case j%5 == 1:
					tx.Abort()
				case j%5 == 2:
					cancel()
					if err := goOn(ctx, tx, to+"\r\n"); !errors.Is(err, context.Canceled) {
						t.Errorf("got %v", err)
					}
				default:
					if err := goOn(ctx, tx, to+"\r\n"); err != nil {
						t.Error(err)
					}
				}
				cancel()
			}
		})
	}
	wg.Wait()
	seen := make(map[string]bool)
	for _, b := range peer.bodies() {
		if seen[b] {
			t.Errorf("twice: %q", b)
		}
		seen[b] = true
	}
	if len(seen) != 24*9 {
		t.Errorf("%d messages", len(seen))
	}
	for _, s := range peer.sessions() {
		s.mu.Lock()
		to := ""
		bodies := s.bodies
		for _, l := range s.lines {
			if strings.HasPrefix(l, "RCPT") {
				to = l
			}
			if l == "DATA" && len(bodies) > 0 {
				if !strings.Contains(to, "<"+strings.TrimSpace(bodies[0])+">") {
					t.Errorf("%q went to %s", bodies[0], to)
				}
				bodies = bodies[1:]
			}
		}
		s.mu.Unlock()
	}
	if s := p.Stats(); s.InUse != 0 || s.Paused != 0 || s.Waiting != 0 || s.Open > 3 {
		t.Errorf("%+v", s)
	}
}
