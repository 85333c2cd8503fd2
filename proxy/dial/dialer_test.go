package dial

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// network is what the dialers of tests reach: hosts that are up or down.
type network struct {
	down  map[string]bool
	dials []string
}

func (n *network) dial(ctx context.Context, _, host string) (net.Conn, error) {
	n.dials = append(n.dials, host)
	if n.down[host] {
		return nil, errors.New("refused")
	}
	c, _ := net.Pipe()
	return c, nil
}

func testDialer(t *testing.T, n *network, hosts ...string) *Dialer {
	t.Helper()
	d, err := New(Endpoint{Platform: "ox", Hosts: hosts, TLS: TLS{Policy: TLSNone}}, Options{Dial: n.dial})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestHostsInTurn wants each to be used, and the next where one is down.
func TestHostsInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no time passes: the one that is down is left alone
		n := &network{down: map[string]bool{"b:1": true}}
		d := testDialer(t, n, "a:1", "b:1", "c:1")
		for _, want := range []string{"a:1", "c:1", "a:1", "c:1"} {
			if _, host, err := d.Dial(t.Context()); err != nil || host != want {
				t.Fatalf("dialled %s (%v), want %s", host, err, want)
			}
		}
		if len(n.dials) != 5 {
			t.Errorf("dialled %v, want the host that is down once", n.dials)
		}
		s := d.Stats()
		if s[1].Healthy || s[1].Failures != 1 || s[1].Error == "" || !s[0].Healthy {
			t.Errorf("stats are %+v", s)
		}
	})
}

// TestBackoffGrows wants one attempt after each back-off, at growing distances up to the
// longest, and none before.
func TestBackoffGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{down: map[string]bool{"a:1": true}}
		d := testDialer(t, n, "a:1")
		for i, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			want *= time.Second
			if _, _, err := d.Dial(t.Context()); err == nil || errors.Is(err, ErrNoHost) {
				t.Fatalf("attempt %d: %v, want the host's own error", i, err)
			}
			if _, _, err := d.Dial(t.Context()); !errors.Is(err, ErrNoHost) {
				t.Fatalf("attempt %d: %v at once, want ErrNoHost", i, err)
			}
			wait := time.Until(d.Stats()[0].RetryAt)
			if wait < want*3/4 || wait > want*5/4 {
				t.Errorf("attempt %d: left alone for %v, want about %v", i, wait, want)
			}
			time.Sleep(wait)
		}
		n.down["a:1"] = false
		if _, _, err := d.Dial(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, _, err := d.Dial(t.Context()); !errors.Is(err, ErrNoHost) {
			t.Errorf("second attempt beside the first: %v, want ErrNoHost", err)
		}
		d.Succeeded("a:1")
		if _, _, err := d.Dial(t.Context()); err != nil {
			t.Errorf("after the success: %v", err)
		}
	})
}

// TestCallersEndIsNoFailure wants a host that was being dialled when the caller left to be
// as good as before, and the cause to be told.
func TestCallersEndIsNoFailure(t *testing.T) {
	gone := errors.New("client is gone")
	d, err := New(Endpoint{Platform: "ox", Hosts: []string{"a:1", "b:1"}, TLS: TLS{Policy: TLSNone}}, Options{
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	go cancel(gone)
	if _, _, err := d.Dial(ctx); !errors.Is(err, gone) {
		t.Errorf("got %v, want the cause", err)
	}
	for _, s := range d.Stats() {
		if !s.Healthy {
			t.Errorf("%+v", s)
		}
	}
}

// TestSilentHost wants a dial to end by its own time, and the next host to be tried.
func TestSilentHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := New(Endpoint{Platform: "ox", Hosts: []string{"silent:1", "b:1"}, TLS: TLS{Policy: TLSNone}, DialTimeout: 5 * time.Second}, Options{
			Dial: func(ctx context.Context, _, host string) (net.Conn, error) {
				if host == "silent:1" {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				c, _ := net.Pipe()
				return c, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if _, host, err := d.Dial(t.Context()); err != nil || host != "b:1" || time.Since(begun) != 5*time.Second {
			t.Errorf("got %s (%v) after %v", host, err, time.Since(begun))
		}
	})
}

// TestLostAttempt wants a caller that never says what came of its attempt not to keep a host
// from others for good.
func TestLostAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		d := testDialer(t, n, "a:1")
		d.Failed("a:1", errors.New("greeting 421"))
		d.Failed("unknown:1", errors.New("not ours"))
		time.Sleep(2 * time.Second)
		if _, _, err := d.Dial(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, _, err := d.Dial(t.Context()); !errors.Is(err, ErrNoHost) {
			t.Errorf("beside the attempt: %v, want ErrNoHost", err)
		}
		time.Sleep(d.Endpoint().DialTimeout + d.Endpoint().AttemptTime)
		if _, _, err := d.Dial(t.Context()); err != nil {
			t.Errorf("after its time: %v", err)
		}
		d.Dropped("a:1")
		if _, _, err := d.Dial(t.Context()); err != nil {
			t.Errorf("after a drop: %v", err)
		}
		d.Failed("a:1", errors.New("greeting 421"))
		if s := d.Stats()[0]; s.Failures != 2 || s.Error != "greeting 421" {
			t.Errorf("%+v", s)
		}
	})
}

// TestReopens wants what may be waited for: the back-off, what comes of an attempt that is under way, and
// nothing of a host that answers, however many are just being connected to it.
func TestReopens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{down: map[string]bool{"a:1": true}}
		d := testDialer(t, n, "a:1")
		if _, _, err := d.Dial(t.Context()); err == nil {
			t.Fatal("dialled a host that is down")
		}
		if _, at := d.Reopens(); !at.Equal(d.Stats()[0].RetryAt) {
			t.Errorf("left alone: %v, want %v", at, d.Stats()[0].RetryAt)
		}
		n.down["a:1"] = false
		time.Sleep(time.Until(d.Stats()[0].RetryAt))
		if _, _, err := d.Dial(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Somebody was refused while that attempt was under way, and asks only now.
		if _, _, err := d.Dial(t.Context()); !errors.Is(err, ErrNoHost) {
			t.Fatalf("beside the one attempt: %v", err)
		}
		news, at := d.Reopens()
		if !at.IsZero() {
			t.Errorf("while one tries: %v", at)
		}
		d.Succeeded("a:1")
		select {
		case <-news:
		default:
			t.Error("nobody is told that it answers")
		}
		if _, _, err := d.Dial(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, at := d.Reopens(); !at.Equal(time.Now()) {
			t.Errorf("it answers: %v from now", time.Until(at))
		}
	})
}
