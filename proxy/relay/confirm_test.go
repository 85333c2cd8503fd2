package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"mailcutover/mail"
)

// An answer too many that comes after the connection was looked at shifts all that follow
// by one: what is read for anna was said of bob. Nobody is refused for good by it, nothing
// is taken to be delivered, and the next message goes well.
func TestShiftedDialogue(t *testing.T) {
	for _, ehlo := range [][]string{{"PIPELINING"}, {"NOTHING"}} {
		for _, stray := range []string{"250 2.0.0 stray", "451 4.3.0 stray", "550 5.7.1 stray", "354 stray"} {
			for _, to := range []string{"bob", "bob anna", "anna bob", "anna", "anna anna", "bob bob"} {
				t.Run(fmt.Sprint(ehlo[0], "/", stray[:3], "/", to), func(t *testing.T) {
					shifted := false
					peer := startPeer(t, &peer{ehlo: ehlo, answer: func(s *session, verb, line string) string {
						switch {
						case verb == "MAIL" && !shifted:
							shifted = true
							s.say(stray)
						case strings.Contains(line, "<bob@"):
							return "550 5.1.1 no such user"
						}
						return ""
					}})
					ep := endpoint(peer.addr)
					ep.Limits.Backoff = time.Millisecond
					p := newPool(t, ep, Options{})
					var rcpts []string
					for _, name := range strings.Fields(to) {
						rcpts = append(rcpts, name+"@x.example")
					}
					out := deliver(testContext(t), t, p, "x\r\n", rcpts...)
					for i, err := range out.rcpts {
						if err != nil && !mail.IsTemporary(mail.AsReply(err)) {
							t.Errorf("%s: %v", rcpts[i], err)
						}
					}
					if out.data != nil && !mail.IsTemporary(mail.AsReply(out.data)) || len(out.dots) > 0 || len(peer.bodies()) > 0 {
						t.Errorf("DATA: %v, dots %v, platform has %q", out.data, out.dots, peer.bodies())
					}
					eventually(t, "all is well with the next message", func() bool {
						out := deliver(testContext(t), t, p, "y\r\n", "bob@x.example", "anna@x.example")
						return out.open == nil && mail.AsReply(out.rcpts[0]).Code == 550 && out.rcpts[1] == nil && len(out.dots) == 1 && out.dots[0] == nil
					})
				})
			}
		}
	}
}

// The same on a connection that is handed over to one who waits, as it is looked at.
func TestStrayReplyBeforeAHandOver(t *testing.T) {
	peer := startPeer(t, new(peer))
	ep := endpoint(peer.addr)
	ep.Limits.Connections = 1
	p := newPool(t, ep, Options{})
	ctx := testContext(t)
	first := open(ctx, t, p)
	second := make(chan error)
	go func() {
		tx, err := p.Open(ctx, mail.Client{}, path(t, "a@out.example"), nil)
		if err == nil {
			err = tx.Rcpts(ctx, []Recipient{{To: path(t, "b@x.example")}})[0]
			tx.Abort()
		}
		second <- err
	}()
	eventually(t, "waiting", func() bool { return p.Stats().Waiting == 1 })
	peer.sessions()[0].say("250 2.0.0 stray")
	eventually(t, "stale", first.conn.stale)
	first.Abort()
	if err := <-second; err != nil {
		t.Error(err)
	}
	if got := peer.commands(); got != "EHLO node.example|EHLO node.example;MAIL FROM:<a@out.example>;RCPT TO:<b@x.example>;RSET" {
		t.Errorf("commands %s", got)
	}
	if s := p.Stats(); s.Open != 1 || s.InUse != 0 {
		t.Errorf("%+v", s)
	}
}

// An answer that is there before the dot is not the dot's.
func TestStrayReplyBeforeTheDot(t *testing.T) {
	peer := startPeer(t, new(peer))
	o, writes := tapped(nil)
	p := newPool(t, endpoint(peer.addr), o)
	ctx := testContext(t)
	tx := open(ctx, t, p)
	tx.Rcpts(ctx, []Recipient{{To: path(t, "b@x.example")}})
	if err := tx.Data(ctx); err != nil {
		t.Fatal(err)
	}
	io.WriteString(tx, "x\r\n")
	if err := tx.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	peer.sessions()[0].say("250 2.0.0 stray")
	eventually(t, "stale", tx.conn.stale)
	err := tx.Dot(ctx)[0]
	if err == nil || errors.Is(err, ErrInDoubt) || mail.AsReply(err).Code != 451 {
		t.Errorf("got %v", err)
	}
	w := writes()
	if last := w[len(w)-1]; strings.HasSuffix(last, ".\r\n") {
		t.Errorf("last write %q", last)
	}
}

// Of two answers to the dot nobody knows which one counts.
func TestTwoAnswersToTheDot(t *testing.T) {
	for _, c := range []struct {
		answer string
		doubt  bool
		code   int
	}{
		{"550 5.7.1 never\r\n250 2.0.0 queued", true, 451},
		{"550 5.7.1 never\r\n421 4.7.0 goodbye", false, 550},
		{"450 4.7.1 later\r\n250 2.0.0 queued", false, 450},
	} {
		peer := startPeer(t, &peer{answer: func(_ *session, verb, _ string) string {
			return map[string]string{".": c.answer}[verb]
		}})
		err := deliver(testContext(t), t, newPool(t, endpoint(peer.addr), Options{}), "x\r\n", "b@x.example").err()
		if errors.Is(err, ErrInDoubt) != c.doubt || mail.AsReply(err).Code != c.code {
			t.Errorf("%q: %v", c.answer, err)
		}
	}
}

// A refusal is believed when HELP shows that it was the last answer, and not otherwise.
func TestRefusalIsConfirmed(t *testing.T) {
	for _, c := range []struct {
		help string
		code int
	}{
		{"", 550}, {"502 5.5.1 no", 550}, {"500 5.5.2 what", 550}, {"211 help", 550},
		{"250 2.0.0 ok", 451}, {"550 5.1.1 no", 451}, {"354 go on", 451}, {"421 4.7.0 too many errors", 451}, {cut, 451}, {hang, 451},
		{"214 help\r\n214 again", 451},
	} {
		for _, verb := range []string{"MAIL", "RCPT", "DATA"} {
			peer := startPeer(t, &peer{answer: func(_ *session, v, _ string) string {
				return map[string]string{verb: "550 5.6.0 never", "HELP": c.help}[v]
			}})
			ep := endpoint(peer.addr)
			if c.help == hang { // else nothing is to be over
				ep.Timeouts.Command = 500 * time.Millisecond
			}
			p := newPool(t, ep, Options{})
			err := deliver(context.Background(), t, p, "x\r\n", "b@x.example").err()
			if got := mail.AsReply(err).Code; got != c.code {
				t.Errorf("%s, HELP answered %q: %v", verb, c.help, err)
			}
			if s := p.Stats(); s.InUse != 0 || (s.Idle == 1) != (c.code == 550) {
				t.Errorf("%s, HELP answered %q: %+v", verb, c.help, s)
			}
		}
	}
}
