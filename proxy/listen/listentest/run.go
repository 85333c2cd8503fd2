package listentest

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// Settings are those of a listener under test. All else is as the protocol has it.
type Settings struct {
	ProxyNets             []netip.Prefix
	HeaderTime            time.Duration
	ConnectionsPerAddress int
	Implicit              bool // TLS from the first byte on, with any certificate
}

// Run tests a protocol's listeners. Start starts one on a loopback port of its own, until t
// ends, and returns its address.
func Run(t *testing.T, start func(t *testing.T, s Settings) (addr string)) {
	// Only where a header doesn't come is its time short: a busy machine may pause before one that does.
	listed := Settings{ProxyNets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, HeaderTime: 2 * patience}
	impatient := listed
	impatient.HeaderTime = 500 * time.Millisecond
	good := V2(0x21, 0x11, 192, 0, 2, 1, 192, 0, 2, 2, 4, 1, 0, 25)
	t.Run("headers", func(t *testing.T) {
		addr, hasty := start(t, listed), start(t, impatient)
		for _, h := range Headers() {
			t.Run(h.Name, func(t *testing.T) {
				t.Parallel()
				at := addr
				if h.Kind == Short {
					at = hasty
				}
				p := connect(t, at)
				p.write(h.Bytes)
				if h.Kind == Valid {
					p.wantServed()
				} else {
					p.wantRefused()
				}
			})
		}
		t.Run("in single bytes", func(t *testing.T) {
			t.Parallel()
			for _, h := range []string{good, "PROXY TCP4 192.0.2.1 192.0.2.2 1025 25\r\n"} {
				p := connect(t, addr)
				for i := range len(h) {
					p.write(h[i : i+1])
				}
				p.wantServed()
			}
		})
		t.Run("drip", func(t *testing.T) {
			t.Parallel()
			p := connect(t, hasty)
			begun := time.Now()
			for h := "PROXY UNKNOWN " + string(make([]byte, 80)); ; h = h[1:] {
				if _, err := io.WriteString(p.conn, h[:1]); err != nil {
					break
				}
				if time.Since(begun) > patience {
					t.Fatal("a peer that sends its header byte by byte is never cut off")
				}
				if p.ended(100 * time.Millisecond) {
					break
				}
			}
		})
		t.Run("handshake instead", func(t *testing.T) {
			t.Parallel()
			p := connect(t, addr)
			p.write("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
			p.wantRefused()
		})
	})
	t.Run("from a peer that is not listed", func(t *testing.T) {
		addr := start(t, Settings{})
		for _, h := range []string{good, "PROXY TCP4 192.0.2.1 192.0.2.2 1025 25\r\n"} {
			p := connect(t, addr)
			p.wantServed()
			p.write(h)
			p.wantEnd()
		}
	})
	t.Run("within TLS", func(t *testing.T) {
		s := listed
		s.Implicit = true
		addr := start(t, s)
		p := connect(t, addr)
		p.write(good)
		p.secure()
		p.wantServed()
		p.write("PROXY TCP4 192.0.2.9 192.0.2.2 1025 25\r\n")
		p.wantEnd()
	})
	t.Run("client's own limit", func(t *testing.T) {
		s := listed
		s.ConnectionsPerAddress = 1
		addr := start(t, s)
		first, second, other := connect(t, addr), connect(t, addr), connect(t, addr)
		first.write(good)
		first.wantServed()
		second.write(good)
		second.wantRefused()
		other.write("PROXY TCP4 192.0.2.9 192.0.2.2 1025 25\r\n")
		other.wantServed()
	})
}

// peer is a test's end of a connection.
type peer struct {
	t    *testing.T
	conn net.Conn
}

func connect(t *testing.T, addr string) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &peer{t, conn}
}

// write sends what may be too much for a server that has cut us off already.
func (p *peer) write(s string) { _, _ = io.WriteString(p.conn, s) }

func (p *peer) secure() {
	p.t.Helper()
	c := tls.Client(p.conn, &tls.Config{InsecureSkipVerify: true})
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		p.t.Fatal(err)
	}
	if err := c.Handshake(); err != nil {
		p.t.Fatal(err)
	}
	p.conn = c
}

// read returns what comes within d, at most one read.
func (p *peer) read(d time.Duration) ([]byte, error) {
	p.t.Helper()
	if err := p.conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		p.t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := p.conn.Read(b)
	return b[:n], err
}

// wantServed wants a greeting.
func (p *peer) wantServed() {
	p.t.Helper()
	if b, err := p.read(patience); len(b) == 0 {
		p.t.Fatalf("not served: %v", err)
	}
}

// wantRefused wants the end of the connection, and no word.
func (p *peer) wantRefused() {
	p.t.Helper()
	if b, err := p.read(patience); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Fatalf("got %q (%v), want the end", b, err)
	}
}

// wantEnd wants the end of the connection, whatever is said before.
func (p *peer) wantEnd() {
	p.t.Helper()
	for {
		_, err := p.read(patience)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			p.t.Fatal("the connection goes on")
		}
		if err != nil {
			return
		}
	}
}

// ended reports whether the connection ends within d.
func (p *peer) ended(d time.Duration) bool {
	p.t.Helper()
	_, err := p.read(d)
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}
