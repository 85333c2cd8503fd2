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
