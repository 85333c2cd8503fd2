package attack

import (
	"strings"
	"testing"
)

// floods holds the listeners for mail to what comes too early, or far too often: S19, Q3, Q4.
func floods(t *testing.T, f *front) {
	const path = "MAIL FROM:<flood@out.example>\r\n"
	for _, l := range []struct{ id, hello string }{{"mx", "EHLO x.example\r\n"}, {"mx-lmtp", "LHLO x.example\r\n"}} {
		say := func(text string) (string, bool) {
			w := f.mustDial(t, l.id)
			sent := make(chan struct{})
			go func() { // the node may answer meanwhile, or hang up
				defer close(sent)
				_ = w.send(text)
			}()
			said, ended := w.rest()
			w.conn.Close()
			<-sent
			return said, ended
		}
		// S19: the greeting comes first, and each command has one answer, in order.
		said, ended := say(l.hello + path + "RCPT TO:<nobody@evil.example>\r\nRSET\r\nQUIT\r\n")
		if !ended || !strings.HasPrefix(said, "220 ") || !inOrder(said, "\r\n250-", "\r\n250 2.1.0", "\r\n550 ", "\r\n250 2", "\r\n221 ") {
			t.Errorf("S19 %s: commands before the greeting are answered %q, ended %t", l.id, said, ended)
		}
		// Q3: a hundred at least, and not without end. They are one mailbox's.
		const many = 20_000
		said, ended = say(l.hello + path + strings.Repeat("RCPT TO:<anna@exchange.example>\r\n", many) + "RSET\r\nQUIT\r\n")
		if taken := strings.Count(said, "\r\n250 2.1.5"); !ended || taken < 100 || taken > 1000 || !strings.Contains(said, "\r\n452 ") || strings.Contains(said, "\r\n5") {
			t.Errorf("Q3 %s: %d of %d recipients are taken, ended %t: %.300q", l.id, taken, many, ended, said[max(0, len(said)-300):])
		}
		said, ended = say(l.hello + path + strings.Repeat("RCPT TO:<nobody@evil.example>\r\n", many) + "QUIT\r\n")
		if refused := strings.Count(said, "\r\n550 "); !ended || refused > 1000 || !strings.Contains(said, "\r\n421 ") {
			t.Errorf("Q3 %s: %d of %d recipients are refused one by one, ended %t: %.300q", l.id, refused, many, ended, said[max(0, len(said)-300):])
		}
		// Q4: commands that do nothing.
		for _, command := range []string{"NOOP", "RSET", "VRFY anna", "HELP", "NOOP canary\r\nRSET", strings.TrimSpace(l.hello), "MAIL FROM:<>\r\nRSET"} {
			said, ended := say(l.hello + strings.Repeat(command+"\r\n", 10_000) + "QUIT\r\n")
			if answers := strings.Count(said, "\n"); !ended || answers > 5000 || !strings.Contains(said, "\r\n421 ") {
				t.Errorf("Q4 %s: %d answers to 10,000 %q, ended %t: %.300q", l.id, answers, command, ended, said[max(0, len(said)-300):])
			}
		}
	}
}

// inOrder reports whether text has all of these, one behind the other.
func inOrder(text string, all ...string) bool {
	for _, one := range all {
		_, rest, ok := strings.Cut(text, one)
		if !ok {
			return false
		}
		text = "\r\n" + rest
	}
	return true
}
