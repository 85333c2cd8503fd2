package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/mail"

	"pgregory.net/rapid"
)

// Whatever a platform answers: only its own 5yz is permanent, a message that it took is never
// reported as failed, one that it did not take never as taken, and the pool stays whole.
func TestAnyDialogue(t *testing.T) {
	answers := rapid.SampledFrom([]string{
		"", "", "", "", "250 2.0.0 ok", "450 4.2.0 later", "550 5.7.1 never", "421 4.3.2 closing", "354 go on", "334 more",
		cut, "garbage", "250 2.0.0 ok\r\n250 2.0.0 one too many", "550 5.7.1 never\r\n354 go on", "554-a\r\n250 b", "25",
	})
	verbs := []string{"greeting", "EHLO", "MAIL", "RCPT", "DATA", "body", "."}
	for n := range 8 {
		lmtp, together := n&1 > 0, n&2 > 0
		ehlo := []string{"PIPELINING"}
		if n&4 > 0 {
			ehlo = []string{"HELP"}
		}
		t.Run(fmt.Sprint("lmtp ", lmtp, " together ", together, " ", ehlo), func(t *testing.T) {
			var mu sync.Mutex
			plan := map[string]string{}
			peer := startPeer(t, &peer{lmtp: lmtp, ehlo: ehlo, answer: func(_ *session, verb, _ string) string {
				mu.Lock()
				defer mu.Unlock()
				return plan[strings.Replace(verb, "LHLO", "EHLO", 1)]
			}})
			ep := endpoint(peer.addr)
			if lmtp {
				ep.Protocol = ProtocolLMTP
			}
			ep.Limits.Backoff = time.Millisecond
			ctx := testContext(t)
			number := 0
			rapid.Check(t, func(r *rapid.T) {
				p, err := NewPool(ep, Options{})
				if err != nil {
					r.Fatal(err)
				}
				defer p.Close()
				number++
				body := fmt.Sprintf("x%d\r\n", number) // of a message before, the platform may have the end only now
				copies := func() (n int) {
					for _, b := range peer.bodies() {
						if b == body {
							n++
						}
					}
					return n
				}
				mu.Lock()
				clear(plan)
				for range rapid.IntRange(1, 3).Draw(r, "faults") {
					v, a := rapid.SampledFrom(verbs).Draw(r, "verb"), answers.Draw(r, "answer")
					// A 250 that crosses the dot on its way can't be told from the dot's.
					if v != "body" || !strings.HasPrefix(a, "250") {
						plan[v] = a
					}
				}
				planned := make(map[string]string)
				for v, a := range plan {
					planned[v] = a
				}
				mu.Unlock()
				// A body in one line: the peer answers at most once in it.
				out := deliverAs(ctx, t, p, together, mail.Client{}, nil, body, "b@x.example", "c@x.example")
				err = out.err()
				ok, doubt := len(out.dots) > 0, false
				for _, e := range out.dots {
					ok = ok && e == nil
					doubt = doubt || errors.Is(e, ErrInDoubt)
				}
				if errors.Is(err, ErrInDoubt) && len(out.dots) == 0 {
					r.Errorf("in doubt before the dot: %v", err)
				}
				if err != nil && mail.IsPermanent(mail.AsReply(err)) {
					said := false
					for _, v := range []string{"MAIL", "RCPT", "DATA", "body", "."} {
						said = said || strings.HasPrefix(planned[v], "5")
					}
					// 503 is what the peer says to RCPT after a refused MAIL.
					if !said && mail.AsReply(err).Code != 503 {
						r.Errorf("permanent without a refusal: %v", err)
					}
				}
				if ok {
					eventually(t, "the message is at the platform", func() bool { return copies() == 1 })
				}
				if ok && !strings.HasPrefix(planned["."]+"2", "2") {
					r.Errorf("taken, though the platform answered %q", planned["."])
				}
				if s := p.Stats(); s.InUse != 0 || s.Waiting != 0 {
					r.Errorf("%+v", s)
				}
				// A platform that has come to its senses gets the next message.
				mu.Lock()
				clear(plan)
				mu.Unlock()
				eventually(t, "the next message is taken", func() bool {
					return deliverAs(ctx, t, p, together, mail.Client{}, nil, "y\r\n", "b@x.example").err() == nil
				})
				n := copies()
				if n > 1 || n == 1 && !ok && !doubt && planned["."] == "" && planned["body"] == "" {
					r.Errorf("platform has %d copies; ok %t, in doubt %t: %v", n, ok, doubt, err)
				}
			})
		})
	}
}

// blocked is a dialer that gets nowhere.
func blocked(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestDialGetsNowhere(t *testing.T) {
	ep := endpoint("192.0.2.1:25")
	ep.Timeouts.Dial = 20 * time.Millisecond
	p := newPool(t, ep, Options{Dial: blocked})
	if _, err := p.Open(testContext(t), mail.Client{}, mail.Path{}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if s := p.Stats(); s.Open != 0 || s.Hosts[0].Healthy {
		t.Errorf("%+v", s)
	}
	p = newPool(t, endpoint("192.0.2.1:25"), Options{Dial: blocked})
	reason := errors.New("agency is closing")
	ctx, cancel := context.WithCancelCause(testContext(t))
	time.AfterFunc(time.Millisecond, func() { cancel(reason) })
	if _, err := p.Open(ctx, mail.Client{}, mail.Path{}, nil); !errors.Is(err, reason) {
		t.Errorf("got %v", err)
	}
	if s := p.Stats(); s.Open != 0 || !s.Hosts[0].Healthy {
		t.Errorf("%+v", s)
	}
}
