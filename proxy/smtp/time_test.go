package smtp

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are in memory, so that time can be a test's own.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.done:
	default:
		close(p.done)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

// inTime runs a test against a server for which time passes only while all wait.
func inTime(t *testing.T, opts Options, r *recorder, test func(t *testing.T, srv *Server, dial func() *peer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		srv, err := NewServer(opts, oneAnswer{r})
		if err != nil {
			t.Fatal(err)
		}
		ln := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- srv.Serve(ctx, ln) }()
		var conns []net.Conn
		test(t, srv, func() *peer {
			client, server := net.Pipe()
			conns = append(conns, client)
			ln.conns <- server
			return newPeer(t, client)
		})
		for _, c := range conns {
			c.Close()
		}
		cancel()
		<-done
	})
}

// wantAfter fails unless about d has passed since start.
func wantAfter(t *testing.T, start time.Time, d time.Duration) {
	t.Helper()
	if got := time.Since(start); got < d || got > d+2*time.Second {
		t.Errorf("it took %v, want about %v", got, d)
	}
}

func TestIdleConnectionTimesOut(t *testing.T) {
	inTime(t, testOptions(), &recorder{}, func(t *testing.T, _ *Server, dial func() *peer) {
		p := dial().hello()
		start := time.Now()
		p.expect("421 4.4.2 ")
		p.expectEnd()
		wantAfter(t, start, 5*time.Minute)
	})
}

// TestSlowCommandTimesOut sends a byte a minute: the wait is for the whole command.
func TestSlowCommandTimesOut(t *testing.T) {
	inTime(t, testOptions(), &recorder{}, func(t *testing.T, _ *Server, dial func() *peer) {
		p := dial().hello()
		start := time.Now()
		ended := p.trickle("N", time.Minute)
		p.expect("421 4.4.2 ")
		wantAfter(t, start, 5*time.Minute)
		<-ended
	})
}

// trickle sends s at each interval until the server closes.
func (p *peer) trickle(s string, interval time.Duration) (ended chan struct{}) {
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, err := p.conn.Write([]byte(s)); err != nil {
				return
			}
			time.Sleep(interval)
		}
	}()
	return ended
}

func TestPauseInMessageTimesOut(t *testing.T) {
	r := &recorder{}
	inTime(t, testOptions(), r, func(t *testing.T, _ *Server, dial func() *peer) {
		p := dial().hello().envelope()
		p.command("DATA", "354 ")
		start := time.Now()
		p.send(strings.Repeat("x", 1<<20) + "\r\n" + evil[:10])
		p.expect("421 4.4.2 ")
		p.expectEnd()
		wantAfter(t, start, 3*time.Minute)
		synctest.Wait()
		if len(r.broken) != 1 || !isTimeout(r.broken[0]) || len(r.messages) > 0 {
			t.Errorf("session saw %v and %q, want a timeout and no message", r.broken, r.messages)
		}
	})
}

// TestSlowMessageTimesOut sends 100 bytes a second where 500 are the least: time earned
// by bytes and the grace of 30 seconds are used up after some 37 seconds.
func TestSlowMessageTimesOut(t *testing.T) {
	for _, command := range []string{"DATA", "BDAT 100000 LAST", "BDAT 0"} {
		inTime(t, testOptions(), &recorder{}, func(t *testing.T, _ *Server, dial func() *peer) {
			p := dial().hello().envelope()
			line := strings.Repeat("x", 98) + "\r\n"
			switch command {
			case "DATA":
				p.command(command, "354 ")
			case "BDAT 0":
				p.command(command, "250 ")
				line = "BDAT 86\r\n" + strings.Repeat("x", 84) + "\r\n"
			default:
				p.send(command + "\r\n")
			}
			start := time.Now()
			ended := p.trickle(line, time.Second)
			for {
				if got := p.reply(); strings.HasPrefix(got, "421 4.4.2 ") {
					break
				} else if !strings.HasPrefix(got, "250 ") {
					t.Fatalf("%s: answer is %q", command, got)
				}
			}
			wantAfter(t, start, 36*time.Second)
			<-ended
		})
	}
}

// TestSlowPlatformIsNotThePeersFault has a session that takes an hour to read.
func TestSlowPlatformIsNotThePeersFault(t *testing.T) {
	r := &recorder{data: func(_ context.Context, b Body, rcpts int) []error {
		p := make([]byte, 10)
		for {
			time.Sleep(10 * time.Minute)
			if n, err := b.Read(p); n == 0 {
				return answers(rcpts, onlyEOF(err))
			}
		}
	}}
	inTime(t, testOptions(), r, func(t *testing.T, _ *Server, dial func() *peer) {
		p := dial().hello().envelope()
		p.command("DATA", "354 ")
		p.send("Subject: a message of some lines\r\n\r\nthat the session reads slowly\r\n.\r\n")
		p.expect("250 ")
	})
}

// onlyEOF returns nil for what a complete message ends with.
func onlyEOF(err error) error {
	if err.Error() == "EOF" {
		return nil
	}
	return err
}

// TestPeerThatDoesNotReadTimesOut pipelines without reading the answers.
func TestPeerThatDoesNotReadTimesOut(t *testing.T) {
	r := &recorder{}
	o := testOptions()
	o.Limits.Idles = 1 << 20
	inTime(t, o, r, func(t *testing.T, srv *Server, dial func() *peer) {
		p := dial().hello()
		start := time.Now()
		for {
			if _, err := p.conn.Write([]byte("NOOP\r\n")); err != nil {
				break
			}
		}
		wantAfter(t, start, time.Minute)
	})
}

func TestDrain(t *testing.T) {
	r := &recorder{}
	inTime(t, testOptions(), r, func(t *testing.T, srv *Server, dial func() *peer) {
		idle, busy := dial().hello(), dial().hello().envelope()
		busy.command("DATA", "354 ")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- srv.Shutdown(ctx) }()
		start := time.Now()
		idle.expect("421 4.3.2 ")
		idle.expectEnd()
		wantAfter(t, start, 0)
		time.Sleep(20 * time.Second)
		busy.send("x\r\n.\r\n")
		busy.expect("250 ")
		busy.expect("421 4.3.2 ")
		busy.expectEnd()
		if err := <-done; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if len(r.messages) != 1 || r.closed != 1 { // the idle one never had a session
			t.Errorf("%d messages and %d sessions closed, want 1 and 1", len(r.messages), r.closed)
		}
	})
}

// TestDrainCuts has two peers that don't end their transactions within the grace: one
// between commands, who is told, and one within a message.
func TestDrainCuts(t *testing.T) {
	r := &recorder{}
	inTime(t, testOptions(), r, func(t *testing.T, srv *Server, dial func() *peer) {
		between, within := dial().hello().envelope(), dial().hello().envelope()
		within.command("DATA", "354 ")
		within.send("half a message\r\n")
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		done := make(chan error, 1)
		start := time.Now()
		go func() { done <- srv.Shutdown(ctx) }()
		between.expect("421 4.3.2 ")
		between.expectEnd()
		within.expect("421 4.3.2 ")
		within.expectEnd()
		wantAfter(t, start, 20*time.Second)
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v, want that the grace was over", err)
		}
		if len(r.messages) != 0 || len(r.broken) != 1 {
			t.Errorf("%d messages, %v broken, want none and one", len(r.messages), r.broken)
		}
	})
}

// TestCutCancelsSession has a session that waits for a platform, and notices.
func TestCutCancelsSession(t *testing.T) {
	r := &recorder{data: func(ctx context.Context, b Body, rcpts int) []error {
		<-ctx.Done()
		return answers(rcpts, ctx.Err())
	}}
	inTime(t, testOptions(), r, func(t *testing.T, srv *Server, dial func() *peer) {
		p := dial().hello().envelope()
		p.send("DATA\r\n")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- srv.Shutdown(ctx) }()
		p.expect("451 4.3.0 ")
		p.expect("421 4.3.2 ")
		p.expectEnd()
		<-done
	})
}
