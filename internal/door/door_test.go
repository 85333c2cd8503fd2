package door

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// fake is a connection that knows whether it was closed.
type fake struct {
	net.Conn
	from   string
	closed bool
}

func (f *fake) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(f.from), Port: 1} }

func (f *fake) Close() error { f.closed = true; return nil }

// queue is a listener with these connections.
type queue chan *fake

func (q queue) Accept() (net.Conn, error) {
	f, ok := <-q
	if !ok {
		return nil, net.ErrClosed
	}
	return f, nil
}

func (q queue) Close() error   { close(q); return nil }
func (q queue) Addr() net.Addr { return &net.TCPAddr{} }

// One step of the table: an address comes, and who has to go for it; or who leaves, or is known.
func TestWhoMakesWay(t *testing.T) {
	const a, b, six, sixToo = "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"
	type step struct {
		comes         string
		cut           int // the number of a connection; 0: none
		leaves, known int
	}
	for name, steps := range map[string][]step{
		"the longest":                  {{comes: a}, {comes: a}, {comes: a}, {comes: a, cut: 1}, {comes: a, cut: 2}},
		"of the address with the most": {{comes: b}, {comes: a}, {comes: a}, {comes: b, cut: 2}, {comes: b, cut: 1}, {comes: a, cut: 4}},
		"a net of IPv6 is one":         {{comes: a}, {comes: six}, {comes: sixToo}, {comes: b, cut: 2}},
		"none while there is room":     {{comes: a}, {comes: a}, {comes: a}, {leaves: 2}, {leaves: 2}, {comes: a}, {comes: a, cut: 1}},
		"never who is known":           {{comes: a}, {comes: a}, {known: 1}, {known: 1}, {comes: a}, {comes: a, cut: 2}, {known: 3}, {comes: a, cut: 4}, {leaves: 1}, {comes: a}, {comes: b, cut: 5}},
	} {
		t.Run(name, func(t *testing.T) {
			q := make(queue, 1)
			l := Bound(q, 3)
			conns, fakes := []net.Conn{nil}, []*fake{nil}
			gone := make(map[int]bool)
			for i, s := range steps {
				switch {
				case s.comes != "":
					f := &fake{from: s.comes}
					q <- f
					c, err := l.Accept()
					if err != nil {
						t.Fatal(err)
					}
					conns, fakes = append(conns, c), append(fakes, f)
				case s.leaves != 0:
					gone[s.leaves] = true
					if err := conns[s.leaves].Close(); err != nil {
						t.Fatal(err)
					}
				case s.known != 0:
					Vouch(Context(context.Background(), conns[s.known]))
				}
				gone[s.cut] = true
				for n := 1; n < len(fakes); n++ {
					if fakes[n].closed != gone[n] {
						t.Fatalf("step %d: connection %d is cut: %t, want %t", i, n, fakes[n].closed, gone[n])
					}
				}
			}
		})
	}
}

// Where all are known the next one waits: until one leaves, or the listener is closed.
func TestAllKnown(t *testing.T) {
	q := make(queue, 3)
	l := Bound(q, 1)
	q <- &fake{from: "192.0.2.1"}
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	Vouch(Context(context.Background(), first))
	second := make(chan net.Conn)
	q <- &fake{from: "192.0.2.2"}
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		second <- c
	}()
	select {
	case <-second:
		t.Fatal("there are two")
	case <-time.After(20 * time.Millisecond):
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	Vouch(Context(context.Background(), <-second))
	third := &fake{from: "192.0.2.3"}
	q <- third
	ended := make(chan error)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) || !third.closed {
		t.Errorf("%v, closed %t", err, third.closed)
	}
}

// Behind TLS, and with net/http, as it is used.
func TestServer(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			Vouch(r.Context())
		}
	}))
	s.Listener = Bound(s.Listener, 2)
	s.Config.ConnContext = Context
	s.StartTLS()
	defer s.Close()
	ask := func(c *http.Client, authorization string) error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", authorization)
		resp, err := c.Do(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return errors.Join(err, resp.Body.Close())
	}
	known := s.Client()
	if err := ask(known, "yes"); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		silent, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "https://"))
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
	}
	if err := ask(known, ""); err != nil { // on the same connection
		t.Errorf("a known connection: %v", err)
	}
	other := &http.Client{Transport: known.Transport.(*http.Transport).Clone()}
	if err := ask(other, "yes"); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	other.CloseIdleConnections()
	Vouch(t.Context()) // came by no connection of a door
}
