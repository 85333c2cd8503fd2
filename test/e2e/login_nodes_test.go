package e2e

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/test/peers"
)

// openSession is a client that is logged in, and tells of each line that comes.
type openSession struct {
	t     *testing.T
	conn  net.Conn
	lines chan string // closed when the connection is over
}

// openAt logs in at a node.
func openAt(t *testing.T, f *loginFront, user string) *openSession {
	t.Helper()
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(trusted)}}
	conn, err := d.Dial("tcp", f.imap)
	if err != nil {
		t.Fatal(err)
	}
	s := &openSession{t: t, conn: conn, lines: make(chan string, 1000)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(s.lines)
		in := bufio.NewReader(conn)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			s.lines <- strings.TrimRight(line, "\r\n")
		}
	}()
	t.Cleanup(func() { conn.Close(); <-ended })
	s.say("a LOGIN " + user + " pw-" + user)
	return s
}

func (s *openSession) say(line string) {
	s.t.Helper()
	if _, err := fmt.Fprintf(s.conn, "%s\r\n", line); err != nil {
		s.t.Fatal(err)
	}
}

// until reads on until a line begins so; "" waits for the end. It returns what came, and false if
// it didn't come in time or the other came.
func (s *openSession) until(prefix string, within time.Duration) (seen []string, ok bool) {
	over := time.NewTimer(within)
	defer over.Stop()
	for {
		select {
		case line, open := <-s.lines:
			if !open {
				return seen, prefix == ""
			}
			seen = append(seen, line)
			if prefix != "" && strings.HasPrefix(line, prefix) {
				return seen, true
			}
		case <-over.C:
			return seen, false
		}
	}
}

func (s *openSession) want(prefix string) {
	s.t.Helper()
	if seen, ok := s.until(prefix, patience); !ok {
		s.t.Fatalf("no %q: %q", prefix, seen)
	}
}

// idling is a session that has said IDLE.
func idling(t *testing.T, f *loginFront, user string) *openSession {
	t.Helper()
	s := openAt(t, f, user)
	s.want("a OK")
	s.say("b IDLE")
	s.want("+ ")
	return s
}

// Two nodes: what becomes of sessions when one of them is stopped, drained, killed, or loses the
// table.
func TestLoginNodes(t *testing.T) {
	t.Parallel()
	peers.Need(t, "redis")
	redis := peers.StartRedis(t, peers.RedisOptions{})
	exchange, ox := startFakeIMAP(t, "exchange", nil), startFakeIMAP(t, "ox", nil)
	mail := startPlatform(t, platformtest.Options{}).Addr()
	start := func(name string) *loginFront {
		s := loginSetup{imap: true, plain: true, logins: "  spread: 500ms\n  suspend: 60s\n", setup: setup{
			name: name, redis: redis.URL(), lease: "settled: 20s, armed: 3500ms, margin: 500ms",
		}}
		for _, p := range []*fakeIMAP{exchange, ox} {
			s.setup.platforms = append(s.setup.platforms, platform{id: p.id, addr: mail, more: fmt.Sprintf("imap: {hosts: [%q], tls: {policy: none}}", p.addr)})
		}
		return startLoginFront(t, s)
	}
	one := start("one.example.org")
	one.addAgency("armed", "anna")
	one.addAgency("settled", "anna")
	two := start("two.example.org")
	const armed, settled = "anna@armed.example", "anna@settled.example"
	takes := func(f *loginFront, user string) bool {
		s := openAt(t, f, user)
		defer s.conn.Close()
		seen, ok := s.until("a ", patience)
		return ok && strings.HasPrefix(seen[len(seen)-1], "a OK")
	}
	waitFor(t, "the second node to know the agencies", func() bool { return takes(two, armed) && takes(two, settled) })

	// Stopped.
	s := idling(t, one, settled)
	if err := one.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.want("* BYE [UNAVAILABLE]")
	if !takes(two, settled) {
		t.Error("the other node takes no login while one stops")
	}
	s.want("")
	one.waitEnd(t)
	one.Stop()
	if err := one.Start(t.Context()); err != nil {
		t.Fatal(err)
	}

	// Drained, by its neighbour.
	s = idling(t, one, settled)
	two.must("node", "drain", "one.example.org", "--reason", "test")
	s.want("* BYE [UNAVAILABLE]")
	if takes(one, settled) || !takes(two, settled) {
		t.Error("a drained node takes logins, or the other one doesn't")
	}
	two.must("node", "drain", "one.example.org", "--end", "--reason", "test")
	waitFor(t, "the node to take logins again", func() bool { return takes(one, settled) })

	// Killed.
	s = idling(t, one, settled)
	one.Kill()
	began := time.Now()
	s.want("")
	if !takes(two, settled) {
		t.Error("the other node takes no login")
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("logged in again %s after the kill", took)
	}

	// Without the table.
	a, err := two.api.Agency(t.Context(), "armed")
	if err == nil {
		_, err = two.api.Arm(t.Context(), "armed", a.Epoch, "test")
	}
	if err != nil {
		t.Fatal(err)
	}
	inArmed, inSettled := openAt(t, two, armed), openAt(t, two, settled)
	inArmed.want("a OK")
	inSettled.want("a OK")
	if err := redis.Pause(); err != nil {
		t.Fatal(err)
	}
	asked := 0
	waitFor(t, "the armed agency's session to stand still", func() bool {
		asked++
		tag := fmt.Sprintf("n%d ", asked)
		inArmed.say(tag + "NOOP")
		_, ok := inArmed.until(tag+"OK", time.Second)
		return !ok
	})
	inSettled.say("n NOOP")
	inSettled.want("n OK")
	if err := redis.Resume(); err != nil {
		t.Fatal(err)
	}
	inArmed.want(fmt.Sprintf("n%d OK", asked))
	inArmed.say("z LOGOUT")
	inArmed.want("z OK")
}
