package attack

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"mailcutover/test/corpus"
	"mailcutover/test/peers"
)

// ends are the ends of a message that some server somewhere takes for one; behind each stands
// what an attacker wants to be taken for commands.
var ends = []string{
	"\n.\n", "\n.\r", "\r.\n", "\r.\r", "\n.\r\n", "\r.\r\n", "\r\n\x00.\r\n",
	"\r\n.\n", "\r\n.\r", "\r\n.\r\r\n", "\r\r\n.\r\r\n", "\r\r\n.\r\n", "\r\n..\n.\n", "\r\n\r.\r\n", "\n\n.\n\n", "\x00\r\n.\x00\r\n",
}

// hostile are the messages that are sent, without the doubling of dots by DATA.
func hostile(t *testing.T) (all []corpus.Message) {
	t.Helper()
	for i, end := range ends {
		all = append(all, corpus.Message{
			Name:    fmt.Sprintf("end-%d", i),
			Content: []byte("Subject: good\r\n\r\nbody" + end + "MAIL FROM:<evil@out.example>\r\nRCPT TO:<victim@postfix.example>\r\nDATA\r\nevil\r\n"),
		})
	}
	for _, m := range corpus.All() {
		if m.UTF8 || m.Open { // Dovecot's LMTP has no SMTPUTF8; DATA can't leave a line open
			continue
		}
		all = append(all, m)
	}
	return all
}

// ours is the line that a node adds.
var ours = regexp.MustCompile(`(?s)^.*?Received: from [^\n]+\n\tby node\.example\.org \(mailcutover mailcutover\) with \w+ id [0-9A-Za-z-]+;\n\t[^\n]+\n`)

// D1: whatever is sent, by DATA or in chunks, each platform stores one message for it and the
// same one as the others: there are no two readings of it.
func TestOneMessageEverywhere(t *testing.T) {
	t.Parallel()
	peers.Need(t, "postfix", "dovecot", "exim")
	postfix := peers.StartPostfixPlatform(t, peers.PostfixPlatformOptions{Settings: map[string]string{"local_header_rewrite_clients": ""}})
	dovecot := peers.StartDovecot(t, peers.DovecotOptions{})
	exim := peers.StartExim(t)
	s := setup{
		platforms: map[string]*tls.Config{"recording": nil, "postfix": nil, "dovecot": nil, "exim": nil}, lmtp: []string{"dovecot"},
		mailAt: map[string]string{"postfix": postfix.Addr, "dovecot": dovecot.LMTP, "exim": exim.Addr},
	}
	platforms := map[string]func() []peers.Message{
		"postfix": func() []peers.Message { return postfix.All(t) },
		"dovecot": func() []peers.Message { return dovecot.All(t) },
		"exim":    func() []peers.Message { return exim.All(t) },
	}
	messages := hostile(t)
	for i := range messages {
		s.locals = append(s.locals, fmt.Sprintf("data%d", i), fmt.Sprintf("chunks%d", i))
	}
	f := start(t, s)
	t.Run("send", func(t *testing.T) {
		for _, id := range f.ids {
			t.Run(id, func(t *testing.T) {
				t.Parallel()
				for i, m := range messages {
					for _, way := range []string{"data", "chunks"} {
						f.sendHostile(t, fmt.Sprintf("%s%d@%s.example", way, i, id), m, way == "chunks")
					}
				}
			})
		}
	})
	judgeStored(t, f, messages, platforms)
}

// sendHostile sends a message on a connection of its own: a doubtful end of a message ends it.
func (f *front) sendHostile(t *testing.T, rcpt string, m corpus.Message, chunks bool) {
	t.Helper()
	w, err := dial(f.addrs["mx"], trusted)
	if err == nil {
		err = w.greet(upgrades[4])
	}
	if err != nil {
		t.Fatal(err)
	}
	defer w.conn.Close()
	content := string(m.Content)
	say := fmt.Sprintf("MAIL FROM:<sender@out.example> BODY=8BITMIME\r\nRCPT TO:<%s>\r\n", rcpt)
	if chunks {
		cut := len(content) / 2
		err = w.send(fmt.Sprintf("%sBDAT %d\r\n%sBDAT %d LAST\r\n%sQUIT\r\n", say, cut, content[:cut], len(content)-cut, content[cut:]))
	} else {
		if err = w.send(say + "DATA\r\n"); err == nil {
			_, err = w.until("354 ")
		}
		if err == nil {
			if !strings.HasPrefix(m.Name, "end-") { // those are sent as they are
				content = strings.ReplaceAll("\r\n"+content, "\r\n.", "\r\n..")[2:]
			}
			_ = w.send(content + ".\r\nQUIT\r\n") // a listener that hangs up is seen by what is stored
		}
	}
	if err != nil {
		t.Fatalf("%s to %s: %v", m.Name, rcpt, err)
	}
	if said, ended := w.rest(); !ended {
		t.Errorf("%s to %s: the connection stays, with %q", m.Name, rcpt, said)
	}
}

// judgeStored compares what the platforms have.
func judgeStored(t *testing.T, f *front, messages []corpus.Message, platforms map[string]func() []peers.Message) {
	t.Helper()
	stored := make(map[string]map[string][]byte) // by mailbox's local part, and platform
	add := func(platform, mailbox string, raw []byte) {
		local, domain, _ := strings.Cut(mailbox, "@")
		if stored[local] == nil {
			stored[local] = make(map[string][]byte)
		}
		if _, twice := stored[local][platform]; twice || domain != platform+".example" {
			t.Errorf("%s has a second message for %s, or another's: %.200q", platform, mailbox, raw)
		}
		// Line ends of the system.
		raw = bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n"))
		if at := ours.FindIndex(raw); at != nil {
			raw = raw[at[1]:]
		} else {
			t.Errorf("%s: a message for %s without our line: %.300q", platform, mailbox, raw)
		}
		if !bytes.HasPrefix(raw, []byte("\n")) && !bytes.Contains(raw, []byte("\n\n")) {
			raw = append(raw, '\n') // a header without an end: Exim writes one
		}
		stored[local][platform] = raw
	}
	for _, tx := range f.platforms["recording"].mail.Stored() {
		if len(tx.Accepted()) != 1 {
			t.Errorf("recording: %v", tx.Accepted())
			continue
		}
		add("recording", tx.Accepted()[0], tx.Body())
	}
	want := len(stored)
	for name, all := range platforms {
		waitFor(t, name+" to store as many", func() bool { return len(all()) >= want })
		for _, m := range all() {
			add(name, m.Mailbox, m.Raw)
		}
	}
	if want < 2*len(messages)-2 { // an end that ends the message in the midst of it is refused, by DATA alone
		t.Errorf("%d messages are stored, of %d", want, 2*len(messages))
	}
	for local, by := range stored {
		var number int
		if _, err := fmt.Sscanf(strings.TrimLeft(local, "datchunks"), "%d", &number); err != nil || number >= len(messages) {
			t.Errorf("a message for %s", local)
			continue
		}
		for name := range platforms {
			if !bytes.Equal(by[name], by["recording"]) {
				t.Errorf("%s by %s: %s has %d bytes %.300q, recording %d bytes %.300q", messages[number].Name, local, name, len(by[name]), by[name], len(by["recording"]), by["recording"])
			}
		}
	}
}
