package smtp

import (
	"sync/atomic"
	"testing"
)

// A node that takes no new mail for now says so to a connection, so that a relay takes another
// of its hosts (RFC 5321 section 5.1), and lets what was begun end.
func TestRestingNode(t *testing.T) {
	var resting atomic.Bool
	o := testOptions()
	o.Resting = resting.Load
	_, addr := startServer(t, o, new(recorder))
	begun, idle := dial(t, addr), dial(t, addr)
	for _, p := range []*peer{begun, idle} {
		p.expect("220 ")
		p.command("EHLO out.example", "250")
	}
	begun.command("MAIL FROM:<a@b.example>", "250 ")
	resting.Store(true)
	begun.command("RCPT TO:<c@mx.example>", "250 ")
	begun.command("DATA", "354 ")
	begun.command("Subject: x\r\n\r\nbody\r\n.", "250 ")
	begun.command("MAIL FROM:<a@b.example>", "421 4.3.2")
	begun.expectEnd()
	idle.command("MAIL FROM:<a@b.example>", "421 4.3.2")
	idle.expectEnd()
	late := dial(t, addr)
	late.expect("421 ")
	late.expectEnd()
	resting.Store(false)
	dial(t, addr).expect("220 ")
}
