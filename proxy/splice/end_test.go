package splice

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// until waits for a condition.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// isReset reads until the connection breaks.
func isReset(t *testing.T, from io.Reader) {
	t.Helper()
	if n, err := io.Copy(io.Discard, from); err == nil {
		t.Errorf("an orderly end after %d bytes, want a reset", n)
	} else if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		t.Error("no end at all")
	}
}

func words(s string) func() []byte { return func() []byte { return []byte(s) } }

// The platform is reset, the client hears its last words and then the end; what it says
// meanwhile goes nowhere.
func TestCutAndWords(t *testing.T) {
	everywhere(t, Options{}, func(t *testing.T, _ *Engine, pair func(Pair) (*Joint, peer, peer)) {
		o := newOwner()
		j, client, platform := pair(Pair{Owner: o})
		j.Start()
		send(t, client, "a\r\n")
		expect(t, platform, "a\r\n")
		send(t, platform, "b\r\n")
		expect(t, client, "b\r\n")
		j.CutPlatform()
		isReset(t, platform)
		<-o.gone
		send(t, client, "lost\r\n")
		j.EndClient(words("* BYE\r\n"), time.Millisecond)
		expect(t, client, "* BYE\r\n")
		expectEnd(t, client)
		client.Close()
		e := o.wait(t)
		if e.By != ByOwner || !e.Words || e.Stats.ToPlatform != 3 || e.Stats.ToClient != 3 {
			t.Errorf("ended %+v", e)
		}
	})
}

// A client that doesn't read is cut in the middle of much: on a plain connection the words may
// follow what was seen, exactly; behind half a TLS record there are none.
func TestWordsBehindAChunk(t *testing.T) {
	everywhere(t, Options{}, func(t *testing.T, e *Engine, pair func(Pair) (*Joint, peer, peer)) {
		o := newOwner()
		j, client, platform := pair(Pair{Owner: o})
		j.Start()
		go func() {
			p := bytes.Repeat([]byte("0123456789"), 1000)
			for {
				if _, err := platform.Write(p); err != nil {
					return
				}
			}
		}()
		// Full: it has a buffer, nobody works on it, and that stays so for a while.
		same, last := 0, int64(0)
		until(t, "the client's side is full", func() bool {
			held := int64(0)
			for class := range e.pool.buffers {
				held += e.pool.buffers[class].lent.Load()
			}
			if n := j.Stats().ToClient; held == 0 || e.Counts().Active > 0 || n != last {
				same, last = 0, n
			}
			same++
			return same > 50
		})
		asked := false
		j.EndClient(func() []byte { asked = true; return []byte("BYE") }, 0)
		<-o.gone
		got, err := io.ReadAll(client)
		client.Close()
		ended := o.wait(t)
		if _, isTLS := client.(*tls.Conn); isTLS {
			if asked || ended.Words || err == nil || !bytes.HasPrefix(o.seen, got) {
				t.Errorf("asked %t, %+v, read %d bytes of %d, %v", asked, ended, len(got), len(o.seen), err)
			}
			return
		}
		if want := string(o.seen) + "BYE"; !asked || !ended.Words || err != nil || string(got) != want {
			t.Errorf("asked %t, %+v, read %d bytes, %v, want %d", asked, ended, len(got), err, len(want))
		}
	})
}

// While Flow says so a chunk is kept, in both directions; then it goes on. Another error cuts.
func TestSuspend(t *testing.T) {
	everywhere(t, Options{}, func(t *testing.T, _ *Engine, pair func(Pair) (*Joint, peer, peer)) {
		o := newOwner()
		var asked atomic.Int32
		set := func(err error) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.flow = func() error { asked.Add(1); return err }
		}
		set(ErrSuspended)
		j, client, platform := pair(Pair{Owner: o})
		j.Start()
		send(t, client, "up")
		until(t, "Flow is asked", func() bool { return asked.Load() > 0 })
		send(t, platform, "down")
		j.Resume() // too early: it is asked again
		until(t, "Flow is asked again", func() bool { return asked.Load() > 1 })
		if s := j.Stats(); s.ToClient+s.ToPlatform != 0 {
			t.Errorf("%+v went on", s)
		}
		set(nil)
		j.Resume()
		expect(t, platform, "up")
		expect(t, client, "down")
		lapsed := errors.New("lapsed")
		set(lapsed)
		send(t, client, "not this")
		<-o.gone
		isReset(t, platform)
		j.EndClient(words("BYE"), 0)
		expect(t, client, "BYE")
		expectEnd(t, client)
		client.Close()
		if e := o.wait(t); e.By != ByFlow || e.Err != lapsed || e.Stats.ToPlatform != 2 {
			t.Errorf("ended %+v", e)
		}
	})
}

// When one peer breaks, what came before is passed on, and the other one is told the end.
func TestResets(t *testing.T) {
	everywhere(t, Options{}, func(t *testing.T, _ *Engine, pair func(Pair) (*Joint, peer, peer)) {
		o := newOwner()
		j, client, platform := pair(Pair{Owner: o})
		j.Start()
		send(t, platform, "last")
		expect(t, client, "last")
		sever(platform)
		expectEnd(t, client)
		<-o.gone
		client.Close()
		if e := o.wait(t); e.By != ByPlatform || e.Err == nil {
			t.Errorf("ended %+v, want an error of the platform", e)
		}
		o = newOwner()
		j, client, platform = pair(Pair{Owner: o})
		j.Start()
		send(t, client, "QUIT")
		expect(t, platform, "QUIT")
		sever(client)
		expectEnd(t, platform)
		platform.Close()
		if e := o.wait(t); e.By != ByClient || e.Err == nil {
			t.Errorf("ended %+v, want an error of the client", e)
		}
	})
}

// As long as the kernel has bytes for the platform, it isn't said to be gone.
func TestUnsent(t *testing.T) {
	for end, linger := range map[string]time.Duration{"read": patience, "not read": 100 * time.Millisecond, "reset": time.Hour} {
		o := newOwner()
		e := engine(t, Options{Linger: linger}, newWatcher)
		a, client := tcp(t)
		b, platform := tcp(t)
		if err := errors.Join(platform.SetReadBuffer(64<<10), b.SetWriteBuffer(1<<20)); err != nil {
			t.Fatal(err)
		}
		j, err := e.Join(Pair{Client: a, Platform: b, Owner: o})
		if err != nil {
			t.Fatal(err)
		}
		j.Start()
		p := bytes.Repeat([]byte("0123456789"), 40_000)
		if err := platform.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		expectEnd(t, client)
		if _, err := client.Write(p); err != nil {
			t.Fatal(err)
		}
		client.Close()
		until(t, "all is written", func() bool { return j.Stats().ToPlatform == int64(len(p)) })
		switch end {
		case "read":
			select {
			case <-o.gone:
				t.Error("the platform is gone before it has read anything")
			case <-time.After(50 * time.Millisecond):
			}
			if got, err := io.ReadAll(platform); err != nil || !bytes.Equal(got, p) {
				t.Errorf("the platform read %d bytes, %v", len(got), err)
			}
		case "not read":
			<-o.gone
			isReset(t, platform)
		default: // what the kernel had for it is gone by then
			sever(platform)
		}
		o.wait(t)
	}
}

// An end without close_notify that comes with the last record is seen.
func TestEndBehindARecord(t *testing.T) {
	cert := certificate(t)
	e := engine(t, Options{}, newWatcher)
	for range 20 {
		o := newOwner()
		j, client, platform := pairOf(t, e, cert, false, true, Pair{Owner: o})
		send(t, platform, "last")
		platform.(*tls.Conn).NetConn().Close()
		j.Start()
		expect(t, client, "last")
		expectEnd(t, client)
		client.Close()
		o.wait(t)
	}
}

// A pair that nobody ends is ended by a limit.
func TestLimits(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
		do   func(t *testing.T, j *Joint, client, platform peer)
		by   By
	}{
		{"idle", Options{Idle: 30 * time.Millisecond}, func(*testing.T, *Joint, peer, peer) {}, ByLimit},
		{"a slow reader", Options{Write: 50 * time.Millisecond}, func(t *testing.T, _ *Joint, _, platform peer) {
			go func() {
				for {
					if _, err := platform.Write(make([]byte, 300_000)); err != nil {
						return
					}
				}
			}()
		}, ByLimit},
		{"one direction ended", Options{HalfOpen: 30 * time.Millisecond}, func(t *testing.T, _ *Joint, client, _ peer) { client.CloseWrite() }, ByClient},
		{"cut, and no EndClient", Options{HalfOpen: 30 * time.Millisecond}, func(t *testing.T, j *Joint, _, _ peer) { j.CutPlatform() }, ByOwner},
		{"a client that stays", Options{Linger: 30 * time.Millisecond}, func(t *testing.T, j *Joint, _, _ peer) { j.EndClient(words("BYE"), 0) }, ByOwner},
		{"a platform that sends on after the client broke", Options{Linger: 300 * time.Millisecond}, func(t *testing.T, _ *Joint, client, platform peer) {
			go func() {
				for {
					if _, err := platform.Write(make([]byte, 1<<16)); err != nil {
						return
					}
				}
			}()
			expect(t, client, "\x00")
			sever(client)
		}, ByClient},
		{"a client that stays after the platform broke", Options{Linger: 30 * time.Millisecond}, func(t *testing.T, j *Joint, _, platform peer) {
			sever(platform)
		}, ByPlatform},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOwner()
			o.keep = false
			j, client, platform := pairOf(t, engine(t, c.o, newWatcher), tls.Certificate{}, false, false, Pair{Owner: o})
			j.Start()
			c.do(t, j, client, platform)
			if e := o.wait(t); e.By != c.by {
				t.Errorf("ended %+v", e)
			}
			client.Close()
			platform.Close()
		})
	}
}

// A pair that was idle for too long ends in order; its owner may have the last word.
func TestIdleForTooLong(t *testing.T) {
	for _, last := range []string{"", "* BYE Autologout\r\n"} {
		everywhere(t, Options{Idle: 20 * time.Millisecond}, func(t *testing.T, _ *Engine, pair func(Pair) (*Joint, peer, peer)) {
			o := newOwner()
			j, client, platform := pair(Pair{Owner: o})
			o.onGone = func() {
				if by := j.By(); by != ByLimit {
					t.Errorf("by %s", by)
				}
				if last != "" {
					j.EndClient(words(last), 0)
				}
			}
			j.Start()
			isReset(t, platform)
			expect(t, client, last)
			expectEnd(t, client)
			client.Close()
			if e := o.wait(t); e.By != ByLimit || e.Words != (last != "") {
				t.Errorf("ended %+v", e)
			}
		})
	}
}

func TestCutWhenSilent(t *testing.T) {
	for _, c := range []struct {
		name            string
		silence, within time.Duration
		busy            bool
		least           time.Duration
	}{
		{"silent already", 0, time.Hour, false, 0},
		{"soon silent", 60 * time.Millisecond, time.Hour, false, 40 * time.Millisecond},
		{"never silent", 10 * time.Second, 100 * time.Millisecond, true, 90 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOwner()
			o.keep = false
			j, client, platform := pairOf(t, engine(t, Options{}, newWatcher), tls.Certificate{}, false, false, Pair{Owner: o})
			j.Start()
			began := time.Now()
			send(t, client, "x")
			expect(t, platform, "x")
			if c.busy {
				go func() {
					for {
						if _, err := client.Write([]byte("x")); err != nil {
							return
						}
						time.Sleep(time.Millisecond)
					}
				}()
				go io.Copy(io.Discard, platform)
			}
			j.CutWhenSilent(c.silence, c.within)
			<-o.gone
			if d := time.Since(began); d < c.least {
				t.Errorf("cut after %s, want at least %s", d, c.least)
			}
			j.EndClient(nil, 0)
			client.Close()
			o.wait(t)
		})
	}
}

func TestClose(t *testing.T) {
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	idle, parting := newOwner(), newOwner()
	j, _, platform := pairOf(t, e, tls.Certificate{}, false, false, Pair{Owner: idle})
	j.Start()
	k, client, _ := pairOf(t, e, tls.Certificate{}, false, false, Pair{Owner: parting})
	k.Start()
	k.EndClient(words("BYE"), 50*time.Millisecond)
	if n := e.Counts().Pairs; n != 2 {
		t.Errorf("%d pairs", n)
	}
	closed := make(chan error)
	go func() { closed <- e.Close(context.Background()) }()
	isReset(t, platform)
	if ended := idle.wait(t); ended.By != ByClose && ended.By != ByOwner {
		t.Errorf("ended %+v", ended)
	}
	expect(t, client, "BYE")
	client.Close()
	if ended := parting.wait(t); !ended.Words {
		t.Errorf("ended %+v", ended)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	a, _ := tcp(t)
	b, _ := tcp(t)
	if _, err := e.Join(Pair{Client: a, Platform: b, Owner: newOwner()}); !errors.Is(err, ErrClosed) {
		t.Errorf("join: %v", err)
	}
	if err := a.SetDeadline(time.Now()); err != nil {
		t.Errorf("the caller's connection is not his any more: %v", err)
	}
}

func TestCloseInTime(t *testing.T) {
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := newOwner()
	j, _, _ := pairOf(t, e, tls.Certificate{}, false, false, Pair{Owner: o})
	j.Start()
	j.EndClient(words("BYE"), time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := e.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("close: %v", err)
	}
	if ended := o.wait(t); ended.Words {
		t.Errorf("ended %+v", ended)
	}
}

func TestUnfit(t *testing.T) {
	e := engine(t, Options{}, newWatcher)
	a, _ := tcp(t)
	p, q := net.Pipe()
	defer p.Close()
	defer q.Close()
	b, _ := tcp(t)
	for name, nc := range map[string]net.Conn{
		"a pipe":                  p,
		"TLS over a bare socket":  tls.Client(b, &tls.Config{InsecureSkipVerify: true}),
		"TLS without a handshake": tls.Client(Under(b), &tls.Config{InsecureSkipVerify: true}),
		"nothing":                 nil,
	} {
		if _, err := e.Join(Pair{Client: a, Platform: nc, Owner: newOwner()}); !errors.Is(err, ErrUnfit) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// dribble writes one byte at a time.
type dribble struct{ net.Conn }

func (d dribble) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := d.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
		runtime.Gosched()
	}
	return len(p), nil
}

// Parts of records make nobody wait: one worker serves another pair meanwhile.
func TestPartsOfRecords(t *testing.T) {
	cert := certificate(t)
	for _, w := range watchers {
		t.Run(w.name, func(t *testing.T) {
			e := engine(t, Options{Workers: 1}, w.make)
			ours, raw := tcp(t)
			server := tls.Server(Under(ours), &tls.Config{Certificates: []tls.Certificate{cert}})
			client := tls.Client(dribble{raw}, &tls.Config{InsecureSkipVerify: true})
			go client.Handshake()
			if err := server.Handshake(); err != nil {
				t.Fatal(err)
			}
			up, platform := tcp(t)
			o := newOwner()
			j, err := e.Join(Pair{Client: server, Platform: up, Owner: o})
			if err != nil {
				t.Fatal(err)
			}
			j.Start()
			text := string(bytes.Repeat([]byte("line\r\n"), 300))
			go io.WriteString(client, text)
			expect(t, platform, text)
			// Half a record, and no more.
			if _, err := raw.Write([]byte{23, 3, 3, 0, 100, 1, 2, 3}); err != nil {
				t.Fatal(err)
			}
			o2 := newOwner()
			k, other, there := pairOf(t, e, cert, true, false, Pair{Owner: o2})
			k.Start()
			send(t, other, "x")
			expect(t, there, "x")
			raw.Close()
			expectEnd(t, platform)
			platform.Close()
			if e := o.wait(t); e.By != ByClient {
				t.Errorf("ended %+v", e)
			}
			k.EndClient(nil, 0)
			other.Close()
			o2.wait(t)
		})
	}
}

// Idle pairs have no goroutine and no buffer, also after much went through them.
func TestIdle(t *testing.T) {
	cert := certificate(t)
	e := engine(t, Options{Workers: 2}, newWatcher)
	const n = 40
	before := runtime.NumGoroutine()
	var owners []*owner
	var joints []*Joint
	var clients []peer
	for i := range n {
		o := newOwner()
		j, client, platform := pairOf(t, e, cert, i%2 == 0, i%3 == 0, Pair{Owner: o})
		j.Start()
		go platform.Write(make([]byte, 300_000))
		if _, err := io.ReadFull(client, make([]byte, 300_000)); err != nil {
			t.Fatal(err)
		}
		owners, joints, clients = append(owners, o), append(joints, j), append(clients, client)
	}
	until(t, "no goroutine but the workers", func() bool { return runtime.NumGoroutine() <= before+2 })
	for class := range e.pool.buffers {
		until(t, "no buffer is lent", func() bool { return e.pool.buffers[class].lent.Load() == 0 })
	}
	// The last news that a socket takes more may still be on its way.
	until(t, "no pair is at work", func() bool { return e.Counts() == Counts{Pairs: n} })
	for _, j := range joints {
		j.EndClient(words("BYE"), 0)
	}
	for i, o := range owners {
		expect(t, clients[i], "BYE")
		clients[i].Close()
		o.wait(t)
	}
	until(t, "no pair is left", func() bool { return e.Counts().Pairs == 0 })
}
