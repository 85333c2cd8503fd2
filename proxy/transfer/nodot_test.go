package transfer

import (
	"fmt"
	"strings"
	"testing"

	"mailcutover/node"
	"mailcutover/proxy/smtp"
)

// A message that got no dot, since the ledger takes nothing, goes into the spool with what
// is safe there already. Nothing of it is under way then: no drain waits for it.
func TestNothingIsUnderWayWithoutADot(t *testing.T) {
	w := newWorld(t)
	if err := w.openSpool(100, 0); err != nil {
		t.Fatal(err)
	}
	for _, event := range []string{"arm", "begin", "commit", "publish"} { // so that carl is on the other platform
		if err := w.agency("police", event); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.book.Close(); err != nil {
		t.Fatal(err)
	}
	w.listen(smtp.ProtocolSMTP)
	w.say("EHLO mx.elsewhere.example", "MAIL FROM:<s@elsewhere.example>", "RCPT TO:<anna@health.example>", "RCPT TO:<carl@police.example>", "DATA", "Subject: x\r\n\r\nbody\r\n.")
	if got, err := w.reply(); err != nil || !strings.HasPrefix(got, "250") {
		t.Fatalf("answer %q, %v", got, err)
	}
	if m := w.platforms["exchange"].Stored(); len(m) != 0 {
		t.Fatalf("the platform has %d messages: want none without an intent", len(m))
	}
	w.eventually(func() error { // a moment after the answer, at most
		if l := w.gate.Load("health"); l != (node.Load{}) {
			return fmt.Errorf("under way: %+v, want nothing", l)
		}
		return nil
	})
}
