package daemon

import (
	"context"
	"net/smtp"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
)

// A platform that never answers the dot doesn't hold a stop up beyond its grace; the
// message is in doubt, and the next start knows it.
func TestAStopDoesntWaitForAnAnswerForEver(t *testing.T) {
	b := newBench(t)
	b.a.SetScript(platformtest.On(platformtest.VerbDot, platformtest.Reaction{Stall: true}))
	var sender sync.WaitGroup
	sender.Go(func() {
		if err := smtp.SendMail(b.Addr("mx").String(), nil, "s@elsewhere.example", []string{"anna@health.example"}, []byte("Subject: test\r\n\r\nbody\r\n")); err == nil {
			t.Error("the sender got a 250")
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := b.a.Wait(ctx, func(p *platformtest.Platform) bool {
		all := p.Transactions()
		return len(all) > 0 && all[0].Complete
	}); err != nil {
		t.Fatal(err)
	}
	grace, end := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer end()
	began := time.Now()
	_ = b.Shutdown(grace) // its error says that the grace was over
	if took := time.Since(began); took > 60*time.Second {
		t.Errorf("stopped after %s", took)
	}
	sender.Wait()
	b.start()
	if until := b.gate.InDoubt("health"); until.IsZero() {
		t.Error("the next start doesn't know that a message is in doubt")
	}
	if !strings.Contains(b.log.String(), "message in doubt since before the start") {
		t.Error("it isn't in the log")
	}
}
