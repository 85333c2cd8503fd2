package transfer

import (
	"strings"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/mail"
	"mailcutover/proxy/dial"
	"mailcutover/proxy/relay"
	"mailcutover/proxy/smtp"
)

// TestNameOfClientNeedsNoUTF8: a message that is declared SMTPUTF8 and doesn't need it is taken by a
// platform without it, whatever the client called itself: our own Received line is ASCII.
func TestNameOfClientNeedsNoUTF8(t *testing.T) {
	w := newWorld(t)
	p, err := platformtest.Start(platformtest.Options{Extensions: []string{"PIPELINING", "8BITMIME"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	pool, err := relay.NewPool(relay.Endpoint{
		Platform: "exchange", Origin: mail.OriginOutside, Protocol: relay.ProtocolSMTP,
		Hosts: []string{p.Addr()}, Helo: "mx1.example", TLS: dial.TLS{Policy: dial.TLSNone},
	}, relay.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w.options.Platforms[0] = relay.Platform{ID: "exchange", ConnectionLimit: time.Hour, Outside: pool, Inside: pool}
	w.transfer.Configure(w.options)
	w.listen(smtp.ProtocolSMTP)
	const dialogue = "EHLO b\u00fcro.example|MAIL FROM:<s@elsewhere.example> SMTPUTF8|RCPT TO:<anna@health.example>|DATA|Subject: x\r\n\r\nbody\r\n."
	for line := range strings.SplitSeq(dialogue, "|") {
		if got, err := w.reply(); err != nil || got[0] > '3' {
			t.Fatalf("before %q: %q, %v", line, got, err)
		}
		if _, err := w.client.Write([]byte(line + "\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := w.reply(); err != nil || !strings.HasPrefix(got, "250") {
		t.Errorf("answer %q, %v", got, err)
	}
	if stored := p.Stored(); len(stored) != 1 || !strings.HasPrefix(string(stored[0].Body()), "Received: from xn--bro-hoa.example (") {
		t.Errorf("the platform has %d messages: %+v", len(stored), stored)
	}
}
