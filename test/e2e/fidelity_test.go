package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/test/corpus"
	"mailcutover/test/peers"
)

// ourLine is the one line that we add, as it is on the wire.
var ourLine = regexp.MustCompile(`Received: from [^\r\n]+\r\n\tby node\.example\.org \(mailcutover mailcutover\) with \w+ id [0-9A-Za-z-]+;\r\n\t[^\r\n]+\r\n`)

// behindOurLine returns what stands behind our line, and what before.
func behindOurLine(message []byte) (before, after []byte, err error) {
	at := ourLine.FindIndex(message[:min(len(message), 8<<10)])
	if at == nil {
		return nil, nil, fmt.Errorf("our Received line is not there: %.300q", message)
	}
	return message[:at[0]], message[at[1]:], nil
}

// same compares by digest and says where messages differ.
func same(got, want []byte) error {
	if sha256.Sum256(got) == sha256.Sum256(want) {
		return nil
	}
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	return fmt.Errorf("%d bytes, want %d; they differ at %d: got %.80q, want %.80q", len(got), len(want), i, got[min(len(got), max(0, i-20)):], want[min(len(want), max(0, i-20)):])
}

// pass sends a message of the corpus for one recipient, by DATA or by BDAT in chunks of
// growing size, and returns the answer to its end.
func (w *wire) pass(t testing.TB, m corpus.Message, rcpt string, bdat bool) string {
	t.Helper()
	params := ""
	if m.EightBit {
		params += " BODY=8BITMIME"
	}
	if m.UTF8 {
		params += " SMTPUTF8"
	}
	from := "sender@out.example"
	if m.UTF8 {
		from = "jörg@müller.example"
	}
	w.want(t, "MAIL FROM:<"+from+">"+params, "250 ")
	if got, err := w.ask("RCPT TO:<" + rcpt + ">"); err != nil || got[0] != '2' {
		w.want(t, "RSET", "250 ")
		return got
	}
	if !bdat {
		return w.message(t, string(m.Content))
	}
	rest := m.Content
	for size := 1; len(rest) > size; size = size*7 + 3 {
		if err := w.send("BDAT " + strconv.Itoa(size) + "\r\n" + string(rest[:size])); err != nil {
			t.Fatal(err)
		}
		w.want(t, "", "250 ")
		rest = rest[size:]
	}
	if err := w.send("BDAT " + strconv.Itoa(len(rest)) + " LAST\r\n" + string(rest)); err != nil {
		t.Fatal(err)
	}
	got, err := w.reply()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// What is delivered is what was sent, and our line: for each message of the corpus, by
// DATA and by BDAT, at a platform that shows its wire, at Postfix and at Dovecot.
func TestBytesStayAsTheyAre(t *testing.T) {
	t.Parallel()
	peers.Need(t, "postfix", "dovecot")
	recording := startPlatform(t, platformtest.Options{})
	// Exchange 2019 and Postfix take mail as it comes; Postfix would rewrite addresses in
	// headers for clients of its own, which everybody on this machine is.
	postfix := peers.StartPostfixPlatform(t, peers.PostfixPlatformOptions{Settings: map[string]string{"local_header_rewrite_clients": ""}})
	dovecot := peers.StartDovecot(t, peers.DovecotOptions{})
	n := startNode(t, setup{platforms: []platform{
		{id: "recording", addr: recording.Addr()}, {id: "postfix", addr: postfix.Addr}, {id: "dovecot", addr: dovecot.LMTP, lmtp: true},
	}})
	messages := append(corpus.All(), corpus.Large())
	type sent struct {
		m    corpus.Message
		bdat bool
		rcpt string
	}
	var all []sent
	var locals []string
	for i, m := range messages {
		for _, bdat := range []bool{false, true} {
			local := fmt.Sprintf("m%d-%t", i, bdat)
			locals = append(locals, local)
			all = append(all, sent{m, bdat, local})
		}
	}
	names := []string{"recording", "postfix", "dovecot"}
	for _, name := range names {
		n.addAgencyOn(name, name, map[string]string{"recording": "postfix", "postfix": "dovecot", "dovecot": "recording"}[name], locals...)
	}

	want := make(map[string]map[string]sent) // platform, mailbox
	for _, name := range names {
		want[name] = make(map[string]sent)
		w := mustDial(t, n.smtp, "EHLO")
		for _, s := range all {
			// Without a line end at the end it can't be sent by DATA. The large one goes once.
			if s.m.Open && !s.bdat || s.m.Name == "large" && s.bdat != (name == "dovecot") {
				continue
			}
			s.rcpt += "@" + name + ".example"
			got := w.pass(t, s.m, s.rcpt, s.bdat)
			switch {
			case s.m.UTF8 && name == "dovecot": // Dovecot 2.3's LMTP has no SMTPUTF8
				if !strings.HasPrefix(got, "550 5.6.7 ") {
					t.Errorf("%s to %s: %s, want 550 5.6.7", s.m.Name, name, got)
				}
			case !strings.HasPrefix(got, "250 "):
				t.Errorf("%s to %s: %s", s.m.Name, name, got)
			default:
				want[name][s.rcpt] = s
			}
		}
	}

	judge := func(name, mailbox string, raw []byte, crlf bool) {
		s, ok := want[name][mailbox]
		if !ok {
			t.Errorf("%s: a message for %q that nobody sent there", name, mailbox)
			return
		}
		delete(want[name], mailbox)
		content := s.m.Content
		if s.m.Open { // the line is ended, as DATA needs it (RFC 5321 section 4.1.1.4)
			content = append(bytes.Clone(content), "\r\n"...)
		}
		line := raw
		if !crlf { // stored with the line ends of the system
			line = bytes.ReplaceAll(raw[:min(len(raw), 8<<10)], []byte("\n"), []byte("\r\n"))
		}
		before, after, err := behindOurLine(line)
		if err == nil && !crlf {
			content = bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n"))
			after = raw[len(bytes.ReplaceAll(line[:len(line)-len(after)], []byte("\r\n"), []byte("\n"))):]
		}
		if err == nil && crlf && len(before) != 0 {
			err = fmt.Errorf("before our line: %q", before)
		}
		if err == nil {
			err = same(after, content)
		}
		if err != nil {
			t.Errorf("%s at %s, BDAT %v: %v", s.m.Name, name, s.bdat, err)
		}
		if strings.HasPrefix(s.m.Name, "dkim") {
			if !crlf {
				raw = bytes.ReplaceAll(raw, []byte("\n"), []byte("\r\n"))
			}
			if err := corpus.VerifyDKIM(raw); err != nil {
				t.Errorf("%s at %s: %v", s.m.Name, name, err)
			}
		}
	}
	for _, tx := range recording.Stored() {
		if cr, lf := tx.BareLineEnds(); cr+lf != 0 || tx.BDAT {
			t.Errorf("%v: %d bare CR, %d bare LF, BDAT %v", tx.Accepted(), cr, lf, tx.BDAT)
		}
		judge("recording", tx.Accepted()[0], tx.Body(), true)
	}
	for _, m := range dovecot.All(t) {
		judge("dovecot", m.Mailbox, m.Raw, false)
	}
	waitFor(t, "Postfix to deliver all", func() bool {
		return strings.Count(postfix.Log(), "status=sent (delivered to maildir)") >= len(want["postfix"])
	})
	for _, m := range postfix.All(t) {
		judge("postfix", m.Mailbox, m.Raw, false)
	}
	for name, missing := range want {
		for mailbox, s := range missing {
			t.Errorf("%s to %s of %s did not arrive", s.m.Name, mailbox, name)
		}
	}
}

// resident returns a line of /proc/PID/status in bytes: VmRSS, memory in use, or VmHWM,
// the most since the start or since resetPeak.
func resident(t testing.TB, pid int, field string) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(field + `:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("no %s in %s", field, b)
	}
	n, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return n << 10
}

func resetPeak(t testing.TB, pid int) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

// Large messages pass through a buffer: four of 50 MB at a time, by DATA and by BDAT,
// leave no trace in the node's memory.
func TestMemoryStaysFlat(t *testing.T) {
	t.Parallel()
	exchange := startPlatform(t, platformtest.Options{DiscardBodies: true})
	ox := startPlatform(t, platformtest.Options{LMTP: true, DiscardBodies: true})
	n := startNode(t, setup{platforms: []platform{{id: "exchange", addr: exchange.Addr()}, {id: "ox", addr: ox.Addr(), lmtp: true}}})
	n.addAgency("unmoved", "anna")
	n.addAgency("moved", "ben")
	n.mustSwitch("cutover", "moved")
	large := corpus.Large()
	small := corpus.Message{Content: large.Content[:1<<20]}
	send := func(m corpus.Message) {
		var senders sync.WaitGroup
		defer senders.Wait()
		for i, rcpt := range []string{"anna@unmoved.example", "ben@moved.example", "anna@unmoved.example", "ben@moved.example"} {
			w := mustDial(t, n.smtp, "EHLO")
			w.want(t, "MAIL FROM:<sender@out.example>", "250 ")
			w.want(t, "RCPT TO:<"+rcpt+">", "250 ")
			if i < 2 {
				w.want(t, "DATA", "354 ")
			}
			senders.Go(func() {
				content := "BDAT " + strconv.Itoa(len(m.Content)) + " LAST\r\n" + string(m.Content)
				if i < 2 {
					content = stuffed(string(m.Content)) + "\r\n.\r\n"
				}
				err := w.send(content)
				got, rerr := w.reply()
				for end := time.Now().Add(patience); err == nil && strings.HasPrefix(got, "451 4.4.3 ") && time.Now().Before(end); {
					// The table was too slow to be asked before the dot: as a relay does, it is sent again.
					text := "MAIL FROM:<sender@out.example>\r\nRCPT TO:<" + rcpt + ">\r\nBDAT " + strconv.Itoa(len(m.Content)) + " LAST\r\n"
					err = w.send(text + string(m.Content))
					for range 3 {
						got, rerr = w.reply()
					}
				}
				if err != nil || rerr != nil || !strings.HasPrefix(got, "250 ") {
					t.Errorf("large message to %s: %q, %v, %v", rcpt, got, err, rerr)
				}
			})
		}
	}
	send(small) // whatever is made once, is made now
	pid := n.PID()
	before := resident(t, pid, "VmRSS")
	resetPeak(t, pid)
	send(large)
	grown := resident(t, pid, "VmHWM") - before
	t.Logf("resident memory %d KiB, at most %d KiB more while four messages of 50 MB passed", before>>10, grown>>10)
	// What the collector leaves until later grows with all that a node has in memory. One message
	// that was kept whole would be 50 MB.
	if grown > 32<<20 {
		t.Errorf("memory grew by %d KiB", grown>>10)
	}
	if got := len(exchange.Stored()) + len(ox.Stored()); got != 8 {
		t.Errorf("%d messages stored, want 8", got)
	}
}
