package relay

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/mail"
	"mailcutover/test/peers"
)

// deliverMany sends n messages from each of so many senders at once; every one must arrive.
func deliverMany(t *testing.T, p *Pool, senders, n int) {
	t.Helper()
	ctx := testContext(t)
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			for range n {
				if err := deliver(ctx, t, p, realBody, "b@health.example").err(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// The default fits Exchange: no connection is refused, however many senders there are.
func TestExchangeConnectionsPerSource(t *testing.T) {
	ex := peers.StartExchange(t, "-max-per-source", "20")
	p := newPool(t, endpoint(ex.Addr), Options{})
	deliverMany(t, p, 60, 3)
	if n := ex.Fired("max-per-source"); n != 0 {
		t.Errorf("%d connections were refused", n)
	}
}

// And where others use up what it allows, those that we have are enough.
func TestExchangeRefusesFurtherConnections(t *testing.T) {
	ex := peers.StartExchange(t, "-max-per-source", "3")
	p := newPool(t, endpoint(ex.Addr), Options{})
	deliverMany(t, p, 1, 1)
	deliverMany(t, p, 20, 3)
	eventually(t, "a connection was refused", func() bool { return ex.Fired("max-per-source") > 0 })
}

// Exchange's 421 on an idle or old connection is not an answer to the next message's MAIL.
func TestExchangeEndsConnections(t *testing.T) {
	for _, limit := range []string{"-idle", "-total"} {
		t.Run(limit, func(t *testing.T) {
			t.Parallel()
			ex := peers.StartExchange(t, limit, "3s") // so long that no message takes as long
			p := newPool(t, endpoint(ex.Addr), Options{})
			deliverMany(t, p, 1, 1)
			p.mu.Lock()
			c := p.idle[0]
			p.mu.Unlock()
			eventually(t, "Exchange has ended the connection", c.stale)
			deliverMany(t, p, 1, 1)
			if s := p.Stats(); s.Open != 1 || !s.Hosts[0].Healthy {
				t.Errorf("%+v", s)
			}
		})
	}
}

// With the platform's limit configured a connection is given up before Exchange does it.
func TestExchangeLimitIsKept(t *testing.T) {
	ex := peers.StartExchange(t, "-total", "6s")
	ep := endpoint(ex.Addr)
	ep.Limits.PlatformLimit, ep.Limits.MaxMessages = 6*time.Second, 1e6
	obs := new(counts)
	p := newPool(t, ep, Options{Observer: obs})
	eventually(t, "a connection is given up", func() bool {
		deliverMany(t, p, 1, 1)
		time.Sleep(10 * time.Millisecond) // the senders'
		return obs.get("closed age")+obs.get("closed stale")+obs.get("closed error") > 0
	})
	if obs.get("closed age") != 1 {
		t.Errorf("closed for another reason: %d stale, %d errors", obs.get("closed stale"), obs.get("closed error"))
	}
}

func TestExchangeRefusals(t *testing.T) {
	for _, c := range []struct {
		flags    []string
		code     int
		enhanced [3]int
	}{
		{[]string{"-tarpit", "300ms", "-unknown", "b@health.example"}, 550, [3]int{5, 1, 10}},
		{[]string{"-432", "b@health.example"}, 432, [3]int{4, 3, 2}},
		{[]string{"-452", "-1"}, 452, [3]int{4, 3, 1}},
	} {
		t.Run(strings.Join(c.flags, " "), func(t *testing.T) {
			ex := peers.StartExchange(t, c.flags...)
			p := newPool(t, endpoint(ex.Addr), Options{})
			for range 2 { // the connection is as good as before
				err := deliver(testContext(t), t, p, realBody, "b@health.example").err()
				var pr *PlatformReply
				if !errors.As(err, &pr) || errors.Is(err, ErrInDoubt) {
					t.Fatalf("got %v", err)
				}
				if r := mail.AsReply(err); r.Code != c.code || r.EnhancedCode != c.enhanced {
					t.Errorf("passed on as %+v", r)
				}
			}
			if s := p.Stats(); s.Open != 1 || !s.Hosts[0].Healthy {
				t.Errorf("%+v", s)
			}
		})
	}
}
