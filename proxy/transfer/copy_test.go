package transfer

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"mailcutover/internal/platformtest"
	"mailcutover/ledger"
	"mailcutover/ledger/retained"
	"mailcutover/proxy/smtp"
)

// copies returns what is retained.
func copies(t *testing.T, s *retained.Store) (all []retained.Copy) {
	t.Helper()
	for c, err := range s.Find(t.Context(), retained.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// What the target takes is retained before the sender is told, byte for byte; what it refuses
// isn't, nor what goes to the source.
func TestTheTargetsMailIsRetained(t *testing.T) {
	for name, size := range map[string]int{"small": 100, "large": 200_000} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if err := w.openSpool(100, 0); err != nil {
				t.Fatal(err)
			}
			store, err := retained.Open(retained.Options{Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			w.options.Retained = store
			w.transfer.Configure(w.options)
			for _, event := range []string{"arm", "begin", "commit", "publish"} { // so that carl is on the target
				if err := w.agency("police", event); err != nil {
					t.Fatal(err)
				}
			}
			w.listen(smtp.ProtocolSMTP)
			body := "Subject: x\r\n\r\n" + strings.Repeat("..a line that begins with a dot\r\n", size/32) + "."
			send := func(to, want string) {
				t.Helper()
				w.say("MAIL FROM:<s@elsewhere.example>", "RCPT TO:<"+to+">", "DATA", body)
				if got, err := w.reply(); err != nil || !strings.HasPrefix(got, want) {
					t.Fatalf("to %s: %q, %v; want %s", to, got, err, want)
				}
				if _, err := w.client.Write([]byte("RSET\r\n")); err != nil {
					t.Fatal(err)
				}
			}
			w.say("EHLO mx.elsewhere.example")
			send("anna@health.example", "250")
			if got := copies(t, store); len(got) != 0 {
				t.Errorf("%d copies of mail to the source", len(got))
			}
			send("carl@police.example", "250")
			got := copies(t, store)
			if len(got) != 1 {
				t.Fatalf("%d copies, want one", len(got))
			}
			c := &got[0]
			stored := w.platforms["ox"].Stored()
			b, err := store.Open(c)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			kept, err := io.ReadAll(b)
			if err != nil || !bytes.Equal(kept, stored[len(stored)-1].Body()) {
				t.Errorf("the copy has %d bytes, %v; the platform %d", len(kept), err, len(stored[len(stored)-1].Body()))
			}
			if r := c.Recipients[0]; len(c.Recipients) != 1 || c.Agency != "police" || c.Platform != "ox" || c.From != "s@elsewhere.example" || r.Address != "carl@police.example" || r.Mailbox.IsZero() || r.Epoch.Number == 0 {
				t.Errorf("the copy says %+v", c)
			}
			for r, err := range w.book.Find(t.Context(), ledger.Query{Transaction: c.Transaction}) {
				if err != nil || r.Digest != c.Digest || r.Size != c.Size || r.Recipients[0].Mapping.IsZero() {
					t.Errorf("the ledger has %+v, %v", r, err)
				}
			}
			w.platforms["ox"].SetScript(platformtest.On(platformtest.VerbDot, platformtest.Reaction{Reply: "451 4.0.0 not now"}))
			send("carl@police.example", "451")
			if got := copies(t, store); len(got) != 1 {
				t.Errorf("%d copies after a refusal, want one", len(got))
			}
		})
	}
}
