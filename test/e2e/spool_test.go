package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/test/peers"
)

// idsOf returns the ids of the messages that a platform has for a recipient, in the order
// in which they came.
func idsOf(p *platformtest.Platform, rcpt string) (ids []int) {
	for _, tx := range p.Stored() {
		for range slices.DeleteFunc(tx.Accepted(), func(path string) bool { return path != rcpt }) {
			ids = append(ids, idOf(tx.Body()))
		}
	}
	return ids
}

// upTo returns 1 to n.
func upTo(n int) []int {
	ids := make([]int, n)
	for i := range ids {
		ids[i] = i + 1
	}
	return ids
}

// A platform that was away for a moment gets its mail within seconds, long before the
// delay of a mailbox that it puts off has passed, a minute at least.
func TestPlatformIsBack(t *testing.T) {
	t.Parallel()
	o := platformtest.Options{Listen: fmt.Sprintf("127.0.0.1:%d", peers.Port(t))}
	exchange := startPlatform(t, o)
	ox := startPlatform(t, platformtest.Options{LMTP: true})
	n := startNode(t, setup{platforms: []platform{{id: "exchange", addr: o.Listen}, {id: "ox", addr: ox.Addr(), lmtp: true}}})
	n.addAgency("unmoved", "ben", "carl")
	exchange.Close()
	w := mustDial(t, n.smtp, "EHLO")
	const messages = 10
	for id := 1; id <= messages; id++ {
		w.envelope(t, "ben@unmoved.example", "carl@unmoved.example")
		if got := w.message(t, withID(id)); got != "250 2.0.0 Message accepted" {
			t.Fatalf("message %d: %s", id, got)
		}
	}
	exchange = startPlatform(t, o)
	began := time.Now()
	waitFor(t, "all of it on the platform", func() bool {
		return len(copiesAt(map[string]*platformtest.Platform{"exchange": exchange})) >= 2*messages
	})
	t.Logf("after %s", time.Since(began))
	n.Stop()
	for _, rcpt := range []string{"ben@unmoved.example", "carl@unmoved.example"} {
		got := idsOf(exchange, rcpt)
		if slices.Sort(got); !slices.Equal(got, upTo(messages)) {
			t.Errorf("%s has %v, want 1 to %d", rcpt, got, messages)
		}
	}
}

// A platform is down: its mail is accepted all the same, survives orderly ends and kills of
// the node, and goes within seconds when the platform is back. Other platforms' mail flows.
func TestPlatformIsDown(t *testing.T) {
	t.Parallel()
	exchange := startPlatform(t, platformtest.Options{})
	o := platformtest.Options{LMTP: true, Listen: fmt.Sprintf("127.0.0.1:%d", peers.Port(t))}
	ox := startPlatform(t, o)
	const limits = "backoff: 100ms, backoff_max: 500ms"
	n := startNode(t, setup{
		platforms: []platform{{id: "exchange", addr: exchange.Addr(), limits: limits}, {id: "ox", addr: o.Listen, lmtp: true, limits: limits}},
		spool:     "retry: {first: 2s, max: 4s}", // a start spreads waiting mail over the first delay
	})
	n.addAgency("unmoved", "ben")
	n.addAgency("moved", "anna", "dora", "keeper")
	taken := func(id int, rcpt string) {
		t.Helper()
		if got := sendAgain(n.smtp, id, rcpt); !strings.HasPrefix(got, "250 ") {
			t.Fatalf("message %d for %s: %s", id, rcpt, got)
		}
	}
	const held, waits = 15, 15
	closing := n.keepClosed(t, exchange, "moved")
	for id := 1; id <= held; id++ {
		taken(id, "anna@moved.example")
	}
	ox.Close()
	closing.open()
	taken(1, "dora@moved.example") // nothing is held for her: hers waits
	for id := 2; id <= waits; id++ {
		taken(id, "dora@moved.example")
		taken(held+id-1, "anna@moved.example")
		taken(id, "ben@unmoved.example")
	}
	if got := idsOf(exchange, "ben@unmoved.example"); !slices.Equal(got, upTo(waits)[1:]) {
		t.Errorf("the other platform has %v when all was answered", got)
	}
	const all = held + waits - 1
	for _, kill := range []bool{false, true} {
		if kill {
			n.Kill()
		} else {
			n.Stop()
			if out := n.Output(); strings.Contains(out, "exit status") || strings.Contains(out, "signal: killed") {
				t.Error("SIGTERM did not end it in good order")
			}
		}
		if states := n.inSpool(t); states["held"]+states["waiting"] != all+waits || states["held"] < all || len(states) != 2 {
			t.Errorf("killed %v: the spool has %v, want %d held at least and %d in all", kill, states, all, all+waits)
		}
		if err := n.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	taken(waits+1, "dora@moved.example")
	taken(all+1, "anna@moved.example")
	ox = startPlatform(t, o)
	waitFor(t, "all of it on the platform", func() bool { return len(ox.Stored()) >= all+1+waits+1 })
	n.Stop()
	if got := idsOf(ox, "anna@moved.example"); !slices.Equal(got, upTo(all+1)) {
		t.Errorf("anna has %v, want 1 to %d in order", got, all+1)
	}
	dora := idsOf(ox, "dora@moved.example") // waiting mail has no order
	if slices.Sort(dora); !slices.Equal(dora, upTo(waits+1)) {
		t.Errorf("dora has %v, want 1 to %d", dora, waits+1)
	}
	if left := n.inSpool(t); len(left) != 0 {
		t.Errorf("left in the spool: %v", left)
	}
}

// The spool is full, by its bounds or because the disk has no room: new mail that would
// have to be held is put off with 452, all else flows; what was taken is delivered, and
// then there is room again.
func TestSpoolIsFull(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, spool string
		bytes       int // of a message
		tmpfs       string
	}{
		{name: "messages", spool: "messages: 20", bytes: 1000},
		{name: "bytes", spool: "bytes: 200KiB", bytes: 20_000},
		{name: "bytes of the agency", spool: "agency_bytes: 200KiB", bytes: 20_000},
		{name: "disk", bytes: 300_000, tmpfs: "size=4m"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			exchange, ox := startPlatform(t, platformtest.Options{}), startPlatform(t, platformtest.Options{LMTP: true})
			s := setup{spool: c.spool, platforms: []platform{{id: "exchange", addr: exchange.Addr()}, {id: "ox", addr: ox.Addr(), lmtp: true}}}
			if c.tmpfs != "" {
				s.data = peers.TempDir(t, "small")
				if err := syscall.Mount("tmpfs", s.data, "tmpfs", 0, c.tmpfs); err != nil {
					// Without the right to mount a small disk, a bound of about its size stands in.
					t.Logf("no small disk: %v", err)
					s.spool = "bytes: 4MiB"
				} else {
					t.Cleanup(func() {
						if err := syscall.Unmount(s.data, syscall.MNT_DETACH); err != nil {
							t.Error(err)
						}
					})
				}
			}
			n := startNode(t, s)
			n.addAgency("closing", "anna", "keeper")
			n.addAgency("other", "ben")
			closing := n.keepClosed(t, exchange, "closing")
			filler := strings.Repeat(strings.Repeat("x", 98)+"\r\n", c.bytes/100)
			w := mustDial(t, n.smtp, "EHLO")
			// try sends a message, and returns what ended it.
			try := func(id int, rcpt string) string {
				t.Helper()
				w.want(t, "RSET", "250 ")
				w.want(t, "MAIL FROM:<sender@out.example>", "250 ")
				if got, err := w.ask("RCPT TO:<" + rcpt + ">"); err != nil || got[0] != '2' {
					return got
				}
				got, err := w.ask("DATA")
				if err != nil || got[0] != '3' {
					return got
				}
				if err := w.send(withID(id) + filler + ".\r\n"); err != nil {
					t.Fatal(err)
				}
				if got, err = w.reply(); err != nil {
					t.Fatal(err)
				}
				return got
			}
			const full = "452 4.3.1 Spool full, try again later"
			taken := 0
			for {
				got := try(taken+1, "anna@closing.example")
				if got == full {
					break
				}
				if taken++; !strings.HasPrefix(got, "250 ") || taken > 100 {
					t.Fatalf("message %d: %s", taken, got)
				}
			}
			if taken < 5 {
				t.Errorf("full after %d messages", taken)
			}
			for range 3 { // it stays so, and nothing of what was refused stays
				if got := try(taken+1, "anna@closing.example"); got != full {
					t.Errorf("when full: %s", got)
				}
			}
			if got := try(1, "ben@other.example"); !strings.HasPrefix(got, "250 ") {
				t.Errorf("mail that needs no spool: %s", got)
			}
			closing.open()
			waitFor(t, "the held mail", func() bool { return len(ox.Stored()) >= taken })
			id := taken
			waitFor(t, "room", func() bool {
				switch got := try(id+1, "anna@closing.example"); {
				case strings.HasPrefix(got, "250 "):
					id++
				case strings.HasPrefix(got, "451 4.4.3 "): // the table was too slow to say that the agency is still there
				case got != full:
					t.Fatal(got)
				}
				return id >= taken+5
			})
			waitFor(t, "all of it", func() bool { return len(ox.Stored()) >= id })
			n.Stop()
			if got := idsOf(ox, "anna@closing.example"); !slices.Equal(got, upTo(id)) {
				t.Errorf("anna has %v, want 1 to %d in order", got, id)
			}
			if left := n.inSpool(t); len(left) != 0 {
				t.Errorf("left in the spool: %v", left)
			}
			t.Logf("full after %d messages", taken)
		})
	}
}

// dataDir returns where a node's data is.
func (n *node) dataDir() string {
	if n.setup.data != "" {
		return n.setup.data
	}
	return filepath.Join(n.dir, "data")
}
