package relay

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/mail"
	"mailcutover/test/peers"
)

// content returns a message after the header fields that the platform put on top.
func content(t *testing.T, m peers.Message) string {
	t.Helper()
	i := bytes.Index(m.Raw, []byte("Subject: relay"))
	if i < 0 {
		t.Fatalf("not our message: %q", m.Raw)
	}
	return string(m.Raw[i:])
}

const realBody = "Subject: relay\r\nMessage-ID: <1@x.example>\r\nDate: Sat, 21 Nov 2026 19:03:32 +0000\r\nFrom: a@x.example\r\n\r\n.dot\r\n..\r\nFrom here\r\n\xe4\xf6\r\n\r\n"

func TestPostfixPlatform(t *testing.T) {
	pf := peers.StartPostfixPlatform(t, peers.PostfixPlatformOptions{
		Mailboxes: []string{"b@health.example", "c@health.example"},
		Settings: map[string]string{
			"smtpd_authorized_xforward_hosts": "127.0.0.0/8", "smtpd_authorized_xclient_hosts": "127.0.0.0/8",
		},
	})
	for _, identity := range []ClientIdentity{IdentityNone, IdentityXFORWARD, IdentityXCLIENT} {
		t.Run(identity.String(), func(t *testing.T) {
			ep := endpoint(pf.Addr)
			ep.Identity = identity
			obs := new(counts)
			p := newPool(t, ep, Options{Observer: obs})
			for range 2 { // on one connection
				out := deliverFrom(testContext(t), t, p, client, nil, realBody, "b@health.example", "nobody@health.example")
				if len(out.dots) != 1 || out.dots[0] != nil {
					t.Fatal(out.err())
				}
				var pr *PlatformReply
				if !errors.As(out.rcpts[1], &pr) || pr.Reply.Code != 550 || pr.Reply.EnhancedCode != [3]int{5, 1, 1} {
					t.Errorf("got %v", out.rcpts[1])
				}
				if !strings.Contains(out.tx.Replies()[0], "queued as") {
					t.Errorf("replies %q", out.tx.Replies())
				}
			}
			if obs.get("dialled true") != 1 {
				t.Errorf("more than one connection: %v", obs.n)
			}
			if identity != IdentityNone {
				peers.WaitFor(t, time.Minute, "client in the platform's log", func() bool {
					return strings.Contains(pf.Log(), "192.0.2.7")
				})
			}
		})
	}
	want := strings.ReplaceAll(realBody, "\r\n", "\n")
	for _, m := range pf.WaitMessages(t, "b@health.example", 6) {
		if got := content(t, m); got != want {
			t.Errorf("stored %q, want %q", got, want)
		}
	}
}

func TestDovecotByLMTP(t *testing.T) {
	dc := peers.StartDovecot(t, peers.DovecotOptions{Users: map[string]string{"b@health.example": "x", "c@health.example": "x"}})
	ep := endpoint(dc.LMTP)
	ep.Protocol = ProtocolLMTP
	p := newPool(t, ep, Options{})
	out := deliver(testContext(t), t, p, realBody, "b@health.example", "nobody@health.example", "c@health.example", "b@health.example")
	if r := mail.AsReply(out.rcpts[1]); r.Code != 550 || r.EnhancedCode != [3]int{5, 1, 1} {
		t.Errorf("got %v", out.rcpts[1])
	}
	if len(out.dots) != 3 || slices.ContainsFunc(out.dots, func(err error) bool { return err != nil }) {
		t.Fatalf("got %v", out.dots)
	}
	for i, to := range []string{"<b@health.example>", "<c@health.example>", "<b@health.example>"} {
		if r := out.tx.Replies()[i]; !strings.Contains(r, to) {
			t.Errorf("answer %d is %q, want %s", i, r, to)
		}
	}
	want := strings.ReplaceAll(realBody, "\r\n", "\n")
	for _, mailbox := range []string{"b@health.example", "c@health.example"} {
		for _, m := range dc.WaitMessages(t, mailbox, 1) {
			if got := content(t, m); got != want {
				t.Errorf("stored %q, want %q", got, want)
			}
		}
	}
	if err := p.Probe(testContext(t)); err != nil {
		t.Error(err)
	}
}

// A platform that stops in its tracks is given up by the timeout; what it had not been told
// to take is not in doubt.
func TestPlatformHangs(t *testing.T) {
	sink := peers.StartSink(t)
	ep := endpoint(sink.Addr)
	ep.Timeouts.Mail = 3 * time.Second
	p := newPool(t, ep, Options{})
	if err := deliver(testContext(t), t, p, realBody, "b@x.example").err(); err != nil {
		t.Fatal(err)
	}
	if err := sink.Pause(); err != nil {
		t.Fatal(err)
	}
	defer sink.Resume()
	err := deliver(testContext(t), t, p, realBody, "b@x.example").err()
	if errors.Is(err, ErrInDoubt) || mail.AsReply(err).Code != 451 {
		t.Errorf("got %v", err)
	}
}

func TestSink(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		lmtp bool
		code int // 0: taken; -1: in doubt
	}{
		{"takes all", nil, false, 0},
		{"no pipelining", []string{"-p"}, false, 0},
		{"LMTP", []string{"-L"}, true, 0},
		{"fails at RCPT", []string{"-f", "rcpt"}, false, 451},
		{"fails at the dot", []string{"-f", "."}, false, 451},
		{"later for MAIL", []string{"-r", "mail"}, false, 450},
		{"closes at MAIL", []string{"-q", "mail"}, false, 451},
		{"closes at DATA", []string{"-q", "data"}, false, 451},
		{"closes at the dot", []string{"-q", "."}, false, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			sink := peers.StartSink(t, c.args...)
			ep := endpoint(sink.Addr)
			if c.lmtp {
				ep.Protocol = ProtocolLMTP
			}
			p := newPool(t, ep, Options{})
			var wg sync.WaitGroup
			var doubts atomic.Int32
			for range 8 {
				wg.Go(func() {
					out := deliver(testContext(t), t, p, realBody, "b@x.example", "c@x.example")
					err := out.err()
					if errors.Is(err, ErrInDoubt) {
						doubts.Add(1)
					}
					switch {
					case c.code == -1 && out.open != nil: // the host is left alone by now, as two have lost their connections
						if errors.Is(err, ErrInDoubt) || mail.AsReply(err).Code != 451 {
							t.Errorf("got %v", err)
						}
					case c.code <= 0 && errors.Is(err, ErrInDoubt) != (c.code == -1):
						t.Errorf("got %v", err)
					case c.code > 0 && (err == nil || errors.Is(err, ErrInDoubt) || mail.AsReply(err).Code != c.code):
						t.Errorf("got %v", err)
					}
				})
			}
			wg.Wait()
			if c.code == -1 && doubts.Load() == 0 {
				t.Error("nobody is in doubt")
			}
			if s := p.Stats(); s.InUse != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}
