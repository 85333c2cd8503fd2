package login

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"mailcutover/routing"
)

// verifier says what a test wants, and notes whom it was asked for.
type verifier struct {
	mu    sync.Mutex
	asked []routing.MailboxID
	says  func(ctx context.Context, secret string) error
}

func (v *verifier) Verify(ctx context.Context, user routing.MailboxID, a *Attempt) error {
	v.mu.Lock()
	v.asked = append(v.asked, user)
	v.mu.Unlock()
	return v.says(ctx, string(a.Secret))
}

func (v *verifier) times() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.asked)
}

func withMaster(v *verifier) func(*Options, *Listener, []Endpoint) {
	return func(o *Options, _ *Listener, e []Endpoint) {
		o.Verifier = v
		for i := range e {
			e[i].Master = &Master{User: "m", Password: "master's"}
		}
	}
}

// A master user opens a mailbox only to who has proven that it is his.
func TestVerifier(t *testing.T) {
	v := &verifier{says: func(_ context.Context, secret string) error {
		switch secret {
		case "s3cret":
			return nil
		case "wrong":
			return fmt.Errorf("%w: not his", ErrRefused)
		default:
			return errors.New("nobody can say")
		}
	}}
	w := newWorld(t, withMaster(v))
	p := w.dial()
	for _, test := range []struct{ secret, want string }{{"wrong", "no wrong"}, {"", "no platform"}, {"unsure", "no platform"}} {
		p.send("LOGIN anna " + test.secret)
		p.want(test.want)
	}
	if got := w.exchange.seen(); len(got) != 0 {
		t.Errorf("the platform was told %q", got)
	}
	p.send("LOGIN anna s3cret")
	p.want("yes")
	p.send("ping")
	p.want("exchange: ping")
	for _, id := range v.asked {
		if id != rows()[0].Mailbox {
			t.Errorf("asked for %s", id)
		}
	}
	if log := w.log.String(); !strings.Contains(log, "credentials refused: not his") || !strings.Contains(log, "nobody can say") {
		t.Errorf("the log doesn't say why:\n%s", log)
	}
}

// Whose password was found right isn't asked about again when the agency moves meanwhile.
func TestVerifiedOnce(t *testing.T) {
	v := &verifier{says: func(context.Context, string) error { return nil }}
	w := newWorld(t, withMaster(v))
	w.exchange.mu.Lock()
	w.exchange.step = func(at, _ string) string {
		if at == "login" {
			w.begin()
			go w.publish()
		}
		return ""
	}
	w.exchange.mu.Unlock()
	p := w.logIn("anna")
	p.send("ping")
	p.want("ox: ping")
	if n := v.times(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// A node that is cut doesn't wait for a directory.
func TestVerifierEndsWithTheListener(t *testing.T) {
	waits := make(chan struct{})
	v := &verifier{says: func(ctx context.Context, _ string) error {
		close(waits)
		<-ctx.Done()
		return ctx.Err()
	}}
	w := newWorld(t, withMaster(v))
	p := w.dial()
	p.send("LOGIN anna s3cret")
	<-waits
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.server.Shutdown(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
}

// Who may read another's mailbox can't be left to a platform that is told a master user.
func TestMasterHasNoDelegates(t *testing.T) {
	v := &verifier{says: func(context.Context, string) error { return nil }}
	w := newWorld(t, withMaster(v))
	p := w.dial()
	p.send("LOGIN anna s3cret bert")
	p.want("no name")
	if v.times() != 0 || len(w.exchange.seen()) != 0 {
		t.Error("somebody was asked")
	}
	e := *w.proxy.endpoint("exchange", "toy")
	e.Delegate = "/"
	if err := w.proxy.SetEndpoints([]Endpoint{e.Endpoint}); err == nil {
		t.Error("a master user beside a delegate form is taken")
	}
}
