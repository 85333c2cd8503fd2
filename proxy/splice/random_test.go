package splice

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// A chunk that was read, and asked about, before the cut is not written after it.
func TestCutWhileAsked(t *testing.T) {
	everywhere(t, Options{}, func(t *testing.T, _ *Engine, pair func(Pair) (*Joint, peer, peer)) {
		for _, up := range []bool{true, false} {
			o := newOwner()
			asked, answer := make(chan struct{}), make(chan struct{})
			once := sync.OnceFunc(func() { close(asked); <-answer })
			o.flow = func() error { once(); return nil }
			j, client, platform := pair(Pair{Owner: o})
			j.Start()
			from, to := client, platform
			if !up {
				from, to = platform, client
			}
			send(t, from, "too late")
			<-asked
			j.CutPlatform()
			close(answer)
			<-o.gone
			j.EndClient(words("BYE"), 0)
			got, _ := io.ReadAll(to) // the platform's side is reset
			if want := map[bool]string{true: "", false: "BYE"}[up]; string(got) != want {
				t.Errorf("up %t: got %q, want %q", up, got, want)
			}
			client.Close()
			if e := o.wait(t); e.Stats.ToClient+e.Stats.ToPlatform != 0 {
				t.Errorf("ended %+v", e)
			}
		}
	})
}

// Many pairs at once; each is torn in its own way, or ends well. What arrives is a prefix of
// what was sent, all of it if nothing tore it, and is what the owner saw.
func TestRandom(t *testing.T) {
	cert := certificate(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, w := range watchers {
		t.Run(w.name, func(t *testing.T) {
			e := engine(t, Options{Workers: 3, Linger: patience}, w.make)
			before := descriptors(t)
			var group sync.WaitGroup
			for i := range 24 {
				r := rand.New(rand.NewPCG(seed, uint64(i)))
				group.Go(func() { randomPair(t, e, cert, r) })
			}
			group.Wait()
			until(t, "no pair is left", func() bool { return e.Counts().Pairs == 0 })
			until(t, "no descriptor is left", func() bool { return descriptors(t) <= before })
			for class := range e.pool.buffers {
				if n := e.pool.buffers[class].lent.Load(); n != 0 {
					t.Errorf("%d buffers of class %d are still lent", n, class)
				}
			}
		})
	}
}

// descriptors returns how many this process has.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func randomPair(t *testing.T, e *Engine, cert tls.Certificate, r *rand.Rand) {
	form := forms[r.IntN(len(forms))]
	o := newOwner()
	up, down := random(r), random(r)
	restUp, restDown := r.IntN(len(up)+1)%3000, r.IntN(len(down)+1)%3000
	j, client, platform := pairOf(t, e, cert, form.client, form.platform, Pair{ToPlatform: up[:restUp], ToClient: down[:restDown], Owner: o})
	j.Start()

	const bye = "* BYE\r\n"
	tear := []string{"", "", "", "cut", "end", "silent", "client", "platform", "flow"}[r.IntN(9)]
	when := time.Duration(r.IntN(4000)) * time.Microsecond
	suspensions := r.IntN(3)

	var group sync.WaitGroup
	var gotUp, gotDown []byte
	var errUp, errDown error
	seeds := []uint64{r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64()}
	group.Go(func() { dole(client, up[restUp:], seeds[0]) })
	group.Go(func() { dole(platform, down[restDown:], seeds[1]) })
	group.Go(func() { gotUp, errUp = sip(platform, seeds[2]) })
	group.Go(func() { gotDown, errDown = sip(client, seeds[3]) })
	group.Go(func() {
		for range suspensions {
			o.mu.Lock()
			o.flow = func() error { return ErrSuspended }
			o.mu.Unlock()
			time.Sleep(when / 4)
			o.mu.Lock()
			o.flow = nil
			o.mu.Unlock()
			j.Resume()
		}
		time.Sleep(when)
		switch tear {
		case "cut":
			j.CutPlatform()
		case "end":
			j.EndClient(words(bye), when/2)
		case "silent":
			j.CutWhenSilent(when/3, 2*when)
		case "client":
			sever(client)
		case "platform":
			sever(platform)
		case "flow":
			o.mu.Lock()
			o.flow = func() error { return errors.New("lapsed") }
			o.mu.Unlock()
		default:
			return
		}
		// Whatever it was, the owner ends it when the platform is gone.
		select {
		case <-o.gone:
		case <-time.After(patience):
			t.Errorf("%s, %s: the platform isn't gone", form.name, tear)
		}
		j.EndClient(words(bye), 0)
	})
	group.Wait()
	client.Close()
	platform.Close()
	ended := o.wait(t)
	what := form.name + ", " + tear
	if ended.Words {
		gotDown = bytes.TrimSuffix(gotDown, []byte(bye))
	}
	if !bytes.HasPrefix(up, gotUp) || !bytes.HasPrefix(down, gotDown) || !bytes.HasPrefix(down, o.seen) {
		t.Errorf("%s: other bytes arrived than were sent", what)
	}
	if int64(len(o.seen)) != ended.Stats.ToClient || tear != "client" && ended.Words && len(gotDown) != len(o.seen) {
		t.Errorf("%s: %d bytes arrived, %d were seen, %+v", what, len(gotDown), len(o.seen), ended)
	}
	if tear == "" && (len(gotUp) != len(up) || len(gotDown) != len(down) || errUp != nil || errDown != nil || ended.Err != nil) {
		t.Errorf("%s: %d of %d bytes up, %v, %d of %d down, %v; %+v", what, len(gotUp), len(up), errUp, len(gotDown), len(down), errDown, ended)
	}
}

// random returns nothing, little or much.
func random(r *rand.Rand) []byte {
	p := make([]byte, []int{0, 100, 50_000, 900_000}[r.IntN(4)])
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], r.Uint64())
	rand.NewChaCha8(seed).Read(p)
	return p
}

// dole writes p in pieces, and the end.
func dole(to peer, p []byte, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	for len(p) > 0 {
		n := min(len(p), 1+r.IntN([]int{10, 1000, 100_000, 1_000_000}[r.IntN(4)]))
		if _, err := to.Write(p[:n]); err != nil {
			return
		}
		p = p[n:]
		if r.IntN(8) == 0 {
			time.Sleep(time.Duration(r.IntN(500)) * time.Microsecond)
		}
	}
	to.CloseWrite()
}

// sip reads all in pieces.
func sip(from peer, seed uint64) ([]byte, error) {
	r := rand.New(rand.NewPCG(seed, 2))
	var all []byte
	p := make([]byte, 200_000)
	for {
		n, err := from.Read(p[:1+r.IntN(len(p))])
		all = append(all, p[:n]...)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		if r.IntN(8) == 0 {
			time.Sleep(time.Duration(r.IntN(500)) * time.Microsecond)
		}
	}
}

// sever resets a peer's connection.
func sever(p peer) {
	c, ok := p.(*net.TCPConn)
	if !ok {
		c = p.(*tls.Conn).NetConn().(*net.TCPConn)
	}
	c.SetLinger(0)
	c.Close()
}
