package e2e

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/rollback/operation"
)

// A client that stores a large message while its agency closes learns nothing that isn't so: no
// OK comes, and the losing platform gets no further byte of it, nor its end.
func TestClosedWithinAnAppend(t *testing.T) {
	t.Parallel()
	exchange, ox := startFakeIMAP(t, "exchange", nil), startFakeIMAP(t, "ox", nil)
	mail := startPlatform(t, platformtest.Options{}).Addr()
	s := loginSetup{imap: true, plain: true, logins: "  spread: 200ms\n"}
	for _, p := range []*fakeIMAP{exchange, ox} {
		s.setup.platforms = append(s.setup.platforms, platform{id: p.id, addr: mail, more: fmt.Sprintf("imap: {hosts: [%q], tls: {policy: none}}", p.addr)})
	}
	f := startLoginFront(t, s)
	f.addAgency("big", "anna")
	const message = 50 << 20
	var got atomic.Int64
	var whole atomic.Bool
	ended := make(chan struct{}, 1)
	store := func(l *fakeLeg) {
		l.greet()
		tag, _, ok := l.upToLogin()
		if !ok {
			return // a probe
		}
		l.say("%s OK [CAPABILITY IMAP4rev1] logged in\r\n", tag)
		if tag, _, _, ok = l.line(); !ok {
			return
		}
		l.say("+ go on\r\n")
		block := make([]byte, 64<<10)
		for got.Load() < message {
			n, err := l.in.Read(block)
			if got.Add(int64(n)); err != nil {
				ended <- struct{}{}
				return
			}
		}
		whole.Store(true)
		l.say("%s OK stored\r\n", tag)
		ended <- struct{}{}
	}
	exchange.play.Store(&store)
	c := openAt(t, f, "anna@big.example")
	c.want("a OK")
	c.say(fmt.Sprintf("b APPEND INBOX {%d}", message))
	c.want("+ ")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // as fast as a slow line
		defer close(stopped)
		line := []byte(strings.Repeat("x", 1022) + "\r\n")
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for sent := 0; sent < message; sent += len(line) {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			if _, err := c.conn.Write(line); err != nil {
				return
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	waitFor(t, "a part of the message", func() bool { return got.Load() > 100<<10 })
	f.mustSwitch(operation.Cutover, "big")
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the platform's side is open after the cutover")
	}
	after := got.Load()
	seen, _ := c.until("", patience)
	for _, line := range seen {
		if !strings.HasPrefix(line, "* BYE [UNAVAILABLE]") {
			t.Errorf("the client is told %q", line)
		}
	}
	if len(seen) == 0 {
		t.Error("the client is told nothing")
	}
	if whole.Load() || got.Load() != after {
		t.Errorf("the platform has %d bytes of the message, and had %d when its side ended", got.Load(), after)
	}
}
