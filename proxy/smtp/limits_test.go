package smtp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// prefixed is a connection that says something before the first thing that is written.
type prefixed struct {
	net.Conn
	prefix string
}

func (p *prefixed) Write(b []byte) (int, error) {
	n, err := p.Conn.Write(append([]byte(p.prefix), b...))
	n = max(0, n-len(p.prefix))
	p.prefix = ""
	return n, err
}

// sentHasArrived reports whether all that was sent is at the server's socket.
func (p *peer) sentHasArrived() bool {
	raw, err := p.conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		p.t.Fatal(err)
	}
	unacknowledged := -1
	if controlErr := raw.Control(func(fd uintptr) { unacknowledged, err = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) }); controlErr != nil {
		err = controlErr
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return unacknowledged == 0
}

// counter is an Observer that tests read.
type counter struct {
	mu       sync.Mutex
	opened   int
	closed   int
	refused  map[string]int
	commands map[string]int
	replies  map[int]int
	complete int
	broken   int
	octets   int64
	repaired int
}

func newCounter() *counter {
	return &counter{refused: map[string]int{}, commands: map[string]int{}, replies: map[int]int{}}
}

func (c *counter) locked(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *counter) ConnectionOpened()          { c.locked(func() { c.opened++ }) }
func (c *counter) ConnectionClosed()          { c.locked(func() { c.closed++ }) }
func (c *counter) ConnectionRefused(r string) { c.locked(func() { c.refused[r]++ }) }
func (c *counter) Command(verb string)        { c.locked(func() { c.commands[verb]++ }) }
func (c *counter) Reply(code int)             { c.locked(func() { c.replies[code]++ }) }
func (c *counter) MessageEnded(octets int64, repaired int, complete bool) {
	c.locked(func() {
		c.octets += octets
		c.repaired += repaired
		if complete {
			c.complete++
		} else {
			c.broken++
		}
	})
}

func TestConnectionLimits(t *testing.T) {
	t.Parallel()
	count := newCounter()
	o := testOptions()
	o.Observer = count
	o.Limits.Connections, o.Limits.ConnectionsPerAddress = 4, 3
	srv, addr := startServer(t, o, &recorder{})
	from := func(ip string) *peer {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		conn, err := d.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return newPeer(t, conn)
	}
	var first *peer
	for range 3 {
		first = from("127.0.0.1")
		first.hello()
	}
	from("127.0.0.1").expect("421 4.7.0 Too many connections from your address")
	other := from("127.0.0.2").hello()
	from("127.0.0.3").expect("421 4.3.2 Too many connections")
	first.command("QUIT", "221 ")
	first.expectEnd()
	eventually(t, "the connection is forgotten", func() bool { return srv.front.Connections() == 3 })
	from("127.0.0.1").hello()
	other.envelope() // nobody else was disturbed
	count.mu.Lock()
	defer count.mu.Unlock()
	if count.refused["connections"] != 1 || count.refused["connections-per-address"] != 1 || count.opened != 5 {
		t.Errorf("counted %+v", count)
	}
}

// TestConnectionLimitsBehindProxy wants the clients to be counted, not the balancer.
func TestConnectionLimitsBehindProxy(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.Limits.ConnectionsPerAddress = 1
	o.ProxyNets = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	srv, addr := startServer(t, o, &recorder{})
	client := func(ip string) *peer {
		p := dial(t, addr)
		p.send("PROXY TCP4 " + ip + " 192.0.2.250 1025 25\r\n")
		return p
	}
	one := client("192.0.2.1").hello()
	client("192.0.2.2").hello()
	client("192.0.2.1").expectEnd()
	one.command("QUIT", "221 ")
	eventually(t, "the connection is forgotten", func() bool { return srv.front.Connections() == 1 })
	client("192.0.2.1").hello()
}

func TestTransactionLimit(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.Limits.Transactions = 2
	_, addr := startServer(t, o, &recorder{})
	p := dial(t, addr).hello().envelope()
	p.command("RSET", "250 ")
	p.envelope()
	p.command("RSET", "250 ")
	p.command("MAIL FROM:<a@out.example>", "421 4.7.0")
	p.expectEnd()
}

// TestIdlesStartAnewAfterMail wants a kept connection that says RSET between messages
// to live on.
func TestIdlesStartAnewAfterMail(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.Limits.Idles = 3
	_, addr := startServer(t, o, &recorder{})
	p := dial(t, addr).hello()
	for range 10 {
		p.command("RSET", "250 ")
		p.envelope().command("DATA", "354 ")
		p.command("x\r\n.", "250 ")
	}
	for range 3 {
		p.command("VRFY x", "252 ")
	}
	p.command("NOOP", "421 4.7.0")
	p.expectEnd()
}

// TestRefusedSendersAreCounted wants a peer that only asks to be cut off.
func TestRefusedSendersAreCounted(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.Limits.Idles = 3
	_, addr := startServer(t, o, &recorder{})
	p := dial(t, addr).hello()
	p.command("MAIL FROM:<no@out.example>", "450 4.7.1")
	p.command("MAIL FROM:<no@out.example>", "450 4.7.1")
	p.command("MAIL FROM:<no@out.example>", "421 4.7.0")
	p.expectEnd()
}

// TestErrorsStartAnewAfterMail wants a kept connection to outlive the malformed
// addresses that come over the years.
func TestErrorsStartAnewAfterMail(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.Limits.Errors = 2
	_, addr := startServer(t, o, &recorder{})
	p := dial(t, addr).hello()
	for range 5 {
		p.command("MAIL FROM:<a@@b>", "501 ")
		p.command("MAIL FROM:<a@@b>", "501 ")
		p.envelope().command("DATA", "354 ")
		p.command("x\r\n.", "250 ")
	}
	p.command("FOO", "500 ")
	p.command("FOO", "500 ")
	p.command("FOO", "421 4.7.0")
	p.expectEnd()
}

// TestRefusedRecipientsAreLimited wants a peer that tries addresses to be stopped.
func TestRefusedRecipientsAreLimited(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.Limits.Recipients = 100
	r := &recorder{}
	_, addr := startServer(t, o, r)
	p := dial(t, addr).hello()
	p.send("MAIL FROM:<a@out.example>\r\n" + strings.Repeat("RCPT TO:<no@in.example>\r\n", 150))
	p.expect("250 ")
	for range 100 {
		p.expect("550 ")
	}
	p.expect("421 4.7.0")
	p.expectEnd()
}

// TestRefusals wants a peer that guesses addresses to be cut off, over its transactions,
// and nobody else.
func TestRefusals(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.Limits.Refusals = 4
	_, addr := startServer(t, o, &recorder{})
	rcpts := func(p *peer, who string, n int, want string) {
		t.Helper()
		for range n {
			p.command("RCPT TO:<"+who+"@in.example>", want)
		}
	}
	for _, who := range []string{"no", "unknown"} { // refused for good, or by nobody known
		p := dial(t, addr).hello()
		for range 2 {
			p.command("MAIL FROM:<a@out.example>", "250 ")
			rcpts(p, who, 2, map[string]string{"no": "550 ", "unknown": "451 4.1.1"}[who])
			p.command("RSET", "250 ")
		}
		p.command("MAIL FROM:<a@out.example>", "250 ")
		rcpts(p, who, 1, "421 4.7.0")
		p.expectEnd()
	}

	p := dial(t, addr).hello() // a burst of 20,000 ends with the first lot that was decided
	p.send("MAIL FROM:<a@out.example>\r\n" + strings.Repeat("RCPT TO:<unknown@in.example>\r\n", 20_000))
	p.expect("250 ")
	refused := 0
	for last := ""; !strings.HasPrefix(last, "421 4.7.0"); refused++ {
		if last = p.reply(); refused > o.Limits.Recipients {
			t.Fatalf("still answered after %d: %s", refused, last)
		}
	}

	p = dial(t, addr).hello() // put off for another reason: no matter how often
	for range 5 {
		p.command("MAIL FROM:<a@out.example>", "250 ")
		rcpts(p, "other", 20, "452 4.5.3")
		rcpts(p, "later", 20, "451 4.3.2")
		p.command("RSET", "250 ")
	}

	// Somebody was accepted: the message goes through, and the count begins anew.
	p = dial(t, addr).hello()
	for range 3 {
		p.envelope()
		rcpts(p, "unknown", 20, "451 4.1.1")
		p.command("DATA", "354 ")
		p.command("x\r\n.", "250 ")
	}
	p.send("MAIL FROM:<a@out.example>\r\n" + strings.Repeat("RCPT TO:<no@in.example>\r\n", 20) + "RCPT TO:<b@in.example>\r\n")
	p.expect("250 ")
	for range 20 {
		p.expect("550 ")
	}
	p.expect("250 ")
	p.command("RSET", "250 ") // without a message it doesn't
	p.command("MAIL FROM:<a@out.example>", "421 4.7.0")
	p.expectEnd()
}

// TestRecipientLimitCountsAccepted wants refused recipients not to use the limit up.
func TestRecipientLimitCountsAccepted(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.Limits.Recipients = 100
	_, addr := startServer(t, o, &recorder{})
	p := dial(t, addr).hello()
	p.send("MAIL FROM:<a@out.example>\r\n" + strings.Repeat("RCPT TO:<no@in.example>\r\n", 90) + strings.Repeat("RCPT TO:<b@in.example>\r\n", 101))
	p.expect("250 ")
	for range 90 {
		p.expect("550 ")
	}
	for range 100 {
		p.expect("250 ")
	}
	p.expect("452 4.5.3")
}

func TestObserver(t *testing.T) {
	t.Parallel()
	count := newCounter()
	o := testOptions()
	o.Observer = count
	_, addr := startServer(t, o, &recorder{})
	p := dial(t, addr).hello().envelope()
	p.command("DATA", "354 ")
	p.command("a\nb\r\n.", "250 ")
	p.envelope().command("DATA", "354 ")
	p.send("half")
	p.closeWrite()
	p.expectEnd()
	eventually(t, "the connection is counted as closed", func() bool {
		count.mu.Lock()
		defer count.mu.Unlock()
		return count.closed == 1
	})
	if count.complete != 1 || count.broken != 1 || count.repaired != 1 || count.octets < 6 ||
		count.commands["RCPT"] != 2 || count.replies[354] != 2 || count.replies[220] != 1 || count.replies[250] != 6 {
		t.Errorf("counted %+v", count)
	}
}

// TestOneWriteForABurst wants the answers to pipelined commands in one write, and a
// peer that pipelines without end not to fill our memory.
func TestOneWriteForABurst(t *testing.T) {
	t.Parallel()
	for commands, want := range map[int]int{50: 2, 5000: 10} {
		o := testOptions()
		o.Limits.Idles = 1 << 20
		srv, err := NewServer(o, &recorder{})
		if err != nil {
			t.Fatal(err)
		}
		s := &script{in: []byte(hello + strings.Repeat("NOOP\r\n", commands) + quit), n: 1 << 20}
		srv.front.ServeConn(t.Context(), s)
		if s.writes > want {
			t.Errorf("%d commands were answered in %d writes, want %d", commands, s.writes, want)
		}
	}
}

// TestHandshakeTimesOut has peers that connect and say nothing, or not enough.
func TestHandshakeTimesOut(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.TLSConfig, o.ImplicitTLS = serverTLS(t), true
	o.Limits.Handshake = 100 * time.Millisecond
	srv, addr := startServer(t, o, &recorder{})
	silent, half := dial(t, addr), dial(t, addr)
	half.send("\x16\x03\x01\x01\x00")
	silent.expectEnd()
	half.expectEnd()
	eventually(t, "the connections are forgotten", func() bool { return srv.front.Connections() == 0 })
}

// noDescriptors is a listener that fails at first, as when descriptors run out.
type noDescriptors struct {
	net.Listener
	failures atomic.Int32
}

func (n *noDescriptors) Accept() (net.Conn, error) {
	if n.failures.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return n.Listener.Accept()
}

// TestAcceptGoesOn wants a listener to outlive a lack of descriptors (Q10).
func TestAcceptGoesOn(t *testing.T) {
	t.Parallel()
	srv, err := NewServer(testOptions(), &recorder{})
	if err != nil {
		t.Fatal(err)
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := &noDescriptors{Listener: inner}
	ln.failures.Store(3)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(t.Context(), ln) }()
	p := dial(t, inner.Addr().String()).hello()
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	p.expect("421 4.3.2")
	if err := <-done; !errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve returned %v", err)
	}
	if err := srv.Serve(t.Context(), inner); !errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve after Shutdown returned %v", err)
	}
}

// TestDrainOverTCP has connections that wait in the poller: in the clear, in TLS,
// within a command and within a transaction that then ends.
func TestDrainOverTCP(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.TLSConfig = serverTLS(t)
	srv, addr := startServer(t, o, &recorder{})
	plain, within, secure, busy := dial(t, addr).hello(), dial(t, addr).hello(), dial(t, addr).hello(), dial(t, addr).hello()
	within.send("NOO")
	secure.command("STARTTLS", "220 ")
	if err := secure.startTLS(anyCertificate); err != nil {
		t.Fatal(err)
	}
	secure.command("EHLO x", "250")
	busy.envelope().command("DATA", "354 ")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- srv.Shutdown(ctx) }()
	for _, p := range []*peer{plain, within, secure} {
		p.expect("421 4.3.2 ")
		p.expectEnd()
		p.conn.Close()
	}
	busy.command("x\r\n.", "250 ")
	busy.expect("421 4.3.2 ")
	busy.expectEnd()
	busy.conn.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
