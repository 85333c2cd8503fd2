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

	// curl: one message to a recipient of each platform. The first one's platform has it
	// when it is answered, the second one's a moment later, by the spool.
	text := func(id int) []byte { return []byte(strings.ReplaceAll(withID(id), "\r\n", "\n")) } // curl makes CRLF of it
	out, status := peers.CurlMail(t, n.smtp, "sender@out.example", []string{"anna@unmoved.example", "ben@moved.example"}, text(2))
	if stored := exchange.Stored(); status != 0 || len(stored) != 5 || !strings.HasSuffix(string(stored[4].Body()), withID(2)) {
		t.Errorf("curl: exit status %d, exchange has %d messages\n%s", status, len(stored), out)
	}
	waitFor(t, "the spool to deliver", func() bool { return len(ox.Stored()) >= 2 })
	out, status = peers.CurlMail(t, n.smtp, "sender@out.example", []string{"ben@moved.example"}, text(3))
	waitFor(t, "ben's second message", func() bool { return len(ox.Stored()) >= 3 }) // behind what the spool has of him
	if stored := ox.Stored(); status != 0 || len(stored) != 3 || !strings.HasSuffix(string(stored[1].Body()), withID(2)) || !strings.HasSuffix(string(stored[2].Body()), withID(3)) {
		t.Errorf("curl: exit status %d, ox has %d messages\n%s", status, len(stored), out)
	}
	out, status = peers.Curl(t, "-v", "--ssl-reqd", "--cacert", caFile, "--resolve", "node.example.org:"+port(n.smtp)+":127.0.0.1",
		"smtp://node.example.org:"+port(n.smtp), "--mail-from", "sender@out.example", "--mail-rcpt", "someone@foreign.example", "-T", certFile)
	if status != 55 || !strings.Contains(out, "< 550 5.7.1 Not a domain of ours, relaying denied") {
		t.Errorf("curl with TLS: exit status %d\n%s", status, out)
	}
	if got := len(exchange.Stored()); got != 5 {
		t.Errorf("exchange has %d messages, want 5", got)
	}

	// The same by LMTP: an answer for each recipient.
	out, status = peers.Swaks(t, "--server", n.lmtp, "--protocol", "LMTP", "--from", "sender@out.example", "--to", "ben@moved.example,someone@foreign.example")
	waitFor(t, "ben's third message", func() bool { return len(ox.Stored()) >= 4 })
	if status != 0 || !strings.Contains(out, "550 5.7.1 Not a domain of ours") || len(ox.Stored()) != 4 {
		t.Errorf("swaks by LMTP: exit status %d, ox has %d messages\n%s", status, len(ox.Stored()), out)
	}
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// closing is an agency that a cutover closes, until open is called.
type closing struct {
	t       testing.TB
	id      string
	at      *platformtest.Platform
	release chan struct{}
	keeper  *wire
	done    chan error
}

// keepClosed begins an agency's cutover, which can't end: an answer to a message for its
// mailbox keeper is held back on its platform.
func (n *node) keepClosed(t testing.TB, at *platformtest.Platform, agency string) *closing {
	t.Helper()
	c := &closing{t: t, id: agency, at: at, release: make(chan struct{}), done: make(chan error, 1)}
	t.Cleanup(c.let) // also if the test ends early
	keeper := "keeper@" + agency + ".example"
	at.SetScript(func(cmd platformtest.Command) platformtest.Reaction {
		if cmd.Verb == platformtest.VerbDot && cmd.Transaction.Accepted()[0] == keeper {
			<-c.release
		}
		return platformtest.Reaction{}
	})
	c.keeper = mustDial(t, n.smtp, "EHLO")
	c.keeper.envelope(t, keeper)
	c.keeper.want(t, "DATA", "354 ")
	if err := c.keeper.send(withID(1_000_000) + ".\r\n"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the dot on its way", func() bool {
		a, err := n.api.Agency(t.Context(), agency)
		return err == nil && a.UnderWay.Dotted == 1
	})
	go func() {
		_, err := n.switchAgency(t.Context(), "cutover", agency)
		c.done <- err
	}()
	waitFor(t, agency+" to be closed", func() bool {
		a, err := n.api.Agency(t.Context(), agency)
		return err == nil && !a.Open
	})
	return c
}

// let has the answer given.
func (c *closing) let() {
	select {
	case <-c.release:
	default:
		close(c.release)
	}
}

// open lets the cutover end, which must be done.
func (c *closing) open() {
	c.t.Helper()
	c.let()
	c.keeper.want(c.t, "", "250 ")
	if err := <-c.done; err != nil {
		c.t.Fatal(err)
	}
}

// forms are ways to write anna's address in an agency's domain.
func forms(agency string) []string {
	return []string{"anna@" + agency + ".example", "ANNA@" + agency + ".example", "anna+x@" + agency + ".example", `"anna"@` + agency + ".example"}
}

// A closed agency's mail is accepted and held, by every way it can be addressed, and goes
// to the other side, in its order, when the agency opens there; or it is put off with the
// words that its senders see, where that was chosen. Nobody else notices.
func TestClosedAgency(t *testing.T) {
	t.Parallel()
	second := startPlatform(t, platformtest.Options{})
	exchange, ox := startPlatform(t, platformtest.Options{}), startPlatform(t, platformtest.Options{LMTP: true})
	n := startNode(t, setup{spool: "put_off: [refusing]", platforms: []platform{
		{id: "exchange", addr: exchange.Addr()}, {id: "second", addr: second.Addr()}, {id: "ox", addr: ox.Addr(), lmtp: true},
	}})
	n.addAgency("holding", "anna", "keeper")
	n.addAgencyOn("refusing", "second", "ox", "anna", "keeper")
	n.addAgency("other", "ben")
	early := mustDial(t, n.smtp, "EHLO")
	early.envelope(t, "anna@holding.example") // let in before the agency closes
	earlyRefused := mustDial(t, n.smtp, "EHLO")
	earlyRefused.envelope(t, "anna@refusing.example")
	holding, refusing := n.keepClosed(t, exchange, "holding"), n.keepClosed(t, second, "refusing")

	const closed = "451 4.3.2 Mailbox is being moved, try again later"
	for _, w := range []*wire{early, earlyRefused} {
		if got, err := w.ask("DATA"); err != nil || got != closed {
			t.Errorf("DATA after the agency closed: %q, %v", got, err)
		}
	}
	w := mustDial(t, n.smtp, "EHLO")
	id := 0
	held := func(rcpts ...string) {
		t.Helper()
		id++
		got := ""
		for tries := 0; tries == 0 || strings.HasPrefix(got, "451 4.4.3 ") && tries < 50; tries++ { // the table was too slow to be asked
			w.envelope(t, rcpts...)
			got = w.message(t, withID(id))
		}
		if got != "250 2.0.0 Message accepted" {
			t.Errorf("message %d for %q: %s", id, rcpts, got)
		}
	}
	for range 5 {
		for _, form := range forms("holding") {
			held(form)
		}
	}
	held("ben@other.example", "anna@holding.example")
	held("anna@holding.example", "ben@other.example")
	first := id
	w.want(t, "MAIL FROM:<sender@out.example>", "250 ")
	for _, form := range forms("refusing") {
		if got, err := w.ask("RCPT TO:<" + form + ">"); err != nil || got != closed {
			t.Errorf("%s: %q, %v; want %q", form, got, err, closed)
		}
	}
	w.want(t, "RCPT TO:<ben@other.example>", "250 ")
	if got := w.message(t, withID(1000)); !strings.HasPrefix(got, "250 ") {
		t.Errorf("other agency: %s", got)
	}
	for agency, says := range map[string]string{"holding": "held", "refusing": "451"} {
		if out := n.must("route", "explain", "anna@"+agency+".example"); !strings.Contains(out, "to-target") || !strings.Contains(out, says) {
			t.Errorf("route explain: %s", out)
		}
	}
	waitFor(t, "the other agency's mail", func() bool { return len(exchange.Stored()) >= 3 })
	if got := len(exchange.Stored()) + len(ox.Stored()); got != 3 {
		t.Errorf("%d messages are on platforms, want ben's three only", got)
	}

	// Mail that comes while the held mail is replayed doesn't overtake it.
	refusing.open()
	holding.open()
	for range 10 {
		held("anna@holding.example")
	}
	earlyRefused.want(t, "RSET", "250 ")
	earlyRefused.envelope(t, "anna@refusing.example")
	if got := earlyRefused.message(t, withID(2000)); !strings.HasPrefix(got, "250 ") {
		t.Errorf("after the cutover: %s", got)
	}
	waitFor(t, "all that was held", func() bool { return len(ox.Stored()) >= id+1 })
	n.Stop()
	var ids []int
	for _, tx := range ox.Stored() {
		if got := tx.Accepted(); len(got) != 1 || got[0] != "anna@holding.example" && got[0] != "anna@refusing.example" {
			t.Errorf("ox was sent %q, want the table's address", got)
		}
		if got := idOf(tx.Body()); got != 2000 {
			ids = append(ids, got)
		}
	}
	for i := range id {
		if i >= len(ids) || ids[i] != i+1 {
			t.Errorf("anna got %v, want 1 to %d in this order", ids, id)
			break
		}
	}
	if len(ids) != id || len(ox.Stored()) != id+1 {
		t.Errorf("ox has %v, %d messages in all, want %d", ids, len(ox.Stored()), id+1)
	}
	ben := make(map[int]int)
	for _, tx := range exchange.Stored() {
		if tx.StoredFor("ben@other.example") {
			ben[idOf(tx.Body())]++
		}
	}
	if len(ben) != 3 || ben[first-1] != 1 || ben[first] != 1 || ben[1000] != 1 {
		t.Errorf("ben has %v", ben)
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
				for again := 0; err == nil && strings.HasPrefix(got, "451 4.4.3 ") && again < 20; again++ {
					got, err = w.ask("RCPT TO:<" + rcpt + ">") // the table was too slow to say that it knows no such domain
				}
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
