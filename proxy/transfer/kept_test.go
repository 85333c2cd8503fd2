package transfer

import (
	"os"
	"strings"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/proxy/smtp"
)

// say carries out a dialogue in which each line is answered, up to the message's end.
func (w *world) say(lines ...string) {
	w.t.Helper()
	for _, line := range lines {
		if got, err := w.reply(); err != nil || got[0] > '3' {
			w.t.Fatalf("before %q: %q, %v", line, got, err)
		}
		if _, err := w.client.Write([]byte(line + "\r\n")); err != nil {
			w.t.Fatal(err)
		}
	}
}

// found returns what a ledger says of a message, by recipient.
func found(t *testing.T, l *ledger.Ledger, id mail.TransactionID) map[string]ledger.Answer {
	t.Helper()
	got := map[string]ledger.Answer{}
	for r, err := range l.Find(t.Context(), ledger.Query{Transaction: id}) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range r.Recipients {
			got[string(r.Recipients[i].Address)] = r.Answer(i)
		}
	}
	return got
}

// A copy that is safe in the spool, and perhaps delivered, while the sender waits for another
// platform's answer: if this process is killed then, each copy has a name (P7).
func TestKilledWhileTheSenderWaits(t *testing.T) {
	w := newWorld(t)
	if err := w.openSpool(100, 0); err != nil {
		t.Fatal(err)
	}
	added := make(chan mail.TransactionID, 10)
	w.options.Added = func(id mail.TransactionID, _ int) { added <- id }
	w.transfer.Configure(w.options)
	for _, event := range []string{"arm", "begin", "commit", "publish"} { // so that carl is on the other platform
		if err := w.agency("police", event); err != nil {
			t.Fatal(err)
		}
	}
	asked, answer := make(chan struct{}), make(chan struct{})
	w.platforms["exchange"].SetScript(func(c platformtest.Command) platformtest.Reaction {
		if c.Verb == platformtest.VerbDot {
			close(asked)
			<-answer
		}
		return platformtest.Reaction{}
	})
	w.listen(smtp.ProtocolSMTP)
	w.say("EHLO mx.elsewhere.example", "MAIL FROM:<s@elsewhere.example>", "RCPT TO:<anna@health.example>", "RCPT TO:<carl@police.example>", "DATA", "Subject: x\r\n\r\nbody\r\n.")
	id := <-added
	<-asked
	dir := t.TempDir()
	err := os.CopyFS(dir, os.DirFS(w.ledgerDir)) // what a kill leaves
	close(answer)
	if err != nil {
		t.Fatal(err)
	}
	next, err := ledger.Open(ledger.Options{Dir: dir, Boot: "this"})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	got := found(t, next, id)
	if got["carl@police.example"].Result != ledger.ResultNotAcknowledged || got["anna@health.example"].Result != ledger.ResultInDoubt || len(got) != 2 {
		t.Errorf("after the kill the ledger says %+v", got)
	}
	if doubts := next.InDoubt(); len(doubts) != 1 || doubts[0].Platform != "exchange" {
		t.Errorf("in doubt are %+v", doubts)
	}
	// Without it the sender gets the answer, and nothing is there twice.
	if got, err := w.reply(); err != nil || !strings.HasPrefix(got, "250") {
		t.Errorf("answer %q, %v", got, err)
	}
	got = found(t, w.book, id)
	if a := got["carl@police.example"]; a.Result != ledger.ResultAccepted || !strings.HasPrefix(a.Text, "waiting: another way") || got["anna@health.example"].Result != ledger.ResultDelivered {
		t.Errorf("the ledger says %+v", got)
	}
}

// Of several names of a mailbox, which get one copy and one answer, each has its text.
func TestEachNameHasTheAnswersText(t *testing.T) {
	w := newWorld(t)
	if err := w.openSpool(100, 0); err != nil {
		t.Fatal(err)
	}
	w.platforms["exchange"].SetScript(platformtest.On(platformtest.VerbDot, platformtest.Reaction{Reply: "250 2.0.0 queued as 4711"}))
	w.listen(smtp.ProtocolSMTP)
	w.say("EHLO mx.elsewhere.example", "MAIL FROM:<s@elsewhere.example>", "RCPT TO:<anna@health.example>", "RCPT TO:<office@health.example>", "DATA", "Subject: x\r\n\r\nbody\r\n.")
	if got, err := w.reply(); err != nil || !strings.HasPrefix(got, "250") {
		t.Fatalf("answer %q, %v", got, err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		var all []ledger.Record
		for r, err := range w.book.Find(t.Context(), ledger.Query{}) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, r)
		}
		if len(all) == 1 && len(all[0].Recipients) == 2 && all[0].Answer(0).Result == ledger.ResultDelivered {
			for i := range all[0].Recipients {
				if text := all[0].Answer(i).Text; !strings.Contains(text, "queued as 4711") {
					t.Errorf("%s: the ledger has %q", all[0].Recipients[i].Address, text)
				}
			}
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the ledger has %+v", all)
		}
	}
}
