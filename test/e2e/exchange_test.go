package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/internal/platformtest"
	"mailcutover/test/peers"
)

// Each test here shows one habit of Exchange twice: with our handling of it, and with
// the handling switched off, by a setting or by a naive proxy in our place. The same
// function looks at both; it must find nothing wrong with the first, and something with
// the second.

// behindUs starts a node in front of an Exchange-like platform, with the agency unmoved on it.
func behindUs(t *testing.T, exchange *peers.Exchange, p platform, locals ...string) *node {
	t.Helper()
	p.id, p.addr = "exchange", exchange.Addr
	ox := startPlatform(t, platformtest.Options{LMTP: true})
	n := startNode(t, setup{platforms: []platform{p, {id: "ox", addr: ox.Addr(), lmtp: true}}})
	n.addAgency("unmoved", locals...)
	return n
}

// sendOne sends a message on a connection of its own and returns the answer that counts,
// or the error as text.
func sendOne(addr string, id int, rcpt string) string {
	w, err := dial(addr)
	if err != nil {
		return err.Error()
	}
	defer w.conn.Close()
	got := ""
	for _, command := range []string{"EHLO out.example", "MAIL FROM:<sender@out.example>", "RCPT TO:<" + rcpt + ">", "DATA", withID(id) + "."} {
		if got, err = w.ask(command); err != nil {
			return err.Error()
		}
		if got[0] > '3' {
			return got
		}
	}
	return got
}

// sendAgain is sendOne, again and again while the table is too slow to say before the dot that an
// armed agency is still where it was: a relay comes again, too (node rule 3).
func sendAgain(addr string, id int, rcpt string) (answer string) {
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if answer = sendOne(addr, id, rcpt); !strings.HasPrefix(answer, "451 4.4.3 ") || time.Now().After(end) {
			return answer
		}
	}
}

// together sends n messages at once and returns the answers that were not 250.
func together(addr string, n int, rcpt string) []string {
	answers := make([]string, n)
	var senders sync.WaitGroup
	for i := range n {
		senders.Go(func() { answers[i] = sendOne(addr, i+1, rcpt) })
	}
	senders.Wait()
	var bad []string
	for _, a := range answers {
		if !strings.HasPrefix(a, "250 ") {
			bad = append(bad, a)
		}
	}
	return bad
}

// late says how many of so many messages for anna, all answered, are not with her yet: the
// platform was there, and yet they wait in the spool.
func late(t *testing.T, exchange *peers.Exchange, n int) []string {
	t.Helper()
	if got := len(exchange.Delivered(t, "anna@unmoved.example")); got != n {
		return []string{fmt.Sprintf("%d of %d messages are late", n-got, n)}
	}
	return nil
}

// handled runs look with our handling, where it must return nothing, and without, where
// it must return what went wrong, with a text that has want in it.
func handled(t *testing.T, want string, with, without func(t *testing.T) []string) {
	t.Parallel()
	t.Run("handled", func(t *testing.T) {
		t.Parallel()
		if wrong := with(t); len(wrong) > 0 {
			t.Errorf("%q", wrong)
		}
	})
	t.Run("switched off", func(t *testing.T) {
		t.Parallel()
		wrong := without(t)
		if !strings.Contains(strings.Join(wrong, "\n"), want) {
			t.Errorf("%q is not among what went wrong: %q", want, wrong)
		}
		t.Logf("without our handling: %.300q", wrong)
	})
}

// A refusal that comes late must not hold up mail for others, nor be taken for silence.
// Switched off: one connection, and less patience than the tarpit has.
func TestExchangeTarpits(t *testing.T) {
	look := func(p platform, tarpit time.Duration) func(t *testing.T) []string {
		return func(t *testing.T) []string {
			exchange := peers.StartExchange(t, "-tarpit", tarpit.String(), "-unknown", "gone@unmoved.example")
			n := behindUs(t, exchange, p, "gone", "anna")
			var wrong []string
			refused := make(chan string, 1)
			go func() { refused <- sendOne(n.smtp, 1, "gone@unmoved.example") }()
			waitFor(t, "the tarpit", func() bool { return exchange.Fired("unknown") > 0 })
			for i := range 5 {
				if got := sendOne(n.smtp, 2+i, "anna@unmoved.example"); !strings.HasPrefix(got, "250 ") {
					wrong = append(wrong, got)
				}
			}
			wrong = append(wrong, late(t, exchange, 5)...)
			if got := <-refused; got != "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient gone@unmoved.example not found by SMTP address lookup" {
				wrong = append(wrong, got)
			}
			return wrong
		}
	}
	handled(t, "of 5 messages are late", look(platform{}, time.Second), look(platform{limits: "connections: 1, queue_wait: 100ms", timeouts: "rcpt: 10s"}, 12*time.Second))
}

// Exchange takes so many connections from one source and turns others away. Our limit
// keeps below, and messages wait for a free one. Switched off: a higher limit, no wait.
func TestExchangeLimitsConnections(t *testing.T) {
	look := func(p platform) func(t *testing.T) []string {
		return func(t *testing.T) []string {
			exchange := peers.StartExchange(t, "-max-per-source", "4")
			n := behindUs(t, exchange, p, "anna")
			var wrong []string
			for range 3 {
				wrong = append(wrong, together(n.smtp, 30, "anna@unmoved.example")...)
			}
			wrong = append(wrong, late(t, exchange, 90)...)
			if fired := exchange.Fired("max-per-source"); fired > 0 {
				wrong = append(wrong, fmt.Sprintf("%d connections turned away", fired))
			}
			return wrong
		}
	}
	t.Run("sender", func(t *testing.T) {
		handled(t, "of 90 messages are late", look(platform{limits: "connections: 4"}), look(platform{limits: "connections: 50, queue_wait: 1ms"}))
	})
	// With the wait alone senders see nothing, but the platform is knocked at in vain.
	t.Run("platform", func(t *testing.T) {
		handled(t, "connections turned away", look(platform{limits: "connections: 4"}), look(platform{limits: "connections: 50"}))
	})
}

// Exchange ends a connection that was idle for too long. We end it earlier, so that no
// message ever meets one that is being closed. Switched off: kept for longer.
func TestExchangeEndsIdleConnections(t *testing.T) {
	look := func(p platform) func(t *testing.T) []string {
		return func(t *testing.T) []string {
			const idle = 5 * time.Second
			exchange := peers.StartExchange(t, "-idle", idle.String())
			n := behindUs(t, exchange, p, "anna")
			wrong := together(n.smtp, 5, "anna@unmoved.example")
			// Longer than the platform waits: nothing else would show who was first.
			time.Sleep(idle + 500*time.Millisecond)
			wrong = append(wrong, together(n.smtp, 5, "anna@unmoved.example")...)
			if fired := exchange.Fired("idle"); fired > 0 {
				wrong = append(wrong, fmt.Sprintf("%d connections ended by the platform", fired))
			}
			return wrong
		}
	}
	handled(t, "ended by the platform", look(platform{limits: "max_idle: 250ms"}), look(platform{limits: "max_idle: 1m"}))
}

// Exchange ends a connection of a certain age, also in the middle of a message. We use
// none that is so old that a message may meet its end. Switched off: connections of any
// age.
func TestExchangeEndsOldConnections(t *testing.T) {
	look := func(p platform) func(t *testing.T) []string {
		return func(t *testing.T) []string {
			const total = 6 * time.Second
			exchange := peers.StartExchange(t, "-total", total.String())
			n := behindUs(t, exchange, p, "anna")
			var wrong []string
			if got := sendOne(n.smtp, 1, "anna@unmoved.example"); !strings.HasPrefix(got, "250 ") {
				wrong = append(wrong, got)
			}
			// A sender that takes its time, so much that its message is under way when the
			// first one's connection comes of age.
			time.Sleep(total * 6 / 10)
			w := mustDial(t, n.smtp, "EHLO")
			w.envelope(t, "anna@unmoved.example")
			w.want(t, "DATA", "354 ")
			if err := w.send("X-Test-Id: 2\r\n"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(total / 2)
			if err := w.send("\r\n.\r\n"); err != nil {
				t.Fatal(err)
			}
			if got, err := w.reply(); err != nil || !strings.HasPrefix(got, "250 ") {
				wrong = append(wrong, fmt.Sprintf("%s (%v)", got, err))
			}
			if exchange.Fired("total") > 0 {
				wrong = append(wrong, "connection ended by the platform")
			}
			return wrong
		}
	}
	// The sender gets 451 then, unless this machine was so slow that the old connection had
	// ended before the message began.
	handled(t, "ended by the platform",
		look(platform{more: "connection_limit: 6s", limits: "max_age: 750ms"}),
		look(platform{more: "connection_limit: 10m", limits: "max_age: 5m, max_idle: 1m"}))
}

// naive is a proxy as one writes it in an hour with go-smtp's server and client: it opens
// the platform's transaction when the message comes, and returns errors with what it was
// doing. It stands in for handling of ours that no setting switches off.
func naive(t *testing.T, platform string) (addr string) {
	t.Helper()
	srv := gosmtp.NewServer(gosmtp.BackendFunc(func(*gosmtp.Conn) (gosmtp.Session, error) {
		return &naiveSession{platform: platform}, nil
	}))
	srv.ErrorLog = log.New(io.Discard, "", 0)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return ln.Addr().String()
}

type naiveSession struct {
	platform, from string
	to             []string
}

func (s *naiveSession) Mail(from string, _ *gosmtp.MailOptions) error { s.from = from; return nil }
func (s *naiveSession) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}
func (s *naiveSession) Data(r io.Reader) error {
	c, err := gosmtp.Dial(s.platform)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer c.Close()
	if err := c.SendMail(s.from, s.to, r); err != nil {
		return fmt.Errorf("deliver: %w", err)
	}
	return nil
}
func (s *naiveSession) Reset()        { s.from, s.to = "", nil }
func (s *naiveSession) Logout() error { return nil }

// A mailbox that is busy, and a server that is short of something, are answered in words
// that the sending relay understands: it comes again, and the message arrives once. Mail
// for others goes on meanwhile. Switched off: a naive proxy makes both permanent.
func TestExchangeIsBusy(t *testing.T) {
	for _, c := range []struct {
		name, code, quirk, text string
		flags                   []string
	}{
		{"mailbox", "432 4.3.2", "432", "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", []string{"-432", "busy@unmoved.example=3"}},
		{"server", "452 4.3.1", "452", "452 4.3.1 Insufficient system resources", []string{"-452", "3"}},
	} {
		look := func(ours bool) func(t *testing.T) []string {
			return func(t *testing.T) []string {
				peers.Need(t, "postfix")
				exchange := peers.StartExchange(t, c.flags...)
				addr := ""
				if ours {
					addr = behindUs(t, exchange, platform{}, "busy", "anna").smtp
				} else {
					addr = naive(t, exchange.Addr)
				}
				var wrong []string
				// Word by word, to a sender that looks.
				if got := sendOne(addr, 1, "busy@unmoved.example"); !strings.HasPrefix(got, c.text) {
					wrong = append(wrong, got)
				}
				if c.quirk == "432" { // the host is in order: nobody else has to wait
					if got := sendOne(addr, 2, "anna@unmoved.example"); !strings.HasPrefix(got, "250 ") {
						wrong = append(wrong, got)
					}
				}
				before := len(exchange.Records(t))
				// And to a relay, which comes again.
				mx := peers.StartMX(t, peers.MXOptions{NextHop: addr, Settings: map[string]string{"bounce_queue_lifetime": "0"}})
				submit(t, mx, 3, 3, "busy@unmoved.example")
				gaveBack := func() bool { return strings.Contains(mx.Log(), "status=bounced") }
				waitFor(t, "Postfix to be done", flushing(t, []*peers.Postfix{mx}, func() bool { return len(exchange.Records(t)) > before || gaveBack() }))
				waitFor(t, "Postfix to have nothing left", func() bool { return mx.QueueEmpty(t) })
				if got := exchange.Records(t)[before:]; len(got) != 1 || got[0].From != "sender@out.example" {
					wrong = append(wrong, fmt.Sprintf("%d messages arrived", len(got)))
				}
				if gaveBack() {
					wrong = append(wrong, "Postfix gave the message back to its sender")
				}
				if exchange.Fired(c.quirk) < 2 {
					t.Errorf("the platform was busy %d times only", exchange.Fired(c.quirk))
				}
				return wrong
			}
		}
		t.Run(c.name, func(t *testing.T) {
			handled(t, "gave the message back", look(true), look(false))
		})
	}
}

// cutter is a connection between us and a platform that breaks once, when the platform's
// answer to a message is on its way back.
func cutter(t *testing.T, platform string) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	var once sync.Once
	serve := func(from net.Conn) {
		defer from.Close()
		to, err := net.Dial("tcp", platform)
		if err != nil {
			return
		}
		defer to.Close()
		running.Go(func() {
			defer to.Close()
			_, _ = io.Copy(to, from) // ends with either side
		})
		b := make([]byte, 4096)
		for {
			k, err := to.Read(b)
			cut := false
			if bytes.HasPrefix(b[:k], []byte("250 2.6.0 ")) {
				once.Do(func() { cut = true })
			}
			if err != nil || cut {
				return
			}
			if _, err := from.Write(b[:k]); err != nil {
				return
			}
		}
	}
	running.Go(func() {
		for {
			c, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				running.Go(func() { serve(c) })
			}
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		running.Wait()
	})
	return ln.Addr().String()
}

// When the answer to a message is lost, nobody knows whether it arrived. The sender is
// told to come again, with the same message, so that Exchange, which drops what it has
// by Message-ID, keeps one. Switched off: a platform that doesn't; then there are two,
// and the log names the message, so that they can be told.
func TestExchangeDropsDuplicates(t *testing.T) {
	look := func(flags ...string) func(t *testing.T) []string {
		return func(t *testing.T) []string {
			exchange := peers.StartExchange(t, flags...)
			between := *exchange
			between.Addr = cutter(t, exchange.Addr)
			n := behindUs(t, &between, platform{limits: "backoff: 100ms"}, "anna", "ben")
			var wrong []string
			if got := sendOne(n.smtp, 1, "anna@unmoved.example"); got != "451 4.4.2 The platform's answer was lost, try again later" {
				wrong = append(wrong, got)
			}
			// After a broken connection the host is left alone for a moment: what comes meanwhile
			// waits in the spool.
			waitFor(t, "the message to be taken", func() bool {
				return strings.HasPrefix(sendOne(n.smtp, 1, "anna@unmoved.example"), "250 ")
			})
			// The same Message-ID for another mailbox is another delivery.
			if got := sendOne(n.smtp, 1, "ben@unmoved.example"); !strings.HasPrefix(got, "250 ") {
				wrong = append(wrong, got)
			}
			waitFor(t, "the spool to deliver", func() bool { return n.metric(t, "mailcutover_spool_messages") == 0 })
			for _, mailbox := range []string{"anna@unmoved.example", "ben@unmoved.example"} {
				if got := len(exchange.Delivered(t, mailbox)); got != 1 {
					wrong = append(wrong, fmt.Sprintf("%d copies for %s", got, mailbox))
				}
			}
			if out := n.Output(); strings.Count(out, `"msg":"message in doubt"`) != 1 {
				t.Errorf("the log doesn't name what was in doubt:\n%s", out)
			}
			return wrong
		}
	}
	handled(t, "2 copies for anna@unmoved.example", look("-dedupe"), look())
}

// Exchange rewrites headers and boundaries, so that a copy can't be found again by its
// bytes. It is found by the transaction id in our Received line, which the log names.
// Switched off: by the digest of the message.
func TestExchangeRewrites(t *testing.T) {
	look := func(find func(sent string, log string, r peers.ExchangeRecord) bool) func(t *testing.T) []string {
		return func(t *testing.T) []string {
			exchange := peers.StartExchange(t, "-rewrite", "-bodies")
			n := behindUs(t, exchange, platform{}, "anna")
			w := mustDial(t, n.smtp, "EHLO")
			w.envelope(t, "anna@unmoved.example")
			content := "X-Test-Id: 1\r\nFrom: a@out.example\r\nMessage-ID: <1@out.example>\r\nContent-Type: multipart/mixed; boundary=abc\r\n\r\n--abc\r\n\r\none\r\n--abc--\r\n"
			if got := w.message(t, content); !strings.HasPrefix(got, "250 ") {
				t.Fatal(got)
			}
			r := exchange.WaitRecords(t, 1)[0]
			if r.Stored == r.SHA256 || bytes.Contains(r.Body, []byte("--abc\r\n")) {
				t.Fatalf("nothing was rewritten:\n%s", r.Body)
			}
			waitFor(t, "the message in the log", func() bool { return strings.Contains(n.Output(), `"msg":"message"`) })
			if !find(content, n.Output(), r) {
				return []string{"the copy is not found"}
			}
			return nil
		}
	}
	byTransaction := func(_, log string, r peers.ExchangeRecord) bool {
		_, rest, _ := strings.Cut(log, `"transaction":"`)
		id, _, _ := strings.Cut(rest, `"`)
		return id != "" && bytes.Contains(r.Body, []byte(" id "+id+";"))
	}
	byContent := func(sent, _ string, r peers.ExchangeRecord) bool { return bytes.HasSuffix(r.Body, []byte(sent)) }
	handled(t, "not found", look(byTransaction), look(byContent))
}
