package attack

import (
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// state is where a peer falls silent, or nearly so.
type state struct {
	name string
	id   string   // of the listener
	tls  bool     // TLS from the first byte
	from string   // "": a stranger
	say  []string // and what the answer to each has, in turns
	slow bool     // is only ended after a minute or more
}

func mailStates(id, hello, more string) []state {
	const path = "MAIL FROM:<slow@out.example>\r\n"
	const rcpt = "RCPT TO:<anna@exchange.example>\r\n"
	return []state{
		{name: "greeted", id: id},
		{name: "in a command", id: id, say: []string{"", "220 ", hello + "\r\nMAIL FROM:<", "250 "}},
		{name: "in a transaction", id: id, say: []string{"", "220 ", hello + "\r\n" + path + rcpt + more, "2.1.5"}},
		{name: "in a message", id: id, say: []string{"", "220 ", hello + "\r\n" + path + rcpt + "DATA\r\n", "354 ", "Subject: slow\r\n", ""}},
		{name: "at the dot", id: id, say: []string{"", "220 ", hello + "\r\n" + path + rcpt + "DATA\r\n", "354 ", "Subject: slow\r\n\r\n.", ""}},
		{name: "in a chunk", id: id, say: []string{"", "220 ", hello + "\r\n" + path + rcpt + "BDAT 100000 LAST\r\n", "2.1.5"}},
	}
}

// Q1, M13: whoever says a byte now and then, in whatever state, is let go within the limit of that
// state, and keeps nobody else waiting.
func TestSlowPeers(t *testing.T) {
	t.Parallel()
	f := start(t, setup{
		mail:   ", limits: {handshake: 8s, idle: 10s, read: 10s, data_rate: 10KiB/s, data_grace: 8s}", // honest clients have them, too
		logins: ", limits: {handshake: 8s, login: 1m}",
	})
	states := append(mailStates("mx", "EHLO x.example", ""), mailStates("mx-lmtp", "LHLO x.example", "")...)
	states = append(states,
		state{name: "in a handshake", id: "mxs", say: []string{"\x16\x03\x01\x02\x00", ""}},
		state{name: "in a handshake", id: "imaps", say: []string{"\x16\x03\x01\x02\x00", ""}},
		state{name: "in a handshake behind STARTTLS", id: "mx", say: []string{"", "220 ", "EHLO x.example\r\n", "250 ", "STARTTLS\r\n", "220 ", "\x16\x03", ""}},
		state{name: "in a handshake behind STARTTLS", id: "imap", say: []string{"", "* OK", "a STARTTLS\r\n", "a OK", "\x16\x03", ""}},
		state{name: "in a PROXY header", id: "mx-proxy", from: "127.6.0.1", say: []string{"PROXY TCP4 ", ""}},
		state{name: "before a PROXY header", id: "imap-proxy", from: "127.6.0.1"},
		state{name: "in a handshake", id: "admin", say: []string{"\x16\x03\x01\x02\x00", ""}},
		state{name: "in a request", id: "admin", tls: true, say: []string{"GET /healthz HTTP/1.1\r\nX: ", ""}},
		state{name: "in a request", id: "page", tls: true, say: []string{"GET / HTTP/1.1\r\nX: ", ""}},
		state{name: "in a request", id: "autoconfig", tls: true, say: []string{"GET / HTTP/1.1\r\nX: ", ""}},
		state{name: "in a body", id: "page", tls: true, slow: true, say: []string{"POST /signin HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 5000\r\n\r\ntoken=", ""}},
		state{name: "greeted", id: "imap", slow: true, say: []string{"", "* OK"}},
		state{name: "in a command", id: "imap", slow: true, say: []string{"", "* OK", "a LOG", ""}},
		state{name: "in a literal", id: "imaps", tls: true, slow: true, say: []string{"", "* OK", "a LOGIN {1000+}\r\n", ""}},
		state{name: "in an answer", id: "imaps", tls: true, slow: true, say: []string{"", "* OK", "a AUTHENTICATE PLAIN\r\n", "+ "}},
		state{name: "greeted", id: "submission", slow: true, say: []string{"", "220 ", "EHLO x.exam", ""}},
		state{name: "in a password", id: "pop3", slow: true, say: []string{"", "+OK", "USER anna@exchan", ""}},
		state{name: "in a literal", id: "sieve", slow: true, say: []string{"", "OK", "NOOP {1000+}\r\n", ""}},
	)
	const each = 3
	var ending, staying sync.WaitGroup // those whose limit is a minute or more stay until we are done
	stop := make(chan struct{})
	for _, s := range states {
		for range each {
			w := f.fallSilent(t, s)
			group, until := &ending, (<-chan struct{})(nil)
			if s.slow && !*slow {
				group, until = &staying, stop
			}
			group.Go(func() {
				began := time.Now()
				if !w.trickle(until) {
					t.Errorf("%s, %s: not ended after %s", s.id, s.name, time.Since(began))
				}
			})
		}
	}
	// Meanwhile others are served.
	for range 5 {
		for _, u := range upgrades {
			w := f.upgraded(t, u)
			say, want := strings.Replace(u.login, "%s", plain("anna@exchange.example", "pw"), 1), u.loggedIn
			if u.id == "mx" {
				say, want = "MAIL FROM:<fast@out.example>\r\nRCPT TO:<anna@exchange.example>\r\nDATA\r\n", "354 "
			}
			err := w.send(say)
			if err == nil {
				_, err = w.until(want)
			}
			if err == nil && u.id == "mx" {
				if err = w.send("Subject: fast\r\n\r\n.\r\n"); err == nil {
					_, err = w.until("250 2")
				}
			}
			if err != nil {
				t.Errorf("%s: an honest client: %v", u.id, err)
			}
			w.conn.Close()
		}
	}
	ending.Wait()
	close(stop)
	staying.Wait()
	for _, tx := range f.platforms["exchange"].mail.Stored() {
		if tx.From != "fast@out.example" {
			t.Errorf("a message of %s is stored: %q", tx.From, tx.Raw)
		}
	}
}

// fallSilent brings a connection into a state.
func (f *front) fallSilent(t *testing.T, s state) *wire {
	t.Helper()
	from := s.from
	if from == "" {
		from = stranger
	}
	w, err := dial(f.addrs[s.id], from)
	if err == nil && s.tls {
		err = w.secure(f)
	}
	for i := 0; i < len(s.say) && err == nil; i += 2 {
		if err = w.send(s.say[i]); err == nil && len(s.say) > i+1 && s.say[i+1] != "" {
			_, err = w.until(s.say[i+1])
		}
	}
	if err != nil {
		t.Fatalf("%s, %s: %v", s.id, s.name, err)
	}
	t.Cleanup(func() { w.conn.Close() })
	return w
}

// trickle says a byte now and then until the other side has ended the connection, or stop is
// closed; ended is false if neither comes.
func (w *wire) trickle(stop <-chan struct{}) (ended bool) {
	limit := patience
	if *slow {
		limit = 5 * time.Minute
	}
	_ = w.conn.SetDeadline(time.Now().Add(limit))
	over := make(chan bool, 1)
	go func() {
		_, ended := w.rest()
		over <- ended
	}()
	now := time.NewTicker(250 * time.Millisecond)
	defer now.Stop()
	for {
		select {
		case ended := <-over:
			return ended
		case <-stop:
			w.conn.Close()
			<-over
			return true
		case <-now.C:
			_, _ = io.WriteString(w.conn, "x") // the end is seen by who reads
		}
	}
}
