package splice

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(peersVariable) != "" {
		peersMain()
	}
	goleak.VerifyTestMain(m)
}

// patience is the longest that anything here is waited for.
const patience = 30 * time.Second

// watchers are what an engine can watch with on this system.
var watchers = []struct {
	name string
	make func(*Engine) (watcher, error)
}{
	{"own", newWatcher},
	{"goroutines", newWaiters},
}

// certificate is a new self-signed one.
func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"test"}}
	der, err := x509.CreateCertificate(rand.Reader, of, of, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// tcp returns both ends of a connection.
func tcp(t testing.TB) (ours, peers *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	if err := a.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return b.(*net.TCPConn), a.(*net.TCPConn)
}

// peer is a connection that can end its side.
type peer interface {
	net.Conn
	CloseWrite() error
}

// encrypted is tcp with TLS; we are the server unless client is set.
func encrypted(t testing.TB, cert tls.Certificate, client bool) (ours *tls.Conn, peers peer) {
	t.Helper()
	a, b := tcp(t)
	server := &tls.Config{Certificates: []tls.Certificate{cert}}
	other := &tls.Config{InsecureSkipVerify: true}
	var p *tls.Conn
	if client {
		ours, p = tls.Client(Under(a), other), tls.Server(b, server)
	} else {
		ours, p = tls.Server(Under(a), server), tls.Client(b, other)
	}
	done := make(chan error, 1)
	go func() { done <- p.Handshake() }()
	if err := ours.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return ours, p
}

// owner records what it is told.
type owner struct {
	mu     sync.Mutex
	flow   func() error // nil: always
	seen   []byte
	keep   bool // seen
	gone   chan struct{}
	done   chan Ended
	onGone func()
}

func newOwner() *owner {
	return &owner{gone: make(chan struct{}), done: make(chan Ended, 1), keep: true}
}

func (o *owner) Flow() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.flow == nil {
		return nil
	}
	return o.flow()
}

func (o *owner) ToClientSeen(p []byte) {
	if o.keep {
		o.seen = append(o.seen, p...)
	}
}

func (o *owner) PlatformGone() {
	if o.onGone != nil {
		o.onGone()
	}
	close(o.gone)
}

func (o *owner) Done(e Ended) { o.done <- e }

func (o *owner) wait(t testing.TB) Ended {
	t.Helper()
	select {
	case e := <-o.done:
		select {
		case <-o.gone:
		default:
			t.Error("Done before PlatformGone")
		}
		return e
	case <-time.After(patience):
		t.Fatal("the pair doesn't end")
	}
	return Ended{}
}

func engine(t testing.TB, o Options, w func(*Engine) (watcher, error)) *Engine {
	t.Helper()
	e, err := start(o, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := e.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return e
}

// forms are the pairs that there can be.
var forms = []struct {
	name             string
	client, platform bool // TLS
}{
	{"plain to plain", false, false},
	{"TLS to plain", true, false},
	{"plain to TLS", false, true},
	{"TLS to TLS", true, true},
}

// joined makes a pair.
func pairOf(t testing.TB, e *Engine, cert tls.Certificate, clientTLS, platformTLS bool, p Pair) (j *Joint, client, platform peer) {
	t.Helper()
	if clientTLS {
		p.Client, client = encrypted(t, cert, false)
	} else {
		p.Client, client = tcp(t)
	}
	if platformTLS {
		p.Platform, platform = encrypted(t, cert, true)
	} else {
		p.Platform, platform = tcp(t)
	}
	j, err := e.Join(p)
	if err != nil {
		t.Fatal(err)
	}
	return j, client, platform
}

// everywhere runs a test for each kind of pair and watcher.
func everywhere(t *testing.T, o Options, f func(t *testing.T, e *Engine, pair func(Pair) (*Joint, peer, peer))) {
	cert := certificate(t)
	for i, w := range watchers {
		for _, form := range forms {
			if i > 0 && form.platform {
				continue // that differs below the watcher only
			}
			t.Run(w.name+"/"+form.name, func(t *testing.T) {
				e := engine(t, o, w.make)
				f(t, e, func(p Pair) (*Joint, peer, peer) {
					return pairOf(t, e, cert, form.client, form.platform, p)
				})
			})
		}
	}
}

func send(t *testing.T, to io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(to, text); err != nil {
		t.Error(err)
	}
}

func expect(t *testing.T, from io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(from, got); err != nil || string(got) != want {
		t.Errorf("read %q, %v, want %q", got[:n], err, want)
	}
}

func expectEnd(t *testing.T, from io.Reader) {
	t.Helper()
	if rest, err := io.ReadAll(from); err != nil || len(rest) > 0 {
		t.Errorf("read %q, %v, want the end", rest, err)
	}
}

// Rests go first, bytes go both ways, and each end is passed on by itself.
func TestDialogue(t *testing.T) {
	everywhere(t, Options{}, func(t *testing.T, _ *Engine, pair func(Pair) (*Joint, peer, peer)) {
		o := newOwner()
		j, client, platform := pair(Pair{ToPlatform: []byte("a1 "), ToClient: []byte("* "), Owner: o})
		j.Start()
		send(t, client, "NOOP\r\n")
		expect(t, platform, "a1 NOOP\r\n")
		send(t, platform, "OK\r\n")
		expect(t, client, "* OK\r\n")
		if err := client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		expectEnd(t, platform)
		send(t, platform, "BYE\r\n")
		expect(t, client, "BYE\r\n")
		if err := platform.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		expectEnd(t, client)
		ended := o.wait(t)
		if ended.By != ByClient || ended.Err != nil || ended.Stats.ToPlatform != 9 || ended.Stats.ToClient != 11 {
			t.Errorf("ended %+v", ended)
		}
		if string(o.seen) != "* OK\r\nBYE\r\n" {
			t.Errorf("saw %q", o.seen)
		}
	})
}

// Much more than sockets and buffers hold goes both ways at once.
func TestMuch(t *testing.T) {
	everywhere(t, Options{Linger: patience}, func(t *testing.T, _ *Engine, pair func(Pair) (*Joint, peer, peer)) {
		o := newOwner()
		j, client, platform := pair(Pair{Owner: o})
		j.Start()
		up, down := make([]byte, 1<<20+17), make([]byte, 3<<20+5)
		rand.Read(up)
		rand.Read(down)
		var group sync.WaitGroup
		for _, x := range []struct {
			from, to peer
			p        []byte
		}{{client, platform, up}, {platform, client, down}} {
			group.Go(func() {
				if _, err := x.from.Write(x.p); err != nil {
					t.Error(err)
				}
				if err := x.from.CloseWrite(); err != nil {
					t.Error(err)
				}
			})
			group.Go(func() {
				if got, err := io.ReadAll(x.to); err != nil || !bytes.Equal(got, x.p) {
					t.Errorf("%d bytes arrived, %v; %d were sent", len(got), err, len(x.p))
				}
			})
		}
		group.Wait()
		if e := o.wait(t); e.Err != nil || e.Stats.ToClient != int64(len(down)) || e.Stats.ToPlatform != int64(len(up)) {
			t.Errorf("ended %+v", e)
		}
		if !bytes.Equal(o.seen, down) {
			t.Error("what was seen is not what was sent")
		}
	})
}
