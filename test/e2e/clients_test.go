package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"mailcutover/internal/platformtest"
	"mailcutover/test/peers"
)

// startPair starts a node between two platforms that record: exchange by SMTP, ox by LMTP.
func startPair(t *testing.T, s setup) (n *node, exchange, ox *platformtest.Platform) {
	t.Helper()
	exchange = startPlatform(t, platformtest.Options{})
	ox = startPlatform(t, platformtest.Options{LMTP: true})
	s.platforms = []platform{{id: "exchange", addr: exchange.Addr()}, {id: "ox", addr: ox.Addr(), lmtp: true}}
	return startNode(t, s), exchange, ox
}

// What users of swaks and curl see, word by word.
func TestSwaksAndCurl(t *testing.T) {
	t.Parallel()
	peers.Need(t, "swaks", "curl")
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile, caFile, err := ca.WriteFiles(peers.TempDir(t, "tls"), "node.example.org", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(keyFile, 0o600); err != nil {
		t.Fatal(err)
	}
	n, exchange, ox := startPair(t, setup{listener: fmt.Sprintf("tls: {mode: starttls, cert_file: %q, key_file: %q}", certFile, keyFile)})
	n.addAgency("unmoved", "anna")
	n.addAgency("moved", "ben")
	n.mustSwitch("cutover", "moved")

	swaks := func(to string, args ...string) (string, int) {
		t.Helper()
		return peers.Swaks(t, append([]string{"--server", n.smtp, "--helo", "out.example", "--from", "sender@out.example", "--to", to, "--header", "X-Test-Id: 1"}, args...)...)
	}
	for _, c := range []struct {
		to, says string
		status   int
		args     []string
	}{
		{to: "anna@unmoved.example", says: "<-  250 2.0.0 "},
		{to: "Anna@UNMOVED.example", says: "<~  250 2.0.0 ", args: []string{"--tls"}},
		{to: "anna+list@unmoved.example", says: "<~  250 2.0.0 ", args: []string{"--tls", "--tls-verify", "--tls-ca-path", caFile}},
		{to: "ben@moved.example", says: "<-  250 2.0.0 "},
		{to: "someone@foreign.example", status: 24, says: "<** 550 5.7.1 Not a domain of ours, relaying denied"},
		{to: "nobody@unmoved.example", status: 24, says: "<** 451 4.1.1 No record of this recipient, try again later"},
		{to: `"x"@unmoved.example`, status: 24, says: "<** 451 4.1.1 No record of this recipient, try again later"},
		{to: "anna@unmoved.example", says: "221 2.0.0 ", args: []string{"--quit-after", "RCPT"}},
		{to: "anna@unmoved.example", says: "<-  250 2.0.0 ", args: []string{"--pipeline"}},
	} {
		out, status := swaks(c.to, c.args...)
		if status != c.status || !strings.Contains(out, c.says) {
			t.Errorf("swaks to %s %v: exit status %d, want %d, and %q in\n%s", c.to, c.args, status, c.status, c.says, out)
		}
	}
	if got := len(exchange.Stored()); got != 4 {
		t.Errorf("exchange has %d messages, want 4", got)
	}
	for _, tx := range exchange.Stored() {
		if got := tx.Accepted(); len(got) != 1 || got[0] != "anna@unmoved.example" {
			t.Errorf("exchange was sent %q, want the table's address", got)
		}
	}
	if got := ox.Stored(); len(got) != 1 || got[0].Rcpts[0].Path != "ben@moved.example" {
		t.Errorf("ox has %+v", got)
	}

	// curl: one message to a recipient of each platform. The second is put off, which
	// curl takes for the end, so that nothing is sent twice.
	text := []byte(strings.ReplaceAll(withID(2), "\r\n", "\n")) // curl makes CRLF of it
	out, status := peers.CurlMail(t, n.smtp, "sender@out.example", []string{"anna@unmoved.example", "ben@moved.example"}, text)
	if status != 55 || !strings.Contains(out, "< 452 4.5.3 Recipient needs a transaction of its own, try again") {
		t.Errorf("curl: exit status %d\n%s", status, out)
	}
	out, status = peers.CurlMail(t, n.smtp, "sender@out.example", []string{"ben@moved.example"}, text)
	if stored := ox.Stored(); status != 0 || len(stored) != 2 || !strings.HasSuffix(string(stored[1].Body()), withID(2)) {
		t.Errorf("curl: exit status %d, ox has %d messages\n%s", status, len(stored), out)
	}
	out, status = peers.Curl(t, "-v", "--ssl-reqd", "--cacert", caFile, "--resolve", "node.example.org:"+port(n.smtp)+":127.0.0.1",
		"smtp://node.example.org:"+port(n.smtp), "--mail-from", "sender@out.example", "--mail-rcpt", "someone@foreign.example", "-T", certFile)
	if status != 55 || !strings.Contains(out, "< 550 5.7.1 Not a domain of ours, relaying denied") {
		t.Errorf("curl with TLS: exit status %d\n%s", status, out)
	}
	if got := len(exchange.Stored()); got != 4 {
		t.Errorf("exchange has %d messages, want 4", got)
	}

	// The same by LMTP: an answer for each recipient.
	out, status = peers.Swaks(t, "--server", n.lmtp, "--protocol", "LMTP", "--from", "sender@out.example", "--to", "ben@moved.example,someone@foreign.example")
	if status != 0 || !strings.Contains(out, "550 5.7.1 Not a domain of ours") || len(ox.Stored()) != 3 {
		t.Errorf("swaks by LMTP: exit status %d, ox has %d messages\n%s", status, len(ox.Stored()), out)
	}
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// A closed agency's mail is put off with the words that its senders see, by every way it
// can be addressed; nobody else notices.
func TestClosedAgencyIsPutOff(t *testing.T) {
	t.Parallel()
	n, exchange, ox := startPair(t, setup{})
	n.addAgency("closing", "anna")
	n.addAgency("other", "ben")
	release := make(chan struct{})
	exchange.SetScript(func(c platformtest.Command) platformtest.Reaction {
		if c.Verb == platformtest.VerbDot && c.Transaction.Accepted()[0] == "anna@closing.example" {
			<-release
		}
		return platformtest.Reaction{}
	})
	w := mustDial(t, n.smtp, "EHLO")
	w.envelope(t, "anna@closing.example")
	w.want(t, "DATA", "354 ")
	if err := w.send(withID(1) + ".\r\n"); err != nil {
		t.Fatal(err)
	}
	early := mustDial(t, n.smtp, "EHLO")
	early.envelope(t, "anna@closing.example") // let in before the agency closes
	waitFor(t, "the dot on its way", func() bool {
		a, err := n.api.Agency(t.Context(), "closing")
		return err == nil && a.UnderWay.Dotted == 1
	})
	done := make(chan error, 1)
	go func() {
		_, err := n.switchAgency(t.Context(), "cutover", "closing")
		done <- err
	}()
	waitFor(t, "closed", func() bool {
		a, err := n.api.Agency(t.Context(), "closing")
		return err == nil && !a.Open
	})
	const closed = "451 4.3.2 Mailbox is being moved, try again later"
	if got, err := early.ask("DATA"); err != nil || got != closed {
		t.Errorf("DATA after the agency closed: %q, %v", got, err)
	}
	other := mustDial(t, n.smtp, "EHLO")
	other.want(t, "MAIL FROM:<sender@out.example>", "250 ")
	for _, rcpt := range []string{"anna@closing.example", "ANNA@closing.example", "anna+x@closing.example", `"anna"@closing.example`} {
		if got, err := other.ask("RCPT TO:<" + rcpt + ">"); err != nil || got != closed {
			t.Errorf("%s: %q, %v; want %q", rcpt, got, err, closed)
		}
	}
	other.want(t, "RCPT TO:<ben@other.example>", "250 ")
	if got := other.message(t, withID(2)); !strings.HasPrefix(got, "250 ") {
		t.Errorf("other agency: %s", got)
	}
	out := n.must("route", "explain", "anna@closing.example")
	if !strings.Contains(out, "to-target") {
		t.Errorf("route explain: %s", out)
	}
	close(release)
	w.want(t, "", "250 ")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	early.want(t, "RSET", "250 ")
	early.envelope(t, "anna@closing.example")
	if got := early.message(t, withID(3)); !strings.HasPrefix(got, "250 ") {
		t.Errorf("after the cutover: %s", got)
	}
	if stored := ox.Stored(); len(stored) != 1 || idOf(stored[0].Body()) != 3 {
		t.Errorf("ox has %+v", stored)
	}
}

// The forms that nmap's smtp-open-relay tries, and some more: nothing is relayed.
func TestNoOpenRelay(t *testing.T) {
	t.Parallel()
	n, exchange, ox := startPair(t, setup{})
	n.addAgency("unmoved", "anna")
	n.addAgency("other", "ben")
	froms := []string{"", "antispam@foreign.example", "antispam@unmoved.example", "antispam@[127.0.0.1]", "antispam"}
	rcpts := []string{
		"relaytest@foreign.example", "relaytest%foreign.example@[127.0.0.1]", "relaytest%foreign.example@unmoved.example",
		`"relaytest@foreign.example"`, `"relaytest%foreign.example"`, "relaytest@foreign.example@[127.0.0.1]",
		`"relaytest@foreign.example"@[127.0.0.1]`, "relaytest@foreign.example@unmoved.example", "@[127.0.0.1]:relaytest@foreign.example",
		"@unmoved.example:relaytest@foreign.example", "foreign.example!relaytest", "foreign.example!relaytest@[127.0.0.1]",
		"foreign.example!relaytest@unmoved.example", "anna@unmoved.example%foreign.example", "anna%other.example@foreign.example",
		"@foreign.example,@unmoved.example:relaytest@foreign.example", "relaytest@[192.0.2.1]", "relaytest@foreign.example.", "anna",
	}
	for _, addr := range []string{n.smtp, n.lmtp} {
		hello := "EHLO"
		if addr == n.lmtp {
			hello = "LHLO"
		}
		for _, from := range froms {
			w := mustDial(t, addr, hello)
			if got, err := w.ask("MAIL FROM:<" + from + ">"); err != nil || got[0] != '2' {
				continue // a sender that is no address gets no further
			}
			for _, rcpt := range rcpts {
				got, err := w.ask("RCPT TO:<" + rcpt + ">")
				if err != nil || got[0] == '2' {
					t.Errorf("%s from %q to %q: %q, %v", hello, from, rcpt, got, err)
				}
				if len(rcpt) > 9 && rcpt[:9] == "relaytest" && strings.HasSuffix(rcpt, "@foreign.example") && got != "550 5.7.1 Not a domain of ours, relaying denied" {
					t.Errorf("%s from %q to %q: %q", hello, from, rcpt, got)
				}
			}
			w.conn.Close()
		}
	}
	for _, p := range []*platformtest.Platform{exchange, ox} {
		for _, c := range p.Commands() {
			if c.Verb == "RCPT" {
				t.Errorf("a platform was asked: %q", c.Line)
			}
		}
	}
}
