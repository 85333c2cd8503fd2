package logintest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
)

// patience is how long a test waits for what has to come.
const patience = time.Minute

// Peer is the test's end of a connection. It belongs to one goroutine at a time.
type Peer struct {
	t    testing.TB
	nc   net.Conn
	r    *bufio.Reader
	mine string // how the lines of this side begin in a transcript
	tls  *tls.Config
}

// newPair returns both ends of a connection over loopback.
func newPair(t testing.TB) (here, there net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	here, err = net.DialTimeout("tcp", ln.Addr().String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	there, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = here.Close(); _ = there.Close() })
	return here, there
}

func newPeer(t testing.TB, nc net.Conn, mine string, config *tls.Config) *Peer {
	_ = nc.SetDeadline(time.Now().Add(patience))
	return &Peer{t: t, nc: nc, r: bufio.NewReader(nc), mine: mine, tls: config}
}

// Talk plays a part of a transcript. A line "C: " or "S: " with nothing behind it is an empty
// line. It reports whether everything came as it should; if not the test has failed.
func (p *Peer) Talk(lines ...string) bool {
	p.t.Helper()
	for _, line := range lines {
		who, text, ok := strings.Cut(line, ": ")
		if !ok || who != "C" && who != "S" {
			p.t.Errorf("line %q of the script: want C: or S:", line)
			return false
		}
		if who == p.mine {
			p.Send(text + "\r\n")
		} else if !p.Expect(text) {
			return false
		}
	}
	return true
}

// Send sends these bytes as they are.
func (p *Peer) Send(s string) {
	p.t.Helper()
	if _, err := io.WriteString(p.nc, s); err != nil {
		p.t.Errorf("send %.60q: %v", s, err)
	}
}

// Offer is Send where the other side may have gone.
func (p *Peer) Offer(s string) { _, _ = io.WriteString(p.nc, s) }

// Expect reads a line, and reports whether it is want, or begins with what is before the
// "..." at its end; if not the test has failed.
func (p *Peer) Expect(want string) bool {
	p.t.Helper()
	got, err := p.r.ReadString('\n')
	if err != nil {
		p.t.Errorf("got %q and then %v, want %q", got, err, want)
		return false
	}
	line, ok := strings.CutSuffix(got, "\r\n")
	beginning, open := strings.CutSuffix(want, "...")
	if !ok || line != want && !(open && strings.HasPrefix(line, beginning)) {
		p.t.Errorf("got %q, want %q", got, want)
		return false
	}
	return true
}

// All reads to the connection's end.
func (p *Peer) All() string {
	b, _ := io.ReadAll(p.r)
	return string(b)
}

// WantEnd reports whether the other side has closed, without a byte more; if not the test
// has failed.
func (p *Peer) WantEnd() bool {
	p.t.Helper()
	b, err := p.r.ReadByte()
	var ne net.Error
	if err == nil || errors.As(err, &ne) && ne.Timeout() {
		rest, _ := p.r.Peek(p.r.Buffered())
		p.t.Errorf("got %q (%v), want the connection's end", append([]byte{b}, rest...), err)
		return false
	}
	return true
}

// StartTLS does this side's part of a handshake: a client's, or a platform's. It reports
// whether it succeeded; if not the test has failed.
func (p *Peer) StartTLS() bool {
	p.t.Helper()
	if p.r.Buffered() > 0 {
		p.t.Error("bytes before the handshake")
		return false
	}
	var c *tls.Conn
	if p.mine == "C" {
		c = tls.Client(p.nc, p.tls)
	} else {
		c = tls.Server(p.nc, p.tls)
	}
	if err := c.Handshake(); err != nil {
		p.t.Errorf("TLS handshake: %v", err)
		return false
	}
	p.nc = c
	p.r.Reset(c)
	return true
}

// CloseWrite says that nothing more comes from this side.
func (p *Peer) CloseWrite() {
	if c, ok := p.nc.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}

// Close ends the connection.
func (p *Peer) Close() { _ = p.nc.Close() }

// certificates returns both sides' settings of one handshake.
func certificates(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	server, err = ca.ServerConfig()
	if err != nil {
		t.Fatal(err)
	}
	return server, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}
}
