package transfer

import (
	"strings"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/mail"
	"mailcutover/proxy/smtp"
	"mailcutover/spool"
)

// What is safe in the spool goes while the platform of the others still thinks about its
// answer; what that answer adds is told of then, and each recipient once.
func TestSpooledDoesNotWaitForTheDot(t *testing.T) {
	w := newWorld(t)
	if err := w.openSpool(100, 0); err != nil {
		t.Fatal(err)
	}
	type told struct {
		id    mail.TransactionID
		first int
	}
	added := make(chan told, 10)
	w.options.Added = func(id mail.TransactionID, first int) { added <- told{id, first} }
	w.transfer.Configure(w.options)
	for _, event := range []string{"arm", "begin", "commit", "publish"} { // so that carl is on the other platform
		if err := w.agency("police", event); err != nil {
			t.Fatal(err)
		}
	}
	answer := make(chan struct{})
	w.platforms["exchange"].SetScript(func(c platformtest.Command) platformtest.Reaction {
		if c.Verb != platformtest.VerbDot {
			return platformtest.Reaction{}
		}
		<-answer
		return platformtest.Reaction{Reply: "452 4.3.1 full"}
	})
	w.listen(smtp.ProtocolSMTP)
	dialogue := "EHLO mx.elsewhere.example\r\nMAIL FROM:<s@elsewhere.example>\r\nRCPT TO:<anna@health.example>\r\nRCPT TO:<carl@police.example>\r\nDATA\r\n"
	for _, line := range append(strings.SplitAfter(dialogue, "\r\n")[:5], "Subject: x\r\n\r\nbody\r\n.\r\n") {
		if got, err := w.reply(); err != nil || got[0] > '3' {
			t.Fatalf("before %q: %q, %v", line, got, err)
		}
		if _, err := w.client.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	next := func() told {
		select {
		case a := <-added:
			return a
		case <-time.After(time.Minute):
			t.Fatal("the queue wasn't told")
			return told{}
		}
	}
	one := next()
	if m, err := w.store.Get(one.id); err != nil || one.first != 0 || len(m.Recipients) != 1 || m.Recipients[0].State != spool.StateWaiting {
		t.Errorf("before the answer: %+v, %+v, %v", one, m, err)
	}
	close(answer)
	if got, err := w.reply(); err != nil || !strings.HasPrefix(got, "250") {
		t.Errorf("answer %q, %v", got, err)
	}
	two := next()
	if m, err := w.store.Get(two.id); err != nil || two != (told{one.id, 1}) || len(m.Recipients) != 2 {
		t.Errorf("after the answer: %+v, %+v, %v", two, m, err)
	}
	if len(added) > 0 {
		t.Errorf("told once more: %+v", <-added)
	}
}
