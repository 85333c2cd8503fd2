package transfer

import (
	"strings"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/proxy/smtp"
)

// A sender that has given up while a platform was asked doesn't see our 250, and sends the
// message again: each copy of it is in the ledger as one that nobody was told of (P7).
func TestSenderThatHasGone(t *testing.T) {
	for _, c := range []struct {
		name string
		gone bool
		want map[string]ledger.Result // by recipient
	}{
		{"it waits", false, map[string]ledger.Result{
			"anna@health.example": ledger.ResultDelivered, "carl@police.example": ledger.ResultAccepted,
		}},
		{"it has gone", true, map[string]ledger.Result{
			"anna@health.example": ledger.ResultNotAcknowledged, "carl@police.example": ledger.ResultNotAcknowledged,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
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
			dialogue := "EHLO mx.elsewhere.example\r\nMAIL FROM:<s@elsewhere.example>\r\nRCPT TO:<anna@health.example>\r\nRCPT TO:<carl@police.example>\r\nDATA\r\n"
			for _, line := range append(strings.SplitAfter(dialogue, "\r\n")[:5], "Subject: x\r\n\r\nbody\r\n.\r\n") {
				if got, err := w.reply(); err != nil || got[0] > '3' {
					t.Fatalf("before %q: %q, %v", line, got, err)
				}
				if _, err := w.client.Write([]byte(line)); err != nil {
					t.Fatal(err)
				}
			}
			id := <-added
			<-asked
			if c.gone {
				if err := w.client.Close(); err != nil {
					t.Fatal(err)
				}
			}
			close(answer)
			got := map[string]ledger.Result{}
			for end := time.Now().Add(time.Minute); len(got) < len(c.want) && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				clear(got)
				for r, err := range w.book.Find(t.Context(), ledger.Query{Transaction: id}) {
					if err != nil {
						t.Fatal(err)
					}
					for i := range r.Recipients {
						if a := r.Answer(i); a.Result != ledger.ResultPending {
							got[string(r.Recipients[i].Address)] = a.Result
						}
					}
				}
			}
			for rcpt, want := range c.want {
				if got[rcpt] != want {
					t.Errorf("%s: the ledger says %v, want %v", rcpt, got[rcpt], want)
				}
			}
			if len(got) != len(c.want) {
				t.Errorf("the ledger has %v, want %v", got, c.want)
			}
		})
	}
}
