package listen

import (
	"net"
	"testing"
	"time"
)

// A listener that is bounded takes no more than its own, nor than is left of what it shares, and
// takes again when one is closed.
func TestBounded(t *testing.T) {
	for _, c := range []struct {
		name          string
		quota, others int
		most, want    int
		noQuota       bool
	}{
		{name: "its own", quota: 10, most: 2, want: 2},
		{name: "what is left", quota: 5, others: 2, most: 4, want: 3},
		{name: "no limit of its own", quota: 2, want: 2},
		{name: "nothing shared", noQuota: true, most: 1, want: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := NewQuota(c.quota)
			if c.noQuota {
				q = nil
			}
			for range c.others {
				if !q.take() {
					t.Fatal("nothing to take")
				}
			}
			inner, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer inner.Close()
			l := q.Listener(inner, c.most)
			accepted := make(chan net.Conn, 10)
			go func() {
				defer close(accepted)
				for {
					nc, err := l.Accept()
					if err != nil {
						return
					}
					accepted <- nc
				}
			}()
			dial := func() net.Conn {
				t.Helper()
				nc, err := net.Dial("tcp", inner.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { nc.Close() })
				_ = nc.SetReadDeadline(time.Now().Add(30 * time.Second))
				return nc
			}
			var taken []net.Conn
			for range c.want {
				dial()
				taken = append(taken, <-accepted)
			}
			if n, err := dial().Read(make([]byte, 1)); err == nil || n > 0 {
				t.Errorf("one beyond: %d bytes, %v", n, err)
			} else if late, ok := err.(net.Error); ok && late.Timeout() {
				t.Error("one beyond stays open")
			}
			_ = taken[0].Close()
			_ = taken[0].Close() // counts once
			dial()
			again := <-accepted
			if n, err := dial().Read(make([]byte, 1)); err == nil || n > 0 {
				t.Errorf("one beyond, again: %d bytes, %v", n, err)
			}
			_ = again.Close()
			for _, nc := range taken[1:] {
				_ = nc.Close()
			}
			if left := q.For(1); left != nil && left.pot.taken.Load() != int64(c.others) {
				t.Errorf("%d taken, want %d", left.pot.taken.Load(), c.others)
			}
			inner.Close()
			for range accepted {
			}
		})
	}
}
